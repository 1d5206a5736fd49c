//! What is served, shared by the workers, who read it, and by those who change it.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustc_hash::FxHashMap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::server::NoServerSessionStorage;
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};

use crate::certs::ca::{Ca, CaError};
use crate::certs::certificate::Certificate;
use crate::certs::load::Loaded;
use crate::certs::report::{Report, Source};
use crate::certs::resolve::{PROTOCOLS, Resolver, Snapshot};
use crate::model::Domain;

/// The certificates of the running daemon.
pub struct Certs {
    resolver: Arc<Resolver>,
    server_config: Arc<ServerConfig>,
}

/// Why nothing can be served by TLS.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// The local CA.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The operating system gave no random numbers.
    #[error("make keys for session tickets: {0}")]
    Tickets(rustls::Error),
}

impl Certs {
    /// Opens the local CA in the state directory, or makes it, and serves what was loaded.
    pub fn open(state_dir: &Path, loaded: Loaded) -> Result<Arc<Self>, CertsError> {
        let ca = Ca::open(state_dir)?;
        let snapshot = Snapshot {
            own: Arc::new(loaded.own),
            obtained: Arc::default(),
            local: Arc::new(loaded.local),
            challenges: Arc::default(),
            answers: Arc::default(),
        };
        let resolver = Arc::new(Resolver { ca, snapshot: ArcSwap::from_pointee(snapshot) });
        let server_config = server_config(resolver.clone()).map_err(CertsError::Tickets)?;
        Ok(Arc::new(Self { resolver, server_config: Arc::new(server_config) }))
    }

    /// How TLS is spoken: one for all workers and for the life of the daemon, so that a session begun on one
    /// worker goes on at any other, before and after a swap.
    ///
    /// A connection that agreed on [`ACME_TLS`](crate::certs::ACME_TLS) is for whoever accepted it to close.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.server_config.clone()
    }

    /// Serves by these from now on. Connections that are open are not touched; what ACME obtained stays.
    pub fn swap(&self, loaded: Loaded) {
        let (own, local) = (Arc::new(loaded.own), Arc::new(loaded.local));
        self.change(|now| {
            local.inherit(&now.local);
            (now.own, now.local) = (own.clone(), local.clone());
        });
    }

    /// Serves what ACME obtained, for each of its names, in place of what was obtained before. Certificates
    /// of the configuration go first.
    pub fn install(&self, certificate: &Certificate) {
        self.change(|now| {
            let obtained = Arc::make_mut(&mut now.obtained);
            for name in &certificate.names {
                // The challenges by which names are checked here are not for wildcards (RFC 8555 §8.3,
                // RFC 8737 §3).
                if let Domain::Exact(name) = name {
                    obtained.insert(name.clone(), certificate.clone());
                }
            }
        });
    }

    /// What is shown to clients that offer only `acme-tls/1` and ask for this name (RFC 8737); `None`: no
    /// more.
    pub fn challenge_alpn(&self, name: &str, key: Option<Arc<CertifiedKey>>) {
        self.change(|now| set(&mut now.challenges, name, key.clone()));
    }

    /// What is answered at `/.well-known/acme-challenge/TOKEN` (RFC 8555 §8.3); `None`: no more.
    pub fn challenge_http(&self, token: &str, answer: Option<String>) {
        let answer = answer.map(String::into_boxed_str);
        self.change(|now| set(&mut now.answers, token, answer.clone()));
    }

    /// The answer at `/.well-known/acme-challenge/TOKEN`, while there is one.
    pub fn http_answer(&self, token: &str) -> Option<String> {
        self.resolver.snapshot.load().answers.get(token).map(|answer| answer.to_string())
    }

    /// The certificates whose end somebody should know of: all but those that the local CA signs, which are
    /// renewed by themselves.
    pub fn report(&self) -> Vec<Report> {
        let snapshot = self.resolver.snapshot.load();
        let obtained = snapshot.obtained.iter().map(|(name, certificate)| Report {
            name: name.to_string(),
            source: Source::Acme,
            not_after: certificate.not_after,
        });
        let ca = &self.resolver.ca;
        let ca =
            Report { name: "local CA".into(), source: Source::LocalCa, not_after: ca.not_after() };
        snapshot.own.reports().iter().cloned().chain(obtained).chain([ca]).collect()
    }

    fn change(&self, change: impl Fn(&mut Snapshot)) {
        self.resolver.snapshot.rcu(|snapshot| {
            let mut snapshot = Snapshot::clone(snapshot);
            change(&mut snapshot);
            snapshot
        });
    }
}

fn set<T: Clone>(map: &mut Arc<FxHashMap<Box<str>, T>>, key: &str, value: Option<T>) {
    let map = Arc::make_mut(map);
    match value {
        Some(value) => map.insert(key.into(), value),
        None => map.remove(key),
    };
}

fn server_config(resolver: Arc<Resolver>) -> Result<ServerConfig, rustls::Error> {
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth();
    let mut config = config.with_cert_resolver(resolver);
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    // Sessions are in tickets, sealed with keys that last 6 hours, and nothing of them is kept here: no
    // memory, no lock, and they go on at any worker.
    config.ticketer = Ticketer::new()?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

#[cfg(test)]
mod tests {
    use rustls::ProtocolVersion;
    use rustls::version::TLS12;

    use super::*;
    use crate::certs::fixture::Fixture;

    const SHOP: &str = "[apps.shop]\ndomains = [\"shop.test\", \"*.shop.test\"]\n";

    #[test]
    fn every_name_of_the_mesh_has_a_certificate_of_the_local_ca() {
        let fixture = Fixture::new();
        let certs = fixture.certs(SHOP);
        let client = fixture.client();
        let check = |name: &str, expected: &[&str]| {
            let met = client.meet(&certs, name).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(met.names, expected, "{name}");
            assert!(met.issuer.starts_with("dynomesh local CA on "), "{}", met.issuer);
            assert_eq!(met.version, ProtocolVersion::TLSv1_3);
        };
        check("shop.localhost", &["shop.localhost"]);
        check("shop.test", &["shop.test"]);
        check("SHOP.test", &["shop.test"]);
        check("a.shop.test", &["*.shop.test"]);
        check("b.a.shop.test", &["b.a.shop.test"]);
    }
}
