//! *Up*: requests are sent here, until something ends it.

use tokio::time::Instant;

use crate::supervisor::dyno::replace::Replaced;
use crate::supervisor::dyno::{Call, Dyno, Step, called};
use crate::supervisor::place::State;
use crate::supervisor::running::Running;
use crate::supervisor::spawn::{Process, Spawn};

impl<S: Spawn> Dyno<S> {
    /// `replaced` goes as soon as the line-up has its successor.
    pub(super) async fn up(
        &mut self,
        mut running: Running<S::Process>,
        replaced: Option<Running<S::Process>>,
    ) -> Step<S::Process> {
        if let (Some(entry), Some(record)) = (&self.entry, &running.record) {
            entry.up(record);
        }
        if let Some(replaced) = replaced {
            self.retire(replaced);
        }
        running.process.came_up();
        self.enter(State::Up);
        let since = Instant::now();
        loop {
            tokio::select! {
                biased;
                exit = running.process.exited() => {
                    return self.crashed(running, exit, since.elapsed()).await;
                }
                call = called(&mut self.place, self.release) => match call {
                    Call::Stop => return self.stop(running).await,
                    Call::Restart if self.entry.is_some() => match self.replace(running).await {
                        Replaced::Kept(old) => running = old,
                        Replaced::Then(step) => return step,
                    },
                    Call::Restart => {
                        self.place.say("Restarting");
                        self.enter(State::Starting);
                        return self.stop_for_restart(running).await;
                    }
                },
            }
        }
    }
}
