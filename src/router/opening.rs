//! What a connection begins with before its first head, where its listener says so: a PROXY header, a TLS
//! handshake.

use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use crate::config::limits;
use crate::router::client::Client;
use crate::router::client_stream::{ClientStream, Handshaken, Protocol};
use crate::router::http1::Http1;
use crate::router::listener::Peer;
use crate::router::stream::Peek;
use crate::router::worker::Opens;
use crate::wire::ProxyHeader;

/// A client's connection before anything can be asked on it: state `open`.
pub(crate) struct Opening {
    pub(crate) client: Client<Http1>,
    /// A PROXY header is to come.
    header: bool,
    /// A TLS handshake is to come, or under way.
    tls: bool,
    /// It is counted as one of those that do not ask yet.
    opens: Option<Opens>,
}

impl Opening {
    /// Starts the one timer that holds for all of it; `Err` where nothing comes before the first head.
    pub(crate) fn new(client: Client<Http1>) -> Result<Self, Client<Http1>> {
        let (header, tls) = (client.listener.has_proxy_header(), client.listener.is_tls());
        if !header && !tls {
            return Err(client);
        }
        let handshake = client.worker.table().listener().handshake;
        client.deadline.set(client.worker.now().deadline(handshake));
        let opens = Some(client.worker.opens());
        Ok(Self { client, header, tls, opens })
    }

    /// Ready when requests may come, and how; `None` if it is over.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Protocol>> {
        self.client.deadline.attach(cx.waker());
        let opened =
            self.poll_open(cx).map(|opened| opened.and_then(|protocol| self.admit(protocol)));
        let registry = self.client.worker.registry();
        match opened {
            Poll::Ready(Ok(protocol)) => Poll::Ready(Some(protocol)),
            Poll::Ready(Err(())) => {
                count(if self.header {
                    &registry.bad_headers
                } else {
                    &registry.handshakes.failed
                });
                Poll::Ready(None)
            }
            Poll::Pending if self.client.worker.is_stopping() => Poll::Ready(None),
            Poll::Pending if self.client.deadline.is_due() => {
                let late = &registry.handshakes.timed_out;
                count(if self.header { &registry.bad_headers } else { late });
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Lets it ask, unless there are so many that their dynos' connections would find no descriptors.
    fn admit(&mut self, protocol: Protocol) -> Result<Protocol, ()> {
        self.opens = None;
        if self.client.worker.is_overdrawn() { Err(()) } else { Ok(protocol) }
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<Protocol, ()>> {
        if self.header {
            ready!(self.poll_header(cx))?;
            self.header = false;
        }
        if !self.tls {
            return Poll::Ready(Ok(Protocol::Http1));
        }
        let handshaken = ready!(self.poll_handshake(cx))?;
        let counters = &self.client.worker.registry().handshakes;
        count(if handshaken.resumed { &counters.resumed } else { &counters.full });
        Poll::Ready(Ok(handshaken.protocol))
    }

    /// Reads who the client is from a proxy that is believed; nobody else may connect where a header is due.
    /// Only the header's own bytes are taken: what follows may be TLS.
    fn poll_header(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ()>> {
        let client = &mut self.client;
        let believed = client.worker.table().listener().trusts(client.peer.ip());
        let (true, ClientStream::Plain(stream)) = (believed, &mut client.transport.stream) else {
            return Poll::Ready(Err(()));
        };
        let scratch = &mut client.worker.scratch.borrow_mut()[..limits::READ_FIRST];
        let judge = |bytes: &[u8]| ProxyHeader::parse(bytes).transpose();
        let header = ready!(stream.poll_look(cx, scratch, judge));
        let header = header.map_err(|_| ())?.map_err(|_| ())?;
        // All of it is there, so it is read at once.
        let taken = stream.poll_read(cx, &mut scratch[..header.length]);
        if !matches!(taken, Poll::Ready(Ok(count)) if count == header.length) {
            return Poll::Ready(Err(()));
        }
        if let Some(source) = header.source {
            // Without an address somebody would pass for a peer on a Unix socket.
            if source.ip().is_unspecified() {
                return Poll::Ready(Err(()));
            }
            client.peer = Peer::new(Some(source));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<Result<Handshaken, ()>> {
        let Client { transport, worker, .. } = &mut self.client;
        if let ClientStream::Plain(stream) = &transport.stream {
            // Nothing is allocated for a client that says nothing.
            if ready!(stream.poll_peek(cx)) != Peek::Bytes {
                return Poll::Ready(Err(()));
            }
            let handshakes = worker.handshakes().clone();
            if Rc::strong_count(&handshakes) > limits::HANDSHAKES_MAX {
                return Poll::Ready(Err(()));
            }
            transport.stream.start_tls(worker.tls(), handshakes);
        }
        transport.stream.poll_handshake(cx).map_err(drop)
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
