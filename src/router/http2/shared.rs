//! What the streams of a connection share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use crate::router::client::Client;
use crate::router::clock::Moment;
use crate::router::http1::Http1;
use crate::router::http2::flood::Frames;
use crate::router::listener::{Listener, Peer};
use crate::router::security::{Security, TlsVersion};
use crate::router::transport::Transport;
use crate::router::worker::Worker;

/// What the streams of a connection share.
pub(crate) struct Shared {
    pub(super) worker: Rc<Worker>,
    pub(super) listener: Arc<Listener>,
    pub(super) peer: Peer,
    pub(super) port: u16,
    tls: Option<(TlsVersion, Option<Box<str>>)>,
    pub(super) frames: RefCell<Frames>,
    /// Streams whose exchange has not ended.
    pub(super) streams: Cell<usize>,
    /// When the last stream ended.
    pub(super) idle_since: Cell<Moment>,
}

impl Shared {
    pub(super) fn new(client: &Client<Http1>) -> Self {
        let security = client.transport.security();
        let now = client.worker.now();
        Self {
            worker: client.worker.clone(),
            listener: client.listener.clone(),
            peer: client.peer,
            port: client.port,
            tls: security.map(|it| (it.version, it.server_name.map(Into::into))),
            frames: RefCell::new(Frames::new(now)),
            streams: Cell::new(0),
            idle_since: Cell::new(now),
        }
    }

    /// What TLS says of it.
    pub(super) fn security(&self) -> Option<Security<'_>> {
        let (version, server_name) = self.tls.as_ref()?;
        Some(Security { version: *version, server_name: server_name.as_deref() })
    }

    /// A stream's exchange has begun.
    pub(super) fn stream_began(&self) {
        self.streams.set(self.streams.get() + 1);
    }

    /// A stream's exchange has ended.
    pub(super) fn stream_ended(&self) {
        self.streams.set(self.streams.get() - 1);
        self.idle_since.set(self.worker.now());
    }

    /// Whether the client sends what only costs, or is too slow with a header list.
    pub(super) fn is_misused(&self, now: Moment) -> bool {
        let frames = self.frames.borrow();
        frames.is_flood() || frames.is_head_late(now, self.worker.table().listener().head)
    }
}
