//! The supervisor: a dyno's life.
//!
//! Knows of requests only how many a dyno holds. What it shares with the router is the route table.

mod manager; // one loop owns what is wanted
mod plan; // wanted against actual, as steps
mod releases; // what an app runs, and ran before
mod guard; // whether it is worse than the one before it
mod rollout; // a release on its way, for whoever follows it
mod dyno; // the life
mod one_off; // the life of a one-off dyno
mod run; // what one-off dynos are asked for, and which live
mod place; // what every part of one life has in hand
mod running; // one process of a dyno, and how it ends
mod cool_off; // how long after a crash
mod program; // what is started
mod spawn; // the only place that makes processes
mod link; // the conversation with an init
mod survivors; // dynos that an earlier daemon has left
mod remove; // the directories of dynos that are gone
mod reap; // children that have ended
mod cgroup; // what holds dynos to their size
mod watch; // what they take: R14, R15, runtime metrics
mod load; // averages of their load
mod figures; // the same, as it is shown
mod probe; // when a web dyno is ready
mod listener; // who listens on a port
mod sock_diag; // the same, and who waits there, as the kernel is asked
mod health; // whether it is well
mod turns; // how many are replaced at a time
mod autoscale; // how many there are to be
mod sleep; // when an app falls asleep, and when it wakes
mod ports; // lent to web dynos
mod numbers; // of users and addresses, lent to isolated dynos
mod isolation; // whether dynos are kept apart, and what each start is given for it
mod network; // networks of dynos' own
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

use tokio::sync::watch::Receiver;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, ManagedApp, limits};
use crate::model::{AppName, Formation, Usage};
use crate::shutdown::Shutdown;
use crate::table::Publisher;
use crate::telemetry::AppLog;

use cgroup::Cgroups;
use isolation::Isolation;
use manager::{Command, Manager, Means};
use meter::Meter;
use ports::Ports;
use routes::Routes;
use spawn::{Launcher, Spawn};
use status::Board;
use survivors::{Claim, Left, Survivor};

pub use autoscale::{Autoscaler, Judged, Look, Seen, Shortfall, Verdict};
pub use figures::DynoUsage;
pub use guard::{Compared, Figures};
pub use isolation::IsolationError;
pub use manager::Which;
pub(crate) use metrics::SWIFT as SWIFT_METRICS;
pub use one_off::Session;
pub use program::{Ends, Streams};
pub use rollout::{Failure, Outcome, Progress, Reason, Rollout};
pub use run::{Begun, RunError, RunOrder, written_out};
pub use status::DynoStatus;
pub use survivors::SurvivorsError;

/// The running dyno manager.
pub struct Supervisor {
    routes: Arc<Routes>,
    board: Board,
    meter: Meter,
    /// Unbounded: people send these, a few in a daemon's life.
    commands: mpsc::UnboundedSender<Command>,
    ended: CancellationToken,
    shutdown: Shutdown,
    isolation: Isolation,
    state_dir: Option<PathBuf>,
    /// Given back last of all.
    _claim: Option<Claim>,
}

/// A dyno manager that has started nothing, and touched no dyno that was there before.
pub struct Prepared {
    launcher: Launcher,
    isolation: Isolation,
    claim: Claim,
    routes: Arc<Routes>,
    config: Arc<Config>,
    log: AppLog,
    shutdown: Shutdown,
}

/// What keeps a dyno manager from being.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The dynos of an earlier daemon.
    #[error(transparent)]
    Survivors(#[from] SurvivorsError),
    /// Dynos cannot be kept apart.
    #[error(transparent)]
    Isolation(#[from] IsolationError),
}

impl Prepared {
    /// Takes over the dynos that an earlier daemon has left, then starts what is missing.
    /// What these used up to the Unix millisecond `booked_until` is booked; `eco_used_up`: eco dynos must not run.
    pub async fn begin(self, booked_until: u64, eco_used_up: bool) -> Supervisor {
        let Self { launcher, isolation, claim, routes, config, log, shutdown } = self;
        let left = launcher.survivors(&claim).await;
        launcher.sweep_cgroups(&claim);
        let has_network = |survivor: &Survivor<_>| survivor.order.network.is_some();
        if !isolation.has_networks() && !left.survivors.iter().any(has_network) {
            clear_network(isolation.clone(), config.state_dir.clone()).await;
        }
        let state_dir = config.state_dir.clone();
        let meter = Meter::after(booked_until);
        let mut supervisor = Supervisor::start_with(launcher, left, routes, log, shutdown, meter);
        // First: what is begun is begun only if it may run.
        supervisor.set_eco_used_up(eco_used_up);
        supervisor.command(Command::Apply(config));
        supervisor.isolation = isolation;
        supervisor.state_dir = Some(state_dir);
        supervisor._claim = Some(claim);
        supervisor
    }
}

impl Supervisor {
    /// Makes the first table, and takes the right to the dynos of the state directory. Call it on the control
    /// runtime; from here on, nobody else in this process may wait for a child.
    ///
    /// # Errors
    /// The state directory cannot be used, or another daemon runs its dynos; or dynos cannot be isolated and must.
    pub async fn prepare(
        config: &Arc<Config>,
        log: AppLog,
        shutdown: Shutdown,
    ) -> Result<(Prepared, Arc<Publisher>), PrepareError> {
        // Where the system does not say, `DYNOMESH` and the shell's search path are as good a guess as any.
        let binary = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("dynomesh"));
        // First: what comes next is named after the state directory, and whoever has it might be using it.
        let claim = survivors::claim(&config.state_dir).await?;
        let isolation = Isolation::decide(config, &binary)?;
        let launcher = Launcher::new(
            &config.state_dir,
            binary,
            isolation.clone(),
            Cgroups::start(&config.state_dir),
            log.clone(),
            shutdown.clone(),
        );
        if let Err(error) = reap::reap(&shutdown) {
            tracing::warn!("processes that dynos leave behind are not reaped: {error}");
        }
        let (routes, publisher) = Routes::new(config);
        let config = config.clone();
        Ok((Prepared { launcher, isolation, claim, routes, config, log, shutdown }, publisher))
    }

    /// Runs nothing until it is told a configuration.
    fn start_with<S: Spawn>(
        spawn: S,
        left: Left<S::Process>,
        routes: Arc<Routes>,
        log: AppLog,
        shutdown: Shutdown,
        meter: Meter,
    ) -> Self {
        metrics::describe();
        let board = Board::default();
        let (commands, orders) = mpsc::unbounded_channel();
        let ports = ports_of_this_process();
        left.ports.iter().for_each(|port| ports.keep(*port));
        let means = Means {
            spawn,
            ports,
            routes: routes.clone(),
            board: board.clone(),
            meter: meter.clone(),
            log,
            shutdown: shutdown.clone(),
        };
        let ended = CancellationToken::new();
        let end = ended.clone().drop_guard();
        shutdown.spawn(async move {
            Manager::run(means, left.survivors, orders).await;
            drop(end);
        });
        let isolation = Isolation::none();
        let state_dir = None;
        Self { routes, board, meter, commands, ended, shutdown, isolation, state_dir, _claim: None }
    }

    /// Puts a new configuration in force: the table is published before this returns, dynos follow.
    pub fn apply(&self, config: &Arc<Config>) {
        self.routes.apply(config, &self.shutdown);
        self.isolation.apply(config);
        let isolation = self.isolation.clone();
        if isolation.has_networks() {
            self.shutdown.spawn(async move {
                let _ = spawn_blocking(move || isolation.renew_network()).await;
            });
        }
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

    /// Begins a one-off dyno of what an app is to run, which it does not yet: its release command.
    pub async fn run_ahead(&self, order: RunOrder, app: ManagedApp) -> Result<Begun, RunError> {
        let (begun, answer) = oneshot::channel();
        self.command(Command::RunAhead(order, Box::new(app), begun));
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

    /// How many dynos of each type an app is to have now, also where that follows its requests. Asked after
    /// [`apply`](Self::apply), it is about what that brought. `None`: dynomesh runs no such app.
    pub async fn formation(&self, app: &AppName) -> Option<Formation> {
        let (formation, answer) = oneshot::channel();
        self.command(Command::Formation(app.clone(), formation));
        answer.await.ok()
    }

    /// How far the newest release of an app is, until it is there, has failed, or another one comes. Asked after
    /// [`apply`](Self::apply), it is about what that brought. `None`: dynomesh runs no such app.
    pub async fn follow_rollout(&self, app: &AppName) -> Option<Receiver<Rollout>> {
        let (follower, rollout) = oneshot::channel();
        self.command(Command::Follow(app.clone(), follower));
        rollout.await.ok()
    }

    /// Restarts dynos of an app's formation, as a new release would. `false`: there are none.
    pub async fn restart(&self, app: &AppName, which: Which) -> bool {
        let (restarted, answer) = oneshot::channel();
        self.command(Command::Restart(app.clone(), which, restarted));
        answer.await.unwrap_or(false)
    }

    /// Stops a dyno by its name; one of a formation is replaced: a web dyno at once, any other once it has ended.
    /// `false`: there is none.
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
        let is_alone = self.status().iter().all(|dyno| dyno.pid.is_none());
        if let (Some(state_dir), true) = (&self.state_dir, is_alone) {
            clear_network(self.isolation.clone(), state_dir.clone()).await;
        }
    }

    fn command(&self, command: Command) {
        // After the end there is nobody to command, and nothing left to do.
        let _ = self.commands.send(command);
    }
}

/// Removes what the host has for networks of dynos' own, if it has anything.
async fn clear_network(isolation: Isolation, state_dir: PathBuf) {
    let clear = move || {
        isolation.end_network();
        network::clear(&state_dir);
    };
    // A panic in it has been logged.
    let _ = spawn_blocking(clear).await;
}

/// The ports to lend, from a place on that is this process's own: of two daemons on one machine that both
/// begin at the first, one would take a dyno of the other for its own slow one.
fn ports_of_this_process() -> Ports {
    let count = limits::DYNO_PORTS.len();
    let start = std::process::id() as usize * 97 % count;
    Ports::new(limits::DYNO_PORTS.cycle().skip(start).take(count))
}
