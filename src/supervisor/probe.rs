//! Whether a web dyno is ready: its port accepts connections.

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time;

use crate::config::limits;
use crate::supervisor::listener;

/// Another user listens on a dyno's port.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("Somebody else (user {user}) listens on its port {port}")]
pub(crate) struct Stranger {
    port: u16,
    user: u32,
}

/// Returns once this address accepts a connection, which is closed at once. The caller bounds it.
///
/// Where the dyno has a user of its own, it must be that user who accepts: a port that is lent is held by nobody
/// until the dyno listens, and any process of the machine may have come first.
pub(crate) async fn accepts(addr: SocketAddr, user: Option<u32>) -> Result<(), Stranger> {
    let port = addr.port();
    let began = time::Instant::now();
    loop {
        let wait = began.elapsed() / limits::PROBE_PART;
        time::sleep(wait.clamp(limits::PROBE_FIRST, limits::PROBE_MAX)).await;
        let connect = TcpStream::connect(addr);
        if let Ok(Ok(_)) = time::timeout(limits::PROBE_MAX, connect).await {
            let Some(own) = user else { return Ok(()) };
            match spawn_blocking(move || listener::user(port)).await {
                Ok(Ok(Some(user))) if user == own => return Ok(()),
                Ok(Ok(Some(user))) => return Err(Stranger { port, user }),
                // Whoever accepted listens no more.
                Ok(Ok(None)) | Err(_) => {}
                Ok(Err(error)) => {
                    tracing::warn!("who listens on port {port} is not known: {error}")
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_port_that_is_bound_late_is_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        let bind_late = async {
            time::sleep(Duration::from_millis(30)).await;
            TcpListener::bind(addr).await.unwrap()
        };
        let both = async { tokio::join!(accepts(addr, None), bind_late) };
        let (accepted, _listener) = time::timeout(Duration::from_secs(10), both).await.unwrap();
        assert_eq!(accepted, Ok(()));
    }

    #[tokio::test]
    async fn only_the_dynos_own_user_counts_where_it_has_one() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let user = rustix::process::geteuid().as_raw();
        let probe = async |user| {
            time::timeout(Duration::from_secs(10), accepts(addr, Some(user))).await.unwrap()
        };
        assert_eq!(probe(user).await, Ok(()));
        assert_eq!(probe(user + 1).await, Err(Stranger { port: addr.port(), user }));
    }
}
