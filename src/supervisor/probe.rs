//! Whether a web dyno is ready: its port accepts connections.

use std::net::Ipv4Addr;

use tokio::net::TcpStream;
use tokio::time;

use crate::config::limits;

/// Returns once the port accepts a connection, which is closed at once. The caller bounds it.
pub(crate) async fn accepts(port: u16) {
    let began = time::Instant::now();
    loop {
        let wait = began.elapsed() / limits::PROBE_PART;
        time::sleep(wait.clamp(limits::PROBE_FIRST, limits::PROBE_MAX)).await;
        let connect = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
        if let Ok(Ok(_)) = time::timeout(limits::PROBE_MAX, connect).await {
            return;
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
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let bind_late = async {
            time::sleep(Duration::from_millis(30)).await;
            TcpListener::bind(("127.0.0.1", port)).await.unwrap()
        };
        let both = async { tokio::join!(accepts(port), bind_late) };
        let ((), _listener) = time::timeout(Duration::from_secs(10), both).await.unwrap();
    }
}
