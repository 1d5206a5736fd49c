//! Clients that keep their connection, never retry, and count every request that broke.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::within;

/// A running load.
pub(crate) struct Load {
    clients: JoinSet<()>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    fine: AtomicU64,
    /// Answers other than 200.
    refused: AtomicU64,
    /// Requests sent without a whole answer, new connections that failed.
    broken: AtomicU64,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tally {
    pub(crate) fine: u64,
    pub(crate) refused: u64,
    pub(crate) broken: u64,
}

impl Load {
    /// Starts so many clients that each send the same request over and over. One answered with
    /// `Connection: close` connects anew: that is no loss.
    pub(crate) fn start(addr: SocketAddr, clients: usize, request: &str) -> Self {
        let shared = Arc::new(Shared::default());
        let request: Arc<str> = request.into();
        let mut tasks = JoinSet::new();
        for _ in 0..clients {
            tasks.spawn(run(addr, request.clone(), shared.clone()));
        }
        Self { clients: tasks, shared }
    }

    /// What came of it so far.
    pub(crate) fn tally(&self) -> Tally {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Shared { fine, refused, broken, .. } = &*self.shared;
        Tally { fine: read(fine), refused: read(refused), broken: read(broken) }
    }

    /// Waits until so many more requests went well.
    pub(crate) async fn carries(&self, requests: u64) {
        let goal = self.tally().fine + requests;
        within("requests under load", async {
            while self.tally().fine < goal {
                super::pause().await;
            }
        })
        .await;
    }

    /// Lets each client finish the request it is at.
    pub(crate) async fn stop(mut self) -> Tally {
        self.shared.stop.store(true, Ordering::Relaxed);
        within("the load to stop", async { while self.clients.join_next().await.is_some() {} })
            .await;
        self.tally()
    }
}

async fn run(addr: SocketAddr, request: Arc<str>, shared: Arc<Shared>) {
    let mut connection = None;
    while !shared.stop.load(Ordering::Relaxed) {
        let stream = match connection.take() {
            Some(stream) => Ok(stream),
            None => TcpStream::connect(addr).await,
        };
        let Ok(mut stream) = stream else {
            shared.broken.fetch_add(1, Ordering::Relaxed);
            super::pause().await;
            continue;
        };
        match exchange(&mut stream, &request).await {
            Some((status, keep)) => {
                let counter = if status == 200 { &shared.fine } else { &shared.refused };
                counter.fetch_add(1, Ordering::Relaxed);
                connection = keep.then_some(stream);
            }
            None => {
                shared.broken.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// One request; the status, and whether the connection is kept. `None`: no whole answer.
async fn exchange(stream: &mut TcpStream, request: &str) -> Option<(u16, bool)> {
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut input = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut input).await.ok()? == 0 {
            return None;
        }
        let Some(end) = input.windows(4).position(|it| it == b"\r\n\r\n") else { continue };
        let head = str::from_utf8(&input[..end]).ok()?.to_ascii_lowercase();
        let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length: "))?;
        if input.len() >= end + 4 + length.parse::<usize>().ok()? {
            let status = head.split(' ').nth(1)?.parse().ok()?;
            return Some((status, !head.contains("connection: close")));
        }
    }
}
