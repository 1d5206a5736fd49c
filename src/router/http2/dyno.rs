//! A connection to a dyno that speaks HTTP/2 without TLS, as a socket that speaks HTTP/1.1 would be: the head of
//! a request goes in as text, that of an answer comes out as text, and bodies are their own bytes.
//!
//! It carries one exchange at a time, like any other connection of the pool: no request waits behind another's
//! window, and what holds for connections (their number, their age, their leases) holds for these.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use h2::client::{self, Connection, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream};
use http::header::{CONTENT_LENGTH, HeaderValue, TE};
use http::{HeaderMap, Request, Response, Uri};

use crate::config::limits;
use crate::router::duplex::{Sink, Source};
use crate::router::http2::head::{append, print_answer, print_trailers};
use crate::router::http2::outgoing::Outgoing;
use crate::router::stream::Stream;

/// A connection, and the exchange that it carries.
pub(crate) struct DynoConnection {
    connection: Connection<Stream, Bytes>,
    requests: SendRequest<Bytes>,
    exchange: Option<Exchange>,
    /// The connection has ended.
    over: bool,
}

/// One request and its answer.
struct Exchange {
    /// Its body, where it has one.
    request: Option<Outgoing>,
    answer: Answer,
    /// Of the answer, what has not been read.
    input: Bytes,
}

enum Answer {
    Head(ResponseFuture),
    Body(RecvStream),
    /// It has been read to its end, and these came behind it.
    Ended(Vec<u8>),
}

impl DynoConnection {
    /// Greets. The dyno's own greeting is not awaited: requests may go before it (RFC 9113 §3.4).
    pub(crate) async fn greet(stream: Stream) -> io::Result<Self> {
        let mut builder = client::Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(limits::STREAM_WINDOW)
            .max_send_buffer_size(limits::STREAM_UNSENT_MAX)
            .data_frame_budget(limits::DYNO_FRAMES_BUDGET)
            .max_header_list_size(limits::RESPONSE_HEAD_MAX as u32);
        let (requests, connection) = builder.handshake(stream).await.map_err(io::Error::other)?;
        Ok(Self { connection, requests, exchange: None, over: false })
    }

    /// Whether it could carry another exchange. What the dyno has sent meanwhile is answered.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.exchange = None;
        let cx = &mut Context::from_waker(Waker::noop());
        self.drive(cx);
        !self.over && self.requests.poll_ready(cx).map(|ready| ready.is_ok()) == Poll::Ready(true)
    }

    /// The bytes that are written next, all of them, are the last of the request; `trailers` go behind.
    pub(crate) fn ends(&mut self, trailers: &[u8]) {
        if let Some(request) = self.request() {
            request.ends(trailers);
        }
    }

    /// The request's last byte has been written.
    pub(crate) fn finish(&mut self, cx: &mut Context<'_>) {
        if let Some(request) = self.request().filter(|request| request.is_ending()) {
            request.end(Bytes::new());
            self.drive(cx);
        }
    }

    /// The trailer fields of an answer that has been read to its end, as lines.
    pub(crate) fn trailers(&mut self) -> Vec<u8> {
        match self.exchange.as_mut().map(|exchange| &mut exchange.answer) {
            Some(Answer::Ended(trailers)) => std::mem::take(trailers),
            _ => Vec::new(),
        }
    }

    fn request(&mut self) -> Option<&mut Outgoing> {
        self.exchange.as_mut()?.request.as_mut()
    }

    /// Moves the connection's frames.
    fn drive(&mut self, cx: &mut Context<'_>) {
        self.over = self.over || Pin::new(&mut self.connection).poll(cx).is_ready();
    }

    /// Sends a head.
    fn begin(&mut self, head: &[u8]) -> io::Result<()> {
        let (request, bodiless) = read_request(head)?;
        let sent = self.requests.send_request(request, bodiless);
        let (answer, body) = sent.map_err(io::Error::other)?;
        self.exchange = Some(Exchange {
            request: (!bodiless).then(|| Outgoing::new(body)),
            answer: Answer::Head(answer),
            input: Bytes::new(),
        });
        Ok(())
    }
}

impl Exchange {
    /// Ready when there is input, or the answer's end.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        while self.input.is_empty() {
            match &mut self.answer {
                Answer::Head(answer) => {
                    if let Poll::Ready(Some(interim)) = answer.poll_informational(cx) {
                        self.input = print_answer(&interim?, false);
                        continue;
                    }
                    let (parts, body) = ready!(Pin::new(answer).poll(cx))?.into_parts();
                    let bodiless = body.is_end_stream();
                    self.input = print_answer(&Response::from_parts(parts, ()), bodiless);
                    self.answer = Answer::Body(body);
                }
                Answer::Body(body) => match ready!(body.poll_data(cx)) {
                    Some(data) => self.input = data?,
                    None => {
                        let trailers = ready!(body.poll_trailers(cx))?;
                        // Trailers that cannot go on are not worth the answer.
                        let lines = trailers.and_then(|it| print_trailers(&it).ok());
                        self.answer = Answer::Ended(lines.unwrap_or_default());
                    }
                },
                Answer::Ended(_) => return Poll::Ready(Ok(())),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Source for DynoConnection {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.drive(cx);
        let Some(exchange) = &mut self.exchange else { return Poll::Ready(Ok(0)) };
        ready!(exchange.poll_answer(cx)).map_err(io::Error::other)?;
        let count = exchange.input.len().min(buffer.len());
        exchange.input.copy_to_slice(&mut buffer[..count]);
        if let Answer::Body(body) = &mut exchange.answer {
            // Heads are not in the window, so it may be asked for too much; then it is open anyway.
            let _ = body.flow_control().release_capacity(count);
            self.drive(cx);
        }
        Poll::Ready(Ok(count))
    }
}

impl Sink for DynoConnection {
    /// A request's head comes first, and whole.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.exchange.is_none() {
            self.drive(cx);
            ready!(self.requests.poll_ready(cx)).map_err(io::Error::other)?;
            self.begin(bytes)?;
            self.drive(cx);
            return Poll::Ready(Ok(bytes.len()));
        }
        let Some(request) = self.request() else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let written = request.poll_write(cx, bytes);
        self.drive(cx);
        written
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What was taken is in the connection's hands, and bounded.
        Poll::Ready(Ok(()))
    }

    /// Tells the dyno that nobody waits any more.
    fn shut_write(&mut self) {
        if let Some(exchange) = &mut self.exchange {
            if let Some(request) = &mut exchange.request {
                request.reset(Reason::CANCEL);
            }
            exchange.answer = Answer::Ended(Vec::new());
        }
        self.drive(&mut Context::from_waker(Waker::noop()));
    }
}

/// A head that the router wrote, as a header list, and whether no body follows it. Trailers are always welcome, as
/// gRPC wants to hear.
fn read_request(head: &[u8]) -> io::Result<(Request<()>, bool)> {
    let bad = || io::Error::from(io::ErrorKind::InvalidInput);
    let mut lines = lines(head);
    let mut words = lines.next().unwrap_or_default().split(|byte| *byte == b' ');
    let method = words.next().unwrap_or_default();
    let path = words.next().unwrap_or_default();
    let (mut host, mut chunked, mut headers) = (&b""[..], false, HeaderMap::new());
    for line in lines {
        let colon = memchr::memchr(b':', line).ok_or_else(bad)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"host") {
            host = value;
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            chunked = true;
        } else if !is_of_the_connection(name) {
            append(&mut headers, name, value);
        }
    }
    headers.insert(TE, HeaderValue::from_static("trailers"));
    let bodiless = !chunked && headers.get(CONTENT_LENGTH).is_none_or(|it| it == "0");
    let uri = Uri::builder().scheme("http").authority(host).path_and_query(path);
    let mut request = Request::new(());
    *request.method_mut() = http::Method::from_bytes(method).map_err(|_| bad())?;
    *request.uri_mut() = uri.build().map_err(io::Error::other)?;
    *request.headers_mut() = headers;
    Ok((request, bodiless))
}

/// Fields that are HTTP/1.1's own (RFC 9113 §8.2.2), beside the framing.
fn is_of_the_connection(name: &[u8]) -> bool {
    let own = ["connection", "upgrade", "keep-alive", "sec-websocket-key"];
    own.iter().any(|own| name.eq_ignore_ascii_case(own.as_bytes()))
}

fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    head.split(|byte| *byte == b'\n').map(|line| line.trim_ascii_end()).filter(|it| !it.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_router_wrote_becomes_a_header_list() {
        let head = b"POST /a?b HTTP/1.1\r\nHost: shop.example\r\nAccept: */*\r\n\
            Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
        let (request, bodiless) = read_request(head).unwrap();
        assert_eq!(request.method(), "POST");
        assert_eq!(request.uri(), "http://shop.example/a?b");
        let names: Vec<_> = request.headers().keys().map(http::HeaderName::as_str).collect();
        assert_eq!(names, ["accept", "te"]);
        assert!(!bodiless);
    }
}
