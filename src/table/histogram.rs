//! How many took how long: counted by one thread, read by others.

use std::array;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Each doubling of the time has so many buckets: one is a sixteenth wide at most.
const PARTS: u32 = 16;
/// Microseconds below which times are not told apart.
const FIRST: u32 = 256;
/// From [`FIRST`] on up to 274 s: beyond the longest timer that a request usually meets.
const DOUBLINGS: u32 = 20;
const BUCKETS: usize = (1 + DOUBLINGS * PARTS) as usize;

/// How many took how long.
pub(super) struct Histogram([AtomicU32; BUCKETS]);

impl Histogram {
    pub(super) fn new() -> Self {
        Self(array::from_fn(|_| AtomicU32::new(0)))
    }

    pub(super) fn count(&self, duration: Duration) {
        let micros = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
        add(&self.0[bucket(micros)], 1);
    }

    pub(super) fn add_to(&self, total: &mut Durations) {
        for (total, counter) in total.0.iter_mut().zip(&self.0) {
            *total = total.wrapping_add(counter.load(Ordering::Relaxed));
        }
    }
}

/// The same, as it was at one moment.
#[derive(Clone, Debug)]
pub(super) struct Durations(Box<[u32; BUCKETS]>);

impl Default for Durations {
    fn default() -> Self {
        Self(Box::new([0; BUCKETS]))
    }
}

impl Durations {
    pub(super) fn since(&self, earlier: &Self) -> Self {
        Self(Box::new(array::from_fn(|at| self.0[at].wrapping_sub(earlier.0[at]))))
    }

    pub(super) fn count(&self) -> u32 {
        self.0.iter().fold(0, |sum, it| sum.wrapping_add(*it))
    }

    pub(super) fn quantile(&self, hundredths: u64) -> Option<Duration> {
        let rank = (u64::from(self.count()) * hundredths).div_ceil(100);
        let mut seen = 0;
        let within = self.0.iter().position(|count| {
            seen += u64::from(*count);
            seen >= rank
        });
        within.filter(|_| rank > 0).map(|bucket| Duration::from_micros(end(bucket)))
    }

    /// How many took longer than this, for certain: a bucket that this lies in does not count.
    pub(super) fn longer_than(&self, duration: Duration) -> u32 {
        let micros = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
        self.0[bucket(micros) + 1..].iter().fold(0, |sum, it| sum.wrapping_add(*it))
    }
}

/// Where a time is counted.
fn bucket(micros: u32) -> usize {
    if micros < FIRST {
        return 0;
    }
    let doubling = micros.ilog2();
    let part = (micros >> (doubling - PARTS.ilog2())) - PARTS;
    ((1 + (doubling - FIRST.ilog2()) * PARTS + part) as usize).min(BUCKETS - 1)
}

/// The time, in microseconds, at which a bucket ends.
fn end(bucket: usize) -> u64 {
    let Some(bucket) = (bucket as u64).checked_sub(1) else { return FIRST.into() };
    let (doubling, part) = (bucket / u64::from(PARTS), bucket % u64::from(PARTS));
    (u64::from(FIRST / PARTS) * (u64::from(PARTS) + part + 1)) << doubling
}

/// One writer per counter, so no read-modify-write is needed. Counters wrap; whoever reads takes differences.
pub(super) fn add(counter: &AtomicU32, by: u32) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn what_took_longer_is_what_lies_beyond_the_bucket() {
        let histogram = Histogram::new();
        for millis in [0, 1, 100, 101, 200, 300, 900_000] {
            histogram.count(ms(millis));
        }
        let mut durations = Durations::default();
        histogram.add_to(&mut durations);
        let longer = [0, 50, 150, 250, 800_000].map(|it| durations.longer_than(ms(it)));
        assert_eq!(longer, [6, 5, 3, 2, 0]);
    }

    proptest! {
        #[test]
        fn each_time_is_below_the_end_of_its_bucket_and_not_below_that_of_the_one_before(micros: u32) {
            let bucket = bucket(micros);
            if bucket < BUCKETS - 1 {
                prop_assert!(u64::from(micros) < end(bucket));
            }
            if let Some(before) = bucket.checked_sub(1) {
                prop_assert!(u64::from(micros) >= end(before));
                prop_assert!(end(bucket) - end(before) <= end(before) / 16);
            }
        }
    }
}
