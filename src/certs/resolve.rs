//! Which certificate a handshake gets: the snapshot that is read for it.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustc_hash::FxHashMap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};
use smallvec::SmallVec;

use crate::certs::ca::Ca;
use crate::certs::certificate::Certificate;
use crate::certs::local::LocalNames;
use crate::certs::report::{Report, Source};
use crate::model::Domain;

/// The protocol of TLS-ALPN-01 (RFC 8737): a connection that agreed on it is closed once its handshake is
/// done, for the handshake is all that the other side came to see.
pub const ACME_TLS: &[u8] = b"acme-tls/1";

/// What a client may agree on, the best first.
pub(in crate::certs) const PROTOCOLS: [&[u8]; 3] = [b"h2", b"http/1.1", ACME_TLS];

/// All that is served at one moment. The parts are shared with the snapshots before and after.
#[derive(Clone)]
pub(in crate::certs) struct Snapshot {
    /// The configuration's own.
    pub(in crate::certs) own: Arc<OwnNames>,
    /// What ACME obtained, by exact name.
    pub(in crate::certs) obtained: Arc<FxHashMap<Box<str>, Certificate>>,
    /// What the local CA signs.
    pub(in crate::certs) local: Arc<LocalNames>,
    /// What is shown to an ACME server that checks a name.
    pub(in crate::certs) challenges: Arc<FxHashMap<Box<str>, Arc<CertifiedKey>>>,
    /// What is answered to one that checks by HTTP, by token.
    pub(in crate::certs) answers: Arc<FxHashMap<Box<str>, Box<str>>>,
}

/// The certificates of one name: of different kinds of keys, the cheapest for us first.
pub(in crate::certs) type Keys = SmallVec<[Arc<CertifiedKey>; 1]>;

/// The certificates that the configuration names.
#[derive(Default)]
pub(in crate::certs) struct OwnNames {
    exact: FxHashMap<Box<str>, Keys>,
    /// By the name without `*.`; for one label more (RFC 9525 §6.3).
    wildcard: FxHashMap<Box<str>, Keys>,
    /// For those who ask for no name, or for one that nobody knows.
    default: Keys,
    reports: Vec<Report>,
}

impl OwnNames {
    /// Adds a certificate. The first becomes the default.
    pub(in crate::certs) fn add(&mut self, certificate: &Certificate) {
        let key = &certificate.key;
        for name in &certificate.names {
            let keys = match name {
                Domain::Exact(name) => self.exact.entry(name.clone()).or_default(),
                Domain::Wildcard(name) => self.wildcard.entry(name.clone()).or_default(),
            };
            keys.push(key.clone());
            keys.sort_by_key(|key| key.key.algorithm() == SignatureAlgorithm::RSA);
        }
        if self.default.is_empty() {
            self.default.push(key.clone());
        }
        let name = certificate.names.first().map_or_else(|| "-".into(), ToString::to_string);
        let not_after = certificate.not_after;
        self.reports.push(Report { name, source: Source::File, not_after });
    }

    /// One per certificate, in the order of the file.
    pub(in crate::certs) fn reports(&self) -> &[Report] {
        &self.reports
    }

    /// Those of a name.
    pub(in crate::certs) fn find(&self, name: &str) -> Option<&Keys> {
        let below = || self.wildcard.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(below)
    }
}

/// Reads the snapshot for each handshake.
pub(in crate::certs) struct Resolver {
    pub(in crate::certs) ca: Ca,
    pub(in crate::certs) snapshot: ArcSwap<Snapshot>,
}

impl Resolver {
    /// The certificate for a name and for a client that can verify these signatures.
    fn find(
        &self,
        name: Option<&str>,
        schemes: &[SignatureScheme],
        now: SystemTime,
    ) -> Option<Arc<CertifiedKey>> {
        let snapshot = self.snapshot.load();
        if let Some(keys) = name.and_then(|name| snapshot.own.find(name)) {
            return fitting(keys, schemes);
        }
        if let Some(certificate) = name.and_then(|name| snapshot.obtained.get(name)) {
            return Some(certificate.key.clone());
        }
        let ca = &self.ca;
        let signed = match name.and_then(|name| snapshot.local.find(name, ca, now)) {
            Some(signed) => signed,
            None if !snapshot.own.default.is_empty() => {
                return fitting(&snapshot.own.default, schemes);
            }
            None => snapshot.local.default(ca, now),
        };
        signed.inspect_err(|error| tracing::error!(%error, "failed to sign a certificate")).ok()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // Lower-case already; some clients write the root's dot.
        let name = hello.server_name().map(|name| name.strip_suffix('.').unwrap_or(name));
        if is_challenge(&hello) {
            // Nothing else will do: RFC 8737 §4.
            return self.snapshot.load().challenges.get(name?).cloned();
        }
        self.find(name, hello.signature_schemes(), SystemTime::now())
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

/// Whether the client would agree on [`ACME_TLS`], because it offers nothing else that we have.
fn is_challenge(hello: &ClientHello<'_>) -> bool {
    let Some(offered) = hello.alpn() else { return false };
    let ours = |protocol: &&[u8]| PROTOCOLS.contains(protocol);
    offered.filter(ours).eq([ACME_TLS])
}

/// The first that the client can verify; where there is none, the first, so that the handshake says why it
/// fails.
pub(in crate::certs) fn fitting(
    keys: &Keys,
    schemes: &[SignatureScheme],
) -> Option<Arc<CertifiedKey>> {
    let fits = |it: &&Arc<CertifiedKey>| it.key.choose_scheme(schemes).is_some();
    keys.iter().find(fits).or_else(|| keys.first()).cloned()
}
