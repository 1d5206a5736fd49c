//! How long a dyno waits after a crash before it starts again. Pure: crashes and times in, a wait out.
//!
//! Heroku's shape (the first restart at once, then growing waits up to a longest one) in seconds in place of
//! its twenty minutes, which are hostile on one's own machine.

use std::time::Duration;

use crate::back_off;
use crate::config::SupervisorTimeouts;
use crate::config::limits;

/// The crashes of one dyno that are not forgotten yet.
#[derive(Debug, Default)]
pub(crate) struct CoolOff {
    crashes: u32,
}

impl CoolOff {
    /// Counts a crash and says how long to wait. `was_up` is how long the dyno had been up (zero if never):
    /// one that was up for [`limits::STABLE`] starts afresh. `random`, from 0 to 1, moves the wait by up to a
    /// tenth either way, so that the dynos of an app do not come back in step.
    pub(crate) fn after_crash(
        &mut self,
        was_up: Duration,
        timeouts: &SupervisorTimeouts,
        random: f64,
    ) -> Duration {
        if was_up >= limits::STABLE {
            self.reset();
        }
        self.crashes = self.crashes.saturating_add(1);
        let Some(doublings) = self.crashes.checked_sub(2) else { return Duration::ZERO };
        let (first, max) = (timeouts.cool_off_first, timeouts.cool_off_max);
        back_off::wait(first, max, doublings, random).min(max)
    }

    /// Forgets the crashes: there is something new to run, or somebody asked.
    pub(crate) fn reset(&mut self) {
        self.crashes = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIMEOUTS: SupervisorTimeouts = SupervisorTimeouts {
        boot: Duration::from_secs(60),
        exit: Duration::from_secs(30),
        cool_off_first: Duration::from_secs(1),
        cool_off_max: Duration::from_secs(300),
    };

    fn check(crashes_after_being_up: &[u64], expected_waits: &[u64]) {
        let mut cool_off = CoolOff::default();
        let wait =
            |secs: &u64| cool_off.after_crash(Duration::from_secs(*secs), &TIMEOUTS, 0.5).as_secs();
        assert_eq!(crashes_after_being_up.iter().map(wait).collect::<Vec<_>>(), expected_waits);
    }

    #[test]
    fn the_first_restart_is_at_once_and_later_ones_wait_longer() {
        check(&[0; 12], &[0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    }

    #[test]
    fn a_stable_dyno_starts_afresh() {
        check(&[0, 59, 59, 60, 0], &[0, 1, 2, 0, 1]);
    }

    proptest! {
        #[test]
        fn waits_never_pass_the_longest_and_never_shrink_but_for_jitter(
            randoms in prop::collection::vec(0.0..=1.0f64, 1..80),
        ) {
            let mut cool_off = CoolOff::default();
            let mut last = Duration::ZERO;
            for random in randoms {
                let wait = cool_off.after_crash(Duration::ZERO, &TIMEOUTS, random);
                prop_assert!(wait <= TIMEOUTS.cool_off_max);
                prop_assert!(wait >= last.mul_f64(0.9));
                last = last.max(wait);
            }
        }
    }
}
