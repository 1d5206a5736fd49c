//! Addresses as the log names them.

use std::fmt;

use crate::model::ListenAddr;

/// An address as a person types it into a browser, where one can.
pub(in crate::daemon) struct Url<'a>(pub(in crate::daemon) &'a ListenAddr);

impl fmt::Display for Url<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ListenAddr::Tcp(addr) => write!(f, "http://{addr}"),
            ListenAddr::Unix(_) => self.0.fmt(f),
        }
    }
}
