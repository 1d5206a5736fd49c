//! What the operating system asks for.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT: end, gracefully at first.
pub(in crate::daemon) struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Ends {
    /// From now on these signals no longer kill the process. Call it inside a runtime.
    pub(in crate::daemon) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next of them and returns its name. Nothing is lost when the future is dropped.
    pub(in crate::daemon) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// SIGHUP: reload. Those that come in while nobody waits are seen as one.
pub(in crate::daemon) fn hangups() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}
