//! One client's HTTP/2 connection: drives its frames, begins a task for each stream, and ends it by GOAWAY.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream};
use http::{Request, request};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task;

use crate::config::limits;
use crate::router::client::Client;
use crate::router::clock::Moment;
use crate::router::deadlines::Deadline;
use crate::router::duplex::{Sink, Source};
use crate::router::exchange::Exchange;
use crate::router::http1::Http1;
use crate::router::http2::head;
use crate::router::http2::shared::Shared;
use crate::router::http2::stream::Stream;
use crate::router::reply::Refusal;
use crate::wire::{BadFrame, HeadScan};

/// Speaks HTTP/2 on a connection until it ends. Its preface may have been read already. The socket comes back
/// where the client may still be sending, or taking what was said last.
pub(crate) async fn serve(client: Client<Http1>) -> Option<Remains> {
    let connection = Rc::new(Shared::new(&client));
    let deadline = client.worker.deadlines.slot();
    let worker = client.worker.clone();
    let client = Rc::new(RefCell::new(client));
    let io = Io { client: client.clone(), connection: connection.clone(), rest: Bytes::new() };
    let mut handshake = Box::pin(builder().handshake::<_, Bytes>(io));
    deadline.set(worker.now().deadline(worker.table().listener().handshake));
    let greeted = poll_fn(|cx| {
        deadline.attach(cx.waker());
        match handshake.as_mut().poll(cx) {
            Poll::Ready(greeted) => Poll::Ready(greeted.ok()),
            Poll::Pending if deadline.is_due() || worker.is_stopping() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    });
    let greeted = greeted.await?;
    let mut driver = Driver { h2: greeted, connection, deadline, phase: Phase::Serving };
    let end = poll_fn(|cx| driver.poll(cx)).await;
    drop(driver);
    let client = Rc::into_inner(client)?.into_inner();
    let patience = match end {
        // It may take long for what is with the kernel, and lets us know how far it is: a close at which that
        // is unread would be a reset.
        End::Good => limits::REPLY,
        End::Broken => limits::WIND_DOWN,
        End::Late => return None,
    };
    Some(Remains { client, patience })
}

/// A socket on which HTTP/2 is over.
pub(crate) struct Remains {
    pub(crate) client: Client<Http1>,
    /// How long its client may take for what was said last.
    pub(crate) patience: Duration,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Both sides have said so.
    Good,
    /// The protocol was broken, or the socket.
    Broken,
    /// It took too long.
    Late,
}

/// What the h2 crate is told; the reasons are with the limits.
fn builder() -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(limits::STREAMS_MAX)
        .initial_window_size(limits::STREAM_WINDOW)
        .initial_connection_window_size(limits::STREAMS_MAX * limits::STREAM_WINDOW)
        .max_send_buffer_size(limits::STREAM_UNSENT_MAX)
        .max_header_list_size(limits::HEADER_LIST_MAX)
        // The crate's own bound counts those that come at once, for which a page that is left is enough.
        .max_pending_accept_reset_streams(limits::RESETS_BURST as usize)
        .enable_connect_protocol();
    builder
}

/// The task of a connection.
struct Driver {
    h2: server::Connection<Io, Bytes>,
    connection: Rc<Shared>,
    deadline: Deadline,
    phase: Phase,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// GOAWAY has been said: the streams there are go on, and no others begin.
    Leaving(Moment),
    /// GOAWAY has been said with an error: nothing goes on.
    Cut,
}

impl Driver {
    /// Ready when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let now = self.connection.worker.read_clock();
        loop {
            while let Poll::Ready(accepted) = self.h2.poll_accept(cx) {
                match accepted {
                    Some(Ok((request, answer))) => begin(&self.connection, request, answer),
                    // Whoever has broken the protocol has been told so.
                    Some(Err(error)) => {
                        if is_flood(&error) && self.phase != Phase::Cut {
                            self.connection.count_flood();
                        }
                        return Poll::Ready(End::Broken);
                    }
                    None => return Poll::Ready(End::Good),
                }
            }
            let before = self.phase;
            if self.proceed(now) {
                return Poll::Ready(End::Late);
            }
            // What has been decided must be said.
            if self.phase == before {
                return Poll::Pending;
            }
        }
    }

    /// Decides whether the connection goes on. `true`: its time is over.
    fn proceed(&mut self, now: Moment) -> bool {
        let connection = &self.connection;
        let worker = &connection.worker;
        let busy = connection.streams.get() > 0;
        if self.phase != Phase::Cut
            && let Some(reason) = connection.offence(now)
        {
            if reason == Reason::ENHANCE_YOUR_CALM {
                connection.count_flood();
            }
            self.h2.abrupt_shutdown(reason);
            self.deadline.set(now.deadline(limits::WIND_DOWN));
            self.phase = Phase::Cut;
            return false;
        }
        match self.phase {
            Phase::Serving => {
                let keepalive = worker.table().listener().keepalive;
                let since = if busy { now } else { connection.idle_since.get() };
                let idle = since.deadline(keepalive);
                let unwanted =
                    worker.is_draining() || connection.listener.closing.load(Ordering::Relaxed);
                if unwanted || now.tick() >= idle {
                    self.h2.graceful_shutdown();
                    self.phase = Phase::Leaving(now);
                } else {
                    self.deadline.set(connection.head_deadline().map_or(idle, |it| it.min(idle)));
                }
            }
            // Its exchanges end by themselves, also when the worker stops.
            Phase::Leaving(_) if busy => {}
            Phase::Leaving(since) => {
                let end = connection.end_of_leaving(since);
                self.deadline.set(end);
                return now.tick() >= end || worker.is_stopping();
            }
            Phase::Cut => return self.deadline.is_due() || worker.is_stopping(),
        }
        false
    }
}

/// Whether the h2 crate has met one of its own bounds on frames that only cost.
fn is_flood(error: &h2::Error) -> bool {
    error.is_library() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM)
}

/// Begins a stream's exchange, as a task of its own.
fn begin(connection: &Rc<Shared>, request: Request<RecvStream>, mut answer: SendResponse<Bytes>) {
    let (parts, body) = request.into_parts();
    if head::is_malformed(&parts) {
        return answer.send_reset(Reason::PROTOCOL_ERROR);
    }
    let mut text = connection.worker.out.borrow_mut();
    text.clear();
    head::print(&mut text, &parts, body.is_end_stream(), &connection.worker.random);
    let client = Client::new(
        Stream::new(connection.clone(), body, answer),
        connection.peer,
        connection.listener.clone(),
        connection.worker.clone(),
    );
    let exchange = match refusal(&parts, &text) {
        Some(refusal) => Exchange::unreadable(&client, &text, refusal),
        None => Exchange::admit(&client, &text),
    };
    drop(text);
    // Not awaited: it ends with its exchange, which the worker's deadlines bound.
    drop(task::spawn_local(exchange.run(client)));
}

/// What is refused before the head, printed as `text`, is read as one.
fn refusal(parts: &request::Parts, text: &[u8]) -> Option<Refusal> {
    if parts.extensions.get::<h2::ext::Protocol>().is_some() && !head::is_websocket(parts) {
        // RFC 8441 §4 names no status; RFC 9220 §3 says 501.
        return Some(Refusal::BadRequest { status: 501, cause: "unknown :protocol" });
    }
    // HTTP/1.1's bounds, and its idea of where a head ends, whatever a header list may hold.
    match HeadScan::default().find_end(text, limits::REQUEST_HEAD_MAX) {
        Ok(Some(length)) if length == text.len() => None,
        Ok(_) => Some(Refusal::BadRequest { status: 400, cause: "bad field" }),
        Err(bad) => Some(bad.into()),
    }
}

/// The socket as the h2 crate sees it.
struct Io {
    client: Rc<RefCell<Client<Http1>>>,
    connection: Rc<Shared>,
    /// What goes on of the last read behind what went on as it was.
    rest: Bytes,
}

impl Io {
    /// Lets bytes that have been read pass. Returns how many go on as they are.
    fn pass(&mut self, read: &[u8]) -> io::Result<usize> {
        let Shared { frames, flood, worker, .. } = &*self.connection;
        let (mut frames, mut flood) = (frames.borrow_mut(), flood.borrow_mut());
        let mut rest = Vec::new();
        let same = frames.pass(read, &mut rest, |header| flood.frame(header, worker.now()));
        self.rest = rest.into();
        if frames.bad() == Some(BadFrame::First) {
            // Nothing of it is answered; a GOAWAY may be left out (RFC 9113 §3.4).
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(same)
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.rest.is_empty() {
                let count = this.rest.len().min(buffer.remaining());
                buffer.put_slice(&this.rest[..count]);
                this.rest.advance(count);
                if this.rest.is_empty() {
                    // Gives back its memory.
                    this.rest = Bytes::new();
                }
                return Poll::Ready(Ok(()));
            }
            if this.connection.frames.borrow().bad().is_some() {
                // The driver looks at that in this very turn, and reads no more.
                return Poll::Pending;
            }
            let unfilled = buffer.initialize_unfilled();
            let count = ready!(this.client.borrow_mut().transport.poll_read(cx, unfilled))?;
            let same = this.pass(&unfilled[..count])?;
            buffer.advance(same);
            // Without any, a header of a frame has begun.
            if count == 0 || same > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { client, connection, .. } = &*self;
        let written = client.borrow_mut().transport.poll_write(cx, bytes);
        connection.blocked.set(written.is_pending());
        let count = ready!(written)?;
        connection.written.set(connection.worker.now());
        connection.flood.borrow_mut().wrote(count);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.client.borrow_mut().transport.poll_flush(cx);
        // TLS takes more than its socket.
        self.connection.blocked.set(flushed.is_pending());
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.client.borrow_mut().transport.shut_write();
        Poll::Ready(Ok(()))
    }
}
