//! A client's WebSocket to an echo: messages that come back, and how it ended.

use std::io;
use std::time::Duration;

use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::client;
use crate::target::{Stream, Target};
use crate::websocket::{self, Frame};

const MESSAGE: [u8; 100] = [b'm'; 100];
/// Any will do: a mask hides messages from proxies that would take them for requests, RFC 6455 §10.3.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// The key is the standard's example, RFC 6455 §1.3, and so is the answer to it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// How long a message may take to come back.
const PATIENCE: Duration = Duration::from_secs(20);

/// An open WebSocket.
pub struct Socket {
    stream: Stream,
    message: Vec<u8>,
    received: Vec<u8>,
}

/// Why there is no WebSocket, or none any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// No connection, or no TLS.
    Refused,
    /// An answer other than 101, or the wrong one.
    NotSwitched,
    /// A close frame with this code (RFC 6455 §7.4), answered, and the end of the connection behind it.
    Closed(u16),
    /// The connection ended without a close frame.
    Cut,
    /// It was reset.
    Reset,
    /// Something else came than what was sent.
    Garbled,
    /// Nothing came for 20 s.
    Silent,
}

impl Ending {
    /// As printed.
    pub fn name(self) -> String {
        match self {
            Self::Refused => "refused".into(),
            Self::NotSwitched => "not-switched".into(),
            Self::Closed(code) => format!("closed-{code}"),
            Self::Cut => "cut".into(),
            Self::Reset => "reset".into(),
            Self::Garbled => "garbled".into(),
            Self::Silent => "silent".into(),
        }
    }
}

impl From<io::Error> for Ending {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // Over TLS an end without close_notify is one that came too early.
            io::ErrorKind::UnexpectedEof => Self::Cut,
            _ => Self::Reset,
        }
    }
}

impl Socket {
    /// Opens a socket and sees a first message come back.
    pub async fn open(target: &Target, path: &str) -> Result<Self, Ending> {
        in_time(async {
            let mut message = Vec::new();
            websocket::push(&mut message, websocket::BINARY, &MESSAGE, Some(MASK));
            let stream = target.connect().await.map_err(|_| Ending::Refused)?;
            let mut socket = Self { stream, message, received: Vec::new() };
            socket.ask_for_switch(target, path).await?;
            socket.send_and_receive().await?;
            Ok(socket)
        })
        .await
    }

    /// Sends a message and waits until it has come back.
    pub async fn echo(&mut self) -> Result<(), Ending> {
        in_time(self.send_and_receive()).await
    }

    /// Listens for so long; whatever the peer says meanwhile, nobody has asked for it.
    pub async fn listen(&mut self, duration: Duration) -> Result<(), Ending> {
        if self.received.is_empty() {
            match timeout(duration, self.read()).await {
                Err(_elapsed) => return Ok(()),
                Ok(Ok(0)) => return Err(Ending::Cut),
                Ok(read) => read?,
            };
        }
        in_time(self.receive()).await?;
        Err(Ending::Garbled)
    }

    async fn ask_for_switch(&mut self, target: &Target, path: &str) -> Result<(), Ending> {
        let head = client::head("GET", target.addr(), path);
        let request = format!(
            "{head}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
        );
        self.send(request.as_bytes()).await?;
        let head = self.read_head().await?;
        let accepted = head.starts_with("HTTP/1.1 101") && head.contains(&websocket::accept(KEY));
        if accepted { Ok(()) } else { Err(Ending::NotSwitched) }
    }

    async fn send_and_receive(&mut self) -> Result<(), Ending> {
        let message = std::mem::take(&mut self.message);
        // A peer that has said goodbye and gone may be found out by the next write: what it said is there to read.
        let sent = self.send(&message).await;
        self.message = message;
        match (self.receive().await, sent) {
            (Ok(()), sent) => sent,
            (Err(ending), _) => Err(ending),
        }
    }

    /// Waits until a message has come back.
    async fn receive(&mut self) -> Result<(), Ending> {
        loop {
            if let Some(frame) = Frame::take(&mut self.received) {
                let payload: Vec<u8> = self.received[frame.payload.clone()].to_vec();
                self.received.drain(..frame.payload.end);
                match frame.opcode {
                    websocket::BINARY if payload == MESSAGE => return Ok(()),
                    websocket::CLOSE => return Err(self.say_goodbye(&payload).await),
                    _ => return Err(Ending::Garbled),
                }
            }
            if self.read().await? == 0 {
                return Err(Ending::Cut);
            }
        }
    }

    /// Answers a close frame by the same one, and waits for the end of the connection (RFC 6455 §5.5.1, §7.1.1).
    async fn say_goodbye(&mut self, payload: &[u8]) -> Ending {
        let Some(code) = payload.first_chunk() else { return Ending::Garbled };
        let mut frame = Vec::new();
        websocket::push(&mut frame, websocket::CLOSE, payload, Some(MASK));
        // Who has closed already needs no answer; whether it was a reset, reading tells.
        let _ = self.send(&frame).await;
        let _ = self.stream.shutdown().await;
        loop {
            self.received.clear();
            match self.read().await {
                Ok(0) => return Ending::Closed(u16::from_be_bytes(*code)),
                Ok(_) => {}
                Err(ending) => return ending,
            }
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Ending> {
        self.stream.write_all(bytes).await?;
        Ok(self.stream.flush().await?)
    }

    async fn read_head(&mut self) -> Result<String, Ending> {
        loop {
            if let Some(at) = memmem::find(&self.received, b"\r\n\r\n") {
                let head = self.received.drain(..at + 4).collect();
                return String::from_utf8(head).map_err(|_| Ending::Garbled);
            }
            if self.read().await? == 0 {
                return Err(Ending::Cut);
            }
        }
    }

    async fn read(&mut self) -> Result<usize, Ending> {
        self.received.reserve(512);
        Ok(self.stream.read_buf(&mut self.received).await?)
    }
}

async fn in_time<T>(exchange: impl Future<Output = Result<T, Ending>>) -> Result<T, Ending> {
    timeout(PATIENCE, exchange).await.unwrap_or(Err(Ending::Silent))
}
