//! What the dynos of one release have answered, counted where releases are judged by it.
//!
//! As in `load.rs`, each worker writes its own counters, and whoever reads takes differences. The records of the
//! release's dynos lead to it, so a request counts for the release that it met, however many serve at that time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::table::histogram::{Durations, Histogram, add};

/// What the workers count of one release.
pub struct Tally(Box<[Counters]>);

/// Of one worker, on cache lines of its own.
#[repr(align(128))]
struct Counters {
    took: Histogram,
    failed: AtomicU32,
}

impl Tally {
    /// For so many workers; nothing counted yet.
    pub fn new(workers: usize) -> Arc<Self> {
        let counters = || Counters { took: Histogram::new(), failed: AtomicU32::new(0) };
        Arc::new(Self((0..workers).map(|_| counters()).collect()))
    }

    /// Counts a request that has ended, on the thread of this worker alone: how long it was with its dyno, and whether
    /// that failed it.
    pub fn count(&self, worker: usize, took: Duration, failed: bool) {
        let counters = &self.0[worker];
        counters.took.count(took);
        add(&counters.failed, u32::from(failed));
    }

    /// All that was counted so far.
    pub fn total(&self) -> Answered {
        let mut total = Answered::default();
        for counters in &self.0 {
            counters.took.add_to(&mut total.took);
            total.failed = total.failed.wrapping_add(counters.failed.load(Ordering::Relaxed));
        }
        total
    }
}

/// Requests that have ended, over all workers.
#[derive(Clone, Debug, Default)]
pub struct Answered {
    took: Durations,
    failed: u32,
}

impl Answered {
    /// Those that have ended since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            took: self.took.since(&earlier.took),
            failed: self.failed.wrapping_sub(earlier.failed),
        }
    }

    /// How many there are.
    pub fn requests(&self) -> u32 {
        self.took.count()
    }

    /// How many of them a dyno failed. A reader that meets a writer may see a request and not yet its failure.
    pub fn failed(&self) -> u32 {
        self.failed.min(self.requests())
    }

    /// What at most a twentieth of them took longer at the dyno. `None`: there are none.
    pub fn p95(&self) -> Option<Duration> {
        self.took.quantile(95)
    }

    /// How many of them took longer than this, by at most a sixteenth too few.
    pub fn longer_than(&self, duration: Duration) -> u32 {
        self.took.longer_than(duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_summed_up_and_what_was_before_is_left_out() {
        let ms = Duration::from_millis;
        let tally = Tally::new(2);
        (0..10).for_each(|_| tally.count(0, ms(900), true));
        let before = tally.total();
        (0..90).for_each(|_| tally.count(0, ms(10), false));
        (0..10).for_each(|_| tally.count(1, ms(200), true));
        let since = tally.total().since(&before);
        assert_eq!((since.requests(), since.failed(), since.longer_than(ms(100))), (100, 10, 10));
        let p95 = since.p95().unwrap();
        assert!(p95 >= ms(200) && p95 <= ms(213), "{p95:?}");
        assert_eq!(before.since(&before).p95(), None);
    }
}
