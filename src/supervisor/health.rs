//! Whether a web dyno is well: it answers a GET with 2xx or 3xx.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time;

use crate::config::{HealthCheck, limits};

/// How it names itself, for the app's own log.
const AGENT: &str = concat!("dynomesh/", env!("CARGO_PKG_VERSION"), " (health)");

/// What is wrong with a dyno.
#[derive(Debug)]
pub(crate) enum Unwell {
    /// It answered with this.
    Status(StatusCode),
    /// It did not answer within its time.
    TimedOut,
    /// It accepts no connection.
    Connect(io::Error),
    /// What it answered is not HTTP, or nothing.
    Broken(hyper::Error),
}

/// As in "GET /up …".
impl fmt::Display for Unwell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "was answered {}", status.as_u16()),
            Self::TimedOut => f.write_str("was not answered in time"),
            Self::Connect(error) => write!(f, "found nobody: {error}"),
            Self::Broken(error) => write!(f, "was not answered: {error}"),
        }
    }
}

/// Asks once, within the time that the check gives.
pub(crate) async fn ask(addr: SocketAddr, check: &HealthCheck) -> Result<(), Unwell> {
    time::timeout(check.timeout, exchange(addr, check)).await.unwrap_or(Err(Unwell::TimedOut))
}

async fn exchange(addr: SocketAddr, check: &HealthCheck) -> Result<(), Unwell> {
    let stream = TcpStream::connect(addr).await.map_err(Unwell::Connect)?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(Unwell::Broken)?;
    let request = Request::get(&*check.path)
        .header(HOST, addr.to_string())
        .header(USER_AGENT, AGENT)
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .expect("the configuration's path fits into a request");
    let answer = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        // Read to its end, so that the app has no broken pipe to complain of; what it is matters to nobody.
        let _ = Limited::new(answer.into_body(), limits::HEALTH_BODY_MAX).collect().await;
        Ok(status)
    };
    // It does the work for both. Where it ends well, the answer is there.
    let status = tokio::select! {
        biased;
        status = answer => status,
        Err(error) = connection => Err(error),
    };
    let status = status.map_err(Unwell::Broken)?;
    if status.is_success() || status.is_redirection() {
        Ok(())
    } else {
        Err(Unwell::Status(status))
    }
}
