//! WebSockets to an echo, held and used as somebody says who weighs the proxy meanwhile.
//!
//! `websockets --connections N [--certificate FILE] ADDRESS PATH`, driven by lines on standard input: `each`
//! opens the sockets and sends one message on each, one after the other; `echo S` has one message in flight on
//! each for S seconds. Each is answered by `done FAILURES`; the end of the input ends the program.

use std::io::BufRead;
use std::process::ExitCode;
use std::time::Duration;

use compare_tools::client;
use compare_tools::options::Options;
use compare_tools::target::{Stream, Target};
use compare_tools::websocket::{self, Frame};
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::LocalSet;
use tokio::time::{Instant, timeout};

const MESSAGE: [u8; 100] = [b'm'; 100];
/// Any will do: a mask hides messages from proxies that would take them for requests, RFC 6455 §10.3.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// The key is the standard's example, RFC 6455 §1.3, and so is the answer to it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// How long a message may take to come back.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    compare_tools::run(LocalSet::new().run_until(drive()))
}

async fn drive() -> Result<(), String> {
    let options = Options::parse()?;
    let [addr, path] = options.rest.as_slice() else {
        return Err("usage: websockets --connections N [--certificate FILE] ADDRESS PATH".into());
    };
    let target = Target::from_options(&options, addr)?;
    let connections: usize = options.require("connections")?;
    let mut sockets: Vec<Socket> = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| error.to_string())?;
        let failures = match line.split_once(' ') {
            None if line == "each" => open(&target, path, connections, &mut sockets).await,
            Some(("echo", seconds)) => {
                let seconds = seconds.parse().map_err(|_| format!("{seconds} is no number"))?;
                echo(&mut sockets, Duration::from_secs_f64(seconds)).await?
            }
            _ => return Err(format!("{line:?} is neither each nor echo S")),
        };
        println!("done {failures}");
    }
    Ok(())
}

async fn open(target: &Target, path: &str, connections: usize, sockets: &mut Vec<Socket>) -> usize {
    while sockets.len() < connections {
        // What does not open is left out.
        match timeout(PATIENCE, Socket::open(target, path)).await.ok().flatten() {
            Some(socket) => sockets.push(socket),
            None => return connections - sockets.len(),
        }
    }
    0
}

/// A socket that failed is not used again.
async fn echo(sockets: &mut Vec<Socket>, duration: Duration) -> Result<usize, String> {
    let end = Instant::now() + duration;
    let before = sockets.len();
    let tasks = sockets.drain(..).map(|mut socket| {
        tokio::task::spawn_local(async move {
            while Instant::now() < end {
                timeout(PATIENCE, socket.echo()).await.ok().flatten()?;
            }
            Some(socket)
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        sockets.extend(task.await.map_err(|error| error.to_string())?);
    }
    Ok(before - sockets.len())
}

struct Socket {
    stream: Stream,
    message: Vec<u8>,
    received: Vec<u8>,
}

impl Socket {
    /// Opens a socket and sees a first message come back.
    async fn open(target: &Target, path: &str) -> Option<Self> {
        let mut message = Vec::new();
        websocket::push(&mut message, websocket::BINARY, &MESSAGE, Some(MASK));
        let stream = target.connect().await.ok()?;
        let mut socket = Self { stream, message, received: Vec::new() };
        let head = client::head("GET", target.addr(), path);
        let request = format!(
            "{head}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
        );
        socket.stream.write_all(request.as_bytes()).await.ok()?;
        socket.stream.flush().await.ok()?;
        let head = socket.read_head().await?;
        let accepted = head.starts_with("HTTP/1.1 101") && head.contains(&websocket::accept(KEY));
        if !accepted {
            return None;
        }
        socket.echo().await?;
        Some(socket)
    }

    /// Sends a message and waits until it has come back; `None` where something else came.
    async fn echo(&mut self) -> Option<()> {
        self.stream.write_all(&self.message).await.ok()?;
        self.stream.flush().await.ok()?;
        loop {
            if let Some(frame) = Frame::take(&mut self.received) {
                let same = frame.opcode == websocket::BINARY
                    && self.received[frame.payload.clone()] == MESSAGE;
                self.received.drain(..frame.payload.end);
                return same.then_some(());
            }
            self.read().await?;
        }
    }

    async fn read_head(&mut self) -> Option<String> {
        loop {
            if let Some(at) = memmem::find(&self.received, b"\r\n\r\n") {
                return String::from_utf8(self.received.drain(..at + 4).collect()).ok();
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Option<()> {
        self.received.reserve(512);
        let size = self.stream.read_buf(&mut self.received).await.ok()?;
        (size > 0).then_some(())
    }
}
