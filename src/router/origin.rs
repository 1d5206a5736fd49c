//! Which client a request comes from, as far as it can be believed.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::model::ClientNet;

/// The client: the last address on the way here that is not a trusted proxy's, and where all are trusted, the
/// first of them. What an untrusted peer says of itself is not in `forwarded_for` any more.
///
/// `forwarded_for`: what the dyno gets as X-Forwarded-For, the peer last. `None` where no address is known: at a
/// Unix socket behind which nobody is named.
pub(crate) fn origin(forwarded_for: &[u8], trusted: &[IpNet]) -> Option<ClientNet> {
    let mut nearest = None;
    for member in forwarded_for.rsplit(|byte| *byte == b',') {
        // Before what is no address, nothing can be believed either.
        let Some(address) = address(member.trim_ascii()) else { break };
        nearest = Some(ClientNet::from(address));
        if !trusted.iter().any(|net| net.contains(&address)) {
            break;
        }
    }
    nearest
}

/// An address with or without a port, as the proxies in use write them: `10.0.0.1`, `10.0.0.1:5000`,
/// `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:5000`.
fn address(member: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(member).ok()?;
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().ok().map(|it| it.ip());
    bare.parse::<IpAddr>().ok().or_else(with_port).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_that_is_not_trusted() {
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().unwrap());
        for (forwarded_for, expected) in [
            ("", None),
            ("203.0.113.9", Some("203.0.113.9")),
            ("203.0.113.9, 10.0.0.1", Some("203.0.113.9")),
            ("1.1.1.1, 203.0.113.9,10.1.1.1, 10.0.0.1", Some("203.0.113.9")),
            ("203.0.113.9:4711, 10.0.0.1", Some("203.0.113.9")),
            ("::ffff:203.0.113.9, ::ffff:10.0.0.1", Some("203.0.113.9")),
            ("[2001:db8::1]:4711, fd00::1", Some("2001:db8::1")),
            ("[2001:db8::1], fd00::1", Some("2001:db8::1")),
            ("10.0.0.2, 10.0.0.1", Some("10.0.0.2")),
            ("unknown, 10.0.0.1", Some("10.0.0.1")),
            ("203.0.113.9, unknown, 10.0.0.1", Some("10.0.0.1")),
            ("\u{e9}", None),
        ] {
            let expected = expected.map(|it| ClientNet::from(it.parse::<IpAddr>().unwrap()));
            assert_eq!(origin(forwarded_for.as_bytes(), &trusted), expected, "{forwarded_for}");
        }
    }
}
