//! The router: a request's life.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::model::ListenAddr;
use crate::table::Publisher;
use crate::telemetry::Lines;

/// The running data plane: one door thread that accepts, and worker threads that carry connections.
pub struct Router {}

/// What [`Router::start`] needs.
pub struct Options {
    /// Worker threads.
    pub workers: usize,
    /// Client connections at one time, over all workers.
    pub connections_max: usize,
    /// Where routes come from.
    pub publisher: Arc<Publisher>,
    /// Where the line per request goes.
    pub access_log: Lines,
}

/// Listeners that are bound and not yet accepted on.
pub struct Prepared {}

/// An address that could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("listen on {addr}: {source}")]
pub struct BindError {
    /// The address.
    pub addr: ListenAddr,
    /// Why.
    pub source: io::Error,
}

impl Router {
    /// Starts the threads. Listens nowhere yet.
    pub fn start(_options: Options) -> io::Result<Self> {
        todo!()
    }

    /// Binds those of the wanted addresses that are not listened on yet, taking inherited descriptors
    /// (`LISTEN_FDS`) where their address fits. Nothing else changes until [`apply`](Self::apply).
    pub fn prepare(&self, _wanted: &[ListenAddr], _inherited: Vec<OwnedFd>) -> Result<Prepared, BindError> {
        todo!()
    }

    /// Accepts on exactly the prepared addresses from now on. Those that are not among them are emptied
    /// and closed; their connections finish.
    pub fn apply(&self, _prepared: Prepared) {
        todo!()
    }

    /// The addresses that are accepted on, with the ports the kernel chose.
    pub fn listening(&self) -> Vec<ListenAddr> {
        todo!()
    }

    /// Stops accepting; each connection finishes its exchange and closes.
    pub fn drain(&self) {
        todo!()
    }

    /// Waits until no connection is left.
    pub async fn drained(&self) {
        todo!()
    }

    /// Cuts what is left (H24), then joins the threads. Blocks for at most some ticks.
    pub fn stop(self) {
        todo!()
    }

    /// The request counters in Prometheus' text format.
    pub fn render_metrics(&self, _out: &mut String) {
        todo!()
    }

    /// Workers that have not answered for [`limits::WORKER_STALL`](crate::config::limits::WORKER_STALL),
    /// with the seconds since they last did. Called each second by the control runtime; posts the next ping.
    pub fn stalled_workers(&self) -> Vec<(usize, f64)> {
        todo!()
    }

    /// What each worker holds (connections, pools, lingers), for `/debug/workers`.
    pub async fn report_workers(&self) -> serde_json::Value {
        todo!()
    }
}
