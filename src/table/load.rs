//! How long an app's requests take and wait, counted where its number of dynos follows that.
//!
//! Each worker has its own counters and is the only one that writes them, by plain loads and stores; whoever reads
//! sums them up, and takes the difference to what it saw before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::table::histogram::{Durations, Histogram, add};

/// What the workers count of one app.
pub struct Load(Box<[Counters]>);

/// Of one worker. Two cache lines apart from its neighbours', so that workers never write to the same one.
#[repr(align(128))]
struct Counters {
    service: Histogram,
    wait: Histogram,
    failed: AtomicU32,
    late: AtomicU32,
    pipes: AtomicU32,
}

impl Load {
    /// For so many workers; nothing counted yet.
    pub fn new(workers: usize) -> Arc<Self> {
        let counters = || Counters {
            service: Histogram::new(),
            wait: Histogram::new(),
            failed: AtomicU32::new(0),
            late: AtomicU32::new(0),
            pipes: AtomicU32::new(0),
        };
        Arc::new(Self((0..workers).map(|_| counters()).collect()))
    }

    /// Counts a request that has ended, on the thread of this worker alone: how long it waited for a connection to a
    /// dyno, how long it was with that from then on, and whether it has the dyno's whole answer.
    pub fn count(&self, worker: usize, wait: Duration, service: Option<Duration>, answered: bool) {
        let counters = &self.0[worker];
        counters.wait.count(wait);
        if let Some(service) = service {
            counters.service.count(service);
            add(&counters.failed, u32::from(!answered));
        }
    }

    /// Counts an answer for which nobody waited any more, of a request that has ended before.
    pub fn late(&self, worker: usize) {
        add(&self.0[worker].late, 1);
    }

    /// Counts a request that becomes a pipe, until the guard is dropped; as [`count`](Self::count).
    pub fn pipe(self: &Arc<Self>, worker: usize) -> Pipe {
        add(&self.0[worker].pipes, 1);
        Pipe { load: self.clone(), worker }
    }

    /// Pipes that are open.
    pub fn pipes(&self) -> u32 {
        self.0.iter().map(|it| it.pipes.load(Ordering::Relaxed)).fold(0, u32::wrapping_add)
    }

    /// All that was counted so far.
    pub fn total(&self) -> Served {
        let mut total = Served::default();
        for counters in &self.0 {
            counters.service.add_to(&mut total.service);
            counters.wait.add_to(&mut total.wait);
            total.failed = total.failed.wrapping_add(counters.failed.load(Ordering::Relaxed));
            total.late = total.late.wrapping_add(counters.late.load(Ordering::Relaxed));
        }
        total
    }
}

/// An open pipe, counted until this is dropped, also when a panic unwinds.
pub struct Pipe {
    load: Arc<Load>,
    worker: usize,
}

impl Drop for Pipe {
    fn drop(&mut self) {
        add(&self.load.0[self.worker].pipes, u32::MAX);
    }
}

/// Requests that have ended, over all workers.
#[derive(Clone, Debug, Default)]
pub struct Served {
    service: Durations,
    wait: Durations,
    failed: u32,
    late: u32,
}

impl Served {
    /// Those that have ended since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            service: self.service.since(&earlier.service),
            wait: self.wait.since(&earlier.wait),
            failed: self.failed.wrapping_sub(earlier.failed),
            late: self.late.wrapping_sub(earlier.late),
        }
    }

    /// How many of them were with a dyno.
    pub fn requests(&self) -> u32 {
        self.service.count()
    }

    /// How many answers dynos have given, those included for which nobody waited any more.
    pub fn answered(&self) -> u32 {
        self.requests().saturating_sub(self.failed).wrapping_add(self.late)
    }

    /// What at most a twentieth of them took longer at the dyno. `None`: there are none.
    pub fn service_p95(&self) -> Option<Duration> {
        self.service.quantile(95)
    }

    /// What at most a twentieth of them waited longer for a connection to a dyno. `None`: there are none.
    pub fn wait_p95(&self) -> Option<Duration> {
        self.wait.quantile(95)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn what_was_counted_since_is_told_apart_from_what_was_before() {
        let load = Load::new(2);
        (0..50).for_each(|_| load.count(0, ms(9), Some(ms(900)), true));
        let before = load.total();
        assert_eq!(before.since(&before).service_p95(), None);
        (0..90).for_each(|_| load.count(0, ms(0), Some(ms(100)), true));
        (0..10).for_each(|_| load.count(1, ms(3), Some(ms(200)), false));
        let since = load.total().since(&before);
        assert_eq!((since.requests(), since.answered()), (100, 90));
        load.late(1);
        assert_eq!(load.total().since(&before).answered(), 91);
        let about = |found: Option<Duration>, expected: u64| {
            let found = found.unwrap();
            assert!(found >= ms(expected) && found <= ms(expected) * 17 / 16, "{found:?}");
        };
        about(since.service_p95(), 200);
        about(since.wait_p95(), 3);
    }

    #[test]
    fn pipes_count_while_they_are_open() {
        let load = Load::new(2);
        let (one, two) = (load.pipe(0), load.pipe(1));
        assert_eq!(load.pipes(), 2);
        drop(one);
        assert_eq!(load.pipes(), 1);
        drop(two);
        assert_eq!(load.pipes(), 0);
    }

    proptest! {
        #[test]
        fn at_most_a_twentieth_took_longer(millis in prop::collection::vec(0_u64..100_000, 1..200)) {
            let load = Load::new(1);
            millis.iter().for_each(|it| load.count(0, ms(0), Some(ms(*it)), true));
            let p95 = load.total().service_p95().unwrap();
            let longer = millis.iter().filter(|it| ms(**it) > p95).count();
            prop_assert!(longer * 20 <= millis.len());
        }
    }
}
