//! One client's HTTP/1.1 connection, from idle to head to exchange and back.
//!
//! Thousands of these are idle at a time: a connection holds no buffer while nothing is under way, and its
//! exchange is a box of its own (a test below asserts the size of what remains).

use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use crate::config::limits;
use crate::router::deadlines::Deadline;
use crate::router::door::{Listener, Peer};
use crate::router::exchange::{After, Exchange};
use crate::router::reply::Refusal;
use crate::router::stream::{Peek, Stream};
use crate::router::worker::Worker;
use crate::wire::{self, BadRequest, HeadScan};

/// A client's connection.
pub(crate) struct Connection {
    pub(crate) stream: Stream,
    /// Read and not yet used: the beginning of a head, of a body, or of a pipelined request.
    pub(crate) input: Vec<u8>,
    pub(crate) deadline: Deadline,
    pub(crate) worker: Rc<Worker>,
    pub(crate) listener: Arc<Listener>,
    pub(crate) peer: Peer,
    /// How far the head at the front of `input` has been looked at.
    scan: HeadScan,
}

/// The life of a connection, written by hand as a future: an async function would hold the connection twice,
/// and a second time for each state.
pub(crate) struct Live {
    /// Here, unless the exchange has it.
    connection: Option<Connection>,
    exchange: Option<Pin<Box<Running>>>,
    /// Bytes that are still discarded, once it is over.
    winding_down: Option<usize>,
    attached: bool,
}

/// An exchange under way; it has the connection, and gives it back.
type Running = dyn Future<Output = (After, Connection)>;

impl Live {
    pub(crate) fn new(mut connection: Connection) -> Self {
        connection.worker.read_clock();
        connection.begin_head();
        Self { connection: Some(connection), exchange: None, winding_down: None, attached: false }
    }

    /// What becomes of the connection after an exchange.
    fn after(&mut self, after: After, mut connection: Connection) -> Poll<()> {
        match after {
            After::Keep => connection.begin_head(),
            After::WindDown => {
                connection.begin_wind_down();
                self.winding_down = Some(limits::WIND_DOWN_BYTES);
            }
            After::Close => return Poll::Ready(()),
        }
        self.connection = Some(connection);
        Poll::Pending
    }
}

impl Future for Live {
    type Output = ();

    /// Ready when either side has ended it.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(exchange) = &mut self.exchange {
                let (after, connection) = ready!(exchange.as_mut().poll(cx));
                self.exchange = None;
                if self.after(after, connection).is_ready() {
                    return Poll::Ready(());
                }
            }
            let this = &mut *self;
            let Some(connection) = &mut this.connection else { return Poll::Ready(()) };
            if !mem::replace(&mut this.attached, true) {
                connection.deadline.attach(cx.waker());
            }
            if let Some(left) = &mut this.winding_down {
                return connection.poll_wind_down(left, cx);
            }
            match ready!(connection.poll_head(cx)) {
                Next::Close => return Poll::Ready(()),
                Next::Exchange(exchange) => {
                    this.exchange =
                        this.connection.take().map(|it| Box::pin(exchange.run(it)) as _);
                }
            }
        }
    }
}

/// What comes after waiting for a head.
enum Next {
    Close,
    Exchange(Box<Exchange>),
}

impl Connection {
    pub(crate) fn new(
        stream: Stream,
        peer: Peer,
        listener: Arc<Listener>,
        worker: Rc<Worker>,
    ) -> Self {
        let deadline = worker.deadlines.slot();
        Self {
            stream,
            input: Vec::new(),
            deadline,
            worker,
            listener,
            peer,
            scan: HeadScan::default(),
        }
    }

    /// Whether the client has gone, seen without reading: bytes that it sends ahead stay in the kernel.
    ///
    /// `Some(true)`: gone. `Some(false)`: it has sent more, or half-closed as it said it would; watching
    /// further would show nothing new. `None`: nothing yet, the task is woken when there is.
    pub(crate) fn poll_gone(&self, cx: &mut Context<'_>, said_close: bool) -> Option<bool> {
        match self.stream.poll_peek(cx) {
            Poll::Pending => None,
            Poll::Ready(Peek::End) => Some(!said_close),
            Poll::Ready(Peek::Reset) => Some(true),
            Poll::Ready(Peek::Bytes | Peek::Silent) => Some(false),
        }
    }

    /// Starts the timer of the state that has begun: `idle`, or `head` where its first byte is there.
    fn begin_head(&mut self) {
        let table = self.worker.table();
        let listener = table.listener();
        let after = if self.input.is_empty() { listener.keepalive } else { listener.head };
        self.deadline.set(self.worker.now().deadline(after));
        self.scan = HeadScan::default();
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if !self.input.is_empty() {
            // A pipelined request, or one whose first bytes came with the body before it.
            let input = mem::take(&mut self.input);
            if let Some(exchange) = self.take_head(&input) {
                return Poll::Ready(Next::Exchange(exchange));
            }
            self.input = input;
        }
        match self.poll_input(cx) {
            Poll::Ready(Some(exchange)) => Poll::Ready(Next::Exchange(exchange)),
            Poll::Ready(None) => {
                if !self.input.is_empty() {
                    self.worker.registry().incomplete_heads.fetch_add(1, Ordering::Relaxed);
                }
                Poll::Ready(Next::Close)
            }
            Poll::Pending if self.worker.is_stopping() => Poll::Ready(Next::Close),
            Poll::Pending if self.deadline.is_due() => Poll::Ready(self.expired()),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Reads until a head is whole; `None` at the client's end.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Option<Box<Exchange>>> {
        let worker = self.worker.clone();
        loop {
            let scratch = &mut worker.scratch.borrow_mut()[..limits::READ_FIRST];
            let count = match ready!(self.stream.poll_read(cx, scratch)) {
                Ok(0) | Err(_) => return Poll::Ready(None),
                Ok(count) => count,
            };
            let now = worker.read_clock();
            let bytes = &scratch[..count];
            let exchange = if self.input.is_empty() {
                self.deadline.set(now.deadline(worker.table().listener().head));
                self.take_head(bytes).or_else(|| {
                    self.input = bytes.to_vec();
                    None
                })
            } else {
                let mut input = mem::take(&mut self.input);
                input.extend_from_slice(bytes);
                self.take_head(&input).or_else(|| {
                    self.input = input;
                    None
                })
            };
            if exchange.is_some() {
                return Poll::Ready(exchange);
            }
        }
    }

    /// Makes an exchange of the head at the front of `bytes`, if it is whole or cannot become a good one,
    /// and keeps what follows it in `input`.
    fn take_head(&mut self, bytes: &[u8]) -> Option<Box<Exchange>> {
        let begin = match wire::blank_lines(bytes) {
            Ok(begin) => begin,
            Err(bad) => return Some(Exchange::unreadable(self, bytes, bad.into())),
        };
        let rest = &bytes[begin..];
        if rest.is_empty() || rest == b"\r" {
            return None;
        }
        match self.scan.find_end(rest, limits::REQUEST_HEAD_MAX) {
            Ok(None) => None,
            Ok(Some(length)) => {
                let (head, after) = rest.split_at(length);
                if !after.is_empty() {
                    self.input = after.to_vec();
                }
                Some(Exchange::admit(self, head))
            }
            Err(bad) => {
                let bad = BadRequest::from(bad);
                Some(Exchange::unreadable(
                    self,
                    rest,
                    Refusal::BadRequest { status: bad.status(), cause: bad.cause() },
                ))
            }
        }
    }

    /// The timer of `idle` ends it silently, that of `head` with 408.
    fn expired(&mut self) -> Next {
        if self.input.is_empty() {
            return Next::Close;
        }
        let input = mem::take(&mut self.input);
        let refusal = Refusal::BadRequest { status: 408, cause: "head timeout" };
        Next::Exchange(Exchange::unreadable(self, &input, refusal))
    }

    /// Ends our side. Closing with unread input would send a reset, which can destroy the answer that was
    /// just written; so it is read for a moment longer.
    fn begin_wind_down(&mut self) {
        self.input = Vec::new();
        self.stream.shut_write();
        self.deadline.set(self.worker.read_clock().deadline(limits::WIND_DOWN));
    }

    /// Reads and discards. Ready at the client's end, after enough bytes, or after enough time.
    fn poll_wind_down(&mut self, left: &mut usize, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let scratch = &mut self.worker.scratch.borrow_mut()[..limits::READ_FIRST];
            match self.stream.poll_read(cx, scratch) {
                Poll::Ready(Ok(count)) if count > 0 && count < *left => *left -= count,
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending if self.deadline.is_due() || self.worker.is_stopping() => {
                    return Poll::Ready(());
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.worker.registry().panics.fetch_add(1, Ordering::Relaxed);
            tracing::error!("a request ended by a panic");
        }
        self.worker.connection_closed(&self.listener);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_small() {
        // 889 bytes are tokio's own per connection (task and registration, each on cache lines of their
        // own) with a future of up to 104; the promise of 1 KiB leaves this much.
        let size = size_of::<Live>();
        assert!(size <= 192, "{size} bytes; the connection itself has {}", size_of::<Connection>());
    }
}
