//! What people and their tools ask the running daemon, over HTTP.
//!
//! Two doors lead to the same answers: the admin listener (`[admin] http`), which only reads, and the
//! control socket (`[admin] socket`), by which commands find the daemon and ask for a reload. Who may open
//! the socket's file may do everything.

mod running; // what of the daemon the answers are made from
mod routes; // which path gives which answer
mod problem; // why a request of the API is refused
mod given; // what requests say
mod dynos; // apps and their dynos
mod usage; // what dynos used
mod one_offs; // dynos for one command: begun, stopped, attached to
mod attach; // the two ways between a client and its process
mod frames; // what goes over them
mod repeats; // what is asked for twice is answered once
mod rendezvous; // where the heroku CLI meets them
mod logs; // what apps said, read back and followed
mod readiness; // whether requests would be served
mod metrics; // the page that Prometheus reads
mod exposition; // Prometheus' text format
mod reload; // what came of a reload
mod change; // how commands change what holds
mod deploys; // what is uploaded and released
mod builds; // what is built of what was uploaded
mod output; // what release commands print
mod api; // what they may change
mod description; // what it says of itself, for programs
mod edge; // what comes to the API's port
mod connection; // one connection, served
mod listen; // binding the two doors, and serving behind them
mod client; // the other end: how commands ask
#[cfg(test)]
mod scene; // for tests: a configuration and its table

pub use builds::Builds;
pub use change::{Caller, Change, ChangeRequest, Changed, Step, config_vars_of};
pub use client::{ClientError, Reply, Streamed, Upgraded, request, send, stream, upgrade, upload};
pub use deploys::Deploys;
pub use dynos::{AppObject, DynoObject, ReleaseObject};
pub use edge::ApiTls;
pub use frames::{Frame, Frames, Garbled, PAYLOAD_MAX};
pub use listen::{ControlError, Doors};
pub use logs::{LogSession, LogSessionCreate, LogSessions};
pub use one_offs::{DynoCreate, PROTOCOL};
pub use problem::{Problem, message};
pub use reload::{ReloadOutcome, ReloadRequest};
pub use rendezvous::Rendezvous;
pub use repeats::Repeats;
pub use routes::Listening;
pub use running::{Notes, Phase, Running};
pub use usage::{UsageRow, book};
