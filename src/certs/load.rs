//! The configuration's certificates, read and judged before anything is served by them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::certs::certificate::{Certificate, date};
use crate::certs::files::{self, Seen};
use crate::certs::local::LocalNames;
use crate::certs::resolve::OwnNames;
use crate::certs::stated;
use crate::config::{CertFiles, CertSource, Config, ConfigError, ConfigProblem, limits, text_file};
use crate::model::Domain;

/// Certificates against which nothing stands; [`Certs::swap`](crate::certs::Certs::swap) serves them.
pub struct Loaded {
    /// What holds, but somebody should look at.
    pub warnings: Vec<ConfigProblem>,
    pub(in crate::certs) own: OwnNames,
    pub(in crate::certs) stated: OwnNames,
    pub(in crate::certs) local: LocalNames,
    pub(in crate::certs) seen: Seen,
}

/// Reads and judges every certificate that the configuration names, and changes nothing. The error has all
/// that is wrong.
///
/// Blocks on the disk.
pub fn load(config: &Config) -> Result<Loaded, ConfigError> {
    // Before they are read: what changes meanwhile is read again.
    let seen = files::look(&config.certs);
    let mut reading = Reading::new(config);
    for source in &config.certs {
        reading.read(source);
    }
    if !reading.problems.is_empty() {
        return Err(ConfigError { problems: reading.problems });
    }
    let Reading { own, mut warnings, now, .. } = reading;
    let (stated, mut unusable) = stated::names(config, now);
    warnings.append(&mut unusable);
    Ok(Loaded { warnings, own, stated, local: LocalNames::of(config), seen })
}

/// Collects certificates, and all that is wrong with them.
struct Reading<'a> {
    config: &'a Config,
    now: SystemTime,
    own: OwnNames,
    /// Which file a name and a kind of key are taken by.
    taken: BTreeMap<(Domain, &'static str), PathBuf>,
    problems: Vec<ConfigProblem>,
    warnings: Vec<ConfigProblem>,
}

impl<'a> Reading<'a> {
    fn new(config: &'a Config) -> Self {
        Self {
            config,
            now: SystemTime::now(),
            own: OwnNames::default(),
            taken: BTreeMap::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn read(&mut self, source: &CertSource) {
        let dir = match &source.files {
            CertFiles::Pair { cert, key } => return self.read_pair(source, cert, key),
            CertFiles::Dir(dir) => dir,
        };
        match files::pairs_in(dir) {
            Ok(pairs) => {
                if pairs.is_empty() {
                    let message = format!("{}: has no certificates", dir.display());
                    self.warnings.push(self.problem(source, message));
                }
                for (cert, key) in pairs {
                    self.read_pair(source, &cert, &key);
                }
            }
            Err(mistakes) => {
                let mistakes = mistakes.into_iter().map(|message| self.problem(source, message));
                self.problems.extend(mistakes.collect::<Vec<_>>());
            }
        }
    }

    fn read_pair(&mut self, source: &CertSource, cert: &Path, key: &Path) {
        let certificate = match read_pair(cert, key, self.now) {
            Ok(certificate) => certificate,
            Err(message) => return self.problems.push(self.problem(source, message)),
        };
        if let Some(message) = self.take_names(&certificate, cert) {
            return self.problems.push(self.problem(source, message));
        }
        if certificate.not_after < self.now + limits::EXPIRY_WARNING {
            let message = format!("{}: expires on {}", cert.display(), date(certificate.not_after));
            self.warnings.push(self.problem(source, message));
        }
        self.own.add(&certificate);
    }

    /// Notes whose the names of a certificate are; what is wrong if one is another's.
    fn take_names(&mut self, certificate: &Certificate, file: &Path) -> Option<String> {
        let kind = certificate.kind();
        for name in &certificate.names {
            let other = self.taken.insert((name.clone(), kind), file.to_owned());
            if let Some(other) = other {
                return Some(format!(
                    "{}: is for {name}, and so is {}; with two keys of one kind ({kind}) which of them clients \
                     see would be a guess: remove one",
                    file.display(),
                    other.display()
                ));
            }
        }
        None
    }

    fn problem(&self, source: &CertSource, message: String) -> ConfigProblem {
        let (file, key) = (self.config.file.clone(), Some("certs".to_owned()));
        ConfigProblem { file, line: Some(source.line), column: None, key, message }
    }
}

fn read_pair(cert: &Path, key: &Path, now: SystemTime) -> Result<Certificate, String> {
    let read =
        |file: &Path| text_file::read(file).map_err(|error| format!("{}: {error}", file.display()));
    let (chain, key_text) = (read(cert)?, read(key)?);
    Certificate::from_pem(chain.as_bytes(), key_text.as_bytes(), now).map_err(|flaw| {
        let file = if flaw.is_of_key() { key } else { cert };
        format!("{}: {flaw}", file.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::fixture::{DAY, Fixture, Issued};

    const PAIR: &str = "[[certs]]\ncert = \"a.pem\"\nkey = \"a.key\"\n";
    const DIR: &str = "[[certs]]\ndir = \"dir\"\n";

    /// What is said of a configuration: its warnings, or why it is refused.
    fn said(fixture: &Fixture, text: &str) -> Result<String, String> {
        let loaded = load(&fixture.config(text));
        let loaded = loaded
            .map(|it| it.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
        loaded
            .map(|said| fixture.relative(&said))
            .map_err(|error| fixture.relative(&error.to_string()))
    }

    #[test]
    fn what_is_wrong_is_said_with_the_line_of_the_entry() {
        let fixture = Fixture::new();
        let (chain, _) = fixture.issue(&Issued::to(&["a.test"]));
        let (_, other_key) = fixture.issue(&Issued::to(&["a.test"]));
        fixture.write("a.pem", chain);
        fixture.write("a.key", other_key);
        fixture.write("dir/b.pem", "");
        fixture.write("dir/b.key", "");
        fixture.write("dir/c.key", [0xff]);
        fixture.write("dir/c.crt", "");
        let refused = said(&fixture, &format!("{PAIR}{DIR}")).unwrap_err();
        assert_eq!(
            refused.lines().collect::<Vec<_>>(),
            [
                "dynomesh.toml:1: certs: a.key: is not the key of the first certificate in the chain, where \
                 the server's own belongs",
                "dynomesh.toml:4: certs: dir/b.pem: has no certificate (PEM, BEGIN CERTIFICATE)",
                "dynomesh.toml:4: certs: dir/c.key: is not UTF-8 text",
            ]
        );
        fixture.write("dir/d.pem", "");
        let refused = said(&fixture, DIR).unwrap_err();
        assert_eq!(refused, "dynomesh.toml:1: certs: dir/d.pem: has no d.key beside it");
    }

    #[test]
    fn one_name_has_one_certificate_for_each_kind_of_key() {
        let fixture = Fixture::new();
        fixture.write_pair("a", &Issued::to(&["x.test", "a.test"]));
        let rsa = Issued { algorithm: &rcgen::PKCS_RSA_SHA256, ..Issued::to(&["a.test"]) };
        fixture.write_pair("dir/rsa", &rsa);
        fixture.write_pair("dir/other", &Issued::to(&["b.test", "*.a.test"]));
        assert_eq!(said(&fixture, &format!("{PAIR}{DIR}")), Ok(String::new()));
        fixture.write_pair("dir/same", &Issued::to(&["b.a.test", "A.test"]));
        assert_eq!(
            said(&fixture, &format!("{PAIR}{DIR}")),
            Err("dynomesh.toml:4: certs: dir/same.pem: is for a.test, and so is a.pem; with two keys of one \
                 kind (ECDSA) which of them clients see would be a guess: remove one"
                .into())
        );
    }

    #[test]
    fn a_near_end_and_an_empty_directory_are_warned_of() {
        let fixture = Fixture::new();
        let not_after = SystemTime::now() + 13 * DAY;
        fixture.write_pair("a", &Issued { not_after, ..Issued::to(&["a.test"]) });
        fixture.write("dir/README", "");
        assert_eq!(
            said(&fixture, &format!("{PAIR}{DIR}")),
            Ok(format!(
                "dynomesh.toml:1: certs: a.pem: expires on {}\n\
                 dynomesh.toml:4: certs: dir: has no certificates",
                date(not_after)
            ))
        );
        let not_after = SystemTime::now() + 15 * DAY;
        fixture.write_pair("a", &Issued { not_after, ..Issued::to(&["a.test"]) });
        assert_eq!(said(&fixture, PAIR), Ok(String::new()));
    }
}
