//! How long a name waits after an order that failed. Pure: failures in, a wait out.

use std::time::Duration;

use crate::back_off;
use crate::config::limits;

/// The failures of one name since its last success.
#[derive(Debug, Default)]
pub(crate) struct BackOff {
    failures: u32,
}

impl BackOff {
    /// Counts a failure and says how long to wait. `retry_after` is what the server asked for: the wait is
    /// never shorter, so it only grows by jitter. `random`, from 0 to 1, moves the wait by up to a tenth, so
    /// that names that failed together do not come back together.
    pub(crate) fn after_failure(&mut self, retry_after: Option<Duration>, random: f64) -> Duration {
        let (first, max) = (limits::ACME_BACK_OFF_FIRST, limits::ACME_BACK_OFF_MAX);
        let wait = back_off::wait(first, max, self.failures, random);
        self.failures = self.failures.saturating_add(1);
        let asked = retry_after.unwrap_or_default().min(limits::ACME_RETRY_AFTER_MAX);
        wait.min(max).max(asked.mul_f64(1.0 + 0.1 * random))
    }

    /// Forgets the failures: it went well, or something else is wanted.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn waits_double_from_a_minute_to_a_day() {
        let mut back_off = BackOff::default();
        let mut minutes = || back_off.after_failure(None, 0.5).as_secs() / 60;
        let waits = std::iter::repeat_with(&mut minutes).take(13).collect::<Vec<_>>();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1440, 1440]);
    }

    #[test]
    fn a_success_starts_afresh() {
        let mut back_off = BackOff::default();
        back_off.after_failure(None, 0.5);
        back_off.after_failure(None, 0.5);
        back_off.reset();
        assert_eq!(back_off.after_failure(None, 0.5), MINUTE);
    }

    #[test]
    fn the_server_can_ask_for_more_but_not_for_less_nor_for_ever() {
        let wait = |asked| BackOff::default().after_failure(Some(asked), 0.0);
        assert_eq!(wait(10 * MINUTE), 10 * MINUTE);
        assert_eq!(wait(Duration::from_secs(1)), MINUTE.mul_f64(0.9));
        assert_eq!(wait(Duration::MAX), limits::ACME_RETRY_AFTER_MAX);
    }

    proptest! {
        #[test]
        fn waits_keep_their_bounds(
            rounds in prop::collection::vec((0.0..=1.0f64, prop::option::of(0..700_000u64)), 1..80),
        ) {
            let mut back_off = BackOff::default();
            for (random, asked) in rounds {
                let asked = asked.map(Duration::from_secs);
                let wait = back_off.after_failure(asked, random);
                prop_assert!(wait >= limits::ACME_BACK_OFF_FIRST.mul_f64(0.9));
                prop_assert!(wait >= asked.unwrap_or_default().min(limits::ACME_RETRY_AFTER_MAX));
                prop_assert!(wait <= limits::ACME_RETRY_AFTER_MAX.mul_f64(1.1));
            }
        }
    }
}
