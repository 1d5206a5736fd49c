//! How long an app's requests take and wait, counted where its number of dynos follows that.
//!
//! Each worker has its own counters and is the only one that writes them, by plain loads and stores; whoever reads
//! sums them up, and takes the difference to what it saw before.

use std::array;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

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

/// One writer per counter, so no read-modify-write is needed. Counters wrap; whoever reads takes differences.
fn add(counter: &AtomicU32, by: u32) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
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

// ---- durations --------------------------------------------------------------------------------------------

/// Each doubling of the time has so many buckets: one is a sixteenth wide at most.
const PARTS: u32 = 16;
/// Microseconds below which times are not told apart.
const FIRST: u32 = 256;
/// From [`FIRST`] on up to 274 s: beyond the longest timer that a request usually meets.
const DOUBLINGS: u32 = 20;
const BUCKETS: usize = (1 + DOUBLINGS * PARTS) as usize;

/// How many took how long.
struct Histogram([AtomicU32; BUCKETS]);

impl Histogram {
    fn new() -> Self {
        Self(array::from_fn(|_| AtomicU32::new(0)))
    }

    fn count(&self, duration: Duration) {
        let micros = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
        add(&self.0[bucket(micros)], 1);
    }

    fn add_to(&self, total: &mut Durations) {
        for (total, counter) in total.0.iter_mut().zip(&self.0) {
            *total = total.wrapping_add(counter.load(Ordering::Relaxed));
        }
    }
}

/// The same, as it was at one moment.
#[derive(Clone, Debug)]
struct Durations(Box<[u32; BUCKETS]>);

impl Default for Durations {
    fn default() -> Self {
        Self(Box::new([0; BUCKETS]))
    }
}

impl Durations {
    fn since(&self, earlier: &Self) -> Self {
        Self(Box::new(array::from_fn(|at| self.0[at].wrapping_sub(earlier.0[at]))))
    }

    fn count(&self) -> u32 {
        self.0.iter().fold(0, |sum, it| sum.wrapping_add(*it))
    }

    fn quantile(&self, hundredths: u64) -> Option<Duration> {
        let rank = (u64::from(self.count()) * hundredths).div_ceil(100);
        let mut seen = 0;
        let within = self.0.iter().position(|count| {
            seen += u64::from(*count);
            seen >= rank
        });
        within.filter(|_| rank > 0).map(|bucket| Duration::from_micros(end(bucket)))
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
