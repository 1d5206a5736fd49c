//! The supervisor: a dyno's life.
//!
//! Knows of requests only how many a dyno holds. What it shares with the router is the route table.

mod manager; // one loop owns what is wanted
mod plan; // wanted against actual, as steps
mod dyno; // the life
mod one_off; // the life of a one-off dyno
mod run; // what one-off dynos are asked for, and which live
mod place; // what every part of one life has in hand
mod running; // one process of a dyno, and how it ends
mod cool_off; // how long after a crash
mod program; // what is started
mod spawn; // the only place that makes processes
mod group; // a dyno's processes together
mod probe; // when a web dyno is ready
mod health; // whether it is well
mod turns; // how many are replaced at a time
mod sleep; // when an app falls asleep, and when it wakes
mod ports; // lent to web dynos
mod output; // what dynos print
mod routes; // what the table says
mod status; // what people are told
mod meter; // how long dynos ran
mod metrics; // what is counted
#[cfg(test)]
mod scripted; // processes for tests
#[cfg(test)]
mod tests; // formations on a paused clock
#[cfg(test)]
mod simulation; // any order of events

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, limits};
use crate::model::{AppName, Usage};
use crate::shutdown::Shutdown;
use crate::table::Publisher;
use crate::telemetry::AppLog;

use manager::{Command, Manager, Means};
use meter::Meter;
use ports::Ports;
use routes::Routes;
use spawn::{Launcher, Spawn};
use status::Board;

pub use manager::Which;
pub use one_off::Session;
pub use program::{Ends, Streams};
pub use run::{Begun, RunError, RunOrder, written_out};
pub use status::DynoStatus;

/// The running dyno manager.
pub struct Supervisor {
    routes: Arc<Routes>,
    board: Board,
    meter: Meter,
    /// Unbounded: people send these, a few in a daemon's life.
    commands: mpsc::UnboundedSender<Command>,
    ended: CancellationToken,
    shutdown: Shutdown,
}

impl Supervisor {
    /// Makes the first table, and starts the dynos of the configuration. Call it on the control runtime, whose
    /// threads must live as long as the daemon: dynos die with the thread that started them.
    pub fn start(config: &Arc<Config>, log: AppLog, shutdown: Shutdown) -> (Self, Arc<Publisher>) {
        // Where the system does not say, `DYNOMESH` and the shell's search path are as good a guess as any.
        let binary = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("dynomesh"));
        let launcher = Launcher::through_init(binary, log.clone(), shutdown.clone());
        Self::start_with(launcher, config, log, shutdown)
    }

    fn start_with<S: Spawn>(
        spawn: S,
        config: &Arc<Config>,
        log: AppLog,
        shutdown: Shutdown,
    ) -> (Self, Arc<Publisher>) {
        metrics::describe();
        let (routes, publisher) = Routes::new(config);
        let (board, meter) = (Board::default(), Meter::default());
        let (commands, orders) = mpsc::unbounded_channel();
        let means = Means {
            spawn,
            ports: ports_of_this_process(),
            routes: routes.clone(),
            board: board.clone(),
            meter: meter.clone(),
            log,
            shutdown: shutdown.clone(),
        };
        let ended = CancellationToken::new();
        let end = ended.clone().drop_guard();
        shutdown.spawn(async move {
            Manager::run(means, orders).await;
            drop(end);
        });
        let supervisor = Self { routes, board, meter, commands, ended, shutdown };
        supervisor.command(Command::Apply(config.clone()));
        (supervisor, publisher)
    }

    /// Puts a new configuration in force: the table is published before this returns, dynos follow.
    pub fn apply(&self, config: &Arc<Config>) {
        self.routes.apply(config, &self.shutdown);
        self.command(Command::Apply(config.clone()));
    }

    /// Every dyno, those that are finishing included.
    pub fn status(&self) -> Vec<DynoStatus> {
        self.board.status(self.routes.external())
    }

    /// Begins a one-off dyno. One whose streams a client has waits for [`attach`](Self::attach).
    pub async fn run(&self, order: RunOrder) -> Result<Begun, RunError> {
        let (begun, answer) = oneshot::channel();
        self.command(Command::Run(order, begun));
        answer.await.unwrap_or(Err(RunError::Stopping))
    }

    /// Has a one-off dyno that waits for its client start, and gives that client its streams. `None`: there is
    /// none of this name that waits, or it could not start.
    pub async fn attach(&self, app: &AppName, dyno: &str) -> Option<Session> {
        let (visitor, session) = oneshot::channel();
        self.command(Command::Attach(app.clone(), dyno.to_owned(), visitor));
        session.await.ok()
    }

    /// Says whether the eco dynos' hours of this month are used up: those dynos sleep until there are some again.
    pub fn set_eco_used_up(&self, used_up: bool) {
        self.command(Command::EcoHours { used_up });
    }

    /// Restarts dynos of an app's formation, as a new release would. `false`: there are none.
    pub async fn restart(&self, app: &AppName, which: Which) -> bool {
        let (restarted, answer) = oneshot::channel();
        self.command(Command::Restart(app.clone(), which, restarted));
        answer.await.unwrap_or(false)
    }

    /// Stops a dyno by its name; one of a formation is replaced at once. `false`: there is none.
    pub async fn stop_dyno(&self, app: &AppName, dyno: &str) -> bool {
        let (stopped, answer) = oneshot::channel();
        self.command(Command::StopDyno(app.clone(), dyno.to_owned(), stopped));
        answer.await.unwrap_or(false)
    }

    /// What dynos used since the last call, and the Unix millisecond up to which it counts.
    pub fn take_usage(&self) -> (Usage, u64) {
        self.meter.take()
    }

    /// Takes back what could not be booked.
    pub fn give_back_usage(&self, usage: Usage) {
        self.meter.give_back(usage);
    }

    /// Stops every dyno (SIGTERM, then SIGKILL after its exit timeout, or at once when the shutdown is
    /// forced) and waits for them.
    pub async fn stop(&self) {
        self.command(Command::Stop);
        self.ended.cancelled().await;
    }

    fn command(&self, command: Command) {
        // After the end there is nobody to command, and nothing left to do.
        let _ = self.commands.send(command);
    }
}

/// The ports to lend, from a place on that is this process's own: of two daemons on one machine that both
/// begin at the first, one would take a dyno of the other for its own slow one.
fn ports_of_this_process() -> Ports {
    let count = limits::DYNO_PORTS.len();
    let start = std::process::id() as usize * 97 % count;
    Ports::new(limits::DYNO_PORTS.cycle().skip(start).take(count))
}
