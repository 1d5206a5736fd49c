//! How commands ask the daemon: one request over its socket.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::model::ListenAddr;

/// What the daemon answered.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The whole body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no dynomesh answers on {addr}: {source}")]
    Absent {
        /// Where it was sought.
        addr: ListenAddr,
        /// Why.
        source: io::Error,
    },
    /// Somebody listens, but the answer did not come whole.
    #[error("ask the dynomesh on {addr}: {source}")]
    Broken {
        /// Where it was asked.
        addr: ListenAddr,
        /// Why.
        source: hyper::Error,
    },
    /// Somebody listens and does not answer.
    #[error("the dynomesh on {addr} did not answer within {} s", within.as_secs())]
    Silent {
        /// Where it was asked.
        addr: ListenAddr,
        /// How long was waited.
        within: Duration,
    },
}

/// Sends one request without a body, and reads the answer whole.
pub async fn request(
    addr: &ListenAddr,
    method: Method,
    path: &str,
    within: Duration,
) -> Result<Reply, ClientError> {
    let asked = async {
        let absent = |source| ClientError::Absent { addr: addr.clone(), source };
        let reply = match addr {
            ListenAddr::Tcp(to) => {
                exchange(TcpStream::connect(to).await.map_err(absent)?, method, path).await
            }
            ListenAddr::Unix(to) => {
                exchange(UnixStream::connect(to).await.map_err(absent)?, method, path).await
            }
        };
        reply.map_err(|source| ClientError::Broken { addr: addr.clone(), source })
    };
    let silent = |_| ClientError::Silent { addr: addr.clone(), within };
    timeout(within, asked).await.map_err(silent)?
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    method: Method,
    path: &str,
) -> Result<Reply, hyper::Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let ask = async move {
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = method;
        *request.uri_mut() = http::Uri::try_from(path).expect("commands ask for fixed paths");
        request
            .headers_mut()
            .insert(http::header::HOST, http::HeaderValue::from_static("localhost"));
        let (head, body) = sender.send_request(request).await?.into_parts();
        Ok(Reply { status: head.status, body: body.collect().await?.to_bytes() })
    };
    // The connection ends by itself once `ask` has dropped its sender.
    let (reply, _) = tokio::join!(ask, connection);
    reply
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn the_answer_is_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let answer = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let length = stream.read(&mut head).await.unwrap();
            stream.write_all(b"HTTP/1.1 422 No\r\ncontent-length: 4\r\n\r\nno").await.unwrap();
            stream.write_all(b"pe").await.unwrap();
            String::from_utf8_lossy(&head[..length]).into_owned()
        };
        let addr = ListenAddr::Unix(path.clone());
        let (reply, head) = tokio::join!(request(&addr, Method::POST, "/reload", SOON), answer);
        let reply = reply.unwrap();
        assert_eq!((reply.status.as_u16(), &*reply.body), (422, &b"nope"[..]));
        assert!(head.starts_with("POST /reload HTTP/1.1\r\nhost: localhost\r\n"), "{head}");
    }

    #[tokio::test]
    async fn nobody_there_is_said_with_the_address() {
        let addr = ListenAddr::Unix("/nonexistent/socket".into());
        let error = request(&addr, Method::GET, "/config", SOON).await.unwrap_err();
        assert!(
            error.to_string().starts_with("no dynomesh answers on unix:/nonexistent/socket: "),
            "{error}"
        );
    }
}
