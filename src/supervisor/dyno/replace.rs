//! *Up*, with a successor that boots beside it: requests always have a dyno.

use tokio::time;

use crate::supervisor::dyno::{Call, Dyno, Ran, Step, called};
use crate::supervisor::place::State;
use crate::supervisor::running::Running;
use crate::supervisor::spawn::{Process, Spawn};

/// What became of a process that was to be replaced.
pub(super) enum Replaced<P> {
    /// It goes on.
    Kept(Running<P>),
    /// It is the dyno no more.
    Then(Step<P>),
}

impl<S: Spawn> Dyno<S> {
    /// Boots a successor beside a web process that is up, and switches once the successor is up too. A successor
    /// that does not come up changes nothing.
    pub(super) async fn replace(&mut self, old: Running<S::Process>) -> Replaced<S::Process> {
        let boot = self.place.timeouts().boot;
        let health = self.place.orders.borrow().upkeep.health.clone();
        let new = match self.start() {
            Ok(new) => new,
            Err(error) => {
                self.place.say(format_args!("Failed to start: {error}"));
                self.place.say(restart_failed(self.ran));
                return Replaced::Kept(old);
            }
        };
        tokio::select! {
            biased;
            () = old.process.ended() => {
                if let Some(entry) = &self.entry {
                    entry.starting();
                }
                let exit = old.exit().await;
                old.bury(&self.place, exit).await;
                self.enter(State::Crashed);
                Replaced::Then(Step::ComeUp(new))
            }
            _ = new.process.exited() => {
                self.discard(new);
                Replaced::Kept(old)
            }
            () = new.ready(health.as_ref()) => {
                self.note_boot(&new);
                self.tell_started(&new);
                self.cool_off.reset();
                Replaced::Then(Step::Up(new, Some(old)))
            }
            () = time::sleep_until(new.started + boot) => {
                self.say_boot_timeout(boot, health.as_ref());
                self.discard(new);
                Replaced::Kept(old)
            }
            call = called(&mut self.place, self.ran) => {
                self.retire(new);
                match call {
                    Call::Stop => Replaced::Then(self.stop(old).await),
                    // The caller looks at its orders again.
                    Call::Restart | Call::Sleep => Replaced::Kept(old),
                }
            }
        }
    }

    /// A process that is not needed any more ends in its own time; its record is out of the line-up.
    pub(super) fn retire(&mut self, running: Running<S::Process>) {
        let place = self.place.clone();
        self.own(async move {
            running.drain(&place).await;
            running.terminate(&place).await;
        });
    }

    /// A successor that did not come up ends beside the life that goes on.
    fn discard(&mut self, running: Running<S::Process>) {
        let (place, ran) = (self.place.clone(), self.ran);
        self.own(async move {
            let exit = running.kill().await;
            running.bury(&place, exit).await;
            place.say(restart_failed(ran));
        });
    }

    pub(super) fn own(&mut self, end: impl Future<Output = ()> + Send + 'static) {
        self.leaving.retain(|leaving| !leaving.is_finished());
        self.leaving.push(self.place.shutdown.spawn(end));
    }
}

fn restart_failed(ran: Ran) -> String {
    format!("Restart failed: v{} did not come up, the earlier process goes on", ran.release)
}
