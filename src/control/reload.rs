//! What came of a reload: logged by the daemon, told to whoever asked for it.

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// Somebody waits here for the outcome of a reload that begins after the request.
pub type ReloadRequest = oneshot::Sender<ReloadOutcome>;

/// The outcome of a reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "lowercase")]
pub enum ReloadOutcome {
    /// The file is in force.
    Ok {
        /// The version of the table that is now in place.
        table_version: u64,
        /// What is different now, one change each.
        changes: Vec<String>,
    },
    /// Nothing was changed.
    Refused {
        /// Each thing that stands against the file.
        reasons: Vec<String>,
    },
}
