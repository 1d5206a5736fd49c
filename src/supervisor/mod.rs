//! The supervisor: a dyno's life.

use std::sync::Arc;

use serde::Serialize;

use crate::config::Config;
use crate::shutdown::Shutdown;
use crate::table::Publisher;
use crate::telemetry::AppLog;

/// The running dyno manager.
pub struct Supervisor {}

/// What the supervisor knows of one dyno, for people and for `/debug/dynos`.
#[derive(Clone, Debug, Serialize)]
pub struct DynoStatus {
    /// The app.
    pub app: String,
    /// `web.1`
    pub dyno: String,
    /// `starting`, `up`, `crashed`, `down`; `external` where somebody else runs it.
    pub state: String,
    /// Unix seconds since when.
    pub since: u64,
    /// The operating system's number of its process, where it runs.
    pub pid: Option<u32>,
    /// Where it accepts connections.
    pub addr: Option<String>,
    /// Requests in flight, lingering ones included.
    pub in_flight: u32,
    /// Of those, requests whose client was answered or has left.
    pub lingering: u32,
    /// Milliseconds of quarantine left: not known here, the router's clock tick at its end.
    pub quarantined_until: u32,
    /// Starts after a crash.
    pub restarts: u32,
}

impl Supervisor {
    /// Makes the first table, and starts the dynos of the configuration. Call it on the control runtime.
    pub fn start(
        _config: &Arc<Config>,
        _log: AppLog,
        _shutdown: Shutdown,
    ) -> (Self, Arc<Publisher>) {
        todo!()
    }

    /// Puts a new configuration in force: the table is published before this returns, dynos follow.
    pub fn apply(&self, _config: &Arc<Config>) {
        todo!()
    }

    /// Every dyno.
    pub fn status(&self) -> Vec<DynoStatus> {
        todo!()
    }

    /// Stops every dyno (SIGTERM, then SIGKILL after its exit timeout, or at once when the shutdown is
    /// forced) and waits for them.
    pub async fn stop(&self) {
        todo!()
    }
}
