//! A worker: all that the connections of one thread share.
//!
//! What a request touches is this thread's own, but for the table and the dynos' lease words.

use std::cell::{Cell, Ref, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};
use rustls::ServerConfig;

use crate::certs::Certs;
use crate::config::limits;
use crate::model::AppName;
use crate::router::access_log::AccessLog;
use crate::router::affinity::Seal;
use crate::router::clock::{Moment, Tick};
use crate::router::deadlines::Deadlines;
use crate::router::door::Door;
use crate::router::http_date::HttpDate;
use crate::router::intake::Intake;
use crate::router::lingers::Lingers;
use crate::router::listener::{Listener, Listening};
use crate::router::mailbox::Mailbox;
use crate::router::metrics::{AppCounters, Registry};
use crate::router::pipes::Pipes;
use crate::router::pool::Pools;
use crate::router::random::Random;
use crate::router::traffic::Seats;
use crate::table::{App, AppId, Notice, Publisher, Table};
use crate::telemetry::Lines;

/// What a worker is made from.
pub(crate) struct Start {
    /// Which of the workers this is.
    pub(crate) index: usize,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) access_log: Lines,
    pub(crate) seal: Seal,
    pub(crate) registry: Arc<Registry>,
    pub(crate) door: Arc<Door>,
    pub(crate) certs: Arc<Certs>,
    pub(crate) tls: Arc<ServerConfig>,
}

/// All that the connections of one thread share. Each `RefCell` is borrowed within one synchronous turn.
pub(crate) struct Worker {
    /// Which of the workers this is.
    pub(crate) index: usize,
    /// Bytes as they are read; nothing stays here over an await.
    pub(crate) scratch: RefCell<Box<[u8]>>,
    /// Bytes as they are composed; nothing stays here over an await.
    pub(crate) out: RefCell<Vec<u8>>,
    pub(crate) intake: Arc<Intake>,
    pub(crate) deadlines: Rc<Deadlines>,
    pub(crate) pools: Pools,
    pub(crate) lingers: Lingers,
    pub(crate) pipes: Pipes,
    pub(crate) random: Random,
    pub(crate) seats: Seats,
    pub(crate) seal: Seal,
    pub(crate) date: RefCell<HttpDate>,
    pub(crate) access_log: RefCell<AccessLog>,
    /// Shared by the TLS handshakes that are under way, so that they can be counted.
    handshakes: Rc<()>,
    pub(crate) certs: Arc<Certs>,
    tls: Arc<ServerConfig>,
    table: RefCell<Arc<Table>>,
    counters: RefCell<FxHashMap<Option<AppId>, Arc<AppCounters>>>,
    /// How often dynos have changed.
    changes: Cell<u64>,
    now: Cell<Moment>,
    draining: Cell<bool>,
    /// When the last WebSocket is to be told that the daemon stops.
    last_farewell: Cell<Tick>,
    stopping: Cell<bool>,
    registry: Arc<Registry>,
    publisher: Arc<Publisher>,
    mailbox: Arc<Mailbox>,
    door: Arc<Door>,
}

impl Worker {
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

    /// The table as of now, for the length of a turn.
    pub(crate) fn table(&self) -> Ref<'_, Arc<Table>> {
        self.table.borrow()
    }

    /// How TLS is spoken; all workers share it, so that each resumes what another began.
    pub(crate) fn tls(&self) -> &Arc<ServerConfig> {
        &self.tls
    }

    /// What each TLS handshake that is under way holds a share of.
    pub(crate) fn handshakes(&self) -> &Rc<()> {
        &self.handshakes
    }

    /// The port where HTTPS is accepted, the first one of the file.
    pub(crate) fn https_port(&self) -> Option<u16> {
        let tls = |it: &&Arc<Listening>| it.listener.is_tls();
        self.door.listeners().iter().find(tls).map(|it| it.listener.port())
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

    /// Until when a WebSocket may wait for being told to close.
    pub(crate) fn last_farewell(&self) -> Tick {
        self.last_farewell.get()
    }

    /// Answers every request with its connection's last answer from now on, for all the time that is left: `bound`.
    pub(crate) fn drain(&self, bound: Duration) {
        self.draining.set(true);
        let for_goodbyes = limits::WEBSOCKET_CLOSE.min(bound / 2);
        self.last_farewell.set(self.read_clock().deadline(bound - for_goodbyes));
        // HTTP/2 says so at once (GOAWAY), WebSockets each in its turn.
        self.deadlines.wake_all();
    }

    /// Cuts everything that is left.
    pub(crate) fn stop(&self) {
        self.draining.set(true);
        self.stopping.set(true);
        self.lingers.close_all("stop");
        self.deadlines.wake_all();
    }

    /// Says that the worker is alive.
    pub(crate) fn pulse(&self) {
        self.mailbox.pulse.store(self.read_clock().micros(), Ordering::Relaxed);
    }

    /// Client connections of this worker, those on their way to it included.
    pub(crate) fn connections(&self) -> usize {
        self.mailbox.connections.load(Ordering::Relaxed)
    }

    /// Counts a client connection that has closed.
    pub(crate) fn connection_closed(&self, listener: &Listener) {
        listener.connections.fetch_sub(1, Ordering::Relaxed);
        self.mailbox.connections.fetch_sub(1, Ordering::SeqCst);
        self.door.resume();
    }

    /// Counts a connection that is opening, until what it returns is dropped.
    pub(crate) fn opens(self: &Rc<Self>) -> Opens {
        self.mailbox.opening.fetch_add(1, Ordering::SeqCst);
        self.door.resume();
        Opens(self.clone())
    }

    /// Whether one connection too many has got as far as asking.
    pub(crate) fn is_overdrawn(&self) -> bool {
        self.door.is_overdrawn()
    }

    /// The worker's side of its start. On its own thread.
    pub(crate) fn new(start: Start, mailbox: Arc<Mailbox>, intake: Arc<Intake>) -> Self {
        mailbox.pulse.store(Moment::now().micros(), Ordering::Relaxed);
        // Heard of before it is looked at, so that no change is missed.
        start.publisher.subscribe(mailbox.clone());
        let table = RefCell::new(start.publisher.table());
        Self {
            index: start.index,
            scratch: RefCell::new(vec![0; limits::SCRATCH].into()),
            out: RefCell::default(),
            intake,
            deadlines: Rc::default(),
            pools: Pools::default(),
            lingers: Lingers::default(),
            pipes: Pipes::default(),
            random: Random::from_system(),
            seats: Seats::default(),
            seal: start.seal,
            date: RefCell::default(),
            access_log: RefCell::new(AccessLog::new(start.access_log)),
            handshakes: Rc::default(),
            certs: start.certs,
            tls: start.tls,
            table,
            counters: RefCell::default(),
            changes: Cell::default(),
            now: Cell::new(Moment::now()),
            draining: Cell::default(),
            last_farewell: Cell::new(Tick::MAX),
            stopping: Cell::default(),
            registry: start.registry,
            publisher: start.publisher,
            mailbox,
            door: start.door,
        }
    }

    /// Takes note of a change.
    pub(crate) fn heed(&self, notice: Notice) {
        match notice {
            Notice::Table => {
                let table = self.publisher.table();
                let ids: FxHashSet<_> = table.apps().iter().map(|app| app.id).collect();
                let known = |id: &Option<AppId>| id.is_none_or(|id| ids.contains(&id));
                self.counters.borrow_mut().retain(|id, _| known(id));
                *self.table.borrow_mut() = table;
            }
            Notice::Lineup => {}
            Notice::Draining(dyno) => self.pipes.tell(dyno.id(), false, &self.deadlines),
            Notice::Gone(dyno, acknowledgement) => {
                // Of a process that has ended by itself the last bytes are still on their way.
                self.pipes.tell(dyno.id(), dyno.exit().is_none(), &self.deadlines);
                self.pools.purge(&dyno);
                self.seal.forget(&dyno);
                self.lingers.close(dyno.id(), "drain");
                if dyno.is_given_up() {
                    // Which tasks hold it nobody knows; a dyno is given up when a reload took it away, which is rare.
                    self.deadlines.wake_all();
                }
                drop(acknowledgement);
            }
        }
        self.changes.set(self.changes.get() + 1);
        self.deadlines.wake_waiting();
    }

    /// Once per tick: the clock, the deadlines, the idle connections, the lines.
    pub(crate) fn tick(&self) {
        Moment::follow_the_wall();
        let now = self.read_clock().tick();
        self.deadlines.pass(now);
        self.pools.sweep(now);
        self.access_log.borrow_mut().flush();
    }

    /// What this worker holds, for people.
    pub(crate) fn report(&self) -> serde_json::Value {
        let pools = self.pools.report().into_iter();
        let pools: Vec<_> = pools
            .map(|(dyno, idle, connecting)| serde_json::json!({"dyno_record": dyno, "idle": idle, "connecting": connecting}))
            .collect();
        serde_json::json!({
            "connections": self.connections(),
            "waiting": self.deadlines.waiting(),
            "lingering": self.lingers.len(),
            "upgraded": self.pipes.len(),
            "table_version": self.table.borrow().version(),
            "draining": self.is_draining(),
            "pools": pools,
        })
    }
}

/// A connection that is opening, as the door counts it.
pub(crate) struct Opens(Rc<Worker>);

impl Drop for Opens {
    fn drop(&mut self) {
        self.0.mailbox.opening.fetch_sub(1, Ordering::SeqCst);
    }
}
