//! The router's clock: read once per turn, handed down as a number.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::config::limits::TICK;
use crate::wall_clock;

const TICK_MICROS: u64 = TICK.as_micros() as u64;

/// A moment, in microseconds since the process began to route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

/// A deadline, in ticks of the same clock. 32 bits of 100 ms are 13 years.
pub(crate) type Tick = u32;

/// The wall clock minus the router's, in microseconds; renewed on each tick of a worker.
static WALL_OFFSET: AtomicU64 = AtomicU64::new(0);

impl Moment {
    /// Reads the clock (about 50 ns).
    #[expect(clippy::disallowed_methods, reason = "this is the router's clock")]
    pub(crate) fn now() -> Self {
        static EPOCH: OnceLock<Instant> = OnceLock::new();
        // From 1 s on, so that tick 0 is never a deadline that lies ahead.
        Self(EPOCH.get_or_init(Instant::now).elapsed().as_micros() as u64 + 1_000_000)
    }

    /// As a number, for other threads.
    pub(crate) fn micros(self) -> u64 {
        self.0
    }

    /// The tick that has begun.
    pub(crate) fn tick(self) -> Tick {
        (self.0 / TICK_MICROS) as Tick
    }

    /// The tick at which `after` has passed: rounded up, so that a timer never fires early.
    pub(crate) fn deadline(self, after: Duration) -> Tick {
        let micros = self.0.saturating_add(after.as_micros() as u64);
        Tick::try_from(micros.div_ceil(TICK_MICROS)).unwrap_or(Tick::MAX)
    }

    /// How long after `earlier` this is.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// The same moment on the wall, since the Unix epoch.
    pub(crate) fn wall(self) -> Duration {
        Duration::from_micros(self.0 + WALL_OFFSET.load(Ordering::Relaxed))
    }

    /// The moment this much later.
    #[cfg(test)]
    pub(crate) fn plus(self, after: Duration) -> Self {
        Self(self.0 + after.as_micros() as u64)
    }

    /// Follows steps of the wall clock. Called on each tick, and before the first request.
    pub(crate) fn follow_the_wall() {
        let wall = wall_clock::since_epoch().as_micros() as u64;
        WALL_OFFSET.store(wall.saturating_sub(Self::now().0), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_never_early_and_at_most_a_tick_late() {
        for (now, after_ms, expected) in [
            (1_000_000, 0, 10),
            (1_000_001, 0, 11),
            (1_000_000, 100, 11),
            (1_000_001, 100, 12),
            (1_050_000, 30_000, 311),
        ] {
            assert_eq!(Moment(now).deadline(Duration::from_millis(after_ms)), expected);
        }
        assert_eq!(Moment(0).deadline(Duration::MAX), Tick::MAX);
    }
}
