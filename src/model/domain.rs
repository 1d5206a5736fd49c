//! Domains, which are configured, and hosts, which requests say they want.

use std::fmt;
use std::net::IpAddr;

/// A configured name that belongs to an app: `shop.example.com` or `*.shop.example.com`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Domain {
    /// One name.
    Exact(Box<str>),
    /// Every name below this one, at any depth; not the name itself.
    Wildcard(Box<str>),
}

impl Domain {
    /// Parses a domain, lower-cased and without a trailing dot; the error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let (name, wildcard) = match lower.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (lower.as_str(), false),
        };
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if name.len() > 253 || !name.split('.').all(label) {
            return Err(
                "a domain is made of labels like shop.example.com, and may begin with *. (write names beyond ASCII in punycode, xn--…)",
            );
        }
        Ok(if wildcard { Self::Wildcard(name.into()) } else { Self::Exact(name.into()) })
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(name) => write!(f, "*.{name}"),
        }
    }
}

/// What a request says it wants, made ready for look-up: without port and trailing dot, lower-case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host<'a> {
    /// A name. Borrowed where the request already sent it in the form for look-up.
    Name(std::borrow::Cow<'a, str>),
    /// An address: the request asked for the machine, not for an app.
    Address(IpAddr),
}

impl<'a> Host<'a> {
    /// Parses a Host field or an authority without user information; `None` where it is no host at all.
    ///
    /// `uri-host [ ":" port ]` (RFC 9110 §7.2), where an empty port is allowed (RFC 3986 §3.2.3).
    pub fn parse(text: &'a str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix('[') {
            let (literal, port) = rest.split_once(']')?;
            let well_formed = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            return well_formed
                .then(|| literal.parse().ok().map(|it| Self::Address(IpAddr::V6(it))))?;
        }
        let name = match text.split_once(':') {
            Some((name, port)) => is_port(port).then_some(name)?,
            None => text,
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.is_empty() || name.len() > 253 || !name.bytes().all(is_name_byte) {
            return None;
        }
        if name.as_bytes()[0].is_ascii_digit()
            && let Ok(address) = name.parse()
        {
            return Some(Self::Address(IpAddr::V4(address)));
        }
        let lower = !name.bytes().any(|b| b.is_ascii_uppercase());
        Some(Self::Name(if lower { name.into() } else { name.to_ascii_lowercase().into() }))
    }
}

fn is_port(text: &str) -> bool {
    text.is_empty() || (text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok())
}

/// The bytes of a `reg-name` (RFC 3986 §3.2.2) but for percent-encoding, which no host name needs.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains() {
        assert_eq!(
            Domain::parse("Shop.Example.com.").unwrap(),
            Domain::Exact("shop.example.com".into())
        );
        assert_eq!(Domain::parse("*.x.y").unwrap(), Domain::Wildcard("x.y".into()));
        for bad in ["", "*", "*.", "a..b", "-a.b", "a b", "a*.b", "*.*.b", "é.fr", &"a".repeat(64)]
        {
            assert!(Domain::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn hosts() {
        let name = |text: &'static str| Some(Host::Name(text.into()));
        let address = |text: &str| Some(Host::Address(text.parse().unwrap()));
        assert_eq!(Host::parse("shop.localhost:8080"), name("shop.localhost"));
        assert_eq!(Host::parse("Shop.Localhost."), name("shop.localhost"));
        assert_eq!(Host::parse("shop:"), name("shop"));
        assert_eq!(Host::parse("127.0.0.1:80"), address("127.0.0.1"));
        assert_eq!(Host::parse("[::1]:80"), address("::1"));
        for bad in
            ["", ".", ":80", "a:b", "a:99999", "a/b", "a@b", "a b", "[::1", "[x]", "[::1]x", "a%20"]
        {
            assert_eq!(Host::parse(bad), None, "{bad}");
        }
    }
}
