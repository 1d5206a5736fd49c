//! What came of a reload: logged by the daemon, told to whoever asked for it.

use std::fmt;

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

impl fmt::Display for ReloadOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok { table_version, changes } => {
                match changes.len() {
                    0 => f.write_str("reloaded, nothing is different")?,
                    1 => f.write_str("reloaded, 1 change")?,
                    count => write!(f, "reloaded, {count} changes")?,
                }
                write!(f, ", table version {table_version}")
            }
            Self::Refused { .. } => f.write_str("reload refused, nothing was changed"),
        }
    }
}
