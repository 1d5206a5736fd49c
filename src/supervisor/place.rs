//! The place of one dyno: its name, what it is told to do, and where it says what it does.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::config::{SupervisorTimeouts, Upkeep};
use crate::model::{AppName, DynoName, DynoState, Hundredths};
use crate::shutdown::Shutdown;
use crate::supervisor::figures::DynoUsage;
use crate::supervisor::program::{ProcessId, Program};
use crate::supervisor::rollout::Reason;
use crate::supervisor::turns::Turns;
use crate::table::Dyno;
use crate::telemetry::AppLog;

/// What a dyno is told, as a whole: it compares this with what it does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Orders {
    /// What to run. Another release than the one that runs means: restart.
    pub(crate) program: Arc<Program>,
    /// How to boot, stop and restart.
    pub(crate) timeouts: SupervisorTimeouts,
    /// How long requests may be finished before SIGTERM.
    pub(crate) drain: Duration,
    /// What is done about its memory and said of its load.
    pub(crate) watch: WatchOrders,
    /// How to look after it while it is up.
    pub(crate) upkeep: Arc<Upkeep>,
    /// Over how long its share of requests grows once it is up; web only.
    pub(crate) slow_start: Option<Duration>,
    /// How another release takes the place of the one that runs.
    pub(crate) replace: Replace,
    /// How long the process of another release is kept once its successor has its place; absent: it ends.
    pub(crate) keep_warm: Option<Duration>,
    /// Grows with each restart that was asked for.
    pub(crate) restart: u64,
    /// Run nothing until this is false again.
    pub(crate) asleep: bool,
    /// End.
    pub(crate) stop: bool,
}

/// How a dyno changes from one release to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replace {
    /// In its turn: a web dyno's successor boots beside it, any other dyno stops first.
    Beside,
    /// At once, and a web dyno's successor that is ready waits until this is another.
    Together,
    /// At once, and a web dyno's successor that is ready gets this part of the requests, in percent, until this is
    /// another.
    Canary(Hundredths),
    /// At once: it stops first, and requests are held.
    InPlace,
}

/// What is done about a dyno's memory and said of its load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WatchOrders {
    /// How long it may be above its memory quota until it is replaced; absent: as long as it likes.
    pub(crate) recycle_on_r14: Option<Duration>,
    /// Whether its load and memory are said in the log.
    pub(crate) say_metrics: bool,
}

/// A dyno's states, in the order of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Its process was started and is not ready.
    Starting,
    /// Ready.
    Up,
    /// Out of the table; finishes the requests that it holds.
    Draining,
    /// SIGTERM was sent.
    Stopping,
    /// Runs nothing until a request wakes its app.
    Asleep,
    /// Its process ended without being asked; waits for its next start.
    Crashed,
}

impl State {
    /// What people are told.
    pub(crate) fn outward(self) -> DynoState {
        match self {
            Self::Starting => DynoState::Starting,
            Self::Up => DynoState::Up,
            Self::Draining | Self::Stopping => DynoState::Down,
            Self::Asleep => DynoState::Idle,
            Self::Crashed => DynoState::Crashed,
        }
    }

    /// What a line calls it. Heroku's lines do not tell those that sleep from others that are down.
    pub(crate) fn in_lines(self) -> DynoState {
        match self.outward() {
            DynoState::Idle => DynoState::Down,
            state => state,
        }
    }
}

/// What the manager hears of a dyno, after it happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// It is in this state now.
    Entered(State),
    /// This process is the one that counts now; for a web dyno with its record in the table.
    Started { pid: ProcessId, record: Option<Arc<Dyno>> },
    /// This process takes so much.
    Took { pid: ProcessId, usage: Box<DynoUsage> },
    /// A process of this release is ready, and waits for those of the other dynos.
    Ready { release: u64 },
    /// It has come up with this release.
    CameUp { release: u64 },
    /// It has not come up with this release: why, and the last that it printed.
    Failed { release: u64, failure: Box<(Reason, Vec<String>)> },
    /// It is no more, and nothing of it is left.
    Ended,
}

/// What every part of one dyno's life has in hand.
#[derive(Clone)]
pub(crate) struct Place {
    /// Tells it apart from an earlier or later dyno of the same name.
    pub(crate) id: u64,
    pub(crate) app: AppName,
    pub(crate) dyno: DynoName,
    pub(crate) orders: watch::Receiver<Orders>,
    /// Those of its process type take turns in being replaced.
    pub(crate) turns: Arc<Turns>,
    pub(crate) log: AppLog,
    pub(crate) shutdown: Shutdown,
    /// Unbounded: a dyno has few events per start, and cool-offs bound its starts.
    pub(crate) events: mpsc::UnboundedSender<(u64, Event)>,
    /// From 0 to 1: moves cool-offs.
    pub(crate) jitter: fn() -> f64,
}

impl Place {
    /// A line of the platform about this dyno.
    pub(crate) fn say(&self, message: impl Display) {
        self.log.platform(&self.app, &self.dyno, &message);
    }

    /// Tells the manager. It may be gone already, at the very end.
    pub(crate) fn tell(&self, event: Event) {
        let _ = self.events.send((self.id, event));
    }

    pub(crate) fn timeouts(&self) -> SupervisorTimeouts {
        self.orders.borrow().timeouts
    }
}

/// Tells the manager that the dyno is no more, also when a panic unwinds: a stop must not wait for it.
pub(crate) struct Ended(pub(crate) Place);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.tell(Event::Ended);
    }
}

/// `30`, `0.5`: a duration as Heroku's lines have it, in seconds.
pub(crate) fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
