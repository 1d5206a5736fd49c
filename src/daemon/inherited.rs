//! Sockets that the service manager opened for us: systemd's socket activation, sd_listen_fds(3).

use std::ops::Range;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::io::{FdFlags, fcntl_setfd};

/// The first descriptor that is passed; before it are the three standard ones.
const FIRST: RawFd = 3;

/// Takes the sockets over. Only for the start of the process, once, before anything else opens a
/// descriptor or starts a process.
pub(in crate::daemon) fn take() -> Vec<OwnedFd> {
    let var = |name| std::env::var(name).ok();
    let passed =
        parse(var("LISTEN_PID").as_deref(), var("LISTEN_FDS").as_deref(), std::process::id());
    passed.filter_map(own).collect()
}

/// Which descriptors are meant for the process of this id; none where anything is amiss.
fn parse(listen_pid: Option<&str>, listen_fds: Option<&str>, own_pid: u32) -> Range<RawFd> {
    let for_us = listen_pid.and_then(|pid| pid.parse().ok()) == Some(own_pid);
    let count: RawFd =
        listen_fds.filter(|_| for_us).and_then(|count| count.parse().ok()).unwrap_or(0);
    FIRST..FIRST.saturating_add(count.max(0))
}

#[expect(unsafe_code, reason = "a number from the environment becomes a descriptor nowhere else")]
fn own(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: by the protocol the descriptor was opened for this process, and nothing else in it knows
    // of the number: `take` runs once, before anything is opened. `fcntl` tells whether it is open; if
    // not, it is forgotten again, not closed.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    // It came without the flag, and dynos must not have it.
    match fcntl_setfd(&descriptor, FdFlags::CLOEXEC) {
        Ok(()) => Some(descriptor),
        Err(_) => {
            std::mem::forget(descriptor);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_meant_for_us_is_taken() {
        let check = |pid, fds, expected: Range<RawFd>| assert_eq!(parse(pid, fds, 42), expected);
        check(Some("42"), Some("2"), 3..5);
        check(Some("42"), Some("0"), 3..3);
        check(Some("41"), Some("2"), 3..3);
        check(None, Some("2"), 3..3);
        check(Some("42"), None, 3..3);
        check(Some("42"), Some("-2"), 3..3);
        check(Some("42"), Some("two"), 3..3);
        check(Some("x"), Some("2"), 3..3);
        check(Some("42"), Some("2147483647"), 3..RawFd::MAX);
    }
}
