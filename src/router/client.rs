//! A client's connection, as its exchanges see it.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use crate::router::deadlines::Deadline;
use crate::router::listener::{Listener, Peer};
use crate::router::request::Request;
use crate::router::stream::{Peek, Stream};
use crate::router::worker::Worker;

/// A client's connection. Holds no buffer while nothing is under way.
pub(crate) struct Client {
    pub(crate) stream: Stream,
    /// Read and not yet used: the beginning of a head, of a body, or of a pipelined request.
    pub(crate) input: Vec<u8>,
    pub(crate) deadline: Deadline,
    pub(crate) worker: Rc<Worker>,
    pub(crate) listener: Arc<Listener>,
    pub(crate) peer: Peer,
}

impl Client {
    pub(crate) fn new(
        stream: Stream,
        peer: Peer,
        listener: Arc<Listener>,
        worker: Rc<Worker>,
    ) -> Self {
        let deadline = worker.deadlines.slot();
        Self { stream, input: Vec::new(), deadline, worker, listener, peer }
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

    /// Whether the connection may carry another request after this one.
    pub(crate) fn may_keep(&self, request: &Request) -> bool {
        let closing = self.listener.closing.load(Ordering::Relaxed);
        request.keep_alive && !self.worker.is_draining() && !closing
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.worker.registry().panics.fetch_add(1, Ordering::Relaxed);
            tracing::error!("a request ended by a panic");
        }
        self.worker.connection_closed(&self.listener);
    }
}
