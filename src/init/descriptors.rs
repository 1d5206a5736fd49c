//! What dynos have of the daemon's descriptors: none, and the soft limit on them that it had at first.
//!
//! An init outlives the daemon: with a lock or a pipe of whoever started that it would keep the next daemon, or a reader,
//! waiting for as long as the dyno lives.
//!
//! Programs that call select(2) break on descriptors beyond 1024, and some close every possible descriptor
//! at their start, so a dyno must not inherit what the daemon needs for its connections.

#![expect(unsafe_code, reason = "no crate wraps close_range(2) safely")]

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

/// Has every descriptor but the standard three closed by the next exec: whoever started the daemon may have left
/// some open that were meant for nobody else. Kernels before 5.11 cannot, and then they stay.
///
/// # Errors
/// The kernel could, and does not let us.
pub fn close_on_exec() -> io::Result<()> {
    const FIRST: libc::c_uint = 3;
    // SAFETY: it has no pointers, and closes nothing: a descriptor that somebody owns is as valid as before.
    let result = unsafe {
        libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    match io::Error::last_os_error() {
        _ if result == 0 => Ok(()),
        error if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => Ok(()),
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

    use super::*;

    #[test]
    fn what_was_left_open_ends_with_the_next_exec() {
        let file = File::open("/dev/null").unwrap();
        fcntl_setfd(&file, FdFlags::empty()).unwrap();
        close_on_exec().unwrap();
        assert_eq!(fcntl_getfd(&file).unwrap(), FdFlags::CLOEXEC);
        assert_eq!(fcntl_getfd(rustix::stdio::stderr()).unwrap(), FdFlags::empty());
    }
}
