//! How long a drain waits after a failure. Pure.

use std::time::Duration;

use crate::config::limits;

/// The wait after so many failures in a row. `random`, from 0 to 1, moves it by up to a tenth, so that drains that
/// lost one server do not come back together.
pub(super) fn wait(failures: u32, random: f64) -> Duration {
    let doubled = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    let wait = limits::DRAIN_BACK_OFF_FIRST.saturating_mul(doubled);
    wait.min(limits::DRAIN_BACK_OFF_MAX).mul_f64(0.9 + 0.2 * random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_half_a_second_to_half_a_minute() {
        let waits = [1, 2, 3, 6, 7, 40].map(|failures| wait(failures, 0.5).as_millis());
        assert_eq!(waits, [500, 1000, 2000, 16_000, 30_000, 30_000]);
        assert!(wait(1, 0.0) < wait(1, 1.0));
    }
}
