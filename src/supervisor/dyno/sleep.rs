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
        while self.is_called().await {
            // Nobody waits for a worker, and two of one name might do one job twice.
            if self.entry.is_none() && !self.leaving.is_empty() {
                self.await_leaving().await;
                continue;
            }
            self.place.say("Unidling");
            return Step::Boot;
        }
        self.cease()
    }

    /// Returns once it is to wake, or `false`, to stop. Whoever gives the orders is gone: stop.
    async fn is_called(&mut self) -> bool {
        let heard = self.place.orders.wait_for(|orders| orders.stop || !orders.asleep).await;
        heard.is_ok_and(|orders| !orders.stop)
    }
}
