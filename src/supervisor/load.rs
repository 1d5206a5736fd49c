//! The load of a dyno, as log-runtime-metrics has it: runnable tasks, averaged over the last minutes with the older
//! ones counting less and less. Pure.

use std::time::Duration;

/// Averages over 1, 5 and 15 minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Load(pub(crate) [f64; 3]);

const PERIODS: [Duration; 3] =
    [Duration::from_secs(60), Duration::from_secs(5 * 60), Duration::from_secs(15 * 60)];

impl Load {
    /// Takes in how many tasks were runnable, so long after the last time.
    pub(crate) fn sample(&mut self, runnable: u32, passed: Duration) {
        for (average, period) in self.0.iter_mut().zip(PERIODS) {
            // Dev Center, log-runtime-metrics: what weight the past keeps.
            let past = (-passed.as_secs_f64() / period.as_secs_f64()).exp();
            *average = (1.0 - past) * f64::from(runnable) + past * *average;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_minute_of_work_is_seen_in_the_minutes_average_first() {
        let mut load = Load::default();
        for _ in 0..3 {
            load.sample(2, Duration::from_secs(20));
        }
        let shown = load.0.map(|it| format!("{it:.2}"));
        assert_eq!(shown, ["1.26", "0.36", "0.13"]);
    }

    proptest! {
        #[test]
        fn an_average_lies_between_what_was_seen(samples in prop::collection::vec(0u32..500, 1..50)) {
            let mut load = Load::default();
            for sample in &samples {
                load.sample(*sample, Duration::from_secs(20));
            }
            let most = f64::from(*samples.iter().max().unwrap());
            prop_assert!(load.0.iter().all(|average| (0.0..=most).contains(average)));
        }
    }
}
