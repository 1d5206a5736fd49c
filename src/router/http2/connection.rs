//! One client's HTTP/2 connection: drives its frames, begins a task for each stream, and ends it by GOAWAY.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
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

/// Speaks HTTP/2 on a connection until it ends. Its preface may have been read already.
pub(crate) async fn serve(client: Client<Http1>) {
    let connection = Rc::new(Shared::new(&client));
    let deadline = client.worker.deadlines.slot();
    let worker = client.worker.clone();
    let io = Io { client, connection: connection.clone() };
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
    let Some(greeted) = greeted.await else { return };
    let mut driver = Driver { h2: greeted, connection, deadline, phase: Phase::Serving };
    poll_fn(|cx| driver.poll(cx)).await;
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
    Leaving,
    /// GOAWAY has been said with an error: nothing goes on.
    Cut,
}

impl Driver {
    /// Ready when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = self.connection.worker.read_clock();
        loop {
            while let Poll::Ready(accepted) = self.h2.poll_accept(cx) {
                match accepted {
                    Some(Ok((request, answer))) => begin(&self.connection, request, answer),
                    // Whoever has broken the protocol has been told so.
                    Some(Err(_)) | None => return Poll::Ready(()),
                }
            }
            let before = self.phase;
            if self.proceed(now) {
                return Poll::Ready(());
            }
            // What has been decided must be said.
            if self.phase == before {
                return Poll::Pending;
            }
        }
    }

    /// Decides whether the connection goes on. `true`: it is over.
    fn proceed(&mut self, now: Moment) -> bool {
        let connection = &self.connection;
        let worker = &connection.worker;
        let busy = connection.streams.get() > 0;
        match self.phase {
            Phase::Serving if connection.is_misused(now) => {
                worker.registry().http2_floods.fetch_add(1, Ordering::Relaxed);
                self.h2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                self.deadline.set(now.deadline(limits::WIND_DOWN));
                self.phase = Phase::Cut;
            }
            Phase::Serving => {
                let keepalive = worker.table().listener().keepalive;
                let since = if busy { now } else { connection.idle_since.get() };
                let idle = since.deadline(keepalive);
                let unwanted =
                    worker.is_draining() || connection.listener.closing.load(Ordering::Relaxed);
                if unwanted || now.tick() >= idle {
                    self.h2.graceful_shutdown();
                    self.deadline.set(now.deadline(limits::WIND_DOWN));
                    self.phase = Phase::Leaving;
                } else {
                    self.deadline.set(idle);
                }
            }
            // Its exchanges end by themselves, also when the worker stops.
            Phase::Leaving if busy => {}
            Phase::Leaving | Phase::Cut => return self.deadline.is_due() || worker.is_stopping(),
        }
        false
    }
}

/// Begins a stream's exchange, as a task of its own.
fn begin(connection: &Rc<Shared>, request: Request<RecvStream>, answer: SendResponse<Bytes>) {
    let (parts, body) = request.into_parts();
    let mut text = connection.worker.out.borrow_mut();
    text.clear();
    head::print(&mut text, &parts, body.is_end_stream(), &connection.worker.random);
    let mut client = Client::new(
        Stream::new(connection.clone(), body, answer),
        connection.peer,
        connection.listener.clone(),
        connection.worker.clone(),
    );
    client.port = connection.port;
    let exchange =
        if parts.extensions.get::<h2::ext::Protocol>().is_some() && !head::is_websocket(&parts) {
            // RFC 8441 §4 names no status; RFC 9220 §3 says 501.
            let refusal = Refusal::BadRequest { status: 501, cause: "unknown :protocol" };
            Exchange::unreadable(&client, &text, refusal)
        } else {
            Exchange::admit(&client, &text)
        };
    drop(text);
    // Not awaited: it ends with its exchange, which the worker's deadlines bound.
    drop(task::spawn_local(async move {
        exchange.run(client).await;
    }));
}

/// The socket as the h2 crate sees it.
struct Io {
    client: Client<Http1>,
    connection: Rc<Shared>,
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { client, connection } = &mut *self;
        let count = ready!(client.transport.poll_read(cx, buffer.initialize_unfilled()))?;
        buffer.advance(count);
        let read = &buffer.filled()[buffer.filled().len() - count..];
        connection.frames.borrow_mut().read(read, connection.worker.now());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.client.transport.poll_write(cx, bytes))?;
        self.connection.frames.borrow_mut().wrote(count);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.client.transport.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.client.transport.shut_write();
        Poll::Ready(Ok(()))
    }
}
