//! A process that was started, with all that was lent for it, and how it ends: by itself, or on request.
//!
//! Leaving the table has one order, and each step is here or in `routes`: publish a line-up without the dyno,
//! close its lease word, wait (bounded) for what is in flight, have the workers close their idle connections,
//! SIGTERM, SIGKILL.

use std::sync::Arc;

use tokio::time::{self, Instant};

use crate::config::{HealthCheck, limits};
use crate::model::{DynoAddr, Exit};
use crate::supervisor::metrics;
use crate::supervisor::place::{Place, seconds};
use crate::supervisor::ports::LentPort;
use crate::supervisor::program::{Program, Start, Streams};
use crate::supervisor::routes::Routes;
use crate::supervisor::spawn::{Process, Spawn, SpawnError};
use crate::supervisor::watch::Watch;
use crate::table::Dyno;

/// One process of a dyno.
pub(crate) struct Running<P> {
    pub(crate) process: Arc<P>,
    /// Over what it takes.
    pub(crate) watch: Watch,
    /// Web only.
    pub(crate) record: Option<Arc<Dyno>>,
    pub(crate) started: Instant,
    pub(crate) routes: Arc<Routes>,
    /// Web only; given back with the rest of this.
    pub(crate) _port: Option<LentPort>,
}

/// Why a process is not given more time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Enough {
    Timeout,
    Forced,
}

impl<P: Process> Running<P> {
    /// Starts a process of the dyno of this place, and says so. `port`: where a web dyno must listen.
    pub(crate) fn start(
        spawn: &impl Spawn<Process = P>,
        place: &Place,
        program: Arc<Program>,
        port: Option<LentPort>,
        streams: Streams,
        routes: Arc<Routes>,
    ) -> Result<Self, SpawnError> {
        place.say(format_args!("Starting process with command `{}`", program.command));
        let release = program.release;
        let start = Start {
            app: place.app.clone(),
            dyno: place.dyno.clone(),
            program,
            port: port.as_ref().map(LentPort::number),
            streams,
        };
        let started = Instant::now();
        let process = spawn.spawn(&start)?;
        let web = port.map(|port| (port.number(), Some(port)));
        Ok(Self::new(process, place, web, release, started, routes))
    }

    /// A process of the dyno of this place, over which is watched from here on. `web`: where it listens, and the
    /// port, where it is among those that are lent. `release`: what it runs.
    pub(crate) fn new(
        process: P,
        place: &Place,
        web: Option<(u16, Option<LentPort>)>,
        release: u64,
        started: Instant,
        routes: Arc<Routes>,
    ) -> Self {
        let ip = process.ip();
        let process = Arc::new(process);
        let watch = Watch::start(&process, place);
        let (record, port) = web
            .map(|(number, port)| {
                let addr = DynoAddr::Tcp((ip, number).into());
                let tally = routes.tally(&place.app, release);
                (Dyno::counted(place.dyno.clone(), addr, true, tally), port)
            })
            .unzip();
        Self { process, watch, record, started, routes, _port: port.flatten() }
    }

    /// Returns once the process is ready: a web dyno accepts connections, and answers well where it is asked; any
    /// other is started.
    pub(crate) async fn ready(&self, health: Option<&HealthCheck>) {
        // Nobody is to see one that is up and has no number.
        self.process.started().await;
        if self.record.is_none() {
            return;
        }
        self.process.listening().await;
        if let Some(health) = health {
            while self.process.well(health).await.is_err() {
                time::sleep(limits::HEALTH_BOOT_WAIT).await;
            }
        }
    }

    /// How a process that has ended did so, which its record is told too. An init that does not say so within its
    /// time is killed.
    pub(crate) async fn exit(&self) -> Exit {
        let exit = match time::timeout(limits::INIT_KILL_WAIT, self.process.exited()).await {
            Ok(exit) => exit,
            Err(_) => self.kill().await,
        };
        self.note(exit);
        exit
    }

    /// After the process went by itself: frees all that it held. Its record must be out of the line-up.
    pub(crate) async fn bury(self, place: &Place, exit: Exit) {
        self.note_and_purge(exit);
        self.process.kill();
        self.say_exit(place, exit).await;
        self.await_group(place).await;
    }

    /// Tells the record how its process ended.
    fn note(&self, exit: Exit) {
        if let Some(record) = self.record.as_ref().filter(|record| record.exit().is_none()) {
            record.exited(exit);
        }
    }

    /// Waits until the requests in flight are finished, the process is gone, or the bound has passed. The
    /// bound is read again when it changes: the daemon's own end does not wait for minutes.
    pub(crate) async fn drain(&self, place: &Place) {
        let Some(record) = &self.record else { return };
        self.routes.close(record);
        tokio::select! {
            biased;
            exit = self.process.exited() => return self.note_and_purge(exit),
            () = record.drained() => {}
            () = drain_bound(place.clone()) => {}
            () = place.shutdown.forced() => {}
        }
        let _ = time::timeout(limits::PURGE_WAIT, self.routes.gone(record).all()).await;
    }

    /// Ends the process group: SIGTERM, and after its time SIGKILL. Returns once nothing of it is left, with how
    /// its leader ended.
    pub(crate) async fn terminate(self, place: &Place) -> Exit {
        let exit_timeout = place.timeouts().exit;
        let mut enough = std::pin::pin!(async {
            tokio::select! {
                () = time::sleep(exit_timeout) => Enough::Timeout,
                () = place.shutdown.forced() => Enough::Forced,
            }
        });
        place.say("Stopping all processes with SIGTERM");
        self.process.terminate();
        let exit = tokio::select! {
            biased;
            exit = self.process.exited() => exit,
            enough = &mut enough => {
                self.say_killing(place, enough);
                let exit = self.kill().await;
                self.went(place, exit).await;
                self.await_group(place).await;
                return exit;
            }
        };
        self.went(place, exit).await;
        tokio::select! {
            biased;
            () = self.process.group_gone() => {}
            enough = &mut enough => {
                self.say_killing(place, enough);
                self.process.kill();
                self.await_group(place).await;
            }
        }
        exit
    }

    /// Kills the process and waits for it, for as long as the kernel may reasonably take.
    pub(crate) async fn kill(&self) -> Exit {
        self.process.kill();
        time::timeout(limits::KILL_WAIT, self.process.exited()).await.unwrap_or(Exit::Signal(9))
    }

    fn say_killing(&self, place: &Place, enough: Enough) {
        if enough == Enough::Timeout {
            metrics::error(&place.app, "R12");
            let within = seconds(place.timeouts().exit);
            place.say(format_args!(
                "Error R12 (Exit timeout) -> At least one process failed to exit within {within} seconds of SIGTERM"
            ));
        }
        place.say("Stopping remaining processes with SIGKILL");
    }

    async fn went(&self, place: &Place, exit: Exit) {
        self.note(exit);
        self.say_exit(place, exit).await;
    }

    async fn say_exit(&self, place: &Place, exit: Exit) {
        self.process.output_settled().await;
        self.watch.conclude(&*self.process, place).await;
        place.say(format_args!("Process exited with status {}", exit.shell_status()));
    }

    async fn await_group(&self, place: &Place) {
        if time::timeout(limits::KILL_WAIT, self.process.group_gone()).await.is_err() {
            place.say("A process of the dyno does not end on SIGKILL; it is left to the kernel");
        }
    }

    /// For a process that is gone: nobody waits for the workers in order to stop it.
    fn note_and_purge(&self, exit: Exit) {
        self.note(exit);
        if let Some(record) = &self.record {
            record.close();
            drop(self.routes.gone(record));
        }
    }
}

async fn drain_bound(mut place: Place) {
    let began = Instant::now();
    loop {
        let bound = place.orders.borrow_and_update().drain;
        tokio::select! {
            () = time::sleep_until(began + bound) => return,
            changed = place.orders.changed() => if changed.is_err() { return },
        }
    }
}
