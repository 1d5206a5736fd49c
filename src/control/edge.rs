//! The Platform API's port: what a connection is, by its first bytes.
//!
//! A TLS handshake begins with a byte that no request begins with (RFC 8446 §5.1), and what comes within TLS is either a
//! request or the secret of a one-off dyno's client on a line of its own.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use rustls::ServerConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::certs::{Certs, CertsError};
use crate::config::{AdminConfig, limits};
use crate::control::api::{Part, Rates};
use crate::control::connection::{Answer, connection};
use crate::control::routes::api;
use crate::control::{Problem, Running, rendezvous};
use crate::shutdown::Shutdown;

/// The first byte of a TLS record that carries a handshake.
const HANDSHAKE: u8 = 0x16;
/// How a request to a proxy begins (RFC 9110 §9.3.6).
const CONNECT: &[u8; 8] = b"CONNECT ";
/// What those hear who want to be connected to anybody else.
const REFUSED: &[u8] = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
/// Bytes of the head of such a request.
const HEAD_MAX: usize = 8 * 1024;
/// Bytes that are looked at for a line end, before they are left to HTTP: the secrets are shorter.
const LINE_MAX: usize = 256;
/// When a peer is asked whether it is still there: a client that has lost its network says nothing, and a log may be
/// followed for days.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Answers on that port.
pub(in crate::control) struct Edge {
    running: Arc<Running>,
    platform: Front,
    metrics: Front,
    refusal: axum::Router,
}

/// How one part of the API is met.
struct Front {
    tls: TlsAcceptor,
    plain: axum::Router,
    over_tls: axum::Router,
}

/// What is shown to those who ask for each part of the API by TLS.
pub struct ApiTls {
    platform: Arc<ServerConfig>,
    metrics: Arc<ServerConfig>,
}

impl ApiTls {
    /// For the names of this configuration. The name of Heroku's is in none of the certificates that others get to see.
    pub fn new(certs: &Certs, admin: &AdminConfig) -> Result<Self, CertsError> {
        let of = |part: Part| certs.server_config_for(part.names(admin));
        Ok(Self { platform: of(Part::Platform)?, metrics: of(Part::Metrics)? })
    }
}

impl Edge {
    pub(in crate::control) fn new(running: &Arc<Running>, tls: ApiTls) -> Self {
        let rates = Arc::new(Rates::default());
        let answers = |part, scheme| api(running.clone(), rates.clone(), part, scheme);
        let front = |part, tls: Arc<ServerConfig>| Front {
            tls: tls.into(),
            plain: answers(part, "http"),
            over_tls: answers(part, "https"),
        };
        Self {
            running: running.clone(),
            platform: front(Part::Platform, tls.platform),
            metrics: front(Part::Metrics, tls.metrics),
            refusal: axum::Router::new().fallback(refuse_plain),
        }
    }

    async fn greet(&self, mut stream: TcpStream) -> io::Result<Guest> {
        let peer = stream.peer_addr()?;
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
        let (mut first, mut front) = (first_byte(&stream).await?, &self.platform);
        if first == CONNECT[0] && is_near(peer.ip()) && begins_with_connect(&stream).await? {
            front = self.tunnel(&mut stream).await?;
            first = first_byte(&stream).await?;
        }
        if first != HANDSHAKE {
            let answers = if is_near(peer.ip()) { &front.plain } else { &self.refusal };
            return Ok(Guest::Plain { stream, answers: answers.clone() });
        }
        let mut stream = Box::new(front.tls.accept(stream).await?);
        let mut line = Vec::new();
        let speech = loop {
            if let Some(speech) = Speech::of(&line) {
                break speech;
            }
            if stream.read_buf(&mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        Ok(Guest::Tls { stream, line, speech, answers: front.over_tls.clone() })
    }

    /// Answers somebody who takes this port for a proxy. `dynomesh heroku` has the CLI do so, since some of its commands
    /// go to hosts of Heroku's and take the token along: what is for this port goes on here, all else is refused, and
    /// nothing is ever passed on. Returns who goes on.
    async fn tunnel(&self, stream: &mut TcpStream) -> io::Result<&Front> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() >= HEAD_MAX || stream.read_buf(&mut head).await? == 0 {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        let target = String::from_utf8_lossy(&head[CONNECT.len()..]);
        let target = target.split(' ').next().unwrap_or_default();
        let front = match Part::of(target, &self.running.config.load().admin) {
            Some(Part::Platform) => &self.platform,
            Some(Part::Metrics) => &self.metrics,
            None => {
                stream.write_all(REFUSED).await?;
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
        };
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
        Ok(front)
    }
}

async fn first_byte(stream: &TcpStream) -> io::Result<u8> {
    let mut first = [0];
    match stream.peek(&mut first).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(first[0]),
    }
}

/// Clients send this in one piece; who does not is heard out by HTTP.
async fn begins_with_connect(stream: &TcpStream) -> io::Result<bool> {
    let mut begin = [0; CONNECT.len()];
    Ok(stream.peek(&mut begin).await? == CONNECT.len() && begin == *CONNECT)
}

/// Who has come.
enum Guest {
    Plain {
        stream: TcpStream,
        answers: axum::Router,
    },
    Tls {
        stream: Box<TlsStream<TcpStream>>,
        /// What was read of it.
        line: Vec<u8>,
        speech: Speech,
        answers: axum::Router,
    },
}

impl Answer<TcpStream> for Edge {
    async fn answer(&self, stream: TcpStream, shutdown: Shutdown) {
        let greeted = tokio::select! {
            greeted = timeout(limits::API_OPENING, self.greet(stream)) => greeted,
            // Who has said nothing yet is owed nothing.
            () = shutdown.begun() => return,
        };
        match greeted {
            Ok(Ok(Guest::Plain { stream, answers })) => {
                connection(stream, answers, shutdown).await;
            }
            Ok(Ok(Guest::Tls { stream, line, speech: Speech::Http, answers })) => {
                connection(resumed(*stream, line), answers, shutdown).await;
            }
            Ok(Ok(Guest::Tls {
                stream, line, speech: Speech::Secret { secret, length }, ..
            })) => {
                let stream = resumed(*stream, line[length..].to_vec());
                rendezvous::meet(&self.running, &secret, stream, &shutdown).await;
            }
            // Too slow, or gone, or no TLS: nobody's error here.
            Ok(Err(_)) | Err(_) => {}
        }
    }
}

/// What is spoken within TLS.
#[derive(Debug, PartialEq, Eq)]
enum Speech {
    Http,
    /// With the bytes that it takes, its line end included.
    Secret {
        secret: String,
        length: usize,
    },
}

impl Speech {
    /// `None`: more bytes will tell.
    fn of(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().position(|byte| !byte.is_ascii_alphanumeric());
        let Some(end) = end else { return (bytes.len() >= LINE_MAX).then_some(Self::Http) };
        match &bytes[end..] {
            [b'\r', b'\n', ..] if end > 0 => {
                let secret = String::from_utf8_lossy(&bytes[..end]).into_owned();
                Some(Self::Secret { secret, length: end + 2 })
            }
            [b'\r'] => None,
            _ => Some(Self::Http),
        }
    }
}

/// The stream, with what was read of it in front again.
fn resumed(
    stream: TlsStream<TcpStream>,
    read: Vec<u8>,
) -> impl AsyncRead + AsyncWrite + Unpin + Send + 'static {
    let (from, to) = tokio::io::split(stream);
    tokio::io::join(io::Cursor::new(read).chain(from), to)
}

/// Whether what comes from this address has been on no network.
fn is_near(peer: IpAddr) -> bool {
    peer.to_canonical().is_loopback()
}

/// Tokens are not for the networks between two machines to read.
async fn refuse_plain() -> Problem {
    Problem {
        status: StatusCode::FORBIDDEN,
        id: "tls_required",
        message: "From another machine the API is asked by https:// alone; what was sent in the clear, a token among it, others may have read.".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near() {
        for (peer, expected) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.1", false),
            ("::ffff:10.0.0.1", false),
            ("fe80::1", false),
        ] {
            assert_eq!(is_near(peer.parse().unwrap()), expected, "{peer}");
        }
    }

    #[test]
    fn a_secret_is_a_line_of_its_own() {
        let check = |bytes: &[u8], expected: Option<Speech>| {
            assert_eq!(Speech::of(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        };
        let secret = |text: &str, length| Some(Speech::Secret { secret: text.into(), length });
        check(b"", None);
        check(b"abc123", None);
        check(b"abc123\r", None);
        check(b"abc123\r\n", secret("abc123", 8));
        check(b"abc123\r\nls\n", secret("abc123", 8));
        for http in
            [&b"GET "[..], b"GET / HTTP/1.1\r\n", b"\r\nGET", b"abc\n", b"a\rb", b"\x16", b"PRI * "]
        {
            check(http, Some(Speech::Http));
        }
        check(&[b'a'; LINE_MAX], Some(Speech::Http));
    }
}
