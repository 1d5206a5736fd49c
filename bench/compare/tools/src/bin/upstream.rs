//! The app behind every contestant: answers by path, for as little CPU as a small program can.
//!
//! `upstream [--journal FILE] [--name TEXT] PORT…`, each port a dyno:
//! `/small` 12 bytes · `/bytes/N` N bytes · `/slow/MS` 12 bytes after MS milliseconds · `/echo` a WebSocket that
//! sends back what it gets, each message counting as a request · `/name` the name it was given · `/count` how many requests were answered and
//! how many bytes of bodies went through, so that a moment under load can be measured whatever makes the load.
//! A body is read to its end and dropped. With a journal, each request that came whole is a line of it
//! (`PORT METHOD PATH`), so that a request that a proxy sent twice is seen twice.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use compare_tools::options::Options;
use compare_tools::websocket::{self, Frame};
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;
use tokio::time::sleep;

/// What is written at once.
const BLOCK: usize = 256 * 1024;
static ZEROS: [u8; BLOCK] = [b'0'; BLOCK];

fn main() -> ExitCode {
    compare_tools::run(LocalSet::new().run_until(serve()))
}

async fn serve() -> Result<(), String> {
    let options = Options::parse()?;
    let journal = options.get("journal", String::new())?;
    let journal = if journal.is_empty() { None } else { Some(open(&journal)?) };
    let app = Rc::new(App { journal, name: options.get("name", String::new())?, ..App::default() });
    if options.rest.is_empty() {
        return Err("usage: upstream [--journal FILE] [--name TEXT] PORT…".into());
    }
    let mut listeners = Vec::new();
    for port in &options.rest {
        let port: u16 = port.parse().map_err(|_| format!("{port} is no port"))?;
        let listener = compare_tools::listen((Ipv4Addr::LOCALHOST, port).into())?;
        listeners.push(tokio::task::spawn_local(accept(app.clone(), listener, port)));
    }
    for listener in listeners {
        listener.await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn open(path: &str) -> Result<File, String> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|error| format!("open {path}: {error}"))
}

async fn accept(app: Rc<App>, listener: TcpListener, port: u16) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let app = app.clone();
                tokio::task::spawn_local(async move {
                    // A client that goes away is no news.
                    let _ = app.converse(stream, port).await;
                });
            }
            Err(error) => {
                eprintln!("accept on {port}: {error}");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

#[derive(Default)]
struct App {
    /// By body length: the head and as much of the body as fits into one write.
    starts: RefCell<HashMap<usize, Rc<[u8]>>>,
    journal: Option<File>,
    name: String,
    answered: Cell<u64>,
    body_bytes: Cell<u64>,
}

impl App {
    async fn converse(&self, mut stream: TcpStream, port: u16) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut received = Vec::new();
        let mut sink = Vec::new();
        loop {
            let Some(head) = read_head(&mut stream, &mut received).await? else { return Ok(()) };
            let Some(request) = Request::parse(&received[..head]) else {
                return refuse(&mut stream).await;
            };
            received.drain(..head);
            let here = request.body.min(received.len());
            received.drain(..here);
            self.carried(here);
            self.discard(&mut stream, request.body - here, &mut sink).await?;
            if let Some(mut journal) = self.journal.as_ref() {
                journal.write_all(format!("{port} {}\n", request.line).as_bytes())?;
            }
            if let Some(delay) = request.delay {
                sleep(delay).await;
            }
            match request.answer {
                Answer::Bytes(length) => self.answer(&mut stream, length).await?,
                Answer::Count => {
                    let count = format!("{} {}", self.answered.get(), self.body_bytes.get());
                    say(&mut stream, &count).await?;
                }
                Answer::Name => say(&mut stream, &self.name).await?,
                Answer::Echo(key) => return self.echo(&mut stream, &key, &mut received).await,
            }
        }
    }

    async fn answer(&self, stream: &mut TcpStream, length: usize) -> io::Result<()> {
        let start = self.starts.borrow_mut().entry(length).or_insert_with(|| start(length)).clone();
        stream.write_all(&start).await?;
        self.carried(length.min(BLOCK));
        let mut left = length.saturating_sub(BLOCK);
        while left > 0 {
            let block = left.min(BLOCK);
            stream.write_all(&ZEROS[..block]).await?;
            self.carried(block);
            left -= block;
        }
        self.answered.set(self.answered.get() + 1);
        Ok(())
    }

    /// A WebSocket until either side closes it.
    async fn echo(
        &self,
        stream: &mut TcpStream,
        key: &str,
        received: &mut Vec<u8>,
    ) -> io::Result<()> {
        let accept = websocket::accept(key);
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await?;
        let mut out = Vec::new();
        loop {
            let mut at = 0;
            while let Some(frame) = Frame::take(&mut received[at..]) {
                let payload = &received[at..][frame.payload.clone()];
                at += frame.payload.end;
                let opcode = match frame.opcode {
                    websocket::PING => websocket::PONG,
                    same => same,
                };
                websocket::push(&mut out, opcode, payload, None);
                if opcode == websocket::CLOSE {
                    return stream.write_all(&out).await;
                }
                self.carried(payload.len());
                self.answered.set(self.answered.get() + 1);
            }
            received.drain(..at);
            stream.write_all(&out).await?;
            out.clear();
            received.reserve(512);
            if stream.read_buf(received).await? == 0 {
                return Ok(());
            }
        }
    }

    async fn discard(
        &self,
        stream: &mut TcpStream,
        mut left: usize,
        sink: &mut Vec<u8>,
    ) -> io::Result<()> {
        if left > 0 {
            sink.resize(BLOCK, 0);
        }
        while left > 0 {
            let block = left.min(BLOCK);
            match stream.read(&mut sink[..block]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => {
                    self.carried(n);
                    left -= n;
                }
            }
        }
        Ok(())
    }

    fn carried(&self, bytes: usize) {
        self.body_bytes.set(self.body_bytes.get() + bytes as u64);
    }
}

/// The head of an answer, and up to [`BLOCK`] bytes of its body.
fn start(length: usize) -> Rc<[u8]> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nServer: upstream\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), &ZEROS[..length.min(BLOCK)]].concat().into()
}

async fn say(stream: &mut TcpStream, body: &str) -> io::Result<()> {
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(answer.as_bytes()).await
}

async fn refuse(stream: &mut TcpStream) -> io::Result<()> {
    stream
        .write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .await
}

async fn read_head(stream: &mut TcpStream, received: &mut Vec<u8>) -> io::Result<Option<usize>> {
    loop {
        if let Some(at) = memmem::find(received, b"\r\n\r\n") {
            return Ok(Some(at + 4));
        }
        received.reserve(2048);
        if stream.read_buf(received).await? == 0 {
            return Ok(None);
        }
    }
}

/// What a request asks of this app.
#[derive(Debug, PartialEq)]
struct Request {
    /// Method and path, for the journal.
    line: String,
    body: usize,
    answer: Answer,
    delay: Option<Duration>,
}

#[derive(Debug, PartialEq)]
enum Answer {
    Bytes(usize),
    Count,
    Name,
    /// With the key of the request.
    Echo(String),
}

impl Request {
    fn parse(head: &[u8]) -> Option<Self> {
        let end = memmem::find(head, b"\r\n")?;
        let line = std::str::from_utf8(&head[..end]).ok()?.strip_suffix(" HTTP/1.1")?;
        let (method, target) = line.split_once(' ')?;
        let path = target.split('?').next()?;
        let mut request =
            Self { line: line.to_owned(), body: 0, answer: Answer::Bytes(12), delay: None };
        if let Some(length) = path.strip_prefix("/bytes/") {
            request.answer = Answer::Bytes(length.parse().ok()?);
        } else if let Some(delay) = path.strip_prefix("/slow/") {
            request.delay = Some(Duration::from_millis(delay.parse().ok()?));
        } else if path == "/count" {
            request.answer = Answer::Count;
        } else if path == "/name" {
            request.answer = Answer::Name;
        } else if path == "/echo" {
            request.answer = Answer::Echo(field(&head[end..], "sec-websocket-key")?.to_owned());
        } else if path != "/small" {
            return None;
        }
        if method != "GET" {
            request.body = content_length(&head[end..])?;
        }
        Some(request)
    }
}

/// Bodies come with their length: the clients send it, and a proxy that makes chunks of it is doing more.
fn content_length(fields: &[u8]) -> Option<usize> {
    field(fields, "content-length")?.parse().ok()
}

fn field<'a>(fields: &'a [u8], wanted: &str) -> Option<&'a str> {
    let lines = fields.split(|byte| *byte == b'\n');
    let mut fields = lines.filter_map(|line| std::str::from_utf8(line).ok()?.split_once(':'));
    let (_, value) = fields.find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
    Some(value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        let check = |head: &str, expected: Option<(usize, Answer, Option<u64>)>| {
            let parsed = Request::parse(head.as_bytes());
            let parsed =
                parsed.map(|it| (it.body, it.answer, it.delay.map(|it| it.as_millis() as u64)));
            assert_eq!(parsed, expected, "{head}");
        };
        let small = || Answer::Bytes(12);
        check("GET /small HTTP/1.1\r\nHost: x\r\n\r\n", Some((0, small(), None)));
        check("GET /bytes/100 HTTP/1.1\r\n\r\n", Some((0, Answer::Bytes(100), None)));
        check("GET /count HTTP/1.1\r\n\r\n", Some((0, Answer::Count, None)));
        check(
            "POST /slow/50?n=1 HTTP/1.1\r\nHost: x\r\ncontent-length: 7\r\n\r\n",
            Some((7, small(), Some(50))),
        );
        check("POST /small HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", None);
        check(
            "GET /echo HTTP/1.1\r\nSec-Websocket-Key: abc\r\n\r\n",
            Some((0, Answer::Echo("abc".into()), None)),
        );
        check("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n", None);
        check("GET /else HTTP/1.1\r\n\r\n", None);
        check("GET /small HTTP/1.0\r\n\r\n", None);
    }

    #[test]
    fn a_long_answer_starts_with_one_block() {
        let head = start(0).len();
        assert_eq!(start(12).len(), head + 12 + 1);
        assert_eq!(start(1_000_000).len(), head + BLOCK + 6);
    }
}
