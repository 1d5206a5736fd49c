//! What apps run by the clock is started while the daemon serves.

use std::sync::Arc;

use crate::control::Running;
use crate::scheduler::{self, Parts};
use crate::telemetry::AppLog;
use crate::wall_clock;

/// Starts jobs until the daemon stops. What becomes due while requests finish is the next daemon's to miss: it would
/// be killed in a moment.
pub(in crate::daemon) async fn keep_jobs(running: Arc<Running>, log: AppLog) {
    let parts = Parts {
        config: || running.config.load_full(),
        now: wall_clock::unix,
        supervisor: &running.supervisor,
        store: &running.store,
        log,
    };
    tokio::select! {
        () = scheduler::keep(parts) => {}
        // A run that is just being begun lives or not; either way its dyno is the manager's.
        () = running.stopping() => {}
    }
}
