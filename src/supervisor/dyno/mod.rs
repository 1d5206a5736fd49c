//! The life of one dyno: each state is an await, and says which one comes next.
//!
//! Knows nothing of configurations and of other dynos. What it is told arrives as [`Orders`]; what happens
//! leaves as lines, events, and changes of the app's line-up.

mod boot; // starting
mod up; // up
mod tend; // up: what is done meanwhile, and what ends it
mod freeze; // up, and stopped where it is
mod sleep; // asleep
mod warm; // out of the line-up, for the case that it is wanted again
mod replace; // up, with a successor that boots
mod leave; // crashed, draining, stopping
#[cfg(test)]
mod tests; // lives on a paused clock

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::supervisor::cool_off::CoolOff;
use crate::supervisor::dyno::warm::Warm;
use crate::supervisor::place::{Ended, Event, Orders, Place, Replace, State};
use crate::supervisor::ports::Ports;
use crate::supervisor::rollout::Reason;
use crate::supervisor::routes::{Entry, Routes};
use crate::supervisor::running::Running;
use crate::supervisor::spawn::{Process, Spawn};
use crate::supervisor::turns::Turn;

/// One dyno, from its first start until it is told to stop.
pub(crate) struct Dyno<S: Spawn> {
    place: Place,
    spawn: S,
    ports: Ports,
    routes: Arc<Routes>,
    /// Its place in the app's line-up; web only.
    entry: Option<Arc<Entry>>,
    state: Option<State>,
    /// What the process that counts was started for, or was to be.
    ran: Ran,
    /// What was last started, successfully or not: nothing is tried twice beside a process that goes on.
    tried: Ran,
    /// The process that counts has come up, and that was told.
    has_come_up: bool,
    /// Its turn to be replaced, until it is up again.
    turn: Option<Turn>,
    cool_off: CoolOff,
    /// When its last process crashed, by the monotonic clock, where the next one starts at once.
    ended_at: Option<Duration>,
    /// The process of the release before, where that is kept warm.
    warm: Option<Warm<S::Process>>,
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
    /// There is no process, and none is to be started until a request comes.
    Sleep,
    End,
}

/// What the orders ask of a dyno that runs.
enum Call {
    Stop,
    Sleep,
    Restart,
}

/// Which orders a start has followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ran {
    release: u64,
    restart: u64,
}

impl Ran {
    fn of(orders: &Orders) -> Self {
        Self { release: orders.program.release, restart: orders.restart }
    }
}

impl Call {
    /// What orders ask of a dyno that runs what others asked for.
    fn of(orders: &Orders, ran: Ran) -> Option<Self> {
        if orders.stop {
            Some(Self::Stop)
        } else if orders.asleep {
            Some(Self::Sleep)
        } else {
            (Ran::of(orders) != ran).then_some(Self::Restart)
        }
    }
}

impl<S: Spawn> Dyno<S> {
    /// A dyno that has not begun to live. A web dyno counts as starting from here on.
    pub(crate) fn new(place: Place, spawn: S, ports: Ports, routes: Arc<Routes>) -> Self {
        let entry = place.dyno.process_type.is_web().then(|| Arc::new(routes.enter(&place.app)));
        let ended = Ended(place.clone());
        Self {
            place,
            spawn,
            ports,
            routes,
            entry,
            state: None,
            ran: Ran::default(),
            tried: Ran::default(),
            has_come_up: false,
            turn: None,
            cool_off: CoolOff::default(),
            ended_at: None,
            warm: None,
            leaving: Vec::new(),
            _ended: ended,
        }
    }

    /// Lives until told to stop.
    pub(crate) async fn live(self) {
        let asleep = self.place.orders.borrow().asleep;
        self.go(if asleep { Step::Sleep } else { Step::Boot }).await;
    }

    /// Goes on with a process that was there before, and lives until told to stop.
    pub(crate) async fn go_on(mut self, adopted: Adopted<S::Process>) {
        let Adopted { running, release, is_up } = adopted;
        // The daemon before this one may have frozen it.
        running.process.thaw();
        // What it has followed so far is no order of this daemon.
        self.ran = Ran { release, restart: 0 };
        self.tried = self.ran;
        let step = match is_up {
            true if running.process.has_ended() => self.crashed_unseen(running).await,
            true => {
                self.tell_started(&running);
                Step::Up(running, None)
            }
            false => Step::ComeUp(running),
        };
        self.go(step).await;
    }

    async fn go(mut self, mut step: Step<S::Process>) {
        loop {
            step = match step {
                Step::Boot => self.boot(),
                Step::ComeUp(running) => self.come_up(running).await,
                Step::Up(running, replaced) => self.up(running, replaced).await,
                Step::CoolOff(wait) => self.cool_off(wait).await,
                Step::Sleep => self.sleep().await,
                Step::End => break,
            };
        }
        self.leave();
        self.await_leaving().await;
    }

    async fn await_leaving(&mut self) {
        for leaving in self.leaving.drain(..) {
            // A panic in it has been logged.
            let _ = leaving.await;
        }
    }

    fn enter(&mut self, state: State) {
        let before = self.state.replace(state);
        if before == Some(state) {
            return;
        }
        match (state, &self.entry) {
            (State::Starting, Some(entry)) => entry.starting(),
            (State::Asleep, Some(entry)) => entry.asleep(),
            _ => {}
        }
        let before = before.map(State::in_lines).filter(|before| *before != state.in_lines());
        if let Some(before) = before {
            self.place.say(format_args!("State changed from {before} to {}", state.in_lines()));
        }
        self.place.tell(Event::Entered(state));
    }

    /// What the orders ask of the process that counts. What was tried beside it and failed is not tried again.
    fn call(&self, orders: &Orders) -> Option<Call> {
        let call = Call::of(orders, self.ran);
        call.filter(|call| !matches!(call, Call::Restart) || Ran::of(orders) != self.tried)
    }

    /// How the process that counts is replaced by one as it is ordered now.
    fn replacement(&self) -> Replace {
        let orders = self.place.orders.borrow();
        let is_other = orders.program.release != self.ran.release;
        if is_other { orders.replace } else { Replace::Beside }
    }

    fn tell_came_up(&mut self) {
        if !std::mem::replace(&mut self.has_come_up, true) {
            self.place.tell(Event::CameUp { release: self.ran.release });
        }
    }

    fn tell_failed(&self, ran: Ran, reason: Reason, last_lines: Vec<String>) {
        let failure = Box::new((reason, last_lines));
        self.place.tell(Event::Failed { release: ran.release, failure });
    }

    fn tell_started(&self, running: &Running<S::Process>) {
        self.place
            .tell(Event::Started { pid: running.process.pid(), record: running.record.clone() });
    }
}

/// Returns once the orders ask for something else than to run what runs. Whoever gives the orders is gone:
/// stop. Dropped before, it has heard nothing that it would not hear again.
async fn called(place: &mut Place, ran: Ran) -> Call {
    loop {
        if let Some(call) = Call::of(&place.orders.borrow_and_update(), ran) {
            return call;
        }
        if place.orders.changed().await.is_err() {
            return Call::Stop;
        }
    }
}
