//! The certificates that commands gave to apps: judged when they come, and shown for the domains of their app.
//!
//! What has become unusable since is left out and said: no command of long ago is a reason not to start.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::parse_x509_certificate;

use crate::certs::certificate::{Certificate, Flaw, system_time};
use crate::certs::report::{Report, Source};
use crate::certs::resolve::OwnNames;
use crate::config::{COMMANDS, Config, ConfigProblem};
use crate::model::{Domain, StatedCertificate, certificate_of};
use crate::outside;

/// What was found of a chain and a key against which nothing stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The names that it is for; none twice.
    pub names: Vec<Domain>,
    /// Whether the system's roots lead to it.
    pub is_trusted: bool,
}

/// Judges a chain (PEM, leaf first) and its key (PEM). Blocks on the disk, where the roots are.
///
/// # Errors
/// Nobody would accept it, or it is for no name that a client could ask for.
pub fn judge(chain: &str, key: &str) -> Result<Judged, Flaw> {
    let read = Certificate::from_pem(chain.as_bytes(), key.as_bytes(), SystemTime::now())?;
    let name = match read.names.first() {
        Some(Domain::Exact(name)) => name.to_string(),
        Some(Domain::Wildcard(name)) => format!("any.{name}"),
        None => return Err(Flaw::Nameless),
    };
    let is_trusted = outside::is_trusted(&read.key.cert, &name);
    Ok(Judged { names: read.names, is_trusted })
}

/// What people are told of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// `/CN=shop.example.com`
    pub subject: String,
    /// `/C=US/O=Let's Encrypt/CN=R3`
    pub issuer: String,
    /// From when on it is valid, in Unix seconds.
    pub starts_at: u64,
    /// Until when, in Unix seconds.
    pub expires_at: u64,
}

/// What the leaf of a chain says; `None`: nothing that can be read.
pub fn details(chain: &str) -> Option<Details> {
    let leaf = CertificateDer::from_pem_slice(chain.as_bytes()).ok()?;
    let (_, leaf) = parse_x509_certificate(&leaf).ok()?;
    let seconds = |time| {
        let since: Result<_, _> = system_time(time).duration_since(UNIX_EPOCH);
        since.map_or(0, |since| since.as_secs())
    };
    Some(Details {
        subject: slashed(&leaf.subject().to_string()),
        issuer: slashed(&leaf.issuer().to_string()),
        starts_at: seconds(leaf.validity().not_before),
        expires_at: seconds(leaf.validity().not_after),
    })
}

/// As OpenSSL wrote names for long, and Heroku does.
fn slashed(name: &str) -> String {
    format!("/{}", name.replace(", ", "/"))
}

/// Which certificate each domain of each app has, of those that commands gave to the app; with what cannot be shown.
pub(in crate::certs) fn names(config: &Config, now: SystemTime) -> (OwnNames, Vec<ConfigProblem>) {
    let (mut names, mut warnings) = (OwnNames::default(), Vec::new());
    for (app, settings) in config.apps.iter().filter(|(_, it)| !it.certificates.is_empty()) {
        let own = Domain::Exact(format!("{app}.{}", config.router.domain).into());
        let domains = || settings.domains.iter().chain([&own]);
        for stated in &settings.certificates {
            let read = Certificate::from_pem(stated.chain.as_bytes(), stated.key.as_bytes(), now);
            let certificate = match read {
                Ok(certificate) => certificate,
                Err(flaw) => {
                    warnings.push(unusable(app.as_str(), stated, &flaw));
                    continue;
                }
            };
            let is_shown = |domain: &&Domain| {
                certificate_of(&settings.certificates, domain).is_some_and(|it| it.id == stated.id)
            };
            for domain in domains().filter(is_shown) {
                names.show(domain, &certificate.key);
            }
            names.report(Report {
                name: certificate.names.first().map_or("-".into(), ToString::to_string),
                source: Source::Command,
                not_after: certificate.not_after,
            });
        }
    }
    (names, warnings)
}

fn unusable(app: &str, certificate: &StatedCertificate, flaw: &Flaw) -> ConfigProblem {
    ConfigProblem {
        file: PathBuf::from(COMMANDS),
        line: None,
        column: None,
        key: Some(format!("apps.{app}.certs")),
        message: format!("{} {flaw}; it is not shown (certs:update)", certificate.name),
    }
}
