//! When an app falls asleep, and when it wakes: one watch per app that sleeps. It decides nothing else; the
//! manager tells the dynos.
//!
//! Requests leave traces in the records of the dynos that they are sent to, and those that find the app asleep
//! ring its bell. So what is refused before a dyno is looked for neither keeps an app awake nor wakes it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{self, Instant};

use crate::config::limits;
use crate::shutdown::Shutdown;
use crate::table::{Roster, Standing};

/// What the manager hears of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nap {
    /// No request for long enough.
    Idle,
    /// A request has come while it slept.
    Called,
}

/// The watch over one app; it ends when this is dropped.
pub(crate) struct Sleeper {
    after: watch::Sender<Duration>,
}

impl Sleeper {
    /// Begins to watch an app, which is awake. `tell` must not block.
    pub(crate) fn start(
        roster: Arc<Roster>,
        after: Duration,
        shutdown: &Shutdown,
        tell: impl Fn(Nap) + Send + 'static,
    ) -> Self {
        let (after, receiver) = watch::channel(after);
        shutdown.spawn(watch_over(roster, receiver, tell));
        Self { after }
    }

    /// Has it fall asleep after another time.
    pub(crate) fn set_after(&self, after: Duration) {
        self.after.send_replace(after);
    }
}

async fn watch_over(
    roster: Arc<Roster>,
    mut after: watch::Receiver<Duration>,
    tell: impl Fn(Nap) + Send,
) {
    let mut traces = Traces::default();
    let mut idle_since = Instant::now();
    let mut is_told = false;
    loop {
        let sleep_after = *after.borrow_and_update();
        // Late by a twentieth at most: nobody knows the minute at which an app falls asleep.
        let look = (sleep_after / 20).clamp(limits::IDLE_LOOK_MIN, limits::IDLE_LOOK_MAX);
        tokio::select! {
            changed = after.changed() => if changed.is_err() { return },
            // Also while it is awake, as far as is known here: nobody rings for nothing.
            () = roster.bell().rung() => {
                tell(Nap::Called);
                (is_told, idle_since) = (false, Instant::now());
            }
            () = time::sleep(look), if !is_told => {
                if traces.are_new(&roster) {
                    idle_since = Instant::now();
                } else if idle_since.elapsed() >= sleep_after {
                    tell(Nap::Idle);
                    is_told = true;
                }
            }
        }
    }
}

/// What requests had left behind at the last look.
#[derive(Default)]
struct Traces {
    /// By record: how often it was used.
    uses: Vec<(u64, u32)>,
}

impl Traces {
    /// Whether the app is in use, or was since the last look. One that boots is.
    fn are_new(&mut self, roster: &Roster) -> bool {
        let lineup = roster.lineup();
        let uses: Vec<_> = lineup.all().map(|dyno| (dyno.id(), dyno.uses())).collect();
        let in_use = lineup.standing == Standing::Starting
            || roster.held().load(Ordering::Relaxed) > 0
            || lineup.all().any(|dyno| dyno.in_flight() > 0);
        let changed = uses != self.uses;
        self.uses = uses;
        changed || in_use
    }
}
