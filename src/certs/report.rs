//! What is said of a certificate: whose it is, and when it ends.

use std::fmt;
use std::time::SystemTime;

/// A certificate that is served, or signs what is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The first of its names.
    pub name: String,
    /// Where it comes from.
    pub source: Source,
    /// When it expires.
    pub not_after: SystemTime,
}

/// Where a certificate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A file of the configuration.
    File,
    /// A command.
    Command,
    /// ACME.
    Acme,
    /// The local CA: its own certificate.
    LocalCa,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "file",
            Self::Command => "command",
            Self::Acme => "acme",
            Self::LocalCa => "local",
        })
    }
}
