//! A worker: one thread, one runtime, and all that its connections share.
//!
//! What a request touches is this thread's own, but for the table and the dynos' lease words.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{self, MissedTickBehavior};

use crate::config::limits;
use crate::model::AppName;
use crate::router::access_log::AccessLog;
use crate::router::clock::Moment;
use crate::router::connection::{Connection, Live};
use crate::router::deadlines::Deadlines;
use crate::router::door::{Door, Listener, Peer};
use crate::router::http_date::HttpDate;
use crate::router::linger::Lingers;
use crate::router::metrics::{AppCounters, Registry};
use crate::router::pool::Pools;
use crate::router::random::Random;
use crate::router::stream::Stream;
use crate::table::{App, AppId, Notice, Publisher, Subscriber, Table};
use crate::telemetry::Lines;

/// What a worker is told by other threads.
pub(crate) enum Message {
    /// A client has connected.
    Connection { socket: OwnedFd, peer: Peer, listener: Arc<Listener> },
    /// The table or a dyno has changed.
    Notice(Notice),
    /// Finish what there is: every answer from now on closes its connection.
    Drain,
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
    /// Microseconds on the router's clock when the worker last answered a ping.
    pub(crate) pulse: AtomicU64,
}

impl Mailbox {
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

/// What a worker is started with.
pub(crate) struct Start {
    pub(crate) index: usize,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) access_log: Lines,
    pub(crate) registry: Arc<Registry>,
    pub(crate) door: Arc<Door>,
}

/// All that the connections of one thread share. Each `RefCell` is borrowed within one synchronous turn.
pub(crate) struct Worker {
    /// Bytes as they are read; nothing stays here over an await.
    pub(crate) scratch: RefCell<Box<[u8]>>,
    /// Bytes as they are composed; nothing stays here over an await.
    pub(crate) out: RefCell<Vec<u8>>,
    pub(crate) deadlines: Rc<Deadlines>,
    pub(crate) pools: Pools,
    pub(crate) lingers: Lingers,
    pub(crate) random: Random,
    pub(crate) date: RefCell<HttpDate>,
    pub(crate) access_log: RefCell<AccessLog>,
    table: RefCell<Arc<Table>>,
    counters: RefCell<FxHashMap<Option<AppId>, Arc<AppCounters>>>,
    /// How often dynos have changed.
    changes: Cell<u64>,
    now: Cell<Moment>,
    draining: Cell<bool>,
    stopping: Cell<bool>,
    registry: Arc<Registry>,
    publisher: Arc<Publisher>,
    mailbox: Arc<Mailbox>,
    door: Arc<Door>,
}

impl Worker {
    /// Starts the thread.
    pub(crate) fn start(start: Start) -> io::Result<(Arc<Mailbox>, JoinHandle<()>)> {
        let (messages, inbox) = mpsc::unbounded_channel();
        let mailbox = Arc::new(Mailbox {
            messages,
            connections: AtomicUsize::new(0),
            pulse: AtomicU64::new(0),
        });
        let own = mailbox.clone();
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let name = format!("worker-{}", start.index);
        let thread =
            thread::Builder::new().name(name).spawn(move || run(start, own, inbox, &ready))?;
        // The runtime belongs to its thread, so it is made there.
        started.recv().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))?;
        Ok((mailbox, thread))
    }

    /// Reads the clock for this turn.
    pub(crate) fn read_clock(&self) -> Moment {
        let now = Moment::now();
        self.now.set(now);
        now
    }

    /// The moment that this turn began.
    pub(crate) fn now(&self) -> Moment {
        self.now.get()
    }

    /// The table as of now.
    pub(crate) fn table(&self) -> Arc<Table> {
        self.table.borrow().clone()
    }

    /// Whether answers close their connection.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Whether everything is cut.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// The counters of an app, or of requests without one.
    pub(crate) fn counters(&self, app: Option<&App>) -> Arc<AppCounters> {
        let mut counters = self.counters.borrow_mut();
        let fresh = || self.registry.counters(app.map_or("-", |app| AppName::as_str(&app.name)));
        counters.entry(app.map(|app| app.id)).or_insert_with(fresh).clone()
    }

    /// The counters that belong to no app.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// How often dynos have changed; a request that waits compares.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.get()
    }

    /// Counts a client connection that has closed.
    pub(crate) fn connection_closed(&self, listener: &Listener) {
        listener.connections.fetch_sub(1, Ordering::Relaxed);
        self.mailbox.connections.fetch_sub(1, Ordering::Relaxed);
        self.door.resume();
    }

    fn new(start: Start, mailbox: Arc<Mailbox>) -> Self {
        let table = RefCell::new(start.publisher.table());
        Self {
            scratch: RefCell::new(vec![0; limits::SCRATCH].into()),
            out: RefCell::default(),
            deadlines: Rc::default(),
            pools: Pools::default(),
            lingers: Lingers::default(),
            random: Random::from_system(),
            date: RefCell::default(),
            access_log: RefCell::new(AccessLog::new(start.access_log)),
            table,
            counters: RefCell::default(),
            changes: Cell::default(),
            now: Cell::new(Moment::now()),
            draining: Cell::default(),
            stopping: Cell::default(),
            registry: start.registry,
            publisher: start.publisher,
            mailbox,
            door: start.door,
        }
    }

    fn receive(self: &Rc<Self>, message: Message) {
        match message {
            Message::Connection { socket, peer, listener } => self.welcome(socket, peer, listener),
            Message::Notice(notice) => self.heed(notice),
            Message::Drain => self.draining.set(true),
            Message::Stop => {
                self.draining.set(true);
                self.stopping.set(true);
                self.lingers.close_all("stop");
                self.deadlines.wake_all();
            }
            Message::Ping => {
                self.mailbox.pulse.store(self.read_clock().micros(), Ordering::Relaxed)
            }
            // Whoever asked may have gone.
            Message::Report(answer) => drop(answer.send(self.report())),
        }
    }

    fn welcome(self: &Rc<Self>, socket: OwnedFd, peer: Peer, listener: Arc<Listener>) {
        match Stream::accepted(socket, listener.is_tcp()) {
            Ok(stream) => {
                let connection = Connection::new(stream, peer, listener, self.clone());
                // Not awaited: the worker's end waits for the count of connections instead, which costs
                // nothing per connection.
                drop(tokio::task::spawn_local(Live::new(connection)));
            }
            Err(error) => {
                tracing::warn!(%error, "failed to register a connection");
                self.connection_closed(&listener);
            }
        }
    }

    fn heed(&self, notice: Notice) {
        match notice {
            Notice::Table => {
                let table = self.publisher.table();
                let known = |id: &Option<AppId>| {
                    id.is_none_or(|id| table.apps().iter().any(|app| app.id == id))
                };
                self.counters.borrow_mut().retain(|id, _| known(id));
                *self.table.borrow_mut() = table;
            }
            Notice::Lineup => {}
            Notice::Gone(dyno, acknowledgement) => {
                self.pools.purge(&dyno);
                self.lingers.close(dyno.id(), "drain");
                drop(acknowledgement);
            }
        }
        self.changes.set(self.changes.get() + 1);
        self.deadlines.wake_waiting();
    }

    fn tick(&self) {
        Moment::follow_the_wall();
        let now = self.read_clock().tick();
        self.deadlines.pass(now);
        self.pools.sweep(now);
        self.access_log.borrow_mut().flush();
    }

    fn report(&self) -> serde_json::Value {
        let pools = self.pools.report().into_iter();
        let pools: Vec<_> = pools
            .map(|(dyno, idle, connecting)| serde_json::json!({"dyno_record": dyno, "idle": idle, "connecting": connecting}))
            .collect();
        serde_json::json!({
            "connections": self.mailbox.connections.load(Ordering::Relaxed),
            "waiting": self.deadlines.waiting(),
            "lingering": self.lingers.len(),
            "table_version": self.table.borrow().version(),
            "draining": self.is_draining(),
            "pools": pools,
        })
    }
}

fn run(
    start: Start,
    mailbox: Arc<Mailbox>,
    inbox: mpsc::UnboundedReceiver<Message>,
    ready: &std::sync::mpsc::SyncSender<io::Result<()>>,
) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build_local(tokio::runtime::LocalOptions::default());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return drop(ready.send(Err(error))),
    };
    runtime.block_on(async {
        let worker = Rc::new(Worker::new(start, mailbox));
        worker.publisher.subscribe(worker.mailbox.clone());
        // Published between the first look and the subscription.
        worker.heed(Notice::Table);
        drop(ready.send(Ok(())));
        work(&worker, inbox).await;
        worker.access_log.borrow_mut().flush();
    });
}

/// Reads the mailbox and keeps the clock until told to stop and the last connection is gone.
async fn work(worker: &Rc<Worker>, mut inbox: mpsc::UnboundedReceiver<Message>) {
    let mut ticks = time::interval(limits::TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            biased;
            _ = ticks.tick() => {
                worker.tick();
                if worker.is_stopping() && worker.mailbox.connections.load(Ordering::Relaxed) == 0 {
                    return;
                }
            }
            message = inbox.recv() => match message {
                Some(message) => worker.receive(message),
                None => return,
            },
        }
    }
}
