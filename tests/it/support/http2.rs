//! A client that speaks HTTP/2: one connection, any number of exchanges on it.

use std::future::poll_fn;
use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response, StatusCode, request};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::support::client::HOST;
use crate::support::{Answer, Mesh, Tls, within};

/// One connection. Its frames are driven by a task of their own.
pub(crate) struct Http2 {
    requests: SendRequest<Bytes>,
    driver: JoinHandle<Result<(), h2::Error>>,
}

/// One request whose answer is to come.
pub(crate) struct Http2Exchange {
    answer: ResponseFuture,
    /// Where the request's body goes.
    pub(crate) body: SendStream<Bytes>,
}

/// A GET for the usual host.
pub(crate) fn get(target: &str) -> request::Builder {
    Request::get(format!("http://{HOST}{target}"))
}

/// A POST for the usual host.
pub(crate) fn post(target: &str) -> request::Builder {
    Request::post(format!("http://{HOST}{target}"))
}

impl Http2 {
    /// Connects without TLS: the other side has to know (RFC 9113 §3.3).
    pub(crate) async fn connect(mesh: &Mesh) -> Self {
        Self::connect_with(mesh.http(), &Builder::new()).await
    }

    /// As [`connect`](Self::connect), with settings of the test's own.
    pub(crate) async fn connect_with(addr: SocketAddr, settings: &Builder) -> Self {
        let stream = within("a connection", TcpStream::connect(addr)).await.expect("connect");
        stream.set_nodelay(true).unwrap();
        Self::over(stream, settings).await
    }

    /// Connects with TLS, and agrees on HTTP/2.
    pub(crate) async fn connect_tls(mesh: &Mesh, name: &str) -> Self {
        let stream = Tls::of(mesh).alpn(&["h2"]).stream(mesh.https(), name).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Self::over(stream, &Builder::new()).await
    }

    #[expect(clippy::disallowed_methods, reason = "it ends with its connection")]
    async fn over<S>(stream: S, settings: &Builder) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let handshake = settings.handshake(stream);
        let (requests, connection) = within("the preface", handshake).await.expect("HTTP/2");
        Self { requests, driver: tokio::spawn(connection) }
    }

    /// Begins a request; `end`: it has no body.
    pub(crate) async fn begin(&mut self, request: request::Builder, end: bool) -> Http2Exchange {
        self.try_begin(request, end).await.expect("a stream")
    }

    /// As [`begin`](Self::begin), where the connection may be at its end.
    pub(crate) async fn try_begin(
        &mut self,
        request: request::Builder,
        end: bool,
    ) -> Result<Http2Exchange, h2::Error> {
        let request = request.body(()).expect("a request");
        let ready = poll_fn(|cx| self.requests.poll_ready(cx));
        within("a place for the stream", ready).await?;
        let (answer, body) = self.requests.send_request(request, end)?;
        Ok(Http2Exchange { answer, body })
    }

    /// A GET for the usual host, to the end of its answer.
    pub(crate) async fn get(&mut self, target: &str) -> Answer {
        self.begin(get(target), true).await.answer().await
    }

    /// A request and its whole answer.
    pub(crate) async fn ask(&mut self, request: request::Builder, body: &[u8]) -> Answer {
        let mut exchange = self.begin(request, body.is_empty()).await;
        if !body.is_empty() {
            exchange.send(body, true).await;
        }
        exchange.answer().await
    }

    /// The other side has said that it takes extended CONNECT (RFC 8441 §3).
    pub(crate) async fn takes_websockets(&mut self) {
        // Settings come before the answer to anything, be it 404 or 421.
        let nobody = Request::get("http://nobody.localhost/");
        assert!(self.ask(nobody, b"").await.status >= 400);
        assert!(self.requests.is_extended_connect_protocol_enabled());
    }

    /// Streams that the other side takes at a time.
    pub(crate) fn streams_max(&self) -> usize {
        self.requests.current_max_send_streams()
    }

    /// Whether the connection has not ended.
    pub(crate) fn is_open(&self) -> bool {
        !self.driver.is_finished()
    }

    /// Waits for the end of the connection, and says whether it was a good one.
    pub(crate) async fn ended(self) -> Result<(), h2::Error> {
        let Self { requests, driver } = self;
        // Not dropped before: a client that has nothing more to ask would end the connection itself.
        let ended = within("the connection's end", driver).await.expect("no panic");
        drop(requests);
        ended
    }

    /// Hangs up.
    pub(crate) async fn hang_up(self) {
        self.driver.abort();
        // Dropped when it has ended.
        let _ = self.driver.await;
    }
}

impl Http2Exchange {
    /// Sends bytes of the body, as windows allow.
    pub(crate) async fn send(&mut self, bytes: &[u8], end: bool) {
        within("the body to be taken", self.try_send(bytes, end)).await.expect("send");
    }

    /// As [`send`](Self::send), where the stream may be at its end.
    pub(crate) async fn try_send(&mut self, bytes: &[u8], end: bool) -> Result<(), h2::Error> {
        let mut rest = bytes;
        while !rest.is_empty() {
            self.body.reserve_capacity(rest.len());
            let capacity = poll_fn(|cx| self.body.poll_capacity(cx)).await;
            let Some(capacity) = capacity.transpose()? else {
                return Err(h2::Reason::STREAM_CLOSED.into());
            };
            let (now, later) = rest.split_at(capacity.min(rest.len()));
            self.body.send_data(Bytes::copy_from_slice(now), end && later.is_empty())?;
            rest = later;
        }
        Ok(())
    }

    /// Ends the body with these fields.
    pub(crate) fn send_trailers(&mut self, trailers: HeaderMap) {
        self.body.send_trailers(trailers).expect("trailers");
    }

    /// Gives the stream up, and says why.
    pub(crate) fn reset(mut self, reason: h2::Reason) {
        self.body.send_reset(reason);
    }

    /// Waits until the other side has given the stream up, and says why.
    pub(crate) async fn was_reset(&mut self) -> h2::Reason {
        let reset = poll_fn(|cx| self.body.poll_reset(cx));
        within("a reset", reset).await.expect("a reset of the stream")
    }

    /// The next interim answer; `None` where the final one is next.
    pub(crate) async fn interim(&mut self) -> Option<Response<()>> {
        let interim = poll_fn(|cx| self.answer.poll_informational(cx));
        within("an interim answer", interim).await.transpose().expect("an interim answer")
    }

    /// The head of the answer, and where its body comes from.
    pub(crate) async fn head(&mut self) -> Response<RecvStream> {
        self.try_head().await.expect("an answer")
    }

    /// As [`head`](Self::head), where there may be none.
    pub(crate) async fn try_head(&mut self) -> Result<Response<RecvStream>, h2::Error> {
        within("an answer", &mut self.answer).await
    }

    /// The whole answer.
    pub(crate) async fn answer(mut self) -> Answer {
        self.rest_of_answer().await.expect("a whole answer")
    }

    /// As [`answer`](Self::answer), where it may be cut.
    pub(crate) async fn rest_of_answer(&mut self) -> Result<Answer, h2::Error> {
        let (head, mut body) = self.try_head().await?.into_parts();
        let bytes = read_body(&mut body, usize::MAX).await?;
        let trailers = within("trailers", body.trailers()).await?;
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into();
        let line = |(name, value)| format!("{name}: {}\r\n", text(value));
        Ok(Answer {
            status: head.status.as_u16(),
            reason: String::new(),
            fields: head.headers.iter().map(|(name, it)| (name.to_string(), text(it))).collect(),
            body: bytes,
            trailers: trailers.iter().flatten().map(line).collect(),
        })
    }
}

/// Reads this much of a body, or to its end, and lets the other side send as much again.
pub(crate) async fn read_body(body: &mut RecvStream, most: usize) -> Result<Vec<u8>, h2::Error> {
    let mut bytes = Vec::new();
    while bytes.len() < most {
        let Some(data) = within("more of the answer", body.data()).await.transpose()? else {
            break;
        };
        body.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// Whether it is what extended CONNECT is answered with once there is a WebSocket.
pub(crate) fn is_switched(head: &Response<RecvStream>) -> bool {
    head.status() == StatusCode::OK && !head.headers().contains_key("content-length")
}
