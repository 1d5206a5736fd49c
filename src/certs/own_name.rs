//! What the daemon shows of itself, where it is asked and not one of its apps.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use rcgen::SanType;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::certs::local::{Place, dns_name, kept};
use crate::certs::resolve::{Resolver, fitting};

/// The names and addresses by which the daemon is asked. One certificate of the local CA is for all of them; a name
/// that has a better one gets that.
pub(in crate::certs) struct OwnName {
    shared: Arc<Resolver>,
    names: Vec<Box<str>>,
    place: Place,
}

impl OwnName {
    /// Nothing is signed yet.
    pub(in crate::certs) fn new(shared: Arc<Resolver>, names: Vec<Box<str>>) -> Self {
        Self { shared, names, place: Place::empty() }
    }

    fn signed(&self, now: SystemTime) -> Result<Arc<CertifiedKey>, rcgen::Error> {
        let name = |name: &str| match name.parse::<IpAddr>() {
            Ok(addr) => Ok(SanType::IpAddress(addr)),
            Err(_) => dns_name(name),
        };
        kept(&self.place, now, || {
            let names = self.names.iter().map(|it| name(it)).collect::<Result<_, _>>()?;
            self.shared.ca.sign(names, now)
        })
    }
}

impl ResolvesServerCert for OwnName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name();
        if let Some(name) = self.names.iter().find(|name| asked == Some(name)) {
            let snapshot = self.shared.snapshot.load();
            if let Some(keys) = snapshot.own.find(name) {
                return fitting(keys, hello.signature_schemes());
            }
            if let Some(certificate) = snapshot.obtained.get(name) {
                return Some(certificate.key.clone());
            }
        }
        let signed = self.signed(SystemTime::now());
        signed.inspect_err(|error| tracing::error!(%error, "failed to sign a certificate")).ok()
    }
}

impl fmt::Debug for OwnName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnName").field("names", &self.names).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use crate::certs::fixture::{Fixture, Issued};

    #[test]
    fn the_daemon_shows_one_certificate_for_all_its_names_or_a_better_one() {
        let fixture = Fixture::new();
        fixture.write_pair("a", &Issued::to(&["mesh.test", "shop.test"]));
        let text = "[[certs]]\ncert = \"a.pem\"\nkey = \"a.key\"\n[apps.shop]\ndomains = [\"shop.test\"]\n";
        let certs = fixture.certs(text);
        let names = ["localhost", "127.0.0.1", "::1", "other.test", "mesh.test"];
        let config = certs.server_config_for(names.map(Into::into).into()).unwrap();
        let client = fixture.client().offering(&[b"h2", b"http/1.1"]);
        for name in ["localhost", "127.0.0.1", "::1", "other.test"] {
            let met = client.meet_with(config.clone(), name).unwrap();
            assert_eq!(met.names, names, "{name}");
            assert!(met.issuer.starts_with("dynomesh local CA on "), "{}", met.issuer);
            assert_eq!(met.protocol.as_deref(), Some("http/1.1"));
        }
        let met = client.meet_with(config.clone(), "mesh.test").unwrap();
        assert_eq!(met.names, ["mesh.test", "shop.test"]);
        // An app's name is not the daemon's, whatever certificate there is for it.
        assert!(client.meet_with(config.clone(), "shop.test").is_err());
    }
}
