//! One client's HTTP/1.1 connection, from idle to head to exchange and back.
//!
//! Thousands of these are idle at a time: a connection holds no buffer while nothing is under way, and its
//! exchange is a box of its own (a test below asserts the size of what remains).

use std::mem;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::config::limits;
use crate::router::client::Client;
use crate::router::client_stream::Protocol;
use crate::router::duplex::{Sink, Source};
use crate::router::exchange::{After, Exchange};
use crate::router::http1::Http1;
use crate::router::http2;
use crate::router::opening::Opening;
use crate::router::reply::Refusal;
use crate::wire::{self, HeadScan};

/// The life of a connection, written by hand as a future: an async function would hold the connection twice,
/// and once more for each state.
pub(crate) struct Live(Stage);

enum Stage {
    /// Nothing can be asked yet.
    Opening(Opening),
    /// Nothing has been asked yet, and HTTP/2 may begin.
    Fresh(Waiting),
    Waiting(Waiting),
    /// The exchange has the connection, and gives it back.
    Running(Pin<Box<dyn Future<Output = (After, Client<Http1>)>>>),
    /// Another protocol has it, to its end.
    Http2(Pin<Box<dyn Future<Output = Option<http2::Remains>>>>),
    /// It is over, but the client may still be sending: this many bytes more are discarded.
    WindingDown(Client<Http1>, u32),
    Over,
}

impl Live {
    pub(crate) fn new(client: Client<Http1>) -> Self {
        client.worker.read_clock();
        Self(match Opening::new(client) {
            Ok(opening) => Stage::Opening(opening),
            Err(client) => Stage::Fresh(Waiting::new(client)),
        })
    }
}

impl Future for Live {
    type Output = ();

    /// Ready when either side has ended it.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let next = match &mut self.0 {
                Stage::Opening(opening) => match ready!(opening.poll(cx)) {
                    None | Some(Protocol::Acme) => Stage::Over,
                    Some(protocol) => match mem::replace(&mut self.0, Stage::Over) {
                        Stage::Opening(it) if protocol == Protocol::Http2 => {
                            Stage::http2(it.client)
                        }
                        Stage::Opening(it) => Stage::Fresh(Waiting::new(it.client)),
                        other => other,
                    },
                },
                Stage::Fresh(waiting) => {
                    let next = ready!(waiting.poll_head(cx, true));
                    mem::replace(&mut self.0, Stage::Over).go_on(next)
                }
                Stage::Waiting(waiting) => {
                    let next = ready!(waiting.poll_head(cx, false));
                    mem::replace(&mut self.0, Stage::Over).go_on(next)
                }
                Stage::Http2(connection) => match ready!(connection.as_mut().poll(cx)) {
                    Some(it) => Stage::wind_down(it.client, it.patience),
                    None => Stage::Over,
                },
                Stage::Running(exchange) => {
                    let (after, client) = ready!(exchange.as_mut().poll(cx));
                    Stage::after(after, client)
                }
                Stage::WindingDown(client, left) => {
                    ready!(poll_wind_down(client, left, cx));
                    Stage::Over
                }
                Stage::Over => return Poll::Ready(()),
            };
            self.0 = next;
        }
    }
}

impl Stage {
    /// What comes after waiting.
    fn go_on(self, next: Next) -> Self {
        let (Self::Fresh(mut waiting) | Self::Waiting(mut waiting)) = self else {
            return Self::Over;
        };
        match next {
            Next::Exchange(exchange) => Self::Running(Box::pin(exchange.run(waiting.client))),
            Next::Http2 => Self::http2(waiting.client),
            Next::Over => {
                waiting.client.transport.stream.say_goodbye();
                Self::Over
            }
        }
    }

    fn http2(client: Client<Http1>) -> Self {
        Self::Http2(Box::pin(http2::serve(client)))
    }

    /// What becomes of the connection after an exchange.
    fn after(after: After, client: Client<Http1>) -> Self {
        match after {
            After::Keep => Self::Waiting(Waiting::new(client)),
            After::WindDown => Self::wind_down(client, limits::WIND_DOWN),
            After::Close => Self::Over,
        }
    }

    /// Closing with unread input would send a reset, which can destroy what was written last: so our side ends,
    /// and the client's is read for a while longer.
    fn wind_down(mut client: Client<Http1>, patience: Duration) -> Self {
        client.transport.input = Vec::new();
        client.transport.stream.shut_write();
        client.deadline.set(client.worker.read_clock().deadline(patience));
        Self::WindingDown(client, limits::WIND_DOWN_BYTES)
    }
}

/// Reads and discards. Ready at the client's end, after enough bytes, or after enough time.
fn poll_wind_down(client: &mut Client<Http1>, left: &mut u32, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        let scratch = &mut client.worker.scratch.borrow_mut()[..limits::READ_FIRST];
        match client.transport.stream.poll_read(cx, scratch) {
            Poll::Ready(Ok(count)) if count > 0 && (count as u32) < *left => *left -= count as u32,
            Poll::Ready(_) => return Poll::Ready(()),
            Poll::Pending if client.deadline.is_due() || client.worker.is_stopping() => {
                return Poll::Ready(());
            }
            Poll::Pending => return Poll::Pending,
        }
    }
}

/// What comes after waiting.
#[expect(clippy::large_enum_variant, reason = "made and taken apart within one turn")]
enum Next {
    Exchange(Exchange),
    /// The client speaks HTTP/2 without having asked (RFC 9113 §3.3).
    Http2,
    Over,
}

/// A client's connection between exchanges: idle, or with the beginning of a head.
struct Waiting {
    client: Client<Http1>,
    /// How far the head at the front of the client's input has been looked at.
    scan: HeadScan,
}

impl Waiting {
    /// Starts the timer of the state that has begun: `idle`, or `head` where its first byte is there.
    fn new(client: Client<Http1>) -> Self {
        let table = client.worker.table();
        let listener = table.listener();
        let after =
            if is_blank(&client.transport.input) { listener.keepalive } else { listener.head };
        client.deadline.set(client.worker.now().deadline(after));
        drop(table);
        Self { client, scan: HeadScan::default() }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>, fresh: bool) -> Poll<Next> {
        self.client.deadline.attach(cx.waker());
        if !self.client.transport.input.is_empty() {
            // A pipelined request, or one whose first bytes came with the body before it.
            let input = mem::take(&mut self.client.transport.input);
            if let Some(next) = self.take_head(&input, fresh) {
                return Poll::Ready(next);
            }
            self.client.transport.input = input;
        }
        if !self.may_begin(cx) {
            return Poll::Pending;
        }
        let input = self.poll_input(cx, fresh);
        if self.client.worker.is_draining() && is_blank(&self.client.transport.input) {
            let soon = self.client.worker.now().deadline(limits::STOP_IDLE);
            self.client.deadline.bring_forward(soon);
        }
        match input {
            Poll::Ready(Next::Over) => {
                if !is_blank(&self.client.transport.input) {
                    self.client.worker.registry().incomplete_heads.fetch_add(1, Ordering::Relaxed);
                }
                Poll::Ready(Next::Over)
            }
            Poll::Ready(next) => Poll::Ready(next),
            Poll::Pending if self.client.worker.is_stopping() => Poll::Ready(Next::Over),
            Poll::Pending if self.client.deadline.is_due() => Poll::Ready(self.expired()),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Whether what has come may be read now: a request waits for its turn before its first byte is read.
    fn may_begin(&self, cx: &mut Context<'_>) -> bool {
        let Client { transport: Http1 { stream, input }, worker, .. } = &self.client;
        !input.is_empty() || !stream.is_readable(cx) || worker.intake.may_begin(cx.waker())
    }

    /// Reads until a head is whole, or the client has ended.
    fn poll_input(&mut self, cx: &mut Context<'_>, fresh: bool) -> Poll<Next> {
        let worker = self.client.worker.clone();
        loop {
            let scratch = &mut worker.scratch.borrow_mut()[..limits::READ_FIRST];
            let count = match ready!(self.client.transport.stream.poll_read(cx, scratch)) {
                Ok(0) | Err(_) => return Poll::Ready(Next::Over),
                Ok(count) => count,
            };
            let now = worker.read_clock();
            let bytes = &scratch[..count];
            if is_blank(&self.client.transport.input) && !is_blank(bytes) {
                self.client.deadline.set(now.deadline(worker.table().listener().head));
            }
            let next = if self.client.transport.input.is_empty() {
                self.take_head(bytes, fresh).or_else(|| {
                    self.client.transport.input = bytes.to_vec();
                    None
                })
            } else {
                let mut input = mem::take(&mut self.client.transport.input);
                input.extend_from_slice(bytes);
                self.take_head(&input, fresh).or_else(|| {
                    self.client.transport.input = input;
                    None
                })
            };
            if let Some(next) = next {
                return Poll::Ready(next);
            }
        }
    }

    /// Makes an exchange of the head at the front of `bytes`, if it is whole or cannot become a good one,
    /// and keeps what follows it as input. `fresh`: nothing has been asked yet.
    fn take_head(&mut self, bytes: &[u8], fresh: bool) -> Option<Next> {
        let begin = match wire::blank_lines(bytes) {
            Ok(begin) => begin,
            Err(bad) => return Some(self.unreadable(bytes, bad.into())),
        };
        let rest = &bytes[begin..];
        if rest.is_empty() || rest == b"\r" {
            return None;
        }
        match self.scan.find_end(rest, limits::REQUEST_HEAD_MAX) {
            Ok(None) => None,
            Ok(Some(length)) if fresh && rest[..length] == *HTTP2_PREFACE => {
                self.client.transport.input = rest.to_vec();
                Some(Next::Http2)
            }
            Ok(Some(length)) => {
                let (head, after) = rest.split_at(length);
                if !after.is_empty() {
                    self.client.transport.input = after.to_vec();
                }
                Some(Next::Exchange(Exchange::admit(&self.client, head)))
            }
            Err(bad) => Some(self.unreadable(rest, bad.into())),
        }
    }

    /// The timer of `idle` ends it silently, that of `head` with 408.
    fn expired(&mut self) -> Next {
        if is_blank(&self.client.transport.input) {
            return Next::Over;
        }
        let input = mem::take(&mut self.client.transport.input);
        self.unreadable(&input, Refusal::BadRequest { status: 408, cause: "head timeout" })
    }

    fn unreadable(&self, bytes: &[u8], refusal: Refusal) -> Next {
        Next::Exchange(Exchange::unreadable(&self.client, bytes, refusal))
    }
}

/// What of HTTP/2's preface looks like a head (RFC 9113 §3.4). Only at a connection's beginning: behind a
/// request somebody in front may believe that they still speak HTTP/1.1 with us.
const HTTP2_PREFACE: &[u8; 18] = b"PRI * HTTP/2.0\r\n\r\n";

/// Whether there is nothing but blank lines, which begin no head: old clients send one after a body
/// (RFC 9112 §2.2).
fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_small() {
        // 889 bytes are tokio's own per connection (task and registration, each on cache lines of their
        // own) with a future of 104; one line more is what the promise of 1 KiB leaves.
        let size = size_of::<Live>();
        assert!(size <= 128, "{size} bytes; the client itself has {}", size_of::<Client<Http1>>());
    }
}
