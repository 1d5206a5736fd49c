//! A client, as its exchanges see it.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use crate::config::limits;
use crate::router::deadlines::Deadline;
use crate::router::listener::{Listener, Peer};
use crate::router::request::Request;
use crate::router::stream::Peek;
use crate::router::transport::Transport;
use crate::router::worker::Worker;

/// A client: how its bytes travel, and where it came from.
pub(crate) struct Client<T: Transport> {
    pub(crate) transport: T,
    pub(crate) deadline: Deadline,
    pub(crate) worker: Rc<Worker>,
    pub(crate) listener: Arc<Listener>,
    pub(crate) peer: Peer,
}

impl<T: Transport> Client<T> {
    pub(crate) fn new(
        transport: T,
        peer: Peer,
        listener: Arc<Listener>,
        worker: Rc<Worker>,
    ) -> Self {
        let deadline = worker.deadlines.slot();
        Self { transport, deadline, worker, listener, peer }
    }

    /// Begins a task of its own, when it is its turn: its deadline wakes that, and the clock is read.
    pub(crate) async fn enter(&self) {
        poll_fn(|cx| {
            self.deadline.attach(cx.waker());
            self.worker.read_clock();
            if self.worker.intake.may_begin(cx.waker()) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Whether the client has gone, seen without reading where that is possible: bytes that it sends ahead stay in
    /// the kernel, or with TLS are kept as input.
    ///
    /// `Some(true)`: gone. `Some(false)`: it has sent more, or half-closed as it said it would; watching
    /// further would show nothing new. `None`: nothing yet, the task is woken when there is.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>, said_close: bool) -> Option<bool> {
        let scratch = &mut self.worker.scratch.borrow_mut()[..limits::READ_FIRST];
        match self.transport.poll_peek(cx, scratch) {
            Poll::Pending => None,
            Poll::Ready(Peek::End) => Some(!said_close),
            Poll::Ready(Peek::Reset) => Some(true),
            Poll::Ready(Peek::Bytes | Peek::Silent) => Some(false),
        }
    }

    /// The number of its connection among the open ones of its worker.
    pub(crate) fn connection(&self) -> u32 {
        self.transport.connection().unwrap_or_else(|| self.deadline.number())
    }

    /// Whether the connection may carry another request after this one.
    pub(crate) fn may_keep(&self, request: &Request) -> bool {
        let closing = self.listener.closing.load(Ordering::Relaxed);
        request.keep_alive && !self.worker.is_draining() && !closing
    }
}

impl<T: Transport> Drop for Client<T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.worker.registry().panics.fetch_add(1, Ordering::Relaxed);
            tracing::error!("a request ended by a panic");
        }
        if T::IS_CONNECTION {
            self.worker.seats.leave(self.connection());
            self.worker.connection_closed(&self.listener);
        }
    }
}
