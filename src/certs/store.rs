//! What is served, shared by the workers, who read it, and by those who change it.

use std::mem;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustc_hash::FxHashMap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};

use crate::certs::ca::{Ca, CaError};
use crate::certs::certificate::{Certificate, date};
use crate::certs::files::{self, Seen};
use crate::certs::load::{Loaded, load};
use crate::certs::own_name::OwnName;
use crate::certs::report::{Report, Source};
use crate::certs::resolve::{PROTOCOLS, Resolver, Snapshot};
use crate::config::{Config, ConfigError, ConfigProblem, limits};
use crate::model::Domain;

/// The certificates of the running daemon.
pub struct Certs {
    resolver: Arc<Resolver>,
    server_config: Arc<ServerConfig>,
    /// The configuration's files as they were when last read, whatever came of it.
    seen: Mutex<Seen>,
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
        if ca.not_after() < SystemTime::now() + limits::EXPIRY_WARNING {
            let (file, date) = (ca.file().display(), date(ca.not_after()));
            tracing::warn!("{file}: the local CA's certificate is valid until {date} only");
        }
        let snapshot = Snapshot {
            own: Arc::new(loaded.own),
            obtained: Arc::default(),
            local: Arc::new(loaded.local),
            challenges: Arc::default(),
            answers: Arc::default(),
        };
        let resolver = Arc::new(Resolver { ca, snapshot: ArcSwap::from_pointee(snapshot) });
        let server_config =
            server_config(resolver.clone(), &PROTOCOLS).map_err(CertsError::Tickets)?;
        let (server_config, seen) = (Arc::new(server_config), Mutex::new(loaded.seen));
        Ok(Arc::new(Self { resolver, server_config, seen }))
    }

    /// How TLS is spoken: one for all workers and for the life of the daemon, so that a session begun on one
    /// worker goes on at any other, before and after a swap.
    ///
    /// A connection that agreed on [`ACME_TLS`](crate::certs::ACME_TLS) is for whoever accepted it to close.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.server_config.clone()
    }

    /// How TLS is spoken by whoever asks the daemon itself by one of these names and addresses, and HTTP/1.1 after it.
    pub fn server_config_for(&self, names: Vec<Box<str>>) -> Result<Arc<ServerConfig>, CertsError> {
        let resolver = Arc::new(OwnName::new(self.resolver.clone(), names));
        let config = server_config(resolver, &[b"http/1.1"]).map_err(CertsError::Tickets)?;
        Ok(Arc::new(config))
    }

    /// Serves by these from now on. Connections that are open are not touched; what ACME obtained stays.
    pub fn swap(&self, loaded: Loaded) {
        self.note(loaded.seen);
        let (own, local) = (Arc::new(loaded.own), Arc::new(loaded.local));
        self.change(|now| {
            local.inherit(&now.local);
            (now.own, now.local) = (own.clone(), local.clone());
        });
    }

    /// Loads the certificates of the configuration in force again and serves them, if their files are not as
    /// they were when last read; `None`: they are. What is refused changes nothing, and is refused once.
    /// Returns the warnings.
    ///
    /// Blocks on the disk; not for two threads at a time.
    pub fn refresh(&self, config: &Config) -> Option<Result<Vec<ConfigProblem>, ConfigError>> {
        let seen = files::look(&config.certs);
        if self.note(seen.clone()) == seen {
            return None;
        }
        Some(load(config).map(|mut loaded| {
            let warnings = mem::take(&mut loaded.warnings);
            self.swap(loaded);
            warnings
        }))
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

    /// Serves what ACME obtained for these names, and no more what it obtained for others.
    pub(in crate::certs) fn keep_obtained(&self, wanted: impl Fn(&str) -> bool) {
        self.change(|now| Arc::make_mut(&mut now.obtained).retain(|name, _| wanted(name)));
    }

    /// Whether a certificate of the configuration is served for this name.
    pub(in crate::certs) fn has_own(&self, name: &str) -> bool {
        self.resolver.snapshot.load().own.find(name).is_some()
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

    /// Remembers what the files are like, and returns what they were like before.
    fn note(&self, seen: Seen) -> Seen {
        mem::replace(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner), seen)
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

fn server_config(
    resolver: Arc<dyn ResolvesServerCert>,
    protocols: &[&[u8]],
) -> Result<ServerConfig, rustls::Error> {
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth();
    let mut config = config.with_cert_resolver(resolver);
    config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
    // Sessions are in tickets, sealed with keys that last 6 hours, and nothing of them is kept here: no
    // memory, no lock, and they go on at any worker.
    config.ticketer = Ticketer::new()?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // A ticket is for one connection (RFC 8446 §C.4), and browsers like to have the next at once: 210 bytes
    // each, and no time that could be measured beside the handshake's.
    config.send_tls13_tickets = 2;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use rustls::crypto::WebPkiSupportedAlgorithms;
    use rustls::{AlertDescription, Error as TlsError, ProtocolVersion, SignatureScheme};

    use super::*;
    use crate::certs::fixture::{Client, Fixture, Issued};

    const SHOP: &str = "[apps.shop]\ndomains = [\"shop.test\", \"*.shop.test\"]\n";
    const PAIR: &str = "[[certs]]\ncert = \"a.pem\"\nkey = \"a.key\"\n";
    const DIR: &str = "[[certs]]\ndir = \"dir\"\n";

    #[track_caller]
    fn names(client: &Client, certs: &Certs, name: &str) -> Vec<String> {
        client.meet(certs, name).unwrap_or_else(|error| panic!("{name}: {error}")).names
    }

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
        // Who asks for no name gets the domain's, by whatever it is called.
        let localhost = ["localhost", "127.0.0.1", "::1"];
        check("localhost", &localhost);
        check("127.0.0.1", &localhost);
        check("::1", &localhost);
        let nameless = client.nameless();
        assert_eq!(names(&nameless, &certs, "localhost"), localhost);
        assert!(nameless.meet(&certs, "shop.test").is_err());
        let error = client.meet(&certs, "unknown.test").unwrap_err().to_string();
        assert!(error.contains("valid for") && error.contains("localhost"), "{error}");
    }

    #[test]
    fn own_certificates_come_first_and_exact_ones_before_wildcards() {
        let fixture = Fixture::new();
        fixture.write_pair("a", &Issued::to(&["first.test"]));
        fixture.write_pair("dir/wildcard", &Issued::to(&["*.shop.test"]));
        fixture.write_pair("dir/exact", &Issued::to(&["a.shop.test", "mine.localhost"]));
        let certs = fixture.certs(&format!("{SHOP}{PAIR}{DIR}"));
        let client = fixture.client();
        let check = |name: &str, expected: &[&str]| {
            let met = client.meet(&certs, name).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(met.names, expected, "{name}");
        };
        check("a.shop.test", &["a.shop.test", "mine.localhost"]);
        check("b.shop.test", &["*.shop.test"]);
        // One label only: what lies deeper is the mesh's own.
        check("c.b.shop.test", &["c.b.shop.test"]);
        check("shop.test", &["shop.test"]);
        check("shop.localhost", &["shop.localhost"]);
        check("first.test", &["first.test"]);
        // The first of the file is for those who ask for nothing that is known.
        assert_eq!(names(&client.nameless(), &certs, "first.test"), ["first.test"]);
        let error = client.meet(&certs, "unknown.test").unwrap_err().to_string();
        assert!(error.contains("first.test"), "{error}");
        assert!(client.meet(&certs, "localhost").is_err());
    }

    #[test]
    fn a_client_gets_the_kind_of_key_that_it_can_verify() {
        let fixture = Fixture::new();
        let rsa = &rcgen::PKCS_RSA_SHA256;
        fixture.write_pair(
            "dir/1",
            &Issued { algorithm: rsa, ..Issued::to(&["shop.test", "rsa.test"]) },
        );
        fixture.write_pair("dir/2", &Issued::to(&["shop.test", "ecdsa.test"]));
        let certs = fixture.certs(&format!("{SHOP}{DIR}"));
        let mut provider = default_provider();
        let all = provider.signature_verification_algorithms;
        let is_rsa = |scheme: SignatureScheme| format!("{scheme:?}").starts_with("RSA");
        let mapping = all.mapping.iter().filter(|(scheme, _)| is_rsa(*scheme)).copied();
        let mapping = Vec::leak(mapping.collect());
        provider.signature_verification_algorithms =
            WebPkiSupportedAlgorithms { all: all.all, mapping };
        for version in [&TLS12, &TLS13] {
            let any = fixture.client_with(default_provider(), &[version]);
            let only_rsa = fixture.client_with(provider.clone(), &[version]);
            assert_eq!(names(&any, &certs, "shop.test"), ["shop.test", "ecdsa.test"]);
            assert_eq!(names(&only_rsa, &certs, "shop.test"), ["shop.test", "rsa.test"]);
            assert_eq!(names(&any, &certs, "rsa.test"), ["shop.test", "rsa.test"]);
            assert!(only_rsa.meet(&certs, "ecdsa.test").is_err());
        }
    }

    #[test]
    fn protocols_are_agreed_on() {
        let fixture = Fixture::new();
        let certs = fixture.certs(SHOP);
        let agreed = |offered: &[&[u8]]| {
            fixture.client().offering(offered).meet(&certs, "shop.test").map(|met| met.protocol)
        };
        let some = |protocol: &str| Ok(Some(protocol.to_owned()));
        assert_eq!(agreed(&[]), Ok(None));
        assert_eq!(agreed(&[b"http/1.1", b"h2"]), some("h2"));
        assert_eq!(agreed(&[b"http/1.1", b"acme-tls/1"]), some("http/1.1"));
        let none = TlsError::AlertReceived(AlertDescription::NoApplicationProtocol);
        assert_eq!(agreed(&[b"spdy/3"]), Err(none));
    }

    #[test]
    fn sessions_go_on_at_any_worker_and_over_swaps() {
        let fixture = Fixture::new();
        let certs = fixture.certs(SHOP);
        for (version, expected) in
            [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)]
        {
            let client = fixture.client_with(default_provider(), &[version]);
            let meet = |name| client.meet(&certs, name).unwrap();
            let met = meet("shop.test");
            assert_eq!((met.version, met.resumed), (expected, false));
            // Each worker has the same configuration; what one of them sealed any other opens.
            assert!(meet("shop.test").resumed);
            certs.swap(load(&fixture.config(SHOP)).unwrap());
            assert!(meet("shop.test").resumed);
            assert!(!meet("a.shop.test").resumed, "another name is another session");
        }
    }

    #[test]
    fn a_swap_is_seen_by_the_next_handshake() {
        let fixture = Fixture::new();
        let certs = fixture.certs(SHOP);
        let client = fixture.client();
        assert_eq!(names(&client, &certs, "shop.test"), ["shop.test"]);
        fixture.write_pair("a", &Issued::to(&["shop.test", "own.test"]));
        certs.swap(load(&fixture.config(&format!("{SHOP}{PAIR}"))).unwrap());
        let fresh = fixture.client();
        assert_eq!(names(&fresh, &certs, "shop.test"), ["shop.test", "own.test"]);
        certs.swap(load(&fixture.config(SHOP)).unwrap());
        assert_eq!(names(&fixture.client(), &certs, "shop.test"), ["shop.test"]);
    }

    #[test]
    fn changed_files_are_served_and_broken_ones_are_refused_once() {
        let fixture = Fixture::new();
        fixture.write_pair("a", &Issued::to(&["shop.test", "1.test"]));
        let text = format!("{SHOP}{PAIR}");
        let (certs, config) = (fixture.certs(&text), fixture.config(&text));
        let served = || names(&fixture.client(), &certs, "shop.test").pop().unwrap();
        assert!(certs.refresh(&config).is_none());
        let (chain, key) = fixture.issue(&Issued::to(&["shop.test", "2.test"]));
        // One file is exchanged, the other is not yet.
        fixture.write("a.pem", chain);
        let error = certs.refresh(&config).unwrap().unwrap_err().to_string();
        assert!(error.contains("a.key: is not the key of"), "{error}");
        assert_eq!(served(), "1.test");
        assert!(certs.refresh(&config).is_none(), "it has been said");
        fixture.write("a.key", key);
        assert_eq!(certs.refresh(&config), Some(Ok(vec![])));
        assert_eq!(served(), "2.test");
        assert!(certs.refresh(&config).is_none());
        // A reload in between has read them already.
        fixture.write_pair("a", &Issued::to(&["shop.test", "3.test"]));
        certs.swap(load(&config).unwrap());
        assert!(certs.refresh(&config).is_none());
        assert_eq!(served(), "3.test");
    }

    #[test]
    fn what_acme_obtained_stays_and_comes_after_own_certificates() {
        let fixture = Fixture::new();
        let certs = fixture.certs(SHOP);
        let obtained = |names: &[&str]| {
            let (chain, key) = fixture.issue(&Issued::to(names));
            Certificate::from_pem(chain.as_bytes(), key.as_bytes(), SystemTime::now()).unwrap()
        };
        certs.install(&obtained(&["shop.test", "1.test", "*.never.test"]));
        let served = |name: &str| names(&fixture.client(), &certs, name);
        assert_eq!(served("shop.test"), ["shop.test", "1.test", "*.never.test"]);
        assert_eq!(served("1.test"), ["shop.test", "1.test", "*.never.test"]);
        assert!(fixture.client().meet(&certs, "a.never.test").is_err());
        certs.install(&obtained(&["shop.test", "2.test"]));
        assert_eq!(served("shop.test"), ["shop.test", "2.test"]);
        certs.swap(load(&fixture.config(SHOP)).unwrap());
        assert_eq!(served("shop.test"), ["shop.test", "2.test"]);
        fixture.write_pair("a", &Issued::to(&["shop.test", "own.test"]));
        certs.swap(load(&fixture.config(&format!("{SHOP}{PAIR}"))).unwrap());
        assert_eq!(served("shop.test"), ["shop.test", "own.test"]);
        let mut reports: Vec<_> =
            certs.report().into_iter().map(|it| (it.source, it.name)).collect();
        reports.sort();
        let expected = [
            (Source::File, "shop.test"),
            (Source::Acme, "1.test"),
            (Source::Acme, "2.test"),
            (Source::Acme, "shop.test"),
            (Source::LocalCa, "local CA"),
        ];
        assert_eq!(reports, expected.map(|(source, name)| (source, name.to_owned())));
    }

    #[test]
    fn a_challenge_is_shown_to_those_who_ask_for_nothing_else() {
        let fixture = Fixture::new();
        let certs = fixture.certs(SHOP);
        let (chain, key) = fixture.issue(&Issued::to(&["shop.test", "challenge.test"]));
        let challenge =
            Certificate::from_pem(chain.as_bytes(), key.as_bytes(), SystemTime::now()).unwrap();
        let server = fixture.client().offering(&[b"acme-tls/1"]);
        let browser = fixture.client().offering(&[b"h2", b"acme-tls/1"]);
        let denied = TlsError::AlertReceived(AlertDescription::AccessDenied);
        let refused = |name: &str| server.meet(&certs, name).unwrap_err() == denied;
        assert!(refused("shop.test"));
        certs.challenge_alpn("shop.test", Some(challenge.key));
        let met = server.meet(&certs, "SHOP.test").unwrap();
        assert_eq!(met.names, ["shop.test", "challenge.test"]);
        assert_eq!(met.protocol.as_deref(), Some("acme-tls/1"));
        assert_eq!(names(&browser, &certs, "shop.test"), ["shop.test"]);
        assert!(refused("other.test"));
        assert_eq!(server.nameless().meet(&certs, "shop.test").unwrap_err(), denied);
        let unknown = fixture.client().offering(&[b"spdy/3", b"acme-tls/1"]);
        assert_eq!(names(&unknown, &certs, "shop.test"), ["shop.test", "challenge.test"]);
        certs.swap(load(&fixture.config(SHOP)).unwrap());
        assert!(server.meet(&certs, "shop.test").is_ok(), "a reload does not break an order");
        certs.challenge_alpn("shop.test", None);
        assert!(refused("shop.test"));
    }

    #[test]
    fn tokens_are_answered_while_they_are_asked_for() {
        let fixture = Fixture::new();
        let certs = fixture.certs(SHOP);
        assert_eq!(certs.http_answer("token"), None);
        certs.challenge_http("token", Some("token.thumbprint".into()));
        certs.swap(load(&fixture.config(SHOP)).unwrap());
        assert_eq!(certs.http_answer("token").as_deref(), Some("token.thumbprint"));
        assert_eq!(certs.http_answer("Token"), None);
        certs.challenge_http("token", None);
        assert_eq!(certs.http_answer("token"), None);
    }
}
