//! How many connections wait until an app accepts them.

use std::net::SocketAddr;

use crate::supervisor::program::ProcessId;
use crate::supervisor::sock_diag::SockDiag;

/// The accept queues of this machine's listeners.
#[derive(Default)]
pub(crate) struct AcceptQueues {
    kernel: SockDiag,
    has_complained: bool,
}

impl AcceptQueues {
    /// How many wait there for this process; none, as far as the kernel tells.
    pub(crate) fn waiting(&mut self, pid: &ProcessId, at: SocketAddr) -> u32 {
        let waiting = match pid.get() {
            // It has a network of its own.
            Some(pid) if !at.ip().is_loopback() => SockDiag::waiting_in(pid, at),
            _ => self.kernel.waiting(at),
        };
        match waiting {
            Ok(waiting) => waiting.unwrap_or(0),
            Err(error) => {
                if !std::mem::replace(&mut self.has_complained, true) {
                    tracing::warn!(
                        "autoscale with a queue target sees no accept queues, only waits in the router: sock_diag: {error}"
                    );
                }
                0
            }
        }
    }
}
