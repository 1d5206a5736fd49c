//! *Starting*: from the start of a process until it is ready.

use std::time::Duration;

use tokio::time;

use crate::config::HealthCheck;
use crate::supervisor::dyno::{Call, Dyno, Ran, Step, called};
use crate::supervisor::metrics;
use crate::supervisor::place::{State, seconds};
use crate::supervisor::program::Streams;
use crate::supervisor::running::Running;
use crate::supervisor::spawn::{Process, Spawn, SpawnError};
use crate::wall_clock::monotonic;

impl<S: Spawn> Dyno<S> {
    pub(super) fn boot(&mut self) -> Step<S::Process> {
        // What was ordered while an earlier process ended has not been heard yet.
        let call = Call::of(&self.place.orders.borrow(), self.ran);
        match call {
            Some(Call::Stop) => return self.cease(),
            Some(Call::Sleep) => return self.fall_asleep(None),
            Some(Call::Restart) | None => {}
        }
        self.enter(State::Starting);
        match self.start() {
            Ok(running) => {
                self.note_respawn();
                Step::ComeUp(running)
            }
            Err(error) => {
                self.place.say(format_args!("Failed to start: {error}"));
                let wait = self.fall(Duration::ZERO);
                self.enter(State::Crashed);
                Step::CoolOff(wait)
            }
        }
    }

    pub(super) async fn come_up(&mut self, running: Running<S::Process>) -> Step<S::Process> {
        self.enter(State::Starting);
        self.tell_started(&running);
        let boot = self.place.timeouts().boot;
        let health = self.place.orders.borrow().upkeep.health.clone();
        tokio::select! {
            biased;
            () = running.process.ended() => self.crashed(running, Duration::ZERO).await,
            () = running.ready(health.as_ref()) => {
                self.note_boot(&running);
                Step::Up(running, None)
            }
            () = time::sleep_until(running.started + boot) => {
                self.say_boot_timeout(boot, health.as_ref());
                running.kill().await;
                self.crashed(running, Duration::ZERO).await
            }
            call = called(&mut self.place, self.ran) => match call {
                Call::Stop => self.stop(running).await,
                Call::Sleep => self.fall_asleep(Some(running)),
                Call::Restart => {
                    self.place.say("Restarting");
                    self.stop_for_restart(running).await
                }
            },
        }
    }

    /// Starts a process of the release that is ordered now.
    pub(super) fn start(&mut self) -> Result<Running<S::Process>, SpawnError> {
        let (program, ran) = {
            let orders = self.place.orders.borrow();
            (orders.program.clone(), Ran::of(&orders))
        };
        self.ran = ran;
        let port = match self.entry {
            Some(_) => Some(self.ports.lend().ok_or(SpawnError::NoPort)?),
            None => None,
        };
        let routes = self.routes.clone();
        Running::start(&self.spawn, &self.place, program, port, Streams::Log, routes)
    }

    pub(super) fn note_boot(&self, running: &Running<S::Process>) {
        let Self { place, .. } = self;
        metrics::booted(&place.app, &place.dyno.process_type, running.started.elapsed());
    }

    /// A crashed process has its successor.
    fn note_respawn(&mut self) {
        if let Some(ended_at) = self.ended_at.take() {
            let Self { place, .. } = self;
            let took = monotonic().saturating_sub(ended_at);
            metrics::respawned(&place.app, &place.dyno.process_type, took);
        }
    }

    pub(super) fn say_boot_timeout(&self, boot: Duration, health: Option<&HealthCheck>) {
        metrics::error(&self.place.app, "R10");
        let within = seconds(boot);
        let failed = match health {
            None => "bind to $PORT".to_owned(),
            Some(health) => format!("answer GET {} with 2xx or 3xx", health.path),
        };
        self.place.say(format_args!(
            "Error R10 (Boot timeout) -> Web process failed to {failed} within {within} seconds of launch"
        ));
        self.place.say("Stopping process with SIGKILL");
    }
}
