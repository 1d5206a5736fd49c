//! WebSockets that come back when they are closed for a restart, and fail the test when they end in another way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::task::JoinSet;

use crate::support::{Client, End, becomes_true, request, within};

/// Text, as a client masks it.
pub(crate) const HELLO: &[u8] = b"\x81\x85\x01\x02\x03\x04\x69\x67\x6f\x68\x6e";
/// Closed by the router: 1012, service restart.
pub(crate) const RESTART: &[u8] = b"\x88\x02\x03\xf4";
/// The same code back, masked by nothing.
pub(crate) const GOODBYE: &[u8] = b"\x88\x82\0\0\0\0\x03\xf4";

/// Some WebSockets that talk with the testapp.
pub(crate) struct Sockets {
    places: JoinSet<()>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    restarts: AtomicU64,
}

impl Sockets {
    /// Opens so many.
    pub(crate) fn start(addr: SocketAddr, count: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let mut places = JoinSet::new();
        for _ in 0..count {
            let shared = shared.clone();
            places.spawn(async move {
                while !shared.stop.load(Ordering::Relaxed) {
                    talk(addr, &shared).await;
                }
            });
        }
        Self { places, shared }
    }

    /// How often one was closed for a restart.
    pub(crate) fn restarts(&self) -> u64 {
        self.shared.restarts.load(Ordering::Relaxed)
    }

    /// Waits until that has been so often.
    pub(crate) async fn restarted(&self, times: u64) {
        becomes_true("WebSockets to be closed", async || self.restarts() >= times).await;
    }

    /// Hangs up.
    pub(crate) async fn stop(mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(place) = within("the last echo", self.places.join_next()).await {
            place.expect("every WebSocket to end for a restart");
        }
    }
}

/// One WebSocket, until it is closed.
async fn talk(addr: SocketAddr, shared: &Shared) {
    let mut client = Client::connect(addr).await;
    client.send(request("GET", "/ws", "Connection: Upgrade\r\nUpgrade: websocket\r\n", "")).await;
    assert_eq!(client.answer().await.status, 101);
    while !shared.stop.load(Ordering::Relaxed) {
        // Whoever has said goodbye may be gone: what it said is there to read.
        let _ = client.try_send(HELLO).await;
        let first = client.exactly(RESTART.len()).await;
        if first == RESTART {
            let _ = client.try_send(GOODBYE).await;
            client.finish().await;
            assert_eq!(client.rest_and_end().await, (Vec::new(), End::Closed));
            shared.restarts.fetch_add(1, Ordering::Relaxed);
            return;
        }
        assert_eq!(first, HELLO[..RESTART.len()]);
        assert_eq!(client.exactly(HELLO.len() - first.len()).await, HELLO[first.len()..]);
        super::pause().await;
    }
}
