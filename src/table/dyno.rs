//! The record of one process start: what the router knows of a dyno.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

use crate::model::{DynoAddr, DynoName, Exit};
use crate::table::lease::{LeaseWord, Take};
use crate::table::{Doorbell, Tally};

/// One start of one dyno's process. A restart makes a new record, so that pools, leases and quarantine
/// of the old process cannot be taken for the new one's, even on the same port.
///
/// Two of a cache line apart from its neighbours: choosing reads the lease words of two dynos per request.
#[repr(align(128))]
pub struct Dyno {
    lease: LeaseWord,
    /// The router's tick until which no request is sent here. Process-wide: one worker's bad experience
    /// spares the others theirs.
    quarantined_until: AtomicU32,
    lingering: AtomicU32,
    uses: AtomicU32,
    share: AtomicU32,
    given_up: AtomicBool,
    id: u64,
    name: DynoName,
    addr: DynoAddr,
    managed: bool,
    tally: Option<Arc<Tally>>,
    exit: OnceLock<Exit>,
    drained: Notify,
    bell: Doorbell,
}

impl Dyno {
    /// A record for a process that dynomesh started (`managed`: its end will be reported with
    /// [`exited`](Self::exited)) or that somebody else runs.
    pub fn new(name: DynoName, addr: DynoAddr, managed: bool) -> Arc<Self> {
        Self::counted(name, addr, managed, None)
    }

    /// The same of one whose requests are counted for its release.
    pub fn counted(
        name: DynoName,
        addr: DynoAddr,
        managed: bool,
        tally: Option<Arc<Tally>>,
    ) -> Arc<Self> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        Arc::new(Self {
            lease: LeaseWord::new(),
            quarantined_until: AtomicU32::new(0),
            lingering: AtomicU32::new(0),
            uses: AtomicU32::new(0),
            share: AtomicU32::new(Self::FULL_SHARE),
            given_up: AtomicBool::new(false),
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            name,
            addr,
            managed,
            tally,
            exit: OnceLock::new(),
            drained: Notify::new(),
            bell: Doorbell::default(),
        })
    }

    /// Unique among all records of this daemon's life.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// `web.1`
    pub fn name(&self) -> &DynoName {
        &self.name
    }

    /// Where it accepts connections.
    pub fn addr(&self) -> &DynoAddr {
        &self.addr
    }

    /// Whether dynomesh runs its process.
    pub fn is_managed(&self) -> bool {
        self.managed
    }

    /// What its release has answered, where that is counted.
    pub fn tally(&self) -> Option<&Arc<Tally>> {
        self.tally.as_ref()
    }

    /// Takes a slot, or `None` where the dyno takes no more requests.
    pub fn lease(self: &Arc<Self>) -> Option<Lease> {
        match self.lease.take() {
            Take::Refused { rings } => {
                self.ring_if(rings);
                None
            }
            granted => {
                // Two stores that meet may count as one: what matters is that the number changes. The line is
                // this core's already.
                self.uses
                    .store(self.uses.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
                if granted == (Take::Frozen { rings: true }) {
                    self.bell.ring();
                }
                Some(Lease(self.clone()))
            }
        }
    }

    /// Requests in flight, lingering ones included.
    pub fn in_flight(&self) -> u32 {
        self.lease.held()
    }

    /// Another number than before if a lease was taken since.
    pub fn uses(&self) -> u32 {
        self.uses.load(Ordering::Relaxed)
    }

    /// The share of a dyno that has had its time to get warm.
    pub const FULL_SHARE: u32 = 1000;

    /// How much of what the others get it may be sent, of [`FULL_SHARE`](Self::FULL_SHARE).
    pub fn share(&self) -> u32 {
        self.share.load(Ordering::Relaxed)
    }

    /// Says how much of what the others get it may be sent.
    pub fn set_share(&self, share: u32) {
        self.share.store(share.min(Self::FULL_SHARE), Ordering::Relaxed);
    }

    /// Gives no more leases. The supervisor calls it after publishing a roster without the dyno.
    pub fn close(&self) {
        self.lease.close();
    }

    /// Whether the dyno has left the table.
    pub fn is_closed(&self) -> bool {
        self.lease.is_closed()
    }

    /// Marks the dyno as frozen, unless it holds a request. Where it is, its process may be stopped: leases are
    /// given all the same, and the first of them makes [`called`](Self::called) return.
    pub fn freeze(&self) -> bool {
        // Of the last time: more than one request may have rung before it was thawed.
        self.bell.hush();
        self.lease.freeze()
    }

    /// Its process goes on.
    pub fn thaw(&self) {
        self.lease.thaw();
    }

    /// Waits until a lease is taken while the dyno is frozen. One waiter at a time.
    pub async fn called(&self) {
        self.bell.rung().await;
    }

    /// Has what the dyno still holds cut, once the workers hear that it is gone: its time to finish is over, and
    /// nobody here can stop its process.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Whether what the dyno still holds is to be cut.
    pub fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    /// Waits until the dyno is closed and its last lease was given back. One waiter at a time.
    pub async fn drained(&self) {
        while !self.lease.is_drained() {
            self.drained.notified().await;
        }
    }

    /// Sends no request here before `tick` of the router's clock.
    pub fn quarantine(&self, tick: u32) {
        self.quarantined_until.store(tick, Ordering::Relaxed);
    }

    /// The router's tick at which the quarantine ends; 0 if there was none.
    pub fn quarantined_until(&self) -> u32 {
        self.quarantined_until.load(Ordering::Relaxed)
    }

    /// How many of the requests in flight have no client any more.
    pub fn lingering(&self) -> &AtomicU32 {
        &self.lingering
    }

    /// Reports how the process ended. The supervisor calls it once, as soon as it knows.
    pub fn exited(&self, exit: Exit) {
        let first = self.exit.set(exit).is_ok();
        debug_assert!(first, "a process ends once");
    }

    /// How the process ended, where it has.
    pub fn exit(&self) -> Option<Exit> {
        self.exit.get().copied()
    }

    fn ring_if(&self, last: bool) {
        if last {
            self.drained.notify_one();
        }
    }
}

impl fmt::Debug for Dyno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dyno({}#{} at {})", self.name, self.id, self.addr)
    }
}

/// One request's slot on one dyno, given back on drop, also when a panic unwinds.
pub struct Lease(Arc<Dyno>);

impl Lease {
    /// The dyno that is leased.
    pub fn dyno(&self) -> &Arc<Dyno> {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let last = self.0.lease.give_back();
        self.0.ring_if(last);
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;
    use crate::model::ProcessType;

    fn web(number: u32) -> Arc<Dyno> {
        let name = DynoName { process_type: ProcessType::web(), number };
        Dyno::new(name, DynoAddr::parse("127.0.0.1:1").unwrap(), true)
    }

    #[tokio::test]
    async fn drained_waits_for_the_last_lease() {
        let dyno = web(1);
        let (first, second) = (dyno.lease().unwrap(), dyno.lease().unwrap());
        dyno.close();
        assert!(dyno.lease().is_none());
        assert_eq!(dyno.in_flight(), 2);
        let mut drained = tokio_test_poll(dyno.drained());
        assert!(!drained.is_ready());
        drop(first);
        assert!(!drained.is_ready());
        drop(second);
        assert!(drained.is_ready());
    }

    #[test]
    fn records_keep_to_their_own_cache_lines() {
        assert_eq!(align_of::<Dyno>(), 128);
        // What each request reads and writes is in one of the two.
        let line = offset_of!(Dyno, lease) / 64;
        let hot =
            [offset_of!(Dyno, quarantined_until), offset_of!(Dyno, uses), offset_of!(Dyno, share)];
        assert_eq!(hot.map(|offset| offset / 64), [line; 3]);
    }

    #[tokio::test]
    async fn a_frozen_dyno_gives_leases_and_the_first_one_calls() {
        let dyno = web(1);
        let lease = dyno.lease().unwrap();
        assert!(!dyno.freeze(), "it holds a request");
        drop(lease);
        assert!(dyno.freeze());
        let mut called = tokio_test_poll(dyno.called());
        assert!(!called.is_ready());
        let leases = (dyno.lease().unwrap(), dyno.lease().unwrap());
        assert!(called.is_ready());
        assert_eq!(dyno.in_flight(), 2);
        drop(leases);
        drop(dyno.lease());
        dyno.thaw();
        assert!(dyno.freeze());
        let mut called = tokio_test_poll(dyno.called());
        assert!(!called.is_ready(), "those were of the last time");
    }

    struct Polled<F>(std::pin::Pin<Box<F>>);
    fn tokio_test_poll<F: Future>(future: F) -> Polled<F> {
        Polled(Box::pin(future))
    }
    impl<F: Future> Polled<F> {
        fn is_ready(&mut self) -> bool {
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            self.0.as_mut().poll(&mut cx).is_ready()
        }
    }
}
