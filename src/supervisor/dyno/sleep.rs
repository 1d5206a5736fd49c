//! *Asleep*: nothing runs until a request wakes the app.

use crate::supervisor::dyno::{Dyno, Step};
use crate::supervisor::place::State;
use crate::supervisor::running::Running;
use crate::supervisor::spawn::Spawn;

impl<S: Spawn> Dyno<S> {
    /// The process, if there is one, ends beside this: who wakes the dyno does not wait for it. A request that it
    /// still holds is finished.
    pub(super) fn fall_asleep(&mut self, running: Option<Running<S::Process>>) -> Step<S::Process> {
        self.place.say("Idling");
        // Out of the line-up first: the process must not go while it gets requests.
        self.enter(State::Asleep);
        if let Some(running) = running {
            self.retire(running);
        }
        self.cool_off.reset();
        Step::Sleep
    }

    pub(super) async fn sleep(&mut self) -> Step<S::Process> {
        self.enter(State::Asleep);
        self.turn = None;
        // Whoever gives the orders is gone: stop.
        let heard = self.place.orders.wait_for(|orders| orders.stop || !orders.asleep).await;
        if heard.is_ok_and(|orders| !orders.stop) {
            self.place.say("Unidling");
            self.enter(State::Starting);
            self.await_earlier_worker().await;
            return Step::Boot;
        }
        self.leave();
        self.enter(State::Stopping);
        Step::End
    }

    /// Nobody waits for a worker, and two of one name might do one job twice.
    async fn await_earlier_worker(&mut self) {
        if self.entry.is_none() {
            for leaving in self.leaving.drain(..) {
                // A panic in it has been logged.
                let _ = leaving.await;
            }
        }
    }
}
