//! A connection on which every byte is the test's own, and answers as they came.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::within;

/// The host that tests ask for where it does not matter.
pub(crate) const HOST: &str = "shop.localhost";

/// One client connection.
pub(crate) struct Client {
    stream: Stream,
    /// Received and not yet looked at.
    input: Vec<u8>,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// What is read and written alike, whatever it is.
trait Pipe: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Pipe for T {}

impl Stream {
    fn pipe(&mut self) -> &mut dyn Pipe {
        match self {
            Self::Tcp(stream) => stream,
            Self::Unix(stream) => stream,
            Self::Tls(stream) => stream,
        }
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) reason: String,
    /// Names as they came.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The trailer section as it came.
    pub(crate) trailers: String,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// FIN; with TLS a close_notify before it.
    Closed,
    /// RST, or a FIN that TLS knew nothing of.
    Reset,
}

impl Client {
    /// Connects.
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        let stream = within("a connection", TcpStream::connect(addr)).await.expect("connect");
        stream.set_nodelay(true).unwrap();
        Self { stream: Stream::Tcp(stream), input: Vec::new() }
    }

    /// Connects from another address of this machine.
    pub(crate) async fn connect_from(own: std::net::IpAddr, addr: SocketAddr) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(own, 0)).unwrap();
        let stream = within("a connection", socket.connect(addr)).await.expect("connect");
        Self { stream: Stream::Tcp(stream), input: Vec::new() }
    }

    /// Connects with as small a receive window as the kernel gives: a reader that can be slow.
    pub(crate) async fn connect_small(addr: SocketAddr) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let stream = within("a connection", socket.connect(addr)).await.expect("connect");
        Self { stream: Stream::Tcp(stream), input: Vec::new() }
    }

    /// As [`connect_small`](Self::connect_small), with small segments, which keep the sender's buffer small too:
    /// of a hundred kilobytes most must wait in the sender's process until this client reads.
    pub(crate) async fn connect_narrow(addr: SocketAddr) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket2::SockRef::from(&socket).set_tcp_mss(536).unwrap();
        let stream = within("a connection", socket.connect(addr)).await.expect("connect");
        Self { stream: Stream::Tcp(stream), input: Vec::new() }
    }

    /// Connects to a Unix socket.
    pub(crate) async fn connect_unix(path: &Path) -> Self {
        let stream = within("a connection", UnixStream::connect(path)).await.expect("connect");
        Self { stream: Stream::Unix(stream), input: Vec::new() }
    }

    /// Connects and completes a TLS handshake for this name, or says why it failed.
    pub(crate) async fn try_connect_tls(
        addr: SocketAddr,
        config: &Arc<ClientConfig>,
        name: &str,
    ) -> std::io::Result<Self> {
        let stream = within("a connection", TcpStream::connect(addr)).await.expect("connect");
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let handshake = TlsConnector::from(config.clone()).connect(name, stream);
        let stream = Stream::Tls(Box::new(within("a handshake", handshake).await?));
        Ok(Self { stream, input: Vec::new() })
    }

    /// As [`try_connect_tls`](Self::try_connect_tls), where it must succeed.
    pub(crate) async fn connect_tls(
        addr: SocketAddr,
        config: &Arc<ClientConfig>,
        name: &str,
    ) -> Self {
        let client = Self::try_connect_tls(addr, config, name).await;
        client.unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Speaks over a connection whose handshake is done.
    pub(crate) fn over_tls(stream: TlsStream<TcpStream>) -> Self {
        Self { stream: Stream::Tls(Box::new(stream)), input: Vec::new() }
    }

    /// What the handshake came to.
    pub(crate) fn tls(&self) -> &ClientConnection {
        match &self.stream {
            Stream::Tls(stream) => stream.get_ref().1,
            Stream::Tcp(_) | Stream::Unix(_) => panic!("it is not over TLS"),
        }
    }

    // ---- sending -----------------------------------------------------------------------------------------

    /// Sends bytes, all of them.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("the peer to take our bytes", self.try_send(bytes)).await.expect("send");
    }

    /// Sends bytes; for peers that may have had enough.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        let pipe = self.stream.pipe();
        pipe.write_all(bytes.as_ref()).await?;
        pipe.flush().await
    }

    /// Sends no more (FIN), still reads.
    pub(crate) async fn finish(&mut self) {
        self.stream.pipe().shutdown().await.expect("shut down");
    }

    /// Hangs up rudely (RST).
    pub(crate) fn reset(self) {
        let stream = match &self.stream {
            Stream::Tcp(stream) => stream,
            Stream::Tls(stream) => stream.get_ref().0,
            Stream::Unix(_) => return,
        };
        socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Sends a GET for the usual host and reads its answer.
    pub(crate) async fn get(&mut self, target: &str) -> Answer {
        self.request("GET", target, "", "").await
    }

    /// Sends a request for the usual host, with these further field lines, and reads its answer. A body
    /// goes with its Content-Length.
    pub(crate) async fn request(
        &mut self,
        method: &str,
        target: &str,
        fields: &str,
        body: &str,
    ) -> Answer {
        self.send(request(method, target, fields, body)).await;
        self.answer_to(method).await
    }

    /// Sends these blocks over and over, and reads what comes meanwhile, until the peer has closed: for floods.
    pub(crate) async fn send_until_closed(&mut self, mut block: impl FnMut() -> Vec<u8>) {
        let Stream::Tcp(stream) = &mut self.stream else { panic!("floods come over TCP") };
        let (mut from, mut to) = stream.split();
        let mut received = vec![0; 64 * 1024];
        let flood = async {
            let mut unsent = Vec::new();
            loop {
                if unsent.is_empty() {
                    unsent = block();
                }
                tokio::select! {
                    // First, so that nothing of it is lost to a reset.
                    biased;
                    read = from.read(&mut received) => match read {
                        Ok(count) if count > 0 => self.input.extend_from_slice(&received[..count]),
                        _ => return,
                    },
                    written = to.write(&unsent) => match written {
                        Ok(count) => drop(unsent.drain(..count)),
                        Err(_) => return,
                    },
                }
            }
        };
        within("the peer to have had enough", flood).await;
    }

    // ---- receiving ---------------------------------------------------------------------------------------

    /// Reads the answer to a GET or the like.
    pub(crate) async fn answer(&mut self) -> Answer {
        self.answer_to("GET").await
    }

    /// Reads the answer to a request with this method. Interim answers are answers, too: without body.
    pub(crate) async fn answer_to(&mut self, method: &str) -> Answer {
        let mut answer = self.head().await;
        let bodiless =
            method == "HEAD" || answer.status < 200 || [204, 304].contains(&answer.status);
        if bodiless {
            return answer;
        }
        if answer.field("Transfer-Encoding").is_some() {
            (answer.body, answer.trailers) = self.chunked().await;
        } else if let Some(length) = answer.field("Content-Length") {
            let length = length.parse().expect("a length");
            answer.body = self.exactly(length).await;
        } else {
            answer.body = self.rest().await;
        }
        answer
    }

    /// Reads a head alone.
    pub(crate) async fn head(&mut self) -> Answer {
        let head = self.through(b"\r\n\r\n").await;
        let head = String::from_utf8(head).expect("a head in ASCII");
        let mut lines = head.trim_end().split("\r\n");
        let status_line = lines.next().unwrap();
        let (version, rest) = status_line.split_once(' ').unwrap_or_else(|| panic!("{head:?}"));
        assert_eq!(version, "HTTP/1.1", "{head:?}");
        let (status, reason) = rest.split_once(' ').unwrap_or((rest, ""));
        let field = |line: &str| {
            let (name, value) =
                line.split_once(": ").unwrap_or_else(|| panic!("{line:?} in {head:?}"));
            (name.to_string(), value.to_string())
        };
        Answer {
            status: status.parse().unwrap_or_else(|_| panic!("{head:?}")),
            reason: reason.to_string(),
            fields: lines.map(field).collect(),
            body: Vec::new(),
            trailers: String::new(),
        }
    }

    /// Reads exactly so many bytes.
    pub(crate) async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.input.len() < length {
            let end = self.fill().await;
            assert_eq!(end, None, "{} of {length} bytes", self.input.len());
        }
        self.input.drain(..length).collect()
    }

    /// Reads up to and with these bytes.
    pub(crate) async fn through(&mut self, last: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.input.windows(last.len()).position(|it| it == last) {
                return self.input.drain(..at + last.len()).collect();
            }
            if let Some(end) = self.fill().await {
                let input = String::from_utf8_lossy(&self.input);
                panic!(
                    "{end:?} after {input:?} while waiting for {:?}",
                    String::from_utf8_lossy(last)
                );
            }
        }
    }

    /// Reads a chunked body and its trailer section.
    pub(crate) async fn chunked(&mut self) -> (Vec<u8>, String) {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await {
            body.extend(chunk);
        }
        let mut trailers = String::new();
        loop {
            let line = String::from_utf8(self.through(b"\r\n").await).unwrap();
            if line == "\r\n" {
                return (body, trailers);
            }
            trailers += &line;
        }
    }

    /// Reads one chunk; `None` for the last, whose trailer section stays.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = String::from_utf8(self.through(b"\r\n").await).unwrap();
        let size = usize::from_str_radix(line.trim_end(), 16)
            .unwrap_or_else(|_| panic!("chunk size {line:?}"));
        if size == 0 {
            return None;
        }
        let data = self.exactly(size).await;
        assert_eq!(self.exactly(2).await, b"\r\n");
        Some(data)
    }

    /// Reads to the end, which must be a FIN.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let (rest, end) = self.rest_and_end().await;
        assert_eq!(end, End::Closed, "after {:?}", String::from_utf8_lossy(&rest));
        rest
    }

    /// Reads to the end, whichever.
    pub(crate) async fn rest_and_end(&mut self) -> (Vec<u8>, End) {
        loop {
            if let Some(end) = self.fill().await {
                return (std::mem::take(&mut self.input), end);
            }
        }
    }

    /// As [`exactly`](Self::exactly), at 60 kB/s.
    pub(crate) async fn exactly_slowly(&mut self, length: usize) -> Vec<u8> {
        while self.input.len() < length {
            self.take_slowly(1).await;
        }
        self.input.drain(..length).collect()
    }

    /// Takes this much at 60 kB/s into what is looked at later: a reader that is slow and steady.
    pub(crate) async fn take_slowly(&mut self, length: usize) {
        let mut taken = 0;
        while taken < length {
            let mut block = [0; 1000];
            let read = within("bytes", self.stream.pipe().read(&mut block)).await;
            let read = read.unwrap_or_else(|error| panic!("{error} after {taken} bytes"));
            assert!(read > 0, "the end after {taken} bytes");
            self.input.extend_from_slice(&block[..read]);
            taken += read;
            tokio::time::sleep(Duration::from_micros(16 * read as u64)).await;
        }
    }

    /// Reads to the end as fast as it comes, and throws it away.
    pub(crate) async fn discard(mut self) {
        let mut block = vec![0; 1 << 20];
        let pipe = self.stream.pipe();
        let read = async { while matches!(pipe.read(&mut block).await, Ok(1..)) {} };
        within("the end", read).await;
    }

    /// Waits for the end, before which nothing more may come.
    pub(crate) async fn is_closed(&mut self) {
        let rest = self.rest().await;
        assert!(rest.is_empty(), "more came: {:?}", String::from_utf8_lossy(&rest));
    }

    /// Whether nothing has come, not even the end. Only right after something that would have been behind it.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let read = match &self.stream {
            Stream::Tcp(stream) => stream.try_read(&mut byte),
            Stream::Unix(stream) => stream.try_read(&mut byte),
            Stream::Tls(_) => panic!("what has come cannot be seen through TLS"),
        };
        self.input.is_empty()
            && read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }

    async fn fill(&mut self) -> Option<End> {
        let mut block = vec![0; 16 * 1024];
        match within("bytes or the end", self.stream.pipe().read(&mut block)).await {
            Ok(0) => Some(End::Closed),
            Ok(read) => {
                self.input.extend_from_slice(&block[..read]);
                None
            }
            Err(_) => Some(End::Reset),
        }
    }
}

impl Answer {
    /// The value of a field that stands there once at most.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut found = self.fields.iter().filter(|(it, _)| it.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} stands twice in {:?}", self.fields);
        value
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    /// The code of an answer of the router's own.
    pub(crate) fn code(&self) -> Option<&str> {
        self.field("X-Dynomesh-Error")
    }

    /// Asserts the status and code of an answer of the router's own.
    #[track_caller]
    pub(crate) fn is_refusal(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.code()), (status, Some(code)), "{self:?}");
    }

    /// Whether the router will close the connection.
    pub(crate) fn says_close(&self) -> bool {
        self.field("Connection").is_some_and(|it| it.eq_ignore_ascii_case("close"))
    }
}

/// The body of an answer of the Platform API.
pub(crate) fn json_of(answer: &Answer) -> serde_json::Value {
    serde_json::from_str(answer.text()).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

/// A request for the usual host.
pub(crate) fn request(method: &str, target: &str, fields: &str, body: &str) -> String {
    let length =
        if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{method} {target} HTTP/1.1\r\nHost: {HOST}\r\n{fields}{length}\r\n{body}")
}

/// Bytes as a query value that the testapp sends back as they are (`/raw?bytes=…`).
pub(crate) fn percent_encoded(bytes: impl AsRef<[u8]>) -> String {
    let encode = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' => char::from(*byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    bytes.as_ref().iter().map(encode).collect()
}
