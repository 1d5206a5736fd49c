//! Swapping the table, telling the workers, burying the old one.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use crate::table::{Dyno, Lineup, Roster, Table};

/// What a worker is told. A worker that sleeps reads no table, so it must hear of changes: else it pins the
/// old snapshot and the pooled connections of dynos that are gone.
#[derive(Clone)]
pub enum Notice {
    /// A new snapshot is in place.
    Table,
    /// Some app's dynos changed: requests that wait look again.
    Lineup,
    /// This record is out of the line-up and closed: what it holds is to be finished, and what would last for ever
    /// is to be ended.
    Draining(Arc<Dyno>),
    /// This record left the table: close its idle connections, give up connects to it. Dropping the
    /// acknowledgement says that it is done.
    Gone(Arc<Dyno>, Acknowledgement),
}

/// Dropped by a worker when it has done what a [`Notice::Gone`] asks.
#[derive(Clone)]
pub struct Acknowledgement(
    #[expect(dead_code, reason = "its drop is the message")] mpsc::Sender<()>,
);

/// Waits until every worker has acknowledged.
pub struct Acknowledged(mpsc::Receiver<()>);

impl Acknowledged {
    /// Returns once each worker's acknowledgement is dropped. The caller bounds it.
    pub async fn all(mut self) {
        while self.0.recv().await.is_some() {}
    }
}

/// Hears of changes: a worker's mailbox.
pub trait Subscriber: Send + Sync {
    /// Must not block.
    fn notify(&self, notice: Notice);
}

/// Owns the current table. The supervisor publishes through it, the router reads from it.
pub struct Publisher {
    current: ArcSwap<Table>,
    subscribers: Mutex<Vec<Arc<dyn Subscriber>>>,
    /// Tables that readers may still hold. A table of a million dynos takes 357 ms to free: the publisher
    /// frees it, never a worker inside a request.
    retired: Mutex<Vec<Arc<Table>>>,
}

impl Publisher {
    /// Begins with a first table.
    pub fn new(table: Table) -> Arc<Self> {
        Arc::new(Self {
            current: ArcSwap::from_pointee(table),
            subscribers: Mutex::default(),
            retired: Mutex::default(),
        })
    }

    /// The table as of now.
    pub fn table(&self) -> Arc<Table> {
        self.current.load_full()
    }

    /// Adds a worker; it hears of every later change.
    pub fn subscribe(&self, subscriber: Arc<dyn Subscriber>) {
        lock(&self.subscribers).push(subscriber);
    }

    /// Puts a new snapshot in place and tells the workers.
    pub fn publish(&self, table: Table) {
        let old = self.current.swap(Arc::new(table));
        lock(&self.retired).push(old);
        self.tell(|| Notice::Table);
        self.bury();
    }

    /// Puts a new line-up of an app's dynos in place and tells the workers.
    pub fn publish_lineup(&self, roster: &Roster, lineup: Lineup) {
        roster.replace(lineup);
        self.tell(|| Notice::Lineup);
    }

    /// Has a dyno give no more leases (publish the line-up without it first), and tells the workers: only now does
    /// a request that is connecting to it see that it must look elsewhere, and what would last for ever ends.
    pub fn close(&self, dyno: &Arc<Dyno>) {
        dyno.close();
        self.tell(|| Notice::Draining(dyno.clone()));
    }

    /// Tells the workers that a record has left the table (publish the line-up without it first).
    pub fn gone(&self, dyno: &Arc<Dyno>) -> Acknowledged {
        // One slot suffices: nothing is ever sent, the last sender's drop ends the wait.
        let (sender, receiver) = mpsc::channel(1);
        let acknowledgement = Acknowledgement(sender);
        self.tell(|| Notice::Gone(dyno.clone(), acknowledgement.clone()));
        Acknowledged(receiver)
    }

    /// Frees the tables that no reader holds any more, on a thread of their own. Called on each publish and
    /// by the control tick.
    pub fn bury(&self) {
        let mut retired = lock(&self.retired);
        let (held, free): (Vec<_>, Vec<_>) =
            retired.drain(..).partition(|table| Arc::strong_count(table) > 1);
        *retired = held;
        drop(retired);
        if !free.is_empty() {
            // Where no thread can be had, they are freed here.
            let _ = thread::Builder::new().name("bury".into()).spawn(move || drop(free));
        }
    }

    fn tell(&self, notice: impl Fn() -> Notice) {
        for subscriber in lock(&self.subscribers).iter() {
            subscriber.notify(notice());
        }
    }
}

/// Nothing panics while one of these locks is held, so poison says nothing.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
