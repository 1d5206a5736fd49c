//! *Starting*: from the start of a process until it is ready.

use std::sync::Arc;
use std::time::Duration;

use tokio::time;

use crate::config::HealthCheck;
use crate::supervisor::dyno::{Call, Dyno, Ran, Step, called};
use crate::supervisor::metrics;
use crate::supervisor::place::{Event, Place, Replace, State, seconds};
use crate::supervisor::program::Streams;
use crate::supervisor::rollout::Reason;
use crate::supervisor::routes::Entry;
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
                self.tell_failed(self.ran, Reason::NotStarted(error.to_string()), Vec::new());
                self.enter(State::Crashed);
                Step::CoolOff(wait)
            }
        }
    }

    pub(super) async fn come_up(&mut self, running: Running<S::Process>) -> Step<S::Process> {
        self.enter(State::Starting);
        self.tell_started(&running);
        let health = self.place.orders.borrow().upkeep.health.clone();
        let ready = ready(&running, health.as_ref(), self.place.clone(), self.entry.clone());
        tokio::select! {
            biased;
            () = running.process.ended() => {
                if !self.withdraw(&running) {
                    return Step::Up(running, None);
                }
                self.crashed(running, Duration::ZERO, None).await
            }
            call = called(&mut self.place, self.ran) => {
                if !self.withdraw(&running) {
                    return Step::Up(running, None);
                }
                match call {
                    Call::Stop => self.stop(running).await,
                    Call::Sleep => self.fall_asleep(Some(running)),
                    Call::Restart => {
                        self.place.say("Restarting");
                        // It may have had requests: as a canary whose predecessor has gone.
                        self.replace_in_place(running).await
                    }
                }
            }
            ready = ready => match ready {
                Ok(()) => Step::Up(running, None),
                Err(TimedOut { boot }) => {
                    self.say_boot_timeout(boot, health.as_ref());
                    running.kill().await;
                    let reason = Reason::BootTimeout { secs: boot.as_secs() };
                    self.crashed(running, Duration::ZERO, Some(reason)).await
                }
            },
        }
    }

    /// Whether requests are sent to the process.
    pub(super) fn has_requests(&self, running: &Running<S::Process>) -> bool {
        let entry = self.entry.as_ref().zip(running.record.as_ref());
        entry.is_some_and(|(entry, record)| entry.is_up(record))
    }

    /// The process could not take its place, after all. `false`: it has.
    pub(super) fn withdraw(&self, running: &Running<S::Process>) -> bool {
        match (&self.entry, &running.record) {
            (Some(entry), Some(record)) => entry.withdraw(record),
            _ => true,
        }
    }

    /// Starts a process of the release that is ordered now, which is the dyno from here on.
    pub(super) fn start(&mut self) -> Result<Running<S::Process>, SpawnError> {
        let started = self.start_successor();
        (self.ran, self.has_come_up) = (self.tried, false);
        started
    }

    /// The same beside the process that is the dyno.
    pub(super) fn start_successor(&mut self) -> Result<Running<S::Process>, SpawnError> {
        let (program, ran) = {
            let orders = self.place.orders.borrow();
            (orders.program.clone(), Ran::of(&orders))
        };
        self.tried = ran;
        if let Some(running) = self.rewarmed(&program) {
            return Ok(running);
        }
        let port = match self.entry {
            Some(_) => Some(self.ports.lend().ok_or(SpawnError::NoPort)?),
            None => None,
        };
        let routes = self.routes.clone();
        Running::start(&self.spawn, &self.place, program, port, Streams::Log, routes)
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

/// A process that was not ready within so long.
pub(super) struct TimedOut {
    pub(super) boot: Duration,
}

/// Returns once the process is ready and is to take its place, which it may have to wait for.
pub(super) async fn ready<P: Process>(
    running: &Running<P>,
    health: Option<&HealthCheck>,
    mut place: Place,
    entry: Option<Arc<Entry>>,
) -> Result<(), TimedOut> {
    let waiting = entry.zip(running.record.as_ref());
    // One whose predecessor ended while it waited has been ready for long.
    if !waiting.as_ref().is_some_and(|(entry, record)| entry.waits(record)) {
        let boot = place.timeouts().boot;
        let in_time = time::timeout_at(running.started + boot, running.ready(health)).await;
        in_time.map_err(|_| TimedOut { boot })?;
        metrics::booted(&place.app, &place.dyno.process_type, running.started.elapsed());
    }
    let Some((entry, record)) = waiting else { return Ok(()) };
    loop {
        let (replace, release) = {
            let orders = place.orders.borrow();
            (orders.replace, orders.program.release)
        };
        match replace {
            Replace::Beside | Replace::InPlace => return Ok(()),
            Replace::Together => entry.ready(record),
            Replace::Canary(share) => entry.canary(record, share),
        }
        place.tell(Event::Ready { release });
        if place.orders.wait_for(|orders| orders.replace != replace).await.is_err() {
            // Whoever gives the orders is gone, which is a stop: the caller hears it.
            std::future::pending::<()>().await;
        }
    }
}
