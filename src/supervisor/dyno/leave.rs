//! *Crashed*, *draining*, *stopping*: how a process ceases to be the dyno.

use std::time::Duration;

use tokio::{task, time};

use crate::supervisor::dyno::{Call, Dyno, Step, called};
use crate::supervisor::metrics;
use crate::supervisor::place::State;
use crate::supervisor::rollout::Reason;
use crate::supervisor::running::Running;
use crate::supervisor::spawn::{Process, Spawn};
use crate::wall_clock::monotonic;

impl<S: Spawn> Dyno<S> {
    /// The process went, by itself where there is no other reason, after it had been up for so long.
    pub(super) async fn crashed(
        &mut self,
        running: Running<S::Process>,
        was_up: Duration,
        reason: Option<Reason>,
    ) -> Step<S::Process> {
        // First of all the dyno leaves the line-up: requests must not wait until it is known how it ended, or for a
        // line to be printed.
        let was_asked = self.has_requests(&running);
        let wait = self.fall(was_up);
        let out_at = monotonic();
        let exit = running.exit().await;
        let ended_at = running.process.ended_at();
        if let (Some(ended_at), true) = (ended_at, was_asked) {
            metrics::out(
                &self.place.app,
                &self.place.dyno.process_type,
                out_at.saturating_sub(ended_at),
            );
        }
        self.ended_at = ended_at.filter(|_| wait.is_zero());
        let process = running.process.clone();
        running.bury(&self.place, exit).await;
        if !self.has_come_up {
            let reason = reason.unwrap_or(Reason::Exited(exit));
            self.tell_failed(self.ran, reason, process.last_lines());
        }
        self.enter(State::Crashed);
        Step::CoolOff(wait)
    }

    /// The process was up, and went while there was no daemon: no request is sent to it, and how long it has been gone
    /// says nothing of this daemon.
    pub(super) async fn crashed_unseen(
        &mut self,
        running: Running<S::Process>,
    ) -> Step<S::Process> {
        self.enter(State::Up);
        self.has_come_up = true;
        let step = self.crashed(running, Duration::ZERO, None).await;
        self.ended_at = None;
        step
    }

    /// Takes the dyno out of the line-up, and says how long until its next start.
    pub(super) fn fall(&mut self, was_up: Duration) -> Duration {
        let wait = self.cool_off.after_crash(was_up, &self.place.timeouts(), (self.place.jitter)());
        match &self.entry {
            Some(entry) if wait.is_zero() => entry.starting(),
            Some(entry) => entry.crashed(),
            None => {}
        }
        wait
    }

    pub(super) async fn cool_off(&mut self, wait: Duration) -> Step<S::Process> {
        if wait.is_zero() {
            // Who hears that it has not come up may have another order before the next start.
            task::yield_now().await;
        } else {
            tokio::select! {
                () = time::sleep(wait) => {}
                call = called(&mut self.place, self.ran) => match call {
                    Call::Stop => return self.cease(),
                    Call::Sleep => return self.fall_asleep(None),
                    Call::Restart => self.cool_off.reset(),
                },
            }
        }
        metrics::restarted(&self.place.app, &self.place.dyno.process_type);
        Step::Boot
    }

    /// The dyno is not wanted any more.
    pub(super) async fn stop(&mut self, running: Running<S::Process>) -> Step<S::Process> {
        self.leave();
        self.enter(State::Draining);
        running.drain(&self.place).await;
        self.enter(State::Stopping);
        running.terminate(&self.place).await;
        Step::End
    }

    /// The process leaves the line-up, and finishes what it holds, before its successor starts. Requests are held
    /// meanwhile.
    pub(super) async fn replace_in_place(
        &mut self,
        running: Running<S::Process>,
    ) -> Step<S::Process> {
        self.enter(State::Starting);
        running.drain(&self.place).await;
        self.stop_for_restart(running).await
    }

    /// The process is out of the line-up, and goes before its successor starts.
    pub(super) async fn stop_for_restart(
        &mut self,
        running: Running<S::Process>,
    ) -> Step<S::Process> {
        running.terminate(&self.place).await;
        self.cool_off.reset();
        Step::Boot
    }

    /// The same, where there is no process.
    pub(super) fn cease(&mut self) -> Step<S::Process> {
        self.leave();
        self.enter(State::Stopping);
        Step::End
    }

    pub(super) fn leave(&self) {
        if let Some(entry) = &self.entry {
            entry.leave();
        }
    }
}
