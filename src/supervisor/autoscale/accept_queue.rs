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
        let listener = match pid.get() {
            // It has a network of its own.
            Some(pid) if !at.ip().is_loopback() => SockDiag::listener_in(pid, at),
            _ => self.kernel.listener(at),
        };
        match listener {
            Ok(listener) => listener.map_or(0, |listener| listener.waiting),
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
