//! Addresses as the log names them.

use std::fmt;

use crate::model::{Endpoint, ListenAddr};

/// An address as a person types it into a browser, where one can.
pub(in crate::daemon) struct Url<'a> {
    addr: &'a ListenAddr,
    scheme: &'static str,
}

impl<'a> Url<'a> {
    /// A listener of the router.
    pub(in crate::daemon) fn of(endpoint: &'a Endpoint) -> Self {
        Self { addr: &endpoint.addr, scheme: if endpoint.tls { "https" } else { "http" } }
    }

    /// A plain HTTP listener.
    pub(in crate::daemon) fn plain(addr: &'a ListenAddr) -> Self {
        Self { addr, scheme: "http" }
    }
}

impl fmt::Display for Url<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.addr {
            ListenAddr::Tcp(addr) => write!(f, "{}://{addr}", self.scheme),
            ListenAddr::Unix(_) => self.addr.fmt(f),
        }
    }
}
