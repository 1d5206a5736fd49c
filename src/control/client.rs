//! How commands ask the daemon: one request over its socket.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
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

/// A connection that is no HTTP any more.
pub type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

/// Sends one request without a body, and reads the answer whole.
pub async fn request(
    addr: &ListenAddr,
    method: Method,
    path: &str,
    within: Duration,
) -> Result<Reply, ClientError> {
    send(addr, method, path, Bytes::new(), within).await
}

/// Sends one request with a body of JSON, or an empty one, and reads the answer whole.
pub async fn send(
    addr: &ListenAddr,
    method: Method,
    path: &str,
    body: Bytes,
    within: Duration,
) -> Result<Reply, ClientError> {
    let request = compose(method, path, body);
    bounded(addr, within, async {
        let (mut sender, connection) = connect(addr).await?;
        let ask = async move { read(sender.send_request(request).await?).await };
        // The connection ends by itself once `ask` has dropped its sender.
        let (reply, _) = tokio::join!(ask, connection);
        reply.map_err(|source| ClientError::Broken { addr: addr.clone(), source })
    })
    .await
}

/// Sends a file of this length as the body of a PUT, and reads the answer whole. `sent` is told how much is on its way.
pub async fn upload(
    addr: &ListenAddr,
    path: &str,
    file: File,
    length: u64,
    sent: impl FnMut(u64) + Send + Unpin + 'static,
    within: Duration,
) -> Result<Reply, ClientError> {
    let request = compose(Method::PUT, path, Bytes::new());
    let request = request.map(|_| FileBody { file, length, read: 0, sent });
    bounded(addr, within, async {
        let (mut sender, connection) = connect(addr).await?;
        let ask = async move { read(sender.send_request(request).await?).await };
        let (reply, _) = tokio::join!(ask, connection);
        reply.map_err(|source| ClientError::Broken { addr: addr.clone(), source })
    })
    .await
}

/// A file as a body. Blocks on the disk, as a command may.
struct FileBody<F> {
    file: File,
    length: u64,
    read: u64,
    sent: F,
}

/// Bytes of one read of it.
const PIECE: usize = 64 * 1024;

impl<F: FnMut(u64) + Unpin> Body for FileBody<F> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        let mut piece = vec![0; PIECE.min((this.length - this.read) as usize)];
        if piece.is_empty() {
            return Poll::Ready(None);
        }
        let read = this.file.read(&mut piece).and_then(|count| match count {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => Ok(count),
        });
        Poll::Ready(Some(read.map(|count| {
            piece.truncate(count);
            this.read += count as u64;
            (this.sent)(this.read);
            Frame::data(piece.into())
        })))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length - self.read)
    }
}

/// Asks for a connection to become something else than HTTP. Where the daemon does not do so, its answer.
pub async fn upgrade(
    addr: &ListenAddr,
    path: &str,
    protocol: &'static str,
    within: Duration,
) -> Result<Result<Upgraded, Reply>, ClientError> {
    let mut request = compose(Method::GET, path, Bytes::new());
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    request.headers_mut().insert(UPGRADE, HeaderValue::from_static(protocol));
    bounded(addr, within, async {
        let (mut sender, connection) = connect(addr).await?;
        let ask = async move {
            let response = sender.send_request(request).await?;
            match response.status() {
                StatusCode::SWITCHING_PROTOCOLS => {
                    Ok(Ok(TokioIo::new(hyper::upgrade::on(response).await?)))
                }
                _ => Ok(Err(read(response).await?)),
            }
        };
        let (upgraded, _) = tokio::join!(ask, connection.with_upgrades());
        upgraded.map_err(|source| ClientError::Broken { addr: addr.clone(), source })
    })
    .await
}

/// An answer whose body is read as it comes.
pub struct Streamed {
    addr: ListenAddr,
    body: Incoming,
    /// Ends with the sender, which has to live as long.
    connection: Option<Connection<Full<Bytes>>>,
    _sender: http1::SendRequest<Full<Bytes>>,
}

impl Streamed {
    /// The next bytes; `None`: it has ended as it should.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        let broken = |source| ClientError::Broken { addr: self.addr.clone(), source };
        loop {
            let connection = async {
                match &mut self.connection {
                    Some(connection) => connection.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                frame = self.body.frame() => match frame {
                    None => return Ok(None),
                    Some(Err(source)) => return Err(broken(source)),
                    // What is no data is of no interest: trailers.
                    Some(Ok(frame)) => if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    },
                },
                // The body says how it ended.
                _ = connection => self.connection = None,
            }
        }
    }
}

/// Asks for an answer that is read as it comes; where it is a refusal, the whole of it. `last_event_id`: what of it the
/// asker has already.
pub async fn stream(
    addr: &ListenAddr,
    path: &str,
    last_event_id: Option<&str>,
    within: Duration,
) -> Result<Result<Streamed, Reply>, ClientError> {
    let mut request = compose(Method::GET, path, Bytes::new());
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    if let Some(id) = last_event_id.and_then(|id| HeaderValue::from_str(id).ok()) {
        request.headers_mut().insert("last-event-id", id);
    }
    bounded(addr, within, async {
        let broken = |source| ClientError::Broken { addr: addr.clone(), source };
        let (mut sender, mut connection) = connect(addr).await?;
        let mut response = std::pin::pin!(sender.send_request(request));
        let response = tokio::select! {
            biased;
            response = &mut response => response,
            // Where the connection ends, it has said so to whoever waits for an answer.
            _ = &mut connection => response.await,
        };
        let response = response.map_err(broken)?;
        match response.status().is_success() {
            true => {
                let (addr, body) = (addr.clone(), response.into_body());
                Ok(Ok(Streamed { addr, body, connection: Some(connection), _sender: sender }))
            }
            false => {
                let (reply, _) = tokio::join!(read(response), async {
                    drop(sender);
                    connection.await
                });
                Ok(Err(reply.map_err(broken)?))
            }
        }
    })
    .await
}

async fn bounded<T>(
    addr: &ListenAddr,
    within: Duration,
    asked: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    let silent = |_| ClientError::Silent { addr: addr.clone(), within };
    timeout(within, asked).await.map_err(silent)?
}

/// What both kinds of socket are to a client.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl Stream for TcpStream {}
impl Stream for UnixStream {}

type Connection<B> = http1::Connection<TokioIo<Box<dyn Stream>>, B>;

async fn connect<B>(
    addr: &ListenAddr,
) -> Result<(http1::SendRequest<B>, Connection<B>), ClientError>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let absent = |source| ClientError::Absent { addr: addr.clone(), source };
    let stream: Box<dyn Stream> = match addr {
        ListenAddr::Tcp(to) => Box::new(TcpStream::connect(to).await.map_err(absent)?),
        ListenAddr::Unix(to) => Box::new(UnixStream::connect(to).await.map_err(absent)?),
    };
    let broken = |source| ClientError::Broken { addr: addr.clone(), source };
    http1::handshake(TokioIo::new(stream)).await.map_err(broken)
}

fn compose(method: Method, path: &str, body: Bytes) -> Request<Full<Bytes>> {
    let has_body = !body.is_empty();
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = http::Uri::try_from(path).expect("commands ask for paths made of names");
    request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
    if has_body {
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    request
}

async fn read(response: http::Response<Incoming>) -> Result<Reply, hyper::Error> {
    let (head, body) = response.into_parts();
    Ok(Reply { status: head.status, body: body.collect().await?.to_bytes() })
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
