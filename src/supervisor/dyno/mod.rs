//! The life of one dyno: each state is an await, and says which one comes next.
//!
//! Knows nothing of configurations and of other dynos. What it is told arrives as [`Orders`]; what happens
//! leaves as lines, events, and changes of the app's line-up.
//!
//! [`Orders`]: crate::supervisor::place::Orders

mod boot; // starting
mod up; // up
mod replace; // up, with a successor that boots
mod leave; // crashed, draining, stopping
#[cfg(test)]
mod tests; // lives on a paused clock

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::supervisor::cool_off::CoolOff;
use crate::supervisor::place::{Event, Place, State};
use crate::supervisor::ports::Ports;
use crate::supervisor::routes::{Entry, Routes};
use crate::supervisor::running::Running;
use crate::supervisor::spawn::{Process, Spawn};

/// One dyno, from its first start until it is told to stop.
pub(crate) struct Dyno<S: Spawn> {
    place: Place,
    spawn: S,
    ports: Ports,
    routes: Arc<Routes>,
    /// Its place in the app's line-up; web only.
    entry: Option<Entry>,
    state: Option<State>,
    /// The release that was last started, successfully or not.
    release: u64,
    cool_off: CoolOff,
    /// Processes that are not the dyno any more, or never became it, and are ending.
    leaving: Vec<JoinHandle<()>>,
    /// Last, so that it is dropped last.
    _ended: Ended,
}

/// A process that another daemon started, and that goes on here.
pub(crate) struct Adopted<P> {
    pub(crate) running: Running<P>,
    /// The release that it runs.
    pub(crate) release: u64,
    /// Whether it had come up.
    pub(crate) is_up: bool,
}

/// Where a life goes on.
enum Step<P> {
    /// There is no process, and one is to be started.
    Boot,
    /// This process was started and is not ready.
    ComeUp(Running<P>),
    /// This process is ready, and the other one, which it replaces, may go once it is in the line-up.
    Up(Running<P>, Option<Running<P>>),
    /// There is no process, and none is to be started for so long.
    CoolOff(Duration),
    End,
}

/// What the orders ask of a dyno that runs.
enum Call {
    Stop,
    Restart,
}

impl<S: Spawn> Dyno<S> {
    /// A dyno that has not begun to live. A web dyno counts as starting from here on.
    pub(crate) fn new(place: Place, spawn: S, ports: Ports, routes: Arc<Routes>) -> Self {
        let entry = place.dyno.process_type.is_web().then(|| routes.enter(&place.app));
        let ended = Ended(place.clone());
        Self {
            place,
            spawn,
            ports,
            routes,
            entry,
            state: None,
            release: 0,
            cool_off: CoolOff::default(),
            leaving: Vec::new(),
            _ended: ended,
        }
    }

    /// Lives until told to stop.
    pub(crate) async fn live(self) {
        self.go(Step::Boot).await;
    }

    /// Goes on with a process that was there before, and lives until told to stop.
    pub(crate) async fn go_on(mut self, adopted: Adopted<S::Process>) {
        let Adopted { running, release, is_up } = adopted;
        self.release = release;
        if is_up {
            self.tell_started(&running);
            self.go(Step::Up(running, None)).await;
        } else {
            self.go(Step::ComeUp(running)).await;
        }
    }

    async fn go(mut self, mut step: Step<S::Process>) {
        loop {
            step = match step {
                Step::Boot => self.boot(),
                Step::ComeUp(running) => self.come_up(running).await,
                Step::Up(running, replaced) => self.up(running, replaced).await,
                Step::CoolOff(wait) => self.cool_off(wait).await,
                Step::End => break,
            };
        }
        self.leave();
        for leaving in self.leaving.drain(..) {
            let _ = leaving.await;
        }
    }

    fn enter(&mut self, state: State) {
        let before = self.state.replace(state);
        if before == Some(state) {
            return;
        }
        if let (State::Starting, Some(entry)) = (state, &self.entry) {
            entry.starting();
        }
        if let Some(before) = before.map(State::outward).filter(|before| *before != state.outward())
        {
            self.place.say(format_args!("State changed from {before} to {}", state.outward()));
        }
        self.place.tell(Event::Entered(state));
    }

    fn tell_started(&self, running: &Running<S::Process>) {
        self.place
            .tell(Event::Started { pid: running.process.pid(), record: running.record.clone() });
    }
}

/// Returns once the orders ask for something else than to run this release. Whoever gives the orders is gone:
/// stop. Dropped before, it has heard nothing that it would not hear again.
async fn called(place: &mut Place, release: u64) -> Call {
    loop {
        {
            let orders = place.orders.borrow_and_update();
            if orders.stop {
                return Call::Stop;
            }
            if orders.program.release != release {
                return Call::Restart;
            }
        }
        if place.orders.changed().await.is_err() {
            return Call::Stop;
        }
    }
}

/// Tells the manager that the dyno is no more, also when a panic unwinds: a stop must not wait for it.
struct Ended(Place);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.tell(Event::Ended);
    }
}
