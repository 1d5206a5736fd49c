//! The wall clock, as the time since 1970.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
