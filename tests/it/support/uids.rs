//! Users for the isolated dynos of one test.

use std::fs::{self, File, TryLockError};
use std::ops::RangeInclusive;

/// How many of them a test has.
const EACH: u32 = 64;
/// As many tests as that may have them at a time.
const TESTS: u32 = 1000;

/// A part of the users that dynos are lent where no file says which, which no other test has until this is dropped: the
/// kernel counts processes by user, so that a dyno which forks without end would be in the way of another test's.
pub(crate) struct Uids {
    pub(crate) range: RangeInclusive<u32>,
    /// Other tests may be other processes: the lock tells all of them.
    _lock: File,
}

impl Uids {
    /// The first that nobody has.
    pub(crate) fn take() -> Self {
        let dir = std::env::temp_dir().join("dynomesh-tests-uids");
        fs::create_dir_all(&dir).expect("a directory for locks");
        let free = |number: u32| {
            let lock = File::create(dir.join(number.to_string())).expect("a file to lock");
            match lock.try_lock() {
                Ok(()) => Some((number, lock)),
                Err(TryLockError::WouldBlock) => None,
                Err(TryLockError::Error(error)) => panic!("lock: {error}"),
            }
        };
        let (number, lock) = (0..TESTS).find_map(free).expect("fewer tests at a time");
        let first = 200_000 + number * EACH;
        Self { range: first..=first + EACH - 1, _lock: lock }
    }
}
