//! Where an app's log is sent to.

use std::fmt;

use http::Uri;

/// What a URL of a drain has to look like.
const EXPECTED: &str = "expected a URL like syslog+tls://logs.example.com:6514, syslog://10.0.0.1:514 or https://user:password@logs.example.com/path";

/// The URL of a drain. What may be secret in it (user, password, path, query) is neither in its `Debug` nor in its
/// `Display`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DrainUrl {
    text: String,
    kind: DrainKind,
    host: String,
    port: u16,
}

/// How a drain is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DrainKind {
    /// RFC 5424 with counted octets (RFC 6587) over TCP.
    Syslog,
    /// The same over TLS (RFC 5425).
    SyslogTls,
    /// Logplex' form, by HTTP without TLS: for whoever listens on this machine.
    Http,
    /// The same by HTTPS.
    Https,
}

impl DrainKind {
    const ALL: [(&'static str, Self, u16); 4] = [
        ("syslog", Self::Syslog, 514),
        ("syslog+tls", Self::SyslogTls, 6514),
        ("http", Self::Http, 80),
        ("https", Self::Https, 443),
    ];

    /// Whether the other side has to show a certificate.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::SyslogTls | Self::Https)
    }

    fn scheme(self) -> &'static str {
        let row = Self::ALL.iter().find(|(_, kind, _)| *kind == self);
        row.expect("each kind has a row").0
    }
}

impl DrainUrl {
    /// Parses it; the error says what would be right.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let uri: Uri = text.parse().map_err(|_| EXPECTED)?;
        let row = DrainKind::ALL.iter().find(|(scheme, ..)| uri.scheme_str() == Some(scheme));
        let (Some((_, kind, default_port)), Some(authority)) = (row, uri.authority()) else {
            return Err(EXPECTED);
        };
        let is_http = matches!(kind, DrainKind::Http | DrainKind::Https);
        let has_path = uri.path_and_query().is_some_and(|path| !matches!(path.as_str(), "" | "/"));
        if !is_http && (has_path || authority.as_str().contains('@')) {
            return Err("a syslog drain has a host and a port, and nothing else");
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let after_host = authority.as_str().rsplit('@').next().unwrap_or_default();
        let port = match authority.port_u16() {
            Some(0) => return Err(EXPECTED),
            Some(port) => port,
            // A port that is there and none of 16 bits.
            None if after_host.len() > authority.host().len() => return Err(EXPECTED),
            None => *default_port,
        };
        if host.is_empty() {
            return Err(EXPECTED);
        }
        Ok(Self { text: text.to_owned(), kind: *kind, host, port })
    }

    /// All of it, secrets included.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How it is spoken to.
    pub fn kind(&self) -> DrainKind {
        self.kind
    }

    /// The name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port that is written, or the usual one.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path and the query, `/` where there are none.
    pub fn path(&self) -> String {
        let uri: Uri = self.text.parse().expect("it was parsed before");
        let path = uri.path_and_query().map_or("", |path| path.as_str());
        if path.is_empty() { "/".to_owned() } else { path.to_owned() }
    }

    /// `USER:PASSWORD`, decoded, where they are written.
    pub fn user_info(&self) -> Option<Vec<u8>> {
        let uri: Uri = self.text.parse().expect("it was parsed before");
        let (user, _) = uri.authority()?.as_str().rsplit_once('@')?;
        let user = if user.contains(':') { user.to_owned() } else { format!("{user}:") };
        Some(percent_decoded(&user))
    }

    /// Whether there is something in it that is not shown.
    pub fn has_more(&self) -> bool {
        self.user_info().is_some() || self.path() != "/"
    }
}

/// RFC 3986 §2.1. What is no escape stays as it is.
fn percent_decoded(text: &str) -> Vec<u8> {
    let (mut out, bytes) = (Vec::new(), text.as_bytes());
    let mut at = 0;
    while at < bytes.len() {
        let hex =
            text.get(at + 1..at + 3).filter(|hex| hex.bytes().all(|it| it.is_ascii_hexdigit()));
        match hex.filter(|_| bytes[at] == b'%').map(|hex| u8::from_str_radix(hex, 16)) {
            Some(Ok(byte)) => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}

impl fmt::Display for DrainUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, host, port, .. } = self;
        let brackets = if host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{}://{}{host}{}:{port}", kind.scheme(), brackets.0, brackets.1)?;
        if self.has_more() { f.write_str("/…") } else { Ok(()) }
    }
}

impl fmt::Debug for DrainUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_shown_without_secrets() {
        for (text, kind, host, port, shown) in [
            ("syslog://10.0.0.1:514", DrainKind::Syslog, "10.0.0.1", 514, "syslog://10.0.0.1:514"),
            (
                "syslog+tls://logs.test",
                DrainKind::SyslogTls,
                "logs.test",
                6514,
                "syslog+tls://logs.test:6514",
            ),
            ("syslog://[::1]:99/", DrainKind::Syslog, "::1", 99, "syslog://[::1]:99"),
            ("https://logs.test", DrainKind::Https, "logs.test", 443, "https://logs.test:443"),
            (
                "https://u:p%40w@logs.test/a?key=b",
                DrainKind::Https,
                "logs.test",
                443,
                "https://logs.test:443/…",
            ),
            (
                "http://127.0.0.1:8080/in",
                DrainKind::Http,
                "127.0.0.1",
                8080,
                "http://127.0.0.1:8080/…",
            ),
        ] {
            let url = DrainUrl::parse(text).unwrap();
            assert_eq!((url.kind(), url.host(), url.port()), (kind, host, port), "{text}");
            assert_eq!((format!("{url}"), format!("{url:?}")), (shown.into(), shown.into()));
            assert_eq!(url.as_str(), text);
        }
        let url = DrainUrl::parse("https://u:p%40w@logs.test/a?key=b").unwrap();
        assert_eq!(url.user_info().unwrap(), b"u:p@w");
        assert_eq!(url.path(), "/a?key=b");
        assert_eq!(
            DrainUrl::parse("https://token@logs.test").unwrap().user_info().unwrap(),
            b"token:"
        );
    }

    #[test]
    fn what_leads_nowhere_is_refused() {
        for text in [
            "",
            "logs.test:514",
            "tcp://logs.test:514",
            "syslog://",
            "syslog://logs.test:0",
            "syslog://logs.test:99999",
            "syslog://logs.test:514/path",
            "syslog://user@logs.test:514",
            "https://",
            "https:///path",
            "https://a b/",
        ] {
            assert!(DrainUrl::parse(text).is_err(), "{text}");
        }
    }
}
