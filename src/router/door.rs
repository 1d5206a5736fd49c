//! The door: one thread that accepts on every listener and hands connections to workers.
//!
//! One socket per address, no SO_REUSEPORT: closing one of two reuseport sockets resets what waits in its
//! queue (89 of 200 in a trial), and the kernel's hash leaves the busiest of eight workers with 1.5 times its share.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::config::limits;
use crate::router::clock::Moment;
use crate::router::listener::{Listening, Peer};
use crate::router::mailbox::{Mailbox, Message};
use crate::router::metrics::Registry;
use crate::router::random::Random;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{SocketAddrAny, SocketFlags, acceptfrom_with};

/// Connections accepted from one listener before the others get their turn.
const ACCEPTS_PER_TURN: usize = 64;
/// Rests that a listener which is given up may take to be emptied.
const LEAVE_TRIES: u32 = 20;

/// The accepting thread's shared side.
pub(crate) struct Door {
    listeners: Mutex<Arc<Vec<Arc<Listening>>>>,
    workers: Mutex<Vec<Arc<Mailbox>>>,
    /// Client connections that may each have one to a dyno.
    connections_max: usize,
    registry: Arc<Registry>,
    /// Wakes the thread: the listeners have changed, or a connection has closed while accepting paused.
    bell: OwnedFd,
    paused: AtomicBool,
    /// When a pause was last said, in microseconds of the router's clock.
    said_pause: AtomicU64,
    ending: AtomicBool,
}

impl Door {
    pub(crate) fn new(connections_max: usize, registry: Arc<Registry>) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            listeners: Mutex::default(),
            workers: Mutex::default(),
            connections_max,
            registry,
            bell: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
            paused: AtomicBool::new(false),
            said_pause: AtomicU64::new(0),
            ending: AtomicBool::new(false),
        }))
    }

    /// Starts the thread, which hands connections to these workers.
    pub(crate) fn open(self: &Arc<Self>, workers: &[Arc<Mailbox>]) -> io::Result<JoinHandle<()>> {
        *lock(&self.workers) = workers.to_vec();
        let door = self.clone();
        thread::Builder::new().name("door".into()).spawn(move || door.run())
    }

    /// Accepts on exactly these from now on. What has connected to the others is accepted first, so that
    /// nobody in a queue is reset; then they are closed.
    pub(crate) fn listen(&self, listeners: Vec<Arc<Listening>>) {
        *lock(&self.listeners) = Arc::new(listeners);
        self.ring();
    }

    /// What is accepted on now.
    pub(crate) fn listeners(&self) -> Arc<Vec<Arc<Listening>>> {
        lock(&self.listeners).clone()
    }

    /// Accepts again, if accepting paused for want of connections. Called when one closes.
    pub(crate) fn resume(&self) {
        if self.paused.load(Ordering::SeqCst) {
            self.ring();
        }
    }

    /// Ends the thread.
    pub(crate) fn close(&self) {
        self.ending.store(true, Ordering::Release);
        self.ring();
    }

    /// Client connections, over all workers.
    pub(crate) fn connections(&self) -> usize {
        lock(&self.workers).iter().map(|worker| worker.connections.load(Ordering::SeqCst)).sum()
    }

    /// Whether connections have, or may come to need, more descriptors than there are. Each may need a second one,
    /// for its dyno, once it may ask.
    pub(crate) fn is_overdrawn(&self) -> bool {
        self.claims() > self.connections_max.saturating_mul(2)
    }

    /// Whether another connection and its dyno's find descriptors.
    fn has_room(&self) -> bool {
        self.claims() + 2 <= self.connections_max.saturating_mul(2)
    }

    /// Descriptors that are taken or kept for connections.
    fn claims(&self) -> usize {
        let workers = lock(&self.workers);
        let sum = |count: fn(&Mailbox) -> &AtomicUsize| -> usize {
            workers.iter().map(|worker| count(worker).load(Ordering::SeqCst)).sum()
        };
        let provided = self.connections_max / limits::OPENINGS_PROVIDED;
        let bare = sum(|worker| &worker.opening).saturating_sub(provided);
        (2 * sum(|worker| &worker.connections)).saturating_sub(bare)
    }

    fn ring(&self) {
        // A full counter rings just as well.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    fn run(&self) {
        let workers = lock(&self.workers).clone();
        let random = Random::from_system();
        let mut current = Arc::new(Vec::new());
        while !self.ending.load(Ordering::Acquire) {
            let wanted = self.listeners();
            if !Arc::ptr_eq(&current, &wanted) {
                self.leave(&current, &wanted, &workers, &random);
                current = wanted;
            }
            self.turn(&current, &workers, &random);
        }
        self.leave(&current, &[], &workers, &random);
    }

    /// Waits for connections or the bell, and accepts what is there.
    fn turn(&self, listeners: &[Arc<Listening>], workers: &[Arc<Mailbox>], random: &Random) {
        let full = self.is_full();
        let accepting = if full { &[] } else { listeners };
        let mut waits = vec![PollFd::new(&self.bell, PollFlags::IN)];
        waits.extend(
            accepting
                .iter()
                .map(|listening| PollFd::from_borrowed_fd(listening.as_fd(), PollFlags::IN)),
        );
        // Interrupted, or out of memory for a moment: look again.
        let _ = poll(&mut waits, None);
        let rung = !waits[0].revents().is_empty();
        let ready: Vec<_> = waits[1..].iter().map(|wait| !wait.revents().is_empty()).collect();
        if rung {
            let _ = rustix::io::read(&self.bell, &mut [0_u8; 8]);
        }
        for (listening, _) in accepting.iter().zip(ready).filter(|(_, ready)| *ready) {
            let accepted = self.accept(listening, Some(ACCEPTS_PER_TURN), workers, random);
            if accepted == Accepted::Failed {
                self.say_pause();
                rest();
            }
        }
    }

    /// Whether there are as many connections as there may be. If so, the close of any rings the bell: the
    /// wish for it is made known before the count is read again, so that no close falls between.
    fn is_full(&self) -> bool {
        if self.has_room() {
            self.paused.store(false, Ordering::SeqCst);
            return false;
        }
        let before = self.paused.swap(true, Ordering::SeqCst);
        if self.has_room() {
            self.paused.store(false, Ordering::SeqCst);
            return false;
        }
        if !before {
            self.say_pause();
        }
        true
    }

    /// Counts a pause of accepting, and says so once a second at most.
    fn say_pause(&self) {
        self.registry.accept_pauses.fetch_add(1, Ordering::Relaxed);
        let now = Moment::now().micros();
        let said = self.said_pause.swap(now, Ordering::Relaxed);
        if now.saturating_sub(said) < 1_000_000 {
            self.said_pause.store(said, Ordering::Relaxed);
        } else {
            let connections = self.connections();
            tracing::warn!(connections, "accepting pauses: out of connections or descriptors");
        }
    }

    /// Empties and marks the listeners that are no longer wanted; they close when the caller drops them.
    fn leave(
        &self,
        before: &[Arc<Listening>],
        after: &[Arc<Listening>],
        workers: &[Arc<Mailbox>],
        random: &Random,
    ) {
        for listening in
            before.iter().filter(|it| !after.iter().any(|other| Arc::ptr_eq(it, other)))
        {
            // Out of descriptors: what waits is worth a moment's patience, and no more.
            for _ in 0..LEAVE_TRIES {
                if self.accept(listening, None, workers, random) != Accepted::Failed {
                    break;
                }
                rest();
            }
            listening.listener.closing.store(true, Ordering::Relaxed);
        }
    }

    /// Accepts what waits: so many at most and as long as there is room, or all of a listener that is left.
    fn accept(
        &self,
        listening: &Arc<Listening>,
        most: Option<usize>,
        workers: &[Arc<Mailbox>],
        random: &Random,
    ) -> Accepted {
        for _ in 0..most.unwrap_or(usize::MAX) {
            if most.is_some() && !self.has_room() {
                return Accepted::All;
            }
            match acceptfrom_with(listening, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok((socket, addr)) => {
                    let listener = listening.listener.clone();
                    listener.connections.fetch_add(1, Ordering::Relaxed);
                    let worker = less_loaded(workers, random);
                    worker.connections.fetch_add(1, Ordering::SeqCst);
                    worker.post(Message::Connection { socket, peer: peer(addr), listener });
                }
                Err(Errno::AGAIN) => return Accepted::All,
                // The client gave up while it waited, or its network did (accept(2), "Error handling").
                Err(
                    Errno::CONNABORTED
                    | Errno::INTR
                    | Errno::PROTO
                    | Errno::NETDOWN
                    | Errno::NETUNREACH
                    | Errno::HOSTDOWN
                    | Errno::HOSTUNREACH
                    | Errno::NOPROTOOPT
                    | Errno::PERM,
                ) => {}
                // Out of descriptors or memory, or something that will not go away by asking again.
                Err(_) => return Accepted::Failed,
            }
        }
        Accepted::Most
    }
}

/// How far accepting came.
#[derive(PartialEq, Eq)]
enum Accepted {
    All,
    Most,
    Failed,
}

/// Waits until a shortage may have passed.
fn rest() {
    let pause = Timespec::try_from(limits::ACCEPT_PAUSE).ok();
    // No descriptors to wait for: this is a sleep that needs none.
    let _ = poll(&mut [], pause.as_ref());
}

/// Of two workers drawn at random, the one with fewer connections.
fn less_loaded<'a>(workers: &'a [Arc<Mailbox>], random: &Random) -> &'a Mailbox {
    let load = |worker: &Mailbox| worker.connections.load(Ordering::Relaxed);
    let (first, second) = random.two_below(workers.len());
    let (first, second) = (&workers[first], &workers[second]);
    if load(second) < load(first) { second } else { first }
}

fn peer(addr: Option<SocketAddrAny>) -> Peer {
    Peer::new(addr.and_then(|addr| addr.try_into().ok()))
}

/// Nothing panics while one of these locks is held, so poison says nothing.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
