//! A keep-alive HTTP/1.1 client that never retries: each request ends in an answer or in a loss.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::target::{Stream, Target};

/// How long an exchange may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// One place of the load: at most one connection to the proxy, made anew after a loss or a last answer.
pub struct Client {
    target: Target,
    connection: Option<Connection>,
}

impl Client {
    /// Not connected yet.
    pub fn new(target: &Target) -> Self {
        Self { target: target.clone(), connection: None }
    }

    /// Sends a request and reads its answer to the end. Returns the status.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<u16, Loss> {
        // Taken out: only a whole answer that keeps the connection puts it back.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&self.target).await?,
        };
        let answer = connection.exchange(request).await?;
        if !answer.last {
            self.connection = Some(connection);
        }
        Ok(answer.status)
    }
}

/// One connection to the proxy.
pub struct Connection {
    stream: Stream,
    received: Vec<u8>,
    /// Whether an answer has come on this connection before.
    used: bool,
}

/// The answer to a request, without its body.
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Whether the connection ends with it.
    pub last: bool,
}

/// Why there is no whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// The proxy did not take the connection.
    Refused,
    /// It took the connection, and the TLS handshake failed.
    Handshake,
    /// An earlier answer's connection was closed or reset before any byte of this one.
    ClosedWhenReused,
    /// A new connection was closed or reset before any byte of the answer.
    ClosedWhenNew,
    /// The answer ended too early.
    Cut,
    /// The answer is not HTTP as this client knows it.
    Garbled,
    /// Nothing came for 20 s.
    Silent,
}

impl Loss {
    /// As printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Handshake => "handshake",
            Self::ClosedWhenReused => "closed-when-reused",
            Self::ClosedWhenNew => "closed-when-new",
            Self::Cut => "cut",
            Self::Garbled => "garbled",
            Self::Silent => "silent",
        }
    }
}

/// The bytes of a request, with a body of `body` bytes where that is not 0.
pub fn request(method: &str, addr: SocketAddr, path: &str, body: usize) -> Vec<u8> {
    let length = if body > 0 { format!("Content-Length: {body}\r\n") } else { String::new() };
    let mut request = format!("{}{length}\r\n", head(method, addr, path)).into_bytes();
    request.resize(request.len() + body, b'x');
    request
}

/// The bytes of a GET after which the connection ends.
pub fn last_request(addr: SocketAddr, path: &str) -> Vec<u8> {
    format!("{}Connection: close\r\n\r\n", head("GET", addr, path)).into_bytes()
}

/// What every request begins with.
pub fn head(method: &str, addr: SocketAddr, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: {addr}\r\nUser-Agent: compare\r\n")
}

impl Connection {
    /// Connects, with the TLS handshake where the target has one.
    pub async fn open(target: &Target) -> Result<Self, Loss> {
        let stream = timeout(PATIENCE, target.connect()).await.map_err(|_| Loss::Silent)??;
        Ok(Self { stream, received: Vec::new(), used: false })
    }

    /// Whether its TLS handshake resumed an earlier session.
    pub fn is_resumed(&self) -> bool {
        self.stream.is_resumed()
    }

    /// Sends a request and reads its answer to the end.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<Answer, Loss> {
        timeout(PATIENCE, self.exchange_in_time(request)).await.map_err(|_| Loss::Silent)?
    }

    /// Waits until the proxy closes the connection too, after an answer that was the last.
    pub async fn finish(mut self) -> Result<(), Loss> {
        match timeout(PATIENCE, self.read_body(None)).await {
            Ok(ended) => ended,
            Err(_elapsed) => Err(Loss::Silent),
        }
    }

    async fn exchange_in_time(&mut self, request: &[u8]) -> Result<Answer, Loss> {
        // A server that answers early and closes makes the write fail; its answer may be there all the same.
        let sent = self.send(request).await;
        let head = match (self.read_head().await, sent) {
            (Err(error), _) => return Err(self.lost_before_answer(&error)),
            (Ok(None), _) if self.received.is_empty() => return Err(self.closed()),
            (Ok(None), _) => return Err(Loss::Cut),
            (Ok(Some(head)), _) => head,
        };
        let parsed = Head::parse(&self.received[..head]).ok_or(Loss::Garbled)?;
        self.received.drain(..head);
        self.read_body(parsed.length).await?;
        self.used = true;
        Ok(Answer { status: parsed.status, last: parsed.close || parsed.length.is_none() })
    }

    async fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request).await?;
        self.stream.flush().await
    }

    async fn read_head(&mut self) -> io::Result<Option<usize>> {
        loop {
            if let Some(at) = memmem::find(&self.received, b"\r\n\r\n") {
                return Ok(Some(at + 4));
            }
            self.received.reserve(4096);
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Discards a body of `length` bytes, or up to the end of the connection.
    async fn read_body(&mut self, length: Option<usize>) -> Result<(), Loss> {
        let mut left = length.unwrap_or(usize::MAX);
        loop {
            let here = left.min(self.received.len());
            self.received.drain(..here);
            left -= here;
            if left == 0 {
                return Ok(());
            }
            match self.stream.read_buf(&mut self.received).await {
                Ok(0) if length.is_none() => return Ok(()),
                Ok(0) | Err(_) => return Err(Loss::Cut),
                Ok(_) => {}
            }
        }
    }

    fn lost_before_answer(&self, error: &io::Error) -> Loss {
        match error.kind() {
            _ if !self.received.is_empty() => Loss::Cut,
            // Over TLS an end without close_notify is one that came too early.
            ErrorKind::ConnectionReset
            | ErrorKind::BrokenPipe
            | ErrorKind::ConnectionAborted
            | ErrorKind::UnexpectedEof => self.closed(),
            _ => Loss::Garbled,
        }
    }

    fn closed(&self) -> Loss {
        if self.used { Loss::ClosedWhenReused } else { Loss::ClosedWhenNew }
    }
}

/// What this client needs of an answer's head. Chunked answers are not among what the upstream sends, nor
/// among what a proxy may make of it.
#[derive(Debug, PartialEq)]
struct Head {
    status: u16,
    /// `None`: the body ends with the connection.
    length: Option<usize>,
    close: bool,
}

impl Head {
    fn parse(head: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(head).ok()?;
        let mut lines = text.split("\r\n");
        let status_line = lines.next()?.strip_prefix("HTTP/1.1 ")?;
        let status = status_line.get(..3)?.parse().ok()?;
        let mut parsed = Self { status, length: None, close: false };
        for line in lines.take_while(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':')?;
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                parsed.length = Some(value.parse().ok()?);
            } else if name.eq_ignore_ascii_case("connection") {
                parsed.close = value.eq_ignore_ascii_case("close");
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                return None;
            }
        }
        Some(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let check =
            |text: &str, expected: Option<Head>| assert_eq!(Head::parse(text.as_bytes()), expected);
        check(
            "HTTP/1.1 200 OK\r\ncontent-length: 12\r\nConnection: Close\r\n\r\n",
            Some(Head { status: 200, length: Some(12), close: true }),
        );
        check(
            "HTTP/1.1 502 \r\nServer: x\r\n\r\n",
            Some(Head { status: 502, length: None, close: false }),
        );
        check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None);
        check("HTTP/1.0 200 OK\r\n\r\n", None);
        check("HTTP/1.1 2\r\n\r\n", None);
    }
}
