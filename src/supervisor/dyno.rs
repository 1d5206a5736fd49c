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
use crate::supervisor::routes::{Entry, Routes};
use crate::supervisor::running::Running;
use crate::supervisor::spawn::{Process, Spawn, SpawnError, Start, random};
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
    /// Processes that were replaced and are finishing what they hold.
    replaced: Vec<JoinHandle<()>>,
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
            replaced: Vec::new(),
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
        for replaced in self.replaced.drain(..) {
            let _ = replaced.await;
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
        let mut since = self.take_over(&running);
        loop {
            tokio::select! {
                biased;
                exit = running.process.exited() => {
                    return Life::Over(self.crashed(running, exit, since.elapsed()).await);
                }
                call = called(&mut self.place, self.release) => match call {
                    Call::Stop => {
                        self.stop(running).await;
                        return Life::Over(End::Stopped);
                    }
                    Call::Restart if self.entry.is_some() => match self.replace(running, since).await {
                        ControlFlow::Continue((now, began)) => (running, since) = (now, began),
                        ControlFlow::Break(life) => return life,
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
    async fn replace(
        &mut self,
        old: Running<S::Process>,
        since: Instant,
    ) -> ControlFlow<Life<S::Process>, (Running<S::Process>, Instant)> {
        self.place.say("Restarting");
        let boot = self.place.timeouts().boot;
        let new = match self.start() {
            Ok(new) => new,
            Err(error) => {
                self.place.say(format_args!("Failed to start: {error}"));
                return self.keep(old, since);
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
                ControlFlow::Break(Life::Succeeded(new))
            }
            exit = new.process.exited() => {
                new.note(exit);
                new.bury(&self.place, exit).await;
                self.keep(old, since)
            }
            () = new.ready() => {
                let since = self.take_over(&new);
                self.cool_off.reset();
                self.retire(old);
                ControlFlow::Continue((new, since))
            }
            () = time::sleep_until(new.started + boot) => {
                self.say_boot_timeout(boot);
                let exit = new.kill().await;
                new.note(exit);
                new.bury(&self.place, exit).await;
                self.keep(old, since)
            }
            call = called(&mut self.place, self.release) => {
                self.retire(new);
                match call {
                    Call::Stop => {
                        self.stop(old).await;
                        ControlFlow::Break(Life::Over(End::Stopped))
                    }
                    // The caller looks at its orders again.
                    Call::Restart => ControlFlow::Continue((old, since)),
                }
            }
        }
    }

    fn keep(
        &mut self,
        old: Running<S::Process>,
        since: Instant,
    ) -> ControlFlow<Life<S::Process>, (Running<S::Process>, Instant)> {
        let release = self.release;
        self.place.say(format_args!("Restart failed: v{release} did not come up, the earlier process goes on"));
        self.tell_started(&old);
        ControlFlow::Continue((old, since))
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
        };
        let started = Instant::now();
        let process = self.spawn.spawn(&start)?;
        let record = start.port.map(|port| {
            let addr = DynoAddr::Tcp((std::net::Ipv4Addr::LOCALHOST, port).into());
            Record::new(self.place.dyno.clone(), addr, true)
        });
        let running = Running { process, record, started, routes: self.routes.clone(), _port: port };
        self.tell_started(&running);
        Ok(running)
    }

    /// From here on requests are sent to this process.
    fn take_over(&mut self, running: &Running<S::Process>) -> Instant {
        if let (Some(entry), Some(record)) = (&self.entry, &running.record) {
            entry.up(record);
        }
        let took = running.started.elapsed();
        metrics::booted(&self.place.app, &self.place.dyno.process_type, took);
        self.tell_started(running);
        self.enter(State::Up);
        Instant::now()
    }

    /// A process that is not needed any more ends in its own time; its record is out of the line-up.
    fn retire(&mut self, running: Running<S::Process>) {
        self.replaced.retain(|replaced| !replaced.is_finished());
        let place = self.place.clone();
        self.replaced.push(self.place.shutdown.spawn(async move {
            running.drain(&place).await;
            running.terminate(&place).await;
        }));
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
        let jitter = random() as f64 / u64::MAX as f64;
        let wait = self.cool_off.after_crash(was_up, &self.place.timeouts(), jitter);
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
        if let Some(before) = before.map(State::outward).filter(|before| *before != state.outward()) {
            self.place.say(format_args!("State changed from {before} to {}", state.outward()));
        }
        self.place.tell(Event::Entered(state));
    }

    fn tell_started(&self, running: &Running<S::Process>) {
        self.place.tell(Event::Started { pid: running.process.pid(), record: running.record.clone() });
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
