//! How many connections the process may hold: the limit on open files, used to its full.

use rustix::process::{Resource, getrlimit};

use crate::config::limits;
use crate::init;

/// Raises the soft limit on open files to the hard one (dynos get the old one back), and returns how many
/// client connections that leaves room for.
pub(in crate::daemon) fn raise() -> usize {
    let usable = init::raise_descriptors().unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot raise the limit on open files");
        getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
    });
    connections_max(usable)
}

/// Each client connection may need one to a dyno, too.
fn connections_max(descriptors: u64) -> usize {
    let free = descriptors.saturating_sub(limits::DESCRIPTORS_RESERVED);
    usize::try_from(free / 2).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_what_is_not_reserved_is_for_clients() {
        let check = |descriptors, expected| assert_eq!(connections_max(descriptors), expected);
        check(1_048_576, 524_160);
        check(1024, 384);
        check(limits::DESCRIPTORS_RESERVED + 4, 2);
        check(limits::DESCRIPTORS_RESERVED, 1);
        check(0, 1);
    }
}
