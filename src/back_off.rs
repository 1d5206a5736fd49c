//! How long to wait before something is tried again. Pure.

use std::time::Duration;

/// `first`, doubled so many times, `max` at most. `random`, from 0 to 1, moves it by up to a tenth either way, so that
/// what failed together does not come back together.
pub(crate) fn wait(first: Duration, max: Duration, doublings: u32, random: f64) -> Duration {
    let doubled = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
    first.saturating_mul(doubled).min(max).mul_f64(0.9 + 0.2 * random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_the_first_to_the_longest() {
        let [first, max] = [500, 30_000].map(Duration::from_millis);
        let waits =
            [0, 1, 2, 5, 6, 39].map(|doublings| wait(first, max, doublings, 0.5).as_millis());
        assert_eq!(waits, [500, 1000, 2000, 16_000, 30_000, 30_000]);
        assert!(wait(first, max, 0, 0.0) < wait(first, max, 0, 1.0));
    }
}
