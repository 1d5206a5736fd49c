//! *Up*: requests are sent here, until something ends it.

use tokio::time::Instant;

use crate::config::limits;
use crate::supervisor::dyno::replace::Replaced;
use crate::supervisor::dyno::tend::{Next, Tending};
use crate::supervisor::dyno::{Dyno, Step};
use crate::supervisor::place::{Replace, State};
use crate::supervisor::running::Running;
use crate::supervisor::spawn::{Process, Spawn};

impl<S: Spawn> Dyno<S> {
    /// `replaced` goes as soon as the line-up has its successor.
    pub(super) async fn up(
        &mut self,
        mut running: Running<S::Process>,
        replaced: Option<Running<S::Process>>,
    ) -> Step<S::Process> {
        // One that was up before this daemon was is warm.
        let slow_start = self.state.and(self.place.orders.borrow().slow_start);
        let mut tending = Tending::begin(&self.place, running.record.as_deref(), slow_start);
        if let (Some(entry), Some(record)) = (&self.entry, &running.record) {
            entry.up(record);
        }
        if let Some(replaced) = replaced {
            self.see_off(replaced, &running);
        }
        running.process.came_up();
        self.enter(State::Up);
        self.turn = None;
        if self.entry.is_some() {
            self.tell_came_up();
        } else {
            tending.settle_after(limits::SETTLE);
        }
        if self.has_come_up {
            running.process.forget_lines();
        }
        let since = Instant::now();
        loop {
            let next = self.tend(&running, &mut tending).await;
            // Whatever comes next, it takes a process that hears of it.
            self.thaw(&running, &mut tending.frost);
            let why = match next {
                Next::Exited => return self.crashed(running, since.elapsed(), None).await,
                Next::Stop => return self.stop(running).await,
                Next::Sleep => return self.fall_asleep(Some(running)),
                Next::Replace(why, turn) => {
                    self.turn = turn;
                    why
                }
            };
            self.place.say(why);
            if self.entry.is_none() || self.replacement() == Replace::InPlace {
                return self.replace_in_place(running).await;
            }
            match self.replace(running).await {
                Replaced::Then(step) => return step,
                Replaced::Kept(old) => {
                    running = old;
                    self.turn = None;
                    tending.begin_anew(&self.place);
                    running.watch.begin_anew();
                }
            }
        }
    }
}
