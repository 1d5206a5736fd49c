//! What of the running daemon the answers are made from.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{mpsc, watch};

use crate::certs::Acme;
use crate::config::Config;
use crate::control::{
    Builds, ChangeRequest, Deploys, LogSessions, ReloadRequest, Rendezvous, Repeats,
};
use crate::drains::Drains;
use crate::model::Stated;
use crate::router::Router;
use crate::shutdown::Shutdown;
use crate::slugs::Shelf;
use crate::store::Store;
use crate::supervisor::Supervisor;
use crate::table::Publisher;
use crate::telemetry::LogBook;

/// The parts of the running daemon, and what it knows about itself. The daemon fills it and keeps it
/// current; the routes only read.
pub struct Running {
    /// The data plane.
    pub router: Router,
    /// The dyno manager.
    pub supervisor: Supervisor,
    /// What is remembered from one daemon to the next.
    pub store: Store,
    /// The route table.
    pub publisher: Arc<Publisher>,
    /// Automatic certificates.
    pub acme: Acme,
    /// What was counted through the metrics crate.
    pub recorded: PrometheusHandle,
    /// The newest lines of each app.
    pub book: LogBook,
    /// Who reads them.
    pub log_sessions: LogSessions,
    /// Where they are sent to.
    pub drains: Drains,
    /// One-off dynos that wait for a heroku CLI.
    pub rendezvous: Rendezvous,
    /// One-off dynos that may be asked for again by the same request.
    pub repeats: Repeats,
    /// The configuration in force.
    pub config: ArcSwap<Config>,
    /// What commands said. Changed together with the configuration, by whoever puts that in force.
    pub stated: ArcSwap<Stated>,
    /// What was deployed.
    pub shelf: Shelf,
    /// What is being deployed.
    pub deploys: Deploys,
    /// What is being built.
    pub builds: Builds,
    /// Where it is asked for that the file is read again.
    pub reloads: mpsc::Sender<ReloadRequest>,
    /// Where commands ask for changes.
    pub changes: mpsc::Sender<ChangeRequest>,
    /// Carried by what goes on beside the requests of commands.
    pub shutdown: Shutdown,
    /// Empty at first, in [`Phase::Starting`].
    pub notes: Notes,
}

/// What the daemon notes about itself while it runs.
#[derive(Default)]
pub struct Notes {
    phase: watch::Sender<Phase>,
    stalled: Mutex<Vec<(usize, f64)>>,
}

/// Where the daemon is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Nothing is accepted yet.
    #[default]
    Starting,
    /// Requests are accepted.
    Serving,
    /// What is in flight finishes.
    Stopping,
}

impl Running {
    /// Where the daemon is in its life.
    pub fn phase(&self) -> Phase {
        *self.notes.phase.borrow()
    }

    /// Enters the next phase.
    pub fn enter(&self, phase: Phase) {
        self.notes.phase.send_replace(phase);
    }

    /// Returns once the daemon stops.
    pub async fn stopping(&self) {
        let mut phase = self.notes.phase.subscribe();
        // It cannot fail: the sender is borrowed for as long.
        let _ = phase.wait_for(|phase| *phase == Phase::Stopping).await;
    }

    /// The workers that do not answer, with the seconds since they last did.
    pub fn stalled(&self) -> Vec<(usize, f64)> {
        self.notes.stalled.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes which workers do not answer. The daemon's tick calls it each second.
    pub fn note_stalled(&self, stalled: Vec<(usize, f64)>) {
        *self.notes.stalled.lock().unwrap_or_else(PoisonError::into_inner) = stalled;
    }

    /// Requests that hold a slot on some dyno of the table.
    pub fn in_flight(&self) -> u64 {
        let table = self.publisher.table();
        let lineups = table.apps().iter().map(|app| app.roster.lineup());
        lineups
            .map(|lineup| lineup.all().map(|dyno| u64::from(dyno.in_flight())).sum::<u64>())
            .sum()
    }
}
