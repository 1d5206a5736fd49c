//! Own and automatic certificates, as written → as used.
//!
//! Invariant: looks whether files are there, and never into them.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use http::Uri;
use toml::Spanned;

use crate::config::findings::Findings;
use crate::config::values::{absolute, duration_within};
use crate::config::written::{Acme, Certs, List, Optional, Table};
use crate::config::{AcmeConfig, CertFiles, CertSource};
use crate::config::{defaults, limits};

/// The entries of `[[certs]]` that are well-formed.
pub(crate) fn resolve_certs(
    findings: &mut Findings<'_>,
    written: &[Spanned<Table<Certs>>],
) -> Vec<CertSource> {
    let source = |entry: &Spanned<Table<Certs>>| {
        let at = entry.span().start;
        let files = cert_files(findings, at, entry.get_ref())?;
        Some(CertSource { line: findings.line(at), files })
    };
    written.iter().filter_map(source).collect()
}

fn cert_files(findings: &mut Findings<'_>, at: usize, written: &Certs) -> Option<CertFiles> {
    match (&written.dir, &written.cert, &written.key) {
        (Some(dir), None, None) => {
            existing(findings, "certs.dir", dir, Kind::Directory).map(CertFiles::Dir)
        }
        (None, Some(cert), Some(key)) => {
            let cert = existing(findings, "certs.cert", cert, Kind::File);
            let key = existing(findings, "certs.key", key, Kind::File);
            cert.zip(key).map(|(cert, key)| CertFiles::Pair { cert, key })
        }
        _ => {
            let message =
                "expected either cert and key (a pair of files) or dir (a directory of pairs)";
            findings.problem(at, "certs", message);
            None
        }
    }
}

/// `[acme]`, where it is written.
pub(crate) fn resolve_acme(
    findings: &mut Findings<'_>,
    written: Option<&Spanned<Table<Acme>>>,
) -> Option<AcmeConfig> {
    let entry = written?;
    let written: &Acme = entry.get_ref();
    let agreed = written.agree_to_terms.as_ref();
    if !agreed.is_some_and(|it| *it.get_ref()) {
        let message = "expected true: the server gives certificates to those alone who agree to its terms of service. Read them, and agree or take [acme] out";
        let at = agreed.map_or(entry.span().start, |it| it.span().start);
        findings.problem(at, "acme.agree_to_terms", message);
    }
    Some(AcmeConfig {
        directory: acme_directory(findings, &written.directory),
        contact: acme_contact(findings, &written.contact),
        renew_before: duration_within(
            findings,
            "acme.renew_before",
            &written.renew_before,
            defaults::RENEW_BEFORE,
            limits::RENEW_BEFORE_MIN..=limits::RENEW_BEFORE_MAX,
        ),
        ca_file: written
            .ca_file
            .as_ref()
            .and_then(|it| existing_file(findings, "acme.ca_file", it)),
    })
}

fn acme_directory(findings: &mut Findings<'_>, written: &Optional<String>) -> String {
    let [(_, default), _] = defaults::ACME_DIRECTORIES;
    let Some(written) = written else { return default.to_owned() };
    let text = written.get_ref();
    if let Some((_, url)) = defaults::ACME_DIRECTORIES.iter().find(|(name, _)| name == text) {
        return (*url).to_owned();
    }
    // RFC 8555 §6.1: ACME is spoken over HTTPS.
    let is_https = |it: &Uri| it.scheme_str() == Some("https");
    if !text.parse::<Uri>().is_ok_and(|it| is_https(&it)) {
        let names = defaults::ACME_DIRECTORIES.map(|(name, _)| format!("{name:?}"));
        let message = format!(
            "expected {} or a URL that begins with https://, not {text:?}",
            names.join(", ")
        );
        findings.problem(written.span().start, "acme.directory", message);
    }
    text.clone()
}

/// RFC 8555 §7.3: servers know `mailto:` URLs, with one address each and no header fields.
fn acme_contact(findings: &mut Findings<'_>, written: &List) -> Vec<String> {
    let is_one_address = |address: &str| {
        let foreign = |c: char| c.is_whitespace() || c.is_control() || "?,;".contains(c);
        let parts = address.split_once('@');
        parts.is_some_and(|(name, host)| !name.is_empty() && !host.is_empty())
            && !address.contains(foreign)
    };
    let mut contact = Vec::new();
    for item in written.as_ref().map_or(&[][..], |it| it.get_ref()) {
        let text = item.get_ref();
        if !text.strip_prefix("mailto:").is_some_and(is_one_address) {
            let message = format!("expected a URL like mailto:ops@example.com, not {text:?}");
            findings.problem(item.span().start, "acme.contact", message);
        }
        contact.push(text.clone());
    }
    contact
}

/// The absolute path of a file that is there.
pub(crate) fn existing_file(
    findings: &mut Findings<'_>,
    key: &str,
    written: &Spanned<String>,
) -> Option<PathBuf> {
    existing(findings, key, written, Kind::File)
}

#[derive(Clone, Copy)]
enum Kind {
    File,
    Directory,
}

/// The absolute path of what is there.
fn existing(
    findings: &mut Findings<'_>,
    key: &str,
    written: &Spanned<String>,
    kind: Kind,
) -> Option<PathBuf> {
    let path = findings.path(written.get_ref());
    match wrong_with(&path, kind) {
        None => Some(absolute(findings, written.get_ref())),
        Some(wrong) => {
            let message = format!("{}: {wrong}", path.display());
            findings.problem(written.span().start, key, message);
            None
        }
    }
}

/// Why a path is not what it should be: a fragment that fits after it.
fn wrong_with(path: &Path, kind: Kind) -> Option<String> {
    let word = match kind {
        Kind::File => "file",
        Kind::Directory => "directory",
    };
    match path.metadata() {
        Ok(found) => {
            let fits = match kind {
                Kind::File => found.is_file(),
                Kind::Directory => found.is_dir(),
            };
            (!fits).then(|| format!("is not a {word}"))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Some(format!("no such {word}")),
        Err(error) => Some(format!("cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Config;
    use crate::config::fixture::Fixture;

    const FILES: [(&str, &str); 3] =
        [("certs/shop.pem", "cert"), ("certs/shop.key", "key"), ("root.pem", "root")];

    #[track_caller]
    fn loaded(config: &str) -> (Fixture, Config) {
        let fixture = Fixture::new(config, &FILES);
        let config = fixture.loaded();
        (fixture, config)
    }

    #[track_caller]
    fn check(config: &str, expected: &[&str]) {
        let fixture = Fixture::new(config, &FILES);
        let said = fixture.relative(&fixture.load().unwrap_err().to_string());
        let lines: Vec<_> =
            said.lines().map(|it| it.trim_start_matches("dynomesh.toml:")).collect();
        assert_eq!(lines, expected, "{config}");
    }

    #[test]
    fn certificates_come_in_pairs_or_directories() {
        let (fixture, config) = loaded(
            "# mine\n[[certs]]\ncert = \"certs/shop.pem\"\nkey = \"certs/shop.key\"\n\n[[certs]]\ndir = \"certs\"\n",
        );
        let pair = CertFiles::Pair {
            cert: fixture.path("certs/shop.pem"),
            key: fixture.path("certs/shop.key"),
        };
        let dir = CertFiles::Dir(fixture.path("certs"));
        assert_eq!(
            config.certs,
            [CertSource { line: 2, files: pair }, CertSource { line: 6, files: dir }]
        );
        assert_eq!((config.acme, config.notes.warnings.len()), (None, 0));
        assert_eq!(loaded("").1.certs, []);
    }

    #[test]
    fn an_entry_is_one_of_the_two() {
        let either = "expected either cert and key (a pair of files) or dir (a directory of pairs)";
        for entry in [
            "",
            "cert = \"certs/shop.pem\"",
            "key = \"certs/shop.key\"",
            "dir = \"certs\"\nkey = \"certs/shop.key\"",
        ] {
            check(&format!("\n[[certs]]\n{entry}"), &[&format!("2: certs: {either}")]);
        }
    }

    #[test]
    fn files_of_certificates_are_there() {
        check(
            "[[certs]]\ncert = \"no.pem\"\nkey = \"certs\"\n[[certs]]\ndir = \"root.pem\"\n[[certs]]\ndir = \"none\"",
            &[
                "2: certs.cert: no.pem: no such file",
                "3: certs.key: certs: is not a file",
                "5: certs.dir: root.pem: is not a directory",
                "7: certs.dir: none: no such directory",
            ],
        );
    }

    #[test]
    fn acme_has_defaults_for_all_but_the_agreement() {
        let (_, config) = loaded("[acme]\nagree_to_terms = true");
        let acme = config.acme.unwrap();
        assert_eq!(acme.directory, "https://acme-v02.api.letsencrypt.org/directory");
        assert_eq!(acme.renew_before, Duration::from_secs(30 * 24 * 3600));
        assert_eq!((acme.contact, acme.ca_file), (vec![], None));
        let must = "expected true: the server gives certificates to those alone who agree to its terms of service. Read them, and agree or take [acme] out";
        check("\n[acme]\n", &[&format!("2: acme.agree_to_terms: {must}")]);
        check(
            "[acme]\ncontact = []\nagree_to_terms = false",
            &[&format!("3: acme.agree_to_terms: {must}")],
        );
    }

    #[test]
    fn acme_values_become_what_they_mean() {
        let (fixture, config) = loaded(
            "[acme]\nagree_to_terms = true\ndirectory = \"letsencrypt-staging\"\ncontact = [\"mailto:ops@example.com\"]\nrenew_before = \"7d\"\nca_file = \"root.pem\"",
        );
        let expected = AcmeConfig {
            directory: "https://acme-staging-v02.api.letsencrypt.org/directory".into(),
            contact: vec!["mailto:ops@example.com".into()],
            renew_before: Duration::from_secs(7 * 24 * 3600),
            ca_file: Some(fixture.path("root.pem")),
        };
        assert_eq!(config.acme, Some(expected));
        let own = "[acme]\nagree_to_terms = true\ndirectory = \"https://127.0.0.1:14000/dir\"";
        assert_eq!(loaded(own).1.acme.unwrap().directory, "https://127.0.0.1:14000/dir");
    }

    #[test]
    fn acme_values_that_cannot_be_are_refused() {
        let directory = |text: &str| {
            format!(
                "2: acme.directory: expected \"letsencrypt\", \"letsencrypt-staging\" or a URL that begins with https://, not {text:?}"
            )
        };
        for text in ["http://127.0.0.1/dir", "LetsEncrypt", "https://", ""] {
            let config = format!("[acme]\ndirectory = {text:?}\nagree_to_terms = true");
            check(&config, &[&directory(text)]);
        }
        for text in
            ["ops@example.com", "mailto:ops", "mailto:a@b,c@d", "mailto:a@b?subject=x", "mailto:@b"]
        {
            let message = format!(
                "2: acme.contact: expected a URL like mailto:ops@example.com, not {text:?}"
            );
            check(&format!("[acme]\ncontact = [{text:?}]\nagree_to_terms = true"), &[&message]);
        }
        check(
            "[acme]\nagree_to_terms = true\nca_file = \"none.pem\"\nrenew_before = \"59m\"",
            &[
                "3: acme.ca_file: none.pem: no such file",
                "4: acme.renew_before: expected a duration from 1h to 365d, not 59m",
            ],
        );
    }

    #[test]
    fn without_https_nobody_sees_a_certificate() {
        let (fixture, config) =
            loaded("router.https = []\nacme.agree_to_terms = true\n[[certs]]\ndir = \"certs\"");
        let said: Vec<_> =
            config.notes.warnings.iter().map(|it| fixture.relative(&it.to_string())).collect();
        assert_eq!(
            said,
            [
                "dynomesh.toml:2: acme: router.https is empty: no client will see a certificate",
                "dynomesh.toml:3: certs: router.https is empty: no client will see a certificate",
            ]
        );
    }
}
