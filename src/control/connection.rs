//! One connection of a client, served.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::limits;
use crate::shutdown::Shutdown;

/// What becomes of the connections of a listener.
pub(in crate::control) trait Answer<S>: Send + Sync + 'static {
    /// Answers until the connection has ended.
    fn answer(&self, stream: S, shutdown: Shutdown) -> impl Future<Output = ()> + Send;
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Answer<S> for Router {
    async fn answer(&self, stream: S, shutdown: Shutdown) {
        connection(stream, self.clone(), shutdown).await;
    }
}

/// Serves HTTP on one connection.
pub(in crate::control) async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    routes: Router,
    shutdown: Shutdown,
) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::ADMIN_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes))
        .with_upgrades();
    let mut served = std::pin::pin!(served);
    // A client that breaks off is nobody's error; so the results say nothing.
    tokio::select! {
        _ = served.as_mut() => return,
        () = shutdown.begun() => served.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        _ = served => {}
        () = shutdown.forced() => {}
    }
}
