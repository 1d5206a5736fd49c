//! The connection of a drain: what it takes to have one batch on the other side.

use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::Poll;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::Full;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::config::limits;
use crate::drains::format::Form;
use crate::model::{DrainKind, DrainUrl};
use crate::outside::{DialError, Dialer, ExchangeError, Http, RootsError, dial};

const AGENT: &str = concat!("dynomesh/", env!("CARGO_PKG_VERSION"));
/// `[logs] ca_file`, as errors name it.
const CA_FILE: &str = "[logs] ca_file";

/// Lines, ready to be sent.
pub(super) struct Batch {
    pub(super) bytes: Bytes,
    pub(super) lines: u64,
    /// By which the other side can tell that it had the batch before.
    pub(super) id: String,
}

/// Why a batch is not on the other side.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error(transparent)]
    Roots(#[from] RootsError),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("{0}")]
    Exchange(#[from] ExchangeError),
    #[error("{0}")]
    Write(#[from] io::Error),
    #[error("it took longer than {} s", limits::DRAIN_SEND.as_secs())]
    TimedOut,
    /// It may take the batch another time.
    #[error("it answered {0}")]
    NotNow(StatusCode),
    /// It will never take this batch.
    #[error("it answered {0}")]
    Refused(StatusCode),
}

/// An open connection.
pub(super) enum Outlet {
    Syslog(Box<dyn Stream>),
    Http(Http<Full<Bytes>>),
}

/// A connection with TLS or without.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Outlet {
    /// In what form batches are sent.
    pub(super) fn form(url: &DrainUrl) -> Form {
        match url.kind() {
            DrainKind::Syslog | DrainKind::SyslogTls => Form::Syslog,
            DrainKind::Http | DrainKind::Https => Form::Logplex,
        }
    }

    async fn open(url: &DrainUrl, ca_file: Option<&Path>) -> Result<Self, SendError> {
        let stream: Box<dyn Stream> = match url.kind().is_tls() {
            false => Box::new(dial(url.host(), url.port()).await?),
            true => {
                // At each connection: it is rare, and what is trusted may have changed.
                let ca_file = ca_file.map(Path::to_owned);
                let dialer = spawn_blocking(move || Dialer::new(ca_file.as_deref(), CA_FILE)).await;
                let dialer = dialer.map_err(io::Error::other)??;
                Box::new(dialer.tls(url.host(), url.port()).await?)
            }
        };
        Ok(match Self::form(url) {
            Form::Syslog => Self::Syslog(stream),
            Form::Logplex => Self::Http(Http::on(stream).await.map_err(ExchangeError::from)?),
        })
    }

    /// Sends a batch over the connection that is open, or a new one. Where it fails, none is left open.
    pub(super) async fn send(
        open: &mut Option<Self>,
        url: &DrainUrl,
        ca_file: Option<&Path>,
        (token, batch): (&str, &Batch),
    ) -> Result<(), SendError> {
        if let Some(Self::Syslog(stream)) = open
            && is_closed(stream.as_mut()).await
        {
            *open = None;
        }
        let rested = open.is_some();
        let first = Self::try_send(open, url, ca_file, (token, batch)).await;
        match first {
            // A server ends connections that rest, just when they are used again.
            Err(SendError::Exchange(_)) if rested => {
                Self::try_send(open, url, ca_file, (token, batch)).await
            }
            first => first,
        }
    }

    async fn try_send(
        open: &mut Option<Self>,
        url: &DrainUrl,
        ca_file: Option<&Path>,
        (token, batch): (&str, &Batch),
    ) -> Result<(), SendError> {
        let sent = timeout(limits::DRAIN_SEND, async {
            let mut outlet = match open.take() {
                Some(outlet) => outlet,
                None => Self::open(url, ca_file).await?,
            };
            match &mut outlet {
                Self::Syslog(stream) => {
                    stream.write_all(&batch.bytes).await?;
                    stream.flush().await?;
                }
                Self::Http(http) => {
                    let request = post(url, token, batch);
                    let answer = http.ask(request, limits::DRAIN_ANSWER_MAX).await?;
                    judge(answer.status())?;
                }
            }
            Ok::<_, SendError>(outlet)
        });
        *open = Some(sent.await.map_err(|_| SendError::TimedOut)??);
        Ok(())
    }
}

/// What is said about a batch that is good goes for the next one, too; so does what the client did wrong.
fn judge(status: StatusCode) -> Result<(), SendError> {
    match status {
        status if status.is_success() => Ok(()),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
            Err(SendError::NotNow(status))
        }
        status if status.is_server_error() => Err(SendError::NotNow(status)),
        status => Err(SendError::Refused(status)),
    }
}

fn post(url: &DrainUrl, token: &str, batch: &Batch) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(batch.bytes.clone()));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = url.path().parse().expect("it is part of a URL");
    let value = |text: &str| HeaderValue::from_str(text).expect("it has visible characters only");
    let host = match url.host().contains(':') {
        true => format!("[{}]:{}", url.host(), url.port()),
        false => format!("{}:{}", url.host(), url.port()),
    };
    let headers = request.headers_mut();
    headers.insert(HOST, value(&host));
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/logplex-1"));
    headers.insert("logplex-msg-count", HeaderValue::from(batch.lines));
    headers.insert("logplex-frame-id", value(&batch.id));
    headers.insert("logplex-drain-token", value(token));
    if let Some(user_info) = url.user_info() {
        let mut basic = value(&format!("Basic {}", STANDARD.encode(user_info)));
        basic.set_sensitive(true);
        headers.insert(AUTHORIZATION, basic);
    }
    request
}

/// Whether the other side of a syslog connection, which has nothing to say, has ended it. Without the look, a batch
/// would be lost in a socket that nobody reads.
async fn is_closed(stream: &mut dyn Stream) -> bool {
    let mut byte = [0; 64];
    poll_fn(|cx| {
        let mut buffer = ReadBuf::new(&mut byte);
        match Pin::new(&mut *stream).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) => Poll::Ready(buffer.filled().is_empty()),
            Poll::Ready(Err(_)) => Poll::Ready(true),
            Poll::Pending => Poll::Ready(false),
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_posted_as_heroku_does() {
        let url = DrainUrl::parse("https://user:p%40ss@logs.test/in?a=b").unwrap();
        let batch = Batch { bytes: Bytes::from_static(b"x"), lines: 7, id: "abc".into() };
        let request = post(&url, "d.1", &batch);
        assert_eq!(
            (request.method().as_str(), request.uri().to_string()),
            ("POST", "/in?a=b".into())
        );
        let header = |name: &str| request.headers()[name].to_str().unwrap();
        assert_eq!(header("host"), "logs.test:443");
        assert_eq!(header("content-type"), "application/logplex-1");
        assert_eq!(header("logplex-msg-count"), "7");
        assert_eq!((header("logplex-frame-id"), header("logplex-drain-token")), ("abc", "d.1"));
        assert_eq!(header("authorization"), format!("Basic {}", STANDARD.encode("user:p@ss")));
    }

    #[test]
    fn only_what_may_change_is_tried_again() {
        let again = |status: u16| match judge(StatusCode::from_u16(status).unwrap()) {
            Ok(()) => "sent",
            Err(SendError::NotNow(_)) => "again",
            Err(_) => "lost",
        };
        for (status, expected) in [
            (200, "sent"),
            (204, "sent"),
            (408, "again"),
            (429, "again"),
            (503, "again"),
            (301, "lost"),
            (401, "lost"),
        ] {
            assert_eq!(again(status), expected, "{status}");
        }
    }
}
