//! A process that was started, with all that was lent for it, and how it ends: by itself, or on request.
//!
//! Leaving the table has one order, and each step is here or in `routes`: publish a line-up without the dyno,
//! close its lease word, wait (bounded) for what is in flight, have the workers close their idle connections,
//! SIGTERM, SIGKILL.

use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

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
    /// What it runs; absent: an earlier daemon started it, and that is not known exactly.
    pub(crate) program: Option<Arc<Program>>,
    /// Over what it takes.
    pub(crate) watch: Watch,
    /// Web only.
    pub(crate) record: Option<Arc<Dyno>>,
    /// Web only: what it held before it was taken up again, under another record, is finished.
    finished: Option<CancellationToken>,
    pub(crate) started: Instant,
    pub(crate) routes: Arc<Routes>,
    /// Where it listens, and the port, where it is among those that are lent; given back with the rest of this. Web
    /// only.
    port: Option<(u16, Option<LentPort>)>,
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
        let (release, runs) = (program.release, program.clone());
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
        let running = Self::new(process, place, web, release, started, routes);
        Ok(Self { program: Some(runs), ..running })
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
            .map(|(number, port)| (record(place, ip, number, release, &routes), (number, port)))
            .unzip();
        Self { process, program: None, watch, record, finished: None, started, routes, port }
    }

    /// The same process as if it were started now, for this program, which it runs already. `finished`: what it still
    /// holds is.
    pub(crate) fn again(
        self,
        place: &Place,
        program: Arc<Program>,
        finished: CancellationToken,
    ) -> Self {
        let number = self.port.as_ref().map(|(number, _)| *number);
        let of_port =
            |number| record(place, self.process.ip(), number, program.release, &self.routes);
        let record = number.map(of_port);
        let (program, finished) = (Some(program), Some(finished));
        Self { record, program, finished, started: Instant::now(), ..self }
    }

    /// Whether it was the dyno before, and was taken up again.
    pub(crate) fn was_warm(&self) -> bool {
        self.finished.is_some()
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
        if let Some(record) = &self.record {
            note(record, exit);
        }
    }

    /// Waits until the requests in flight are finished, as [`drain`] does.
    pub(crate) async fn drain(&self, place: &Place) {
        let Some(record) = &self.record else { return };
        let of_before = async {
            if let Some(finished) = &self.finished {
                finished.cancelled().await;
            }
        };
        tokio::join!(drain(record, &*self.process, &self.routes, place), of_before);
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
        if let Some(record) = &self.record {
            note_and_purge(record, exit, &self.routes);
        }
    }
}

/// The record of a web process of the dyno of this place.
fn record(place: &Place, ip: Ipv4Addr, port: u16, release: u64, routes: &Routes) -> Arc<Dyno> {
    let addr = DynoAddr::Tcp((ip, port).into());
    Dyno::counted(place.dyno.clone(), addr, true, routes.tally(&place.app, release))
}

/// Waits until the requests in flight are finished, the process is gone, or the bound has passed. The bound is read
/// again when it changes: the daemon's own end does not wait for minutes. The record must be out of the line-up.
pub(crate) async fn drain<P: Process>(
    record: &Arc<Dyno>,
    process: &P,
    routes: &Routes,
    place: &Place,
) {
    routes.close(record);
    tokio::select! {
        biased;
        exit = process.exited() => return note_and_purge(record, exit, routes),
        () = record.drained() => {}
        () = drain_bound(place.clone()) => {}
        () = place.shutdown.forced() => {}
    }
    let _ = time::timeout(limits::PURGE_WAIT, routes.gone(record).all()).await;
}

fn note(record: &Dyno, exit: Exit) {
    if record.exit().is_none() {
        record.exited(exit);
    }
}

fn note_and_purge(record: &Arc<Dyno>, exit: Exit, routes: &Routes) {
    note(record, exit);
    record.close();
    drop(routes.gone(record));
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
