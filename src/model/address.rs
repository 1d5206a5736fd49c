//! Where dynos are reached and where the router listens.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// Where a dyno accepts connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DynoAddr {
    /// `127.0.0.1:5001`
    Tcp(SocketAddr),
    /// `unix:/run/app.sock`
    Unix(PathBuf),
}

/// Where the router or the admin listener accepts connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListenAddr {
    /// `0.0.0.0:8080`
    Tcp(SocketAddr),
    /// `unix:/run/dynomesh.sock`
    Unix(PathBuf),
}

/// A place where the router accepts connections, and what they begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where.
    pub addr: ListenAddr,
    /// TLS.
    pub tls: bool,
    /// A PROXY header first, from trusted proxies.
    pub proxy_protocol: bool,
}

/// A client, as limits and affinity tell one from another: an IPv4 address, or the first half of an IPv6 one,
/// whose other half each network gives out as it likes (RFC 4291 §2.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientNet(Ipv6Addr);

impl ClientNet {
    /// As bytes that no other client has.
    pub fn octets(&self) -> [u8; 16] {
        self.0.octets()
    }
}

impl From<IpAddr> for ClientNet {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64),
        })
    }
}

const EXPECTED: &str = "an address like 127.0.0.1:8080, [::1]:8080 or unix:/run/x.sock";

macro_rules! address {
    ($name:ident) => {
        impl $name {
            /// Parses an address; the error says what is expected.
            pub fn parse(text: &str) -> Result<Self, &'static str> {
                match text.strip_prefix("unix:") {
                    Some(path) if !path.is_empty() => Ok(Self::Unix(path.into())),
                    Some(_) => Err(EXPECTED),
                    None => text.parse().map(Self::Tcp).map_err(|_| EXPECTED),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    Self::Tcp(addr) => addr.fmt(f),
                    Self::Unix(path) => write!(f, "unix:{}", path.display()),
                }
            }
        }
    };
}

address!(DynoAddr);
address!(ListenAddr);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_is_one_client_and_an_ipv4_address_is_one() {
        let client = |text: &str| ClientNet::from(text.parse::<IpAddr>().unwrap());
        for (one, other, same) in [
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "::ffff:10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("2001:db8::1", "2001:db8::ffff:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
        ] {
            assert_eq!(client(one) == client(other), same, "{one} and {other}");
        }
    }
}
