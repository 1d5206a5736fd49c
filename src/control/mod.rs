//! What people and their tools ask the running daemon, over HTTP.
//!
//! Two doors lead to the same answers: the admin listener (`[admin] http`), which only reads, and the
//! control socket (`[admin] socket`), by which commands find the daemon and ask for a reload. Who may open
//! the socket's file may do everything.

mod running; // what of the daemon the answers are made from
mod routes; // which path gives which answer
mod readiness; // whether requests would be served
mod metrics; // the page that Prometheus reads
mod exposition; // Prometheus' text format
mod reload; // what came of a reload
mod listen; // binding the two doors, and serving behind them
mod client; // the other end: how commands ask
#[cfg(test)]
mod scene; // for tests: a configuration and its table

pub use client::{ClientError, Reply, request};
pub use listen::{ControlError, Doors};
pub use reload::{ReloadOutcome, ReloadRequest};
pub use routes::{admin, control};
pub use running::{Notes, Phase, Running};
