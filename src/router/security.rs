//! What is known of how a connection is secured.

/// What TLS says of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Security<'a> {
    pub(crate) version: TlsVersion,
    /// The name that the client asked for, in lower case.
    pub(crate) server_name: Option<&'a str>,
}

/// The versions that are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsVersion {
    Tls12,
    Tls13,
}
