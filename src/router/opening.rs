//! What a connection begins with before its first head: a TLS handshake, where its listener says so.

use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use crate::config::limits;
use crate::router::client::Client;
use crate::router::client_stream::{ClientStream, Handshaken};
use crate::router::http1::Http1;
use crate::router::stream::Peek;
use crate::router::worker::Worker;

/// A client's connection before anything can be asked on it: state `open`.
pub(crate) struct Opening {
    pub(crate) client: Client<Http1>,
    shaking: Option<Shaking>,
}

/// One of the handshakes that are under way on a worker.
struct Shaking(Rc<Worker>);

impl Shaking {
    /// `None` where there are too many.
    fn begin(worker: &Rc<Worker>) -> Option<Self> {
        let before = worker.handshakes.get();
        (before < limits::HANDSHAKES_MAX).then(|| {
            worker.handshakes.set(before + 1);
            Self(worker.clone())
        })
    }
}

impl Drop for Shaking {
    fn drop(&mut self) {
        self.0.handshakes.set(self.0.handshakes.get() - 1);
    }
}

impl Opening {
    /// Starts the one timer that holds for all of it.
    pub(crate) fn new(client: Client<Http1>) -> Self {
        let handshake = client.worker.table().listener().handshake;
        client.deadline.set(client.worker.now().deadline(handshake));
        Self { client, shaking: None }
    }

    /// Ready when requests may come, and `true` if ALPN chose HTTP/2; `None` if it is over.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<bool>> {
        self.client.deadline.attach(cx.waker());
        match self.poll_handshake(cx) {
            Poll::Ready(Some(handshaken)) => {
                let counters = &self.client.worker.registry().handshakes;
                count(if handshaken.resumed { &counters.resumed } else { &counters.full });
                Poll::Ready(Some(handshaken.http2))
            }
            Poll::Ready(None) => {
                count(&self.client.worker.registry().handshakes.failed);
                Poll::Ready(None)
            }
            Poll::Pending if self.client.worker.is_stopping() => Poll::Ready(None),
            Poll::Pending if self.client.deadline.is_due() => {
                count(&self.client.worker.registry().handshakes.timed_out);
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<Option<Handshaken>> {
        let Client { transport, worker, .. } = &mut self.client;
        if let ClientStream::Plain(stream) = &transport.stream {
            // Nothing is allocated for a client that says nothing.
            if ready!(stream.poll_peek(cx)) != Peek::Bytes {
                return Poll::Ready(None);
            }
            self.shaking = Shaking::begin(worker);
            if self.shaking.is_none() {
                return Poll::Ready(None);
            }
            transport.stream.start_tls(worker.tls());
        }
        transport.stream.poll_handshake(cx).map(Result::ok)
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
