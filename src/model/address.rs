//! Where dynos are reached and where the router listens.

use std::fmt;
use std::net::SocketAddr;
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
