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
use crate::supervisor::spawn::{Process, Spawn, SpawnError, Start};
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
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use tokio::sync::{mpsc, watch};

    use super::*;
    use crate::config::SupervisorTimeouts;
    use crate::model::{DynoName, ProcessType};
    use crate::shutdown::Shutdown;
    use crate::supervisor::place::Orders;
    use crate::supervisor::scripted::{Script, Scripts};
    use crate::supervisor::spawn::Program;
    use crate::supervisor::tests::{app_name, config, managed};
    use crate::table::{Lease, Publisher, Standing};
    use crate::telemetry::{AppLog, Lines, Target};

    /// One dyno with scripted processes on a paused clock.
    struct Stage {
        began: Instant,
        orders: watch::Sender<Orders>,
        shutdown: Shutdown,
        publisher: Arc<Publisher>,
        events: mpsc::UnboundedReceiver<(u64, Event)>,
        life: JoinHandle<()>,
        log: AppLog,
        _dir: tempfile::TempDir,
        log_file: std::path::PathBuf,
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn orders(release: u64) -> Orders {
        Orders {
            program: Arc::new(Program {
                release,
                command: format!("run v{release}"),
                dir: "/".into(),
                config_vars: Arc::new(BTreeMap::new()),
            }),
            timeouts: SupervisorTimeouts {
                boot: secs(60),
                exit: secs(30),
                cool_off_first: secs(10),
                cool_off_max: secs(10),
            },
            drain: secs(300),
            stop: false,
        }
    }

    impl Stage {
        fn new(process_type: &str, scripts: &[Script]) -> Self {
            let config = config(&[("shop", managed(&[(process_type, 1)]))]);
            let (routes, publisher) = Routes::new(&config);
            let dir = tempfile::tempdir().unwrap();
            let log_file = dir.path().join("log");
            let log = AppLog::new(Lines::start(Target::file(&log_file).unwrap()).unwrap());
            let (orders, receiver) = watch::channel(orders(1));
            let (sender, events) = mpsc::unbounded_channel();
            let shutdown = Shutdown::default();
            let place = Place {
                id: 1,
                app: app_name("shop"),
                dyno: DynoName {
                    process_type: ProcessType::parse(process_type).unwrap(),
                    number: 1,
                },
                orders: receiver,
                log: log.clone(),
                shutdown: shutdown.clone(),
                events: sender,
                jitter: || 0.5,
            };
            // No real port is asked for where the clock is paused: these are only numbers.
            let dyno = Dyno::new(place, Scripts::new(scripts), Ports::new(29_000..29_100), routes);
            let life = shutdown.spawn(dyno.live());
            Self {
                began: Instant::now(),
                orders,
                shutdown,
                publisher,
                events,
                life,
                log,
                _dir: dir,
                log_file,
            }
        }

        async fn at(&self, second: u64) {
            // A moment later than the round second, after everything that happens on it.
            time::sleep_until(self.began + secs(second) + Duration::from_millis(1)).await;
        }

        fn stop(&self) {
            self.orders.send_modify(|orders| orders.stop = true);
        }

        fn restart(&self, release: u64) {
            self.orders.send_replace(orders(release));
        }

        fn standing(&self) -> (usize, Standing) {
            let table = self.publisher.table();
            let lineup = table.apps()[0].roster.lineup();
            (lineup.dynos.len(), lineup.standing)
        }

        fn lease(&self) -> Lease {
            self.publisher.table().apps()[0].roster.lineup().dynos[0].lease().unwrap()
        }

        /// Ends when the life does; what the platform said, without the source.
        async fn end(self) -> Vec<String> {
            self.life.await.unwrap();
            said(&self.log, &self.log_file)
        }
    }

    fn said(log: &AppLog, file: &Path) -> Vec<String> {
        log.flush();
        let text = std::fs::read_to_string(file).unwrap();
        text.lines().map(|line| line.split_once("]: ").unwrap().1.to_owned()).collect()
    }

    /// Runs a dyno until it is told to stop, and checks its states with their times.
    async fn check(
        process_type: &str,
        scripts: &[Script],
        stop_at: u64,
        expected: &[(u64, State)],
    ) -> Vec<String> {
        let mut stage = Stage::new(process_type, scripts);
        let began = stage.began;
        let mut states = Vec::new();
        let mut stopping = std::pin::pin!(time::sleep(secs(stop_at)));
        let mut stopped = false;
        loop {
            tokio::select! {
                biased;
                event = stage.events.recv() => match event.unwrap().1 {
                    Event::Entered(state) => states.push((began.elapsed().as_secs(), state)),
                    Event::Started { .. } => {}
                    Event::Ended => break,
                },
                () = &mut stopping, if !stopped => {
                    stage.stop();
                    stopped = true;
                }
            }
        }
        assert_eq!(states, expected);
        stage.end().await
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_crash_restarts_at_once_and_the_second_cools_off() {
        use State::*;
        let crash = Script::listens(3).exits(5, Exit::Status(1));
        let said = check(
            "web",
            &[crash, crash, Script::listens(3)],
            30,
            &[
                (0, Starting),
                (3, Up),
                (5, Crashed),
                (5, Starting),
                (8, Up),
                (10, Crashed),
                (20, Starting),
                (23, Up),
                (30, Draining),
                (30, Stopping),
            ],
        )
        .await;
        assert_eq!(
            said[..7],
            [
                "Starting process with command `run v1`",
                "State changed from starting to up",
                "Process exited with status 1",
                "State changed from up to crashed",
                "State changed from crashed to starting",
                "Starting process with command `run v1`",
                "State changed from starting to up",
            ]
        );
        assert_eq!(
            said[said.len() - 3..],
            [
                "State changed from up to down",
                "Stopping all processes with SIGTERM",
                "Process exited with status 143"
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_dyno_that_never_binds_is_killed_and_crashes() {
        use State::*;
        let said = check(
            "web",
            &[Script::never_listens(), Script::listens(1)],
            70,
            &[
                (0, Starting),
                (60, Crashed),
                (60, Starting),
                (61, Up),
                (70, Draining),
                (70, Stopping),
            ],
        )
        .await;
        assert_eq!(
            said[..5],
            [
                "Starting process with command `run v1`",
                "Error R10 (Boot timeout) -> Web process failed to bind to $PORT within 60 seconds of launch",
                "Stopping process with SIGKILL",
                "Process exited with status 137",
                "State changed from starting to crashed",
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_boot_timeout_is_exact() {
        use State::*;
        let late = Script { listens: Some(Duration::from_millis(59_999)), ..Script::listens(0) };
        check("web", &[late], 61, &[(0, Starting), (59, Up), (61, Draining), (61, Stopping)]).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_exit_during_boot_is_a_crash_with_status_0_too() {
        use State::*;
        let said = check(
            "web",
            &[Script::never_listens().exits(2, Exit::Status(0)), Script::listens(1)],
            10,
            &[(0, Starting), (2, Crashed), (2, Starting), (3, Up), (10, Draining), (10, Stopping)],
        )
        .await;
        assert_eq!(
            said[1..3],
            ["Process exited with status 0", "State changed from starting to crashed"]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_start_is_a_crash_with_a_reason() {
        use State::*;
        let said = check(
            "web",
            &[Script::fails(), Script::fails(), Script::listens(0)],
            12,
            &[
                (0, Starting),
                (0, Crashed),
                (0, Starting),
                (0, Crashed),
                (10, Starting),
                (10, Up),
                (12, Draining),
                (12, Stopping),
            ],
        )
        .await;
        assert_eq!(said[1], "Failed to start: the app's directory / is not there");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_during_boot_does_not_wait_for_the_boot() {
        use State::*;
        let said =
            check("web", &[Script::listens(50)], 5, &[(0, Starting), (5, Draining), (5, Stopping)])
                .await;
        assert_eq!(
            said[1..],
            [
                "State changed from starting to down",
                "Stopping all processes with SIGTERM",
                "Process exited with status 143"
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_during_the_cool_off_ends_it() {
        use State::*;
        let said = check(
            "worker",
            &[Script::never_listens().exits(1, Exit::Status(1))],
            7,
            &[
                (0, Starting),
                (0, Up),
                (1, Crashed),
                (1, Starting),
                (1, Up),
                (2, Crashed),
                (7, Stopping),
            ],
        )
        .await;
        assert_eq!(said.last().unwrap(), "State changed from crashed to down");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_ignores_sigterm_is_killed() {
        let stage = Stage::new("worker", &[Script::listens(0).ignores_sigterm()]);
        stage.at(5).await;
        stage.stop();
        let began = stage.began;
        let said = stage.end().await;
        assert_eq!(began.elapsed().as_secs(), 35);
        assert_eq!(
            said[2..],
            [
                "State changed from up to down",
                "Stopping all processes with SIGTERM",
                "Error R12 (Exit timeout) -> At least one process failed to exit within 30 seconds of SIGTERM",
                "Stopping remaining processes with SIGKILL",
                "Process exited with status 137",
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_forced_shutdown_waits_for_nobody() {
        let stage = Stage::new("web", &[Script::listens(0).ignores_sigterm()]);
        stage.at(1).await;
        let _lease = stage.lease();
        stage.stop();
        stage.at(2).await;
        stage.shutdown.now();
        let began = stage.began;
        let said = stage.end().await;
        assert_eq!(began.elapsed().as_secs(), 2);
        assert!(!said.iter().any(|line| line.contains("R12")), "{said:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_leaves_the_table_first_and_waits_for_what_is_in_flight() {
        let stage = Stage::new("web", &[Script::listens(0)]);
        stage.at(1).await;
        assert_eq!(stage.standing(), (1, Standing::Up));
        let lease = stage.lease();
        let record = lease.dyno().clone();
        stage.stop();
        stage.at(100).await;
        assert_eq!(stage.standing().0, 0);
        assert!(record.lease().is_none());
        assert!(!stage.life.is_finished());
        drop(lease);
        let began = stage.began;
        stage.end().await;
        assert_eq!(began.elapsed().as_secs(), 100);
        assert_eq!(record.exit(), Some(Exit::Signal(15)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_is_bounded_and_the_bound_may_shrink() {
        for (shrink_at, ends_at) in [(None, 301), (Some(50), 50), (Some(10), 21)] {
            let stage = Stage::new("web", &[Script::listens(0)]);
            stage.at(1).await;
            let lease = stage.lease();
            stage.stop();
            if let Some(at) = shrink_at {
                stage.at(at).await;
                stage.orders.send_modify(|orders| orders.drain = secs(20));
            }
            let began = stage.began;
            stage.end().await;
            assert_eq!(began.elapsed().as_secs(), ends_at, "{shrink_at:?}");
            drop(lease);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_crash_is_out_of_the_table_and_known_before_anything_else() {
        let stage =
            Stage::new("web", &[Script::listens(0).exits(9, Exit::Signal(11)), Script::listens(4)]);
        stage.at(1).await;
        let record = stage.lease().dyno().clone();
        stage.at(9).await;
        assert_eq!(stage.standing(), (0, Standing::Starting));
        assert_eq!(record.exit(), Some(Exit::Signal(11)));
        assert!(record.is_closed());
        stage.at(13).await;
        assert_eq!(stage.standing(), (1, Standing::Up));
        assert_ne!(stage.lease().dyno().id(), record.id());
        stage.stop();
        stage.end().await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_app_whose_only_dyno_cools_off_is_crashed() {
        let crash = Script::listens(0).exits(1, Exit::Status(1));
        let stage = Stage::new("web", &[crash]);
        stage.at(0).await;
        assert_eq!(stage.standing(), (1, Standing::Up));
        stage.at(2).await;
        assert_eq!(stage.standing(), (0, Standing::Crashed));
        stage.at(12).await;
        assert_eq!(stage.standing(), (1, Standing::Up));
        stage.stop();
        stage.end().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_boots_the_new_process_before_the_old_one_leaves() {
        let stage = Stage::new("web", &[Script::listens(0), Script::listens(5)]);
        stage.at(10).await;
        let lease = stage.lease();
        let old = lease.dyno().id();
        stage.restart(2);
        stage.at(14).await;
        assert_eq!(stage.lease().dyno().id(), old);
        stage.at(16).await;
        assert_ne!(stage.lease().dyno().id(), old);
        assert_eq!(stage.standing(), (1, Standing::Up));
        assert!(lease.dyno().is_closed());
        stage.at(40).await;
        assert_eq!(lease.dyno().exit(), None, "it finishes what it holds");
        drop(lease);
        stage.at(41).await;
        stage.stop();
        let said = stage.end().await;
        assert_eq!(
            said[2..6],
            [
                "Restarting",
                "Starting process with command `run v2`",
                "Stopping all processes with SIGTERM",
                "Process exited with status 143",
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_process_that_does_not_come_up_changes_nothing() {
        for failing in [
            Script::never_listens(),
            Script::never_listens().exits(1, Exit::Status(1)),
            Script::fails(),
        ] {
            let stage = Stage::new("web", &[Script::listens(0), failing, Script::listens(1)]);
            stage.at(10).await;
            let old = stage.lease().dyno().id();
            stage.restart(2);
            stage.at(100).await;
            assert_eq!(stage.lease().dyno().id(), old);
            stage.restart(3);
            stage.at(102).await;
            assert_ne!(stage.lease().dyno().id(), old);
            stage.stop();
            let said = stage.end().await;
            let kept = "Restart failed: v2 did not come up, the earlier process goes on";
            assert!(said.iter().any(|line| line == kept), "{said:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_crash_while_the_successor_boots_leaves_it_to_the_successor() {
        let stage =
            Stage::new("web", &[Script::listens(0).exits(12, Exit::Status(1)), Script::listens(5)]);
        stage.at(10).await;
        stage.restart(2);
        stage.at(12).await;
        assert_eq!(stage.standing(), (0, Standing::Starting));
        stage.at(16).await;
        assert_eq!(stage.standing(), (1, Standing::Up));
        stage.stop();
        let said = stage.end().await;
        assert_eq!(
            said.iter().filter(|line| line.starts_with("Starting process")).count(),
            2,
            "{said:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_while_the_successor_boots_ends_both() {
        let stage = Stage::new("web", &[Script::listens(0), Script::listens(50)]);
        stage.at(10).await;
        stage.restart(2);
        stage.at(12).await;
        stage.stop();
        let began = stage.began;
        let said = stage.end().await;
        assert_eq!(began.elapsed().as_secs(), 12);
        assert_eq!(
            said.iter().filter(|line| *line == "Process exited with status 143").count(),
            2,
            "{said:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_stops_before_it_starts_again() {
        let slow = Script { heeds_sigterm: Some(secs(3)), ..Script::listens(0) };
        let stage = Stage::new("worker", &[slow]);
        stage.at(10).await;
        stage.restart(2);
        stage.at(14).await;
        stage.stop();
        let said = stage.end().await;
        assert_eq!(
            said[1..],
            [
                "State changed from starting to up",
                "Restarting",
                "State changed from up to starting",
                "Stopping all processes with SIGTERM",
                "Process exited with status 143",
                "Starting process with command `run v2`",
                "State changed from starting to up",
                "State changed from up to down",
                "Stopping all processes with SIGTERM",
                "Process exited with status 143",
            ]
        );
    }
}
