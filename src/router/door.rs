//! The door: one thread that accepts on every listener and hands connections to workers.
//!
//! One socket per address, no SO_REUSEPORT: closing one of two reuseport sockets resets what waits in its
//! queue (89 of 200 in a trial), and the kernel's hash leaves the busiest of eight workers with 1.5 times its share.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{SocketAddrAny, SocketFlags, acceptfrom_with};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::config::limits;
use crate::model::ListenAddr;
use crate::router::metrics::Registry;
use crate::router::random::Random;
use crate::router::worker::{Mailbox, Message};

/// Connections accepted from one listener before the others get their turn.
const ACCEPTS_PER_TURN: usize = 64;

/// Who is at the other end of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Ip(IpAddr),
    /// A Unix socket: its file permissions decide who connects, so the peer is trusted.
    Unix,
}

/// What connections know of where they were accepted.
pub(crate) struct Listener {
    /// As bound: with the port that the kernel chose.
    pub(crate) addr: ListenAddr,
    /// As asked for.
    pub(crate) wanted: ListenAddr,
    /// Client connections accepted here and still open.
    pub(crate) connections: AtomicUsize,
    /// No longer wanted: connections close after their next answer.
    pub(crate) closing: AtomicBool,
}

impl Listener {
    /// Whether its connections are TCP's.
    pub(crate) fn is_tcp(&self) -> bool {
        matches!(self.addr, ListenAddr::Tcp(_))
    }

    /// What X-Forwarded-Port says; the scheme's own on a Unix socket.
    pub(crate) fn port(&self) -> u16 {
        match &self.addr {
            ListenAddr::Tcp(addr) => addr.port(),
            ListenAddr::Unix(_) => 80,
        }
    }
}

/// A listening socket; closed on drop, and its file removed if it is a Unix socket's.
pub(crate) struct Listening {
    socket: OwnedFd,
    pub(crate) listener: Arc<Listener>,
}

impl Listening {
    /// Binds and listens. A Unix socket's file that nobody listens on any more is replaced.
    pub(crate) fn bind(wanted: &ListenAddr) -> io::Result<Self> {
        let socket = match wanted {
            ListenAddr::Tcp(addr) => bind_tcp(*addr)?,
            ListenAddr::Unix(path) => bind_unix(path)?,
        };
        socket.listen(limits::LISTEN_BACKLOG)?;
        Self::adopt(socket.into(), wanted)
    }

    /// Takes a socket that is listening already (`LISTEN_FDS`), for the address that was asked for.
    pub(crate) fn adopt(socket: OwnedFd, wanted: &ListenAddr) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let addr = bound_address(&socket)?.unwrap_or_else(|| wanted.clone());
        let wanted = wanted.clone();
        let listener = Listener {
            addr,
            wanted,
            connections: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
        };
        Ok(Self { socket, listener: Arc::new(listener) })
    }
}

fn bind_tcp(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking(), None)?;
    if addr.is_ipv6() {
        // 0.0.0.0 and [::] on one port must not exclude each other.
        socket.set_only_v6(true)?;
    }
    // Connections of an earlier run in TIME_WAIT do not keep the port.
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

fn bind_unix(path: &Path) -> io::Result<Socket> {
    let addr = SockAddr::unix(path)?;
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    if probe.connect(&addr).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
        fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.bind(&addr)?;
    Ok(socket)
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let ListenAddr::Unix(path) = &self.listener.addr {
            // Somebody else may have removed it.
            let _ = fs::remove_file(path);
        }
    }
}

/// The address that a listening socket is bound to; `None` for a Unix socket without a path.
pub(crate) fn bound_address(socket: &OwnedFd) -> io::Result<Option<ListenAddr>> {
    let addr = socket2::SockRef::from(socket).local_addr()?;
    let tcp = addr.as_socket().map(ListenAddr::Tcp);
    Ok(tcp.or_else(|| addr.as_pathname().map(|path| ListenAddr::Unix(path.to_owned()))))
}

/// The accepting thread's shared side.
pub(crate) struct Door {
    listeners: Mutex<Arc<Vec<Arc<Listening>>>>,
    workers: Mutex<Vec<Arc<Mailbox>>>,
    connections_max: usize,
    registry: Arc<Registry>,
    /// Wakes the thread: the listeners have changed, or a connection has closed while accepting paused.
    bell: OwnedFd,
    paused: AtomicBool,
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
        if self.paused.load(Ordering::Relaxed) {
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
        lock(&self.workers).iter().map(|worker| worker.connections.load(Ordering::Relaxed)).sum()
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
        let full = self.connections() >= self.connections_max;
        self.pause(full);
        let accepting = if full { &[] } else { listeners };
        let mut waits = vec![PollFd::new(&self.bell, PollFlags::IN)];
        waits.extend(
            accepting
                .iter()
                .map(|listening| PollFd::from_borrowed_fd(listening.socket.as_fd(), PollFlags::IN)),
        );
        // Interrupted, or out of memory for a moment: look again.
        let _ = poll(&mut waits, None);
        let rung = !waits[0].revents().is_empty();
        let ready: Vec<_> = waits[1..].iter().map(|wait| !wait.revents().is_empty()).collect();
        if rung {
            let _ = rustix::io::read(&self.bell, &mut [0_u8; 8]);
        }
        for (listening, _) in accepting.iter().zip(ready).filter(|(_, ready)| *ready) {
            if self.accept(listening, ACCEPTS_PER_TURN, workers, random)
                == Accepted::OutOfDescriptors
            {
                self.pause(true);
                let pause = Timespec::try_from(limits::ACCEPT_PAUSE).ok();
                let _ = poll(&mut [PollFd::new(&self.bell, PollFlags::empty())], pause.as_ref());
            }
        }
    }

    fn pause(&self, paused: bool) {
        let before = self.paused.swap(paused, Ordering::Relaxed);
        if paused && !before {
            self.registry.accept_pauses.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                connections = self.connections(),
                "accepting pauses: out of connections or descriptors"
            );
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
            self.accept(listening, usize::MAX, workers, random);
            listening.listener.closing.store(true, Ordering::Relaxed);
        }
    }

    fn accept(
        &self,
        listening: &Arc<Listening>,
        most: usize,
        workers: &[Arc<Mailbox>],
        random: &Random,
    ) -> Accepted {
        for _ in 0..most {
            match acceptfrom_with(&listening.socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok((socket, addr)) => {
                    let listener = listening.listener.clone();
                    listener.connections.fetch_add(1, Ordering::Relaxed);
                    let worker = less_loaded(workers, random);
                    worker.connections.fetch_add(1, Ordering::Relaxed);
                    worker.post(Message::Connection { socket, peer: peer(addr), listener });
                }
                Err(Errno::AGAIN) => return Accepted::All,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    return Accepted::OutOfDescriptors;
                }
                // The client gave up while it waited (accept(2), "Error handling"): the next one may be fine.
                Err(_) => {}
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
    OutOfDescriptors,
}

/// Of two workers drawn at random, the one with fewer connections.
fn less_loaded<'a>(workers: &'a [Arc<Mailbox>], random: &Random) -> &'a Mailbox {
    let load = |worker: &Mailbox| worker.connections.load(Ordering::Relaxed);
    let (first, second) = random.two_below(workers.len());
    let (first, second) = (&workers[first], &workers[second]);
    if load(second) < load(first) { second } else { first }
}

fn peer(addr: Option<SocketAddrAny>) -> Peer {
    match addr.and_then(|addr| SocketAddr::try_from(addr).ok()) {
        // A v4 client of a v6 socket is a v4 client.
        Some(addr) => Peer::Ip(addr.ip().to_canonical()),
        None => Peer::Unix,
    }
}

/// Nothing panics while one of these locks is held, so poison says nothing.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
