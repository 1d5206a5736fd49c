//! Where the router's line per request goes: opened before anything is changed.

use std::io;
use std::path::PathBuf;

use crate::config::AccessLog;
use crate::telemetry::Target;

/// The access log's file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("open {}: {source} ([router] access_log)", path.display())]
pub struct AccessLogError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Opens the target that the configuration names; a file anew each time, so that it can be rotated.
pub(in crate::daemon) fn open(access_log: &AccessLog) -> Result<Target, AccessLogError> {
    match access_log {
        AccessLog::Stdout => Ok(Target::Stdout),
        AccessLog::Off => Ok(Target::Off),
        AccessLog::File(path) => {
            Target::file(path).map_err(|source| AccessLogError { path: path.clone(), source })
        }
    }
}
