//! How other threads reach a worker.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::router::listener::{Listener, Peer};
use crate::table::{Notice, Subscriber};

/// What a worker is told by other threads.
pub(crate) enum Message {
    /// A client has connected.
    Connection { socket: OwnedFd, peer: Peer, listener: Arc<Listener> },
    /// The table or a dyno has changed.
    Notice(Notice),
    /// Finish what there is within this time: every answer from now on closes its connection.
    Drain(Duration),
    /// Cut what is left, and end.
    Stop,
    /// Say that you are alive.
    Ping,
    /// Say what you hold.
    Report(oneshot::Sender<serde_json::Value>),
}

/// The side of a worker that other threads see.
pub(crate) struct Mailbox {
    /// Unbounded: connections are bounded by the door, everything else is rare.
    messages: mpsc::UnboundedSender<Message>,
    /// Client connections, counted when posted.
    pub(crate) connections: AtomicUsize,
    /// How many of them have not said yet what comes before a first head: a PROXY header, a TLS handshake.
    pub(crate) opening: AtomicUsize,
    /// Microseconds on the router's clock when the worker last answered a ping.
    pub(crate) pulse: AtomicU64,
}

impl Mailbox {
    /// A mailbox, and the end that its worker reads.
    pub(crate) fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Message>) {
        let (messages, inbox) = mpsc::unbounded_channel();
        let mailbox = Self {
            messages,
            connections: AtomicUsize::new(0),
            opening: AtomicUsize::new(0),
            pulse: AtomicU64::new(0),
        };
        (Arc::new(mailbox), inbox)
    }

    /// Posts a message. A worker that has ended takes none, and needs none.
    pub(crate) fn post(&self, message: Message) {
        let _ = self.messages.send(message);
    }
}

impl Subscriber for Mailbox {
    fn notify(&self, notice: Notice) {
        self.post(Message::Notice(notice));
    }
}
