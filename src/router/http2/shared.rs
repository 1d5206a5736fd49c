//! What the streams of a connection share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use h2::{Reason, StreamId};

use crate::config::limits;
use crate::router::client::Client;
use crate::router::clock::{Moment, Tick};
use crate::router::http1::Http1;
use crate::router::http2::flood::Flood;
use crate::router::listener::{Listener, Peer};
use crate::router::security::{Security, TlsVersion};
use crate::router::transport::Transport;
use crate::router::worker::Worker;
use crate::wire::FramePassage;

/// What the streams of a connection share.
pub(crate) struct Shared {
    pub(super) worker: Rc<Worker>,
    pub(super) listener: Arc<Listener>,
    pub(super) peer: Peer,
    /// The connection's number among the worker's open ones.
    pub(super) number: u32,
    tls: Option<(TlsVersion, Option<Box<str>>)>,
    pub(super) flood: RefCell<Flood>,
    pub(super) frames: RefCell<FramePassage>,
    /// Streams whose exchange has not ended.
    pub(super) streams: Cell<usize>,
    /// When the last stream ended.
    pub(super) idle_since: Cell<Moment>,
    /// When the socket last took anything.
    pub(super) written: Cell<Moment>,
    /// It takes no more at present.
    pub(super) blocked: Cell<bool>,
}

impl Shared {
    pub(super) fn new(client: &Client<Http1>) -> Self {
        let security = client.transport.security();
        let now = client.worker.now();
        Self {
            worker: client.worker.clone(),
            listener: client.listener.clone(),
            peer: client.peer,
            number: client.connection(),
            tls: security.map(|it| (it.version, it.server_name.map(Into::into))),
            flood: RefCell::new(Flood::new(now)),
            frames: RefCell::default(),
            streams: Cell::new(0),
            idle_since: Cell::new(now),
            written: Cell::new(now),
            blocked: Cell::new(false),
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

    /// The exchange of a stream has ended.
    pub(super) fn stream_ended(&self, stream: StreamId) {
        self.frames.borrow_mut().forget(stream.as_u32());
        self.streams.set(self.streams.get() - 1);
        self.idle_since.set(self.worker.now());
    }

    /// Why the connection has to be cut, if it has to: its frames are garbled, only cost, or are too slow with a
    /// header list.
    pub(super) fn offence(&self, now: Moment) -> Option<Reason> {
        let late = || self.head_deadline().is_some_and(|deadline| now.tick() >= deadline);
        if self.frames.borrow().bad().is_some() {
            Some(Reason::FRAME_SIZE_ERROR)
        } else if self.flood.borrow().is_too_much() || late() {
            Some(Reason::ENHANCE_YOUR_CALM)
        } else {
            None
        }
    }

    /// When a header list that is on its way has taken too long.
    pub(super) fn head_deadline(&self) -> Option<Tick> {
        self.flood.borrow().head_deadline(self.worker.table().listener().head)
    }

    /// Counts a flood, for which the connection ends.
    pub(super) fn count_flood(&self) {
        self.worker.registry().http2_floods.fetch_add(1, Ordering::Relaxed);
    }

    /// Until when a connection without streams may take to end after GOAWAY, which was said at `since`. The
    /// last answers may still wait in it: as long as a client takes of them what it can, they are not cut.
    pub(super) fn end_of_leaving(&self, since: Moment) -> Tick {
        let since = since.max(self.idle_since.get()).max(self.written.get());
        since.deadline(if self.blocked.get() { limits::REPLY } else { limits::WIND_DOWN })
    }
}
