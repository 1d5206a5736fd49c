//! The wall clock, as the time since 1970, and the one that only ever goes forward.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// The present. A machine that believes itself before 1970 is at its beginning.
pub(crate) fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The present Unix second.
pub(crate) fn unix() -> u64 {
    since_epoch().as_secs()
}

/// The present Unix millisecond.
pub(crate) fn unix_millis() -> u64 {
    since_epoch().as_millis().try_into().unwrap_or(u64::MAX)
}

/// The present by the clock that nobody sets (CLOCK_MONOTONIC): the same in every process of this machine, so that
/// an init and its daemon can tell each other moments.
pub(crate) fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    // It begins at zero with the machine.
    Duration::new(now.tv_sec.try_into().unwrap_or(0), now.tv_nsec.try_into().unwrap_or(0))
}
