//! The soft limit on open files: raised for the daemon, given back to its dynos.
//!
//! Programs that call select(2) break on descriptors beyond 1024, and some close every possible descriptor
//! at their start, so a dyno must not inherit what the daemon needs for its connections.

use std::io;
use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The soft limit that this process was started with, once it was raised. A property of the process, like the
/// limit itself.
static BEFORE: OnceLock<u64> = OnceLock::new();

/// Raises the soft limit to the hard one and returns it. Call it once, before the supervisor starts.
pub fn raise_descriptors() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    let _ = BEFORE.set(limit.current.unwrap_or(u64::MAX));
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// The soft limit before [`raise_descriptors`]; `None` where it was not called.
pub fn descriptors_before_raise() -> Option<u64> {
    BEFORE.get().copied()
}

/// Sets this process' soft limit, as far as the hard one allows.
pub(crate) fn lower(soft: u64) -> io::Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = Some(maximum.map_or(soft, |hard| soft.min(hard)));
    Ok(setrlimit(Resource::Nofile, Rlimit { current, maximum })?)
}
