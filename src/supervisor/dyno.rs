//! The life of one dyno: each state is an await, each arm of a `select!` one way out of it.
//!
//! Knows nothing of configurations and of other dynos. What it is told arrives as [`Orders`]; what happens
//! leaves as lines, events, and changes of the app's line-up.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{self, Instant};

use crate::model::{DynoAddr, Exit};
use crate::supervisor::cool_off::CoolOff;
use crate::supervisor::metrics;
use crate::supervisor::place::{Event, Place, State, seconds};
use crate::supervisor::ports::Ports;
use crate::supervisor::program::{Start, Streams};
use crate::supervisor::routes::{Entry, Routes};
use crate::supervisor::running::Running;
use crate::supervisor::spawn::{Process, Spawn, SpawnError};
use crate::table::Dyno as Record;

/// One dyno, from its first start until it is told to stop.
pub(crate) struct Dyno<S: Spawn> {
    place: Place,
    spawn: S,
    ports: Ports,
    routes: Arc<Routes>,
    /// Its place in the app's line-up; web only.
    entry: Option<Entry>,
    state: Option<State>,
    /// The release that was last started, successfully or not.
    release: u64,
    cool_off: CoolOff,
    /// Processes that are not the dyno any more, or never became it, and are ending.
    leaving: Vec<JoinHandle<()>>,
    /// Last, so that it is dropped last.
    _ended: Ended,
}

/// What became of a boot.
enum Boot<P> {
    Up(Running<P>),
    Over(End),
}

/// What became of a process that was up.
enum Life<P> {
    Over(End),
    /// It crashed while its successor was booting.
    Succeeded(Running<P>),
}

/// What became of a process that was to be replaced.
enum Replaced<P> {
    /// It goes on: its successor did not come up.
    Kept(Running<P>),
    /// Its successor is in the line-up, and it is leaving.
    By(Running<P>),
    Over(Life<P>),
}

/// Why there is no process now.
enum End {
    /// It went by itself. The wait is until the next start.
    Crashed(Duration),
    /// It was asked to go, and the dyno stays.
    Restarted,
    /// It was asked to go, and so is the dyno.
    Stopped,
}

/// What the orders ask of a dyno that runs.
enum Call {
    Stop,
    Restart,
}

impl<S: Spawn> Dyno<S> {
    /// A dyno that has not begun to live. A web dyno counts as starting from here on.
    pub(crate) fn new(place: Place, spawn: S, ports: Ports, routes: Arc<Routes>) -> Self {
        let entry = place.dyno.process_type.is_web().then(|| routes.enter(&place.app));
        let ended = Ended(place.clone());
        Self {
            place,
            spawn,
            ports,
            routes,
            entry,
            state: None,
            release: 0,
            cool_off: CoolOff::default(),
            leaving: Vec::new(),
            _ended: ended,
        }
    }

    /// Lives until told to stop.
    pub(crate) async fn live(mut self) {
        let mut successor = None;
        loop {
            self.enter(State::Starting);
            let boot = match successor.take() {
                Some(running) => self.come_up(running).await,
                None => self.boot().await,
            };
            let life = match boot {
                Boot::Up(running) => self.up(running).await,
                Boot::Over(end) => Life::Over(end),
            };
            match life {
                Life::Succeeded(running) => successor = Some(running),
                Life::Over(End::Stopped) => break,
                Life::Over(End::Restarted) => self.cool_off.reset(),
                Life::Over(End::Crashed(wait)) => {
                    if self.cool_off(wait).await.is_break() {
                        break;
                    }
                    metrics::restarted(&self.place.app, &self.place.dyno.process_type);
                }
            }
        }
        self.leave();
        for leaving in self.leaving.drain(..) {
            let _ = leaving.await;
        }
    }

    async fn boot(&mut self) -> Boot<S::Process> {
        match self.start() {
            Ok(running) => self.come_up(running).await,
            Err(error) => {
                self.place.say(format_args!("Failed to start: {error}"));
                let wait = self.fall(Duration::ZERO);
                self.enter(State::Crashed);
                Boot::Over(End::Crashed(wait))
            }
        }
    }

    async fn come_up(&mut self, running: Running<S::Process>) -> Boot<S::Process> {
        self.tell_started(&running);
        let boot = self.place.timeouts().boot;
        tokio::select! {
            biased;
            exit = running.process.exited() => {
                Boot::Over(self.crashed(running, exit, Duration::ZERO).await)
            }
            () = running.ready() => Boot::Up(running),
            () = time::sleep_until(running.started + boot) => {
                self.say_boot_timeout(boot);
                let exit = running.kill().await;
                Boot::Over(self.crashed(running, exit, Duration::ZERO).await)
            }
            call = called(&mut self.place, self.release) => Boot::Over(match call {
                Call::Stop => {
                    self.stop(running).await;
                    End::Stopped
                }
                Call::Restart => {
                    self.place.say("Restarting");
                    running.terminate(&self.place).await;
                    End::Restarted
                }
            }),
        }
    }

    async fn up(&mut self, mut running: Running<S::Process>) -> Life<S::Process> {
        self.publish(&running);
        let mut since = self.take_over(&running);
        loop {
            tokio::select! {
                biased;
                exit = running.process.exited() => {
                    let was_up = since.elapsed();
                    return Life::Over(self.crashed(running, exit, was_up).await);
                }
                call = called(&mut self.place, self.release) => match call {
                    Call::Stop => {
                        self.stop(running).await;
                        return Life::Over(End::Stopped);
                    }
                    Call::Restart if self.entry.is_some() => match self.replace(running).await {
                        Replaced::Kept(old) => running = old,
                        Replaced::By(new) => {
                            self.tell_started(&new);
                            (since, running) = (self.take_over(&new), new);
                        }
                        Replaced::Over(life) => return life,
                    },
                    Call::Restart => {
                        self.place.say("Restarting");
                        self.enter(State::Starting);
                        running.terminate(&self.place).await;
                        return Life::Over(End::Restarted);
                    }
                },
            }
        }
    }

    /// Boots a successor beside a web process that is up, and switches once the successor is up too: requests
    /// always have a dyno. A successor that does not come up changes nothing.
    async fn replace(&mut self, old: Running<S::Process>) -> Replaced<S::Process> {
        self.place.say("Restarting");
        let boot = self.place.timeouts().boot;
        let new = match self.start() {
            Ok(new) => new,
            Err(error) => {
                self.place.say(format_args!("Failed to start: {error}"));
                self.place.say(restart_failed(self.release));
                return Replaced::Kept(old);
            }
        };
        tokio::select! {
            biased;
            exit = old.process.exited() => {
                old.note(exit);
                if let Some(entry) = &self.entry {
                    entry.starting();
                }
                old.bury(&self.place, exit).await;
                self.enter(State::Crashed);
                Replaced::Over(Life::Succeeded(new))
            }
            _ = new.process.exited() => {
                self.discard(new);
                Replaced::Kept(old)
            }
            () = new.ready() => {
                self.publish(&new);
                self.cool_off.reset();
                self.retire(old);
                Replaced::By(new)
            }
            () = time::sleep_until(new.started + boot) => {
                self.say_boot_timeout(boot);
                self.discard(new);
                Replaced::Kept(old)
            }
            call = called(&mut self.place, self.release) => {
                self.retire(new);
                match call {
                    Call::Stop => {
                        self.stop(old).await;
                        Replaced::Over(Life::Over(End::Stopped))
                    }
                    // The caller looks at its orders again.
                    Call::Restart => Replaced::Kept(old),
                }
            }
        }
    }

    async fn cool_off(&mut self, wait: Duration) -> ControlFlow<()> {
        if wait.is_zero() {
            return ControlFlow::Continue(());
        }
        tokio::select! {
            () = time::sleep(wait) => ControlFlow::Continue(()),
            call = called(&mut self.place, self.release) => match call {
                Call::Stop => {
                    self.leave();
                    self.enter(State::Stopping);
                    ControlFlow::Break(())
                }
                Call::Restart => {
                    self.cool_off.reset();
                    ControlFlow::Continue(())
                }
            },
        }
    }

    /// Starts a process of the release that is ordered now.
    fn start(&mut self) -> Result<Running<S::Process>, SpawnError> {
        let program = self.place.orders.borrow().program.clone();
        self.release = program.release;
        let port = match self.entry {
            Some(_) => Some(self.ports.lend().ok_or(SpawnError::NoPort)?),
            None => None,
        };
        self.place.say(format_args!("Starting process with command `{}`", program.command));
        let start = Start {
            app: self.place.app.clone(),
            dyno: self.place.dyno.clone(),
            program,
            port: port.as_ref().map(|port| port.number()),
            streams: Streams::Log,
        };
        let started = Instant::now();
        let process = self.spawn.spawn(&start)?;
        let record = start.port.map(|port| {
            let addr = DynoAddr::Tcp((std::net::Ipv4Addr::LOCALHOST, port).into());
            Record::new(self.place.dyno.clone(), addr, true)
        });
        Ok(Running { process, record, started, routes: self.routes.clone(), _port: port })
    }

    fn publish(&self, running: &Running<S::Process>) {
        if let (Some(entry), Some(record)) = (&self.entry, &running.record) {
            entry.up(record);
        }
    }

    /// This process is the dyno from here on.
    fn take_over(&mut self, running: &Running<S::Process>) -> Instant {
        let took = running.started.elapsed();
        metrics::booted(&self.place.app, &self.place.dyno.process_type, took);
        self.enter(State::Up);
        Instant::now()
    }

    /// A process that is not needed any more ends in its own time; its record is out of the line-up.
    fn retire(&mut self, running: Running<S::Process>) {
        let place = self.place.clone();
        self.own(async move {
            running.drain(&place).await;
            running.terminate(&place).await;
        });
    }

    /// A successor that did not come up ends beside the life that goes on.
    fn discard(&mut self, running: Running<S::Process>) {
        let (place, release) = (self.place.clone(), self.release);
        self.own(async move {
            let exit = running.kill().await;
            running.note(exit);
            running.bury(&place, exit).await;
            place.say(restart_failed(release));
        });
    }

    fn own(&mut self, end: impl Future<Output = ()> + Send + 'static) {
        self.leaving.retain(|leaving| !leaving.is_finished());
        self.leaving.push(self.place.shutdown.spawn(end));
    }

    async fn stop(&mut self, running: Running<S::Process>) {
        self.leave();
        self.enter(State::Draining);
        running.drain(&self.place).await;
        self.enter(State::Stopping);
        running.terminate(&self.place).await;
    }

    async fn crashed(&mut self, running: Running<S::Process>, exit: Exit, was_up: Duration) -> End {
        // First of all the dyno leaves the line-up: requests must not wait for a line to be printed.
        running.note(exit);
        let wait = self.fall(was_up);
        running.bury(&self.place, exit).await;
        self.enter(State::Crashed);
        End::Crashed(wait)
    }

    /// Takes the dyno out of the line-up, and says how long until its next start.
    fn fall(&mut self, was_up: Duration) -> Duration {
        let wait = self.cool_off.after_crash(was_up, &self.place.timeouts(), (self.place.jitter)());
        match &self.entry {
            Some(entry) if wait.is_zero() => entry.starting(),
            Some(entry) => entry.crashed(),
            None => {}
        }
        wait
    }

    fn leave(&self) {
        if let Some(entry) = &self.entry {
            entry.leave();
        }
    }

    fn enter(&mut self, state: State) {
        let before = self.state.replace(state);
        if before == Some(state) {
            return;
        }
        if let (State::Starting, Some(entry)) = (state, &self.entry) {
            entry.starting();
        }
        if let Some(before) = before.map(State::outward).filter(|before| *before != state.outward())
        {
            self.place.say(format_args!("State changed from {before} to {}", state.outward()));
        }
        self.place.tell(Event::Entered(state));
    }

    fn tell_started(&self, running: &Running<S::Process>) {
        self.place
            .tell(Event::Started { pid: running.process.pid(), record: running.record.clone() });
    }

    fn say_boot_timeout(&self, boot: Duration) {
        metrics::error(&self.place.app, "R10");
        let within = seconds(boot);
        self.place.say(format_args!(
            "Error R10 (Boot timeout) -> Web process failed to bind to $PORT within {within} seconds of launch"
        ));
        self.place.say("Stopping process with SIGKILL");
    }
}

fn restart_failed(release: u64) -> String {
    format!("Restart failed: v{release} did not come up, the earlier process goes on")
}

/// Returns once the orders ask for something else than to run this release. Whoever gives the orders is gone:
/// stop. Dropped before, it has heard nothing that it would not hear again.
async fn called(place: &mut Place, release: u64) -> Call {
    loop {
        {
            let orders = place.orders.borrow_and_update();
            if orders.stop {
                return Call::Stop;
            }
            if orders.program.release != release {
                return Call::Restart;
            }
        }
        if place.orders.changed().await.is_err() {
            return Call::Stop;
        }
    }
}

/// Tells the manager that the dyno is no more, also when a panic unwinds: a stop must not wait for it.
struct Ended(Place);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.tell(Event::Ended);
    }
}

#[cfg(test)]
mod tests; // lives on a paused clock
