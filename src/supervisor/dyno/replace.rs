//! *Up*, with a successor that boots beside it: requests always have a dyno.

use crate::supervisor::dyno::boot::{TimedOut, ready};
use crate::supervisor::dyno::{Call, Dyno, Ran, Step, called};
use crate::supervisor::place::{Event, State};
use crate::supervisor::rollout::Reason;
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
        let health = self.place.orders.borrow().upkeep.health.clone();
        let new = match self.start_successor() {
            Ok(new) => new,
            Err(error) => {
                self.place.say(format_args!("Failed to start: {error}"));
                self.place.say(restart_failed(self.tried));
                self.tell_failed(self.tried, Reason::NotStarted(error.to_string()), Vec::new());
                return Replaced::Kept(old);
            }
        };
        let ready = ready(&new, health.as_ref(), self.place.clone(), self.entry.clone());
        tokio::select! {
            biased;
            () = old.process.ended() => {
                self.become_successor();
                if let (Some(entry), Some(record)) = (&self.entry, &new.record) {
                    entry.starting_but_for(record);
                }
                let exit = old.exit().await;
                old.bury(&self.place, exit).await;
                if self.has_requests(&new) {
                    self.tell_started(&new);
                    return Replaced::Then(Step::Up(new, None));
                }
                self.enter(State::Crashed);
                Replaced::Then(Step::ComeUp(new))
            }
            () = new.process.ended() => {
                if !self.withdraw(&new) {
                    return self.switched(new, old);
                }
                let exit = new.exit().await;
                self.discard(new, Reason::Exited(exit));
                Replaced::Kept(old)
            }
            call = called(&mut self.place, self.tried) => {
                if !self.withdraw(&new) {
                    // It has the requests. Whoever looks after it hears what it is called for.
                    return self.switched(new, old);
                }
                self.retire(new);
                match call {
                    Call::Stop => Replaced::Then(self.stop(old).await),
                    // The caller looks at its orders again.
                    Call::Restart | Call::Sleep => Replaced::Kept(old),
                }
            }
            ready = ready => match ready {
                Ok(()) => self.switched(new, old),
                Err(TimedOut { boot }) => {
                    self.say_boot_timeout(boot, health.as_ref());
                    self.discard(new, Reason::BootTimeout { secs: boot.as_secs() });
                    Replaced::Kept(old)
                }
            }
        }
    }

    fn switched(
        &mut self,
        new: Running<S::Process>,
        old: Running<S::Process>,
    ) -> Replaced<S::Process> {
        self.become_successor();
        self.tell_started(&new);
        self.cool_off.reset();
        Replaced::Then(Step::Up(new, Some(old)))
    }

    /// What was tried is what counts from here on.
    fn become_successor(&mut self) {
        (self.ran, self.has_come_up) = (self.tried, false);
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
    fn discard(&mut self, running: Running<S::Process>, reason: Reason) {
        let (place, ran) = (self.place.clone(), self.tried);
        self.own(async move {
            let exit = running.kill().await;
            let process = running.process.clone();
            running.bury(&place, exit).await;
            place.say(restart_failed(ran));
            let failure = Box::new((reason, process.last_lines()));
            place.tell(Event::Failed { release: ran.release, failure });
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
