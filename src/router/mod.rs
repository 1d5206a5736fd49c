//! The router: a request's life.
//!
//! In the order in which a request meets them. Invariant: the router knows nothing of processes; it reads the
//! table and takes leases, and the supervisor does the rest.

mod door; // one thread accepts, and hands connections to workers
mod listener; // where clients connect, and who they are
mod mailbox; // how other threads reach a worker
mod thread; // a worker's thread: mailbox and ticks
mod worker; // what the connections of one thread share
mod intake; // what has begun goes before what has not
mod opening; // what comes before the first head: TLS
mod connection; // idle → head → exchange → idle
mod client; // a client, as its exchanges see it
mod transport; // what an exchange asks of its client's protocol
mod http1; // HTTP/1.1: one exchange has the connection
mod http2; // HTTP/2: one of many streams
mod exchange; // the life of one request, from admission to its line
mod request; // what is kept of a head
mod headers; // the heads that the router writes
mod origin; // whose request it is
mod traffic; // what an app and a client may ask
mod search; // hold, pick, connect
mod pick; // two choices
mod affinity; // or the client's own dyno
mod pool; // connections to dynos
mod relay; // request and answer on their way, both at once
mod send; // the request's way
mod receive; // the answer's way
mod pending; // bytes that a socket has not taken
mod retry; // what may be sent again, and whose fault a connect is
mod upgrade; // after 101
mod linger; // the dyno's half without its client
mod pipes; // which pipes there are
mod lingers; // which there are
mod reply; // the router's own answers, in one table
mod access_log; // one line per request
mod metrics; // request counters
mod client_stream; // a client's socket, with TLS or without
mod security; // how a connection is secured
mod duplex; // where bytes come from and go
mod dyno_stream; // a connection to a dyno, whichever protocol it speaks
mod stream; // a socket
mod clock; // read once per turn
mod deadlines; // numbers, looked at once per tick
mod random; // draws and ids
mod http_date; // the Date field

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time;

use crate::certs::Certs;
use crate::config::limits;
use crate::model::{Endpoint, ListenAddr};
use crate::router::affinity::Seal;
use crate::router::clock::Moment;
use crate::router::door::Door;
use crate::router::listener::{Listening, bound_address};
use crate::router::mailbox::{Mailbox, Message};
use crate::router::metrics::Registry;
use crate::router::worker::Start;
use crate::table::Publisher;
use crate::telemetry::Lines;

/// The running data plane: one door thread that accepts, and worker threads that carry connections.
pub struct Router {
    door: Arc<Door>,
    workers: Vec<Arc<Mailbox>>,
    threads: Vec<JoinHandle<()>>,
    registry: Arc<Registry>,
    certs: Arc<Certs>,
}

/// What [`Router::start`] needs.
pub struct Options {
    /// Worker threads.
    pub workers: usize,
    /// Client connections at one time, over all workers.
    pub connections_max: usize,
    /// Where routes come from.
    pub publisher: Arc<Publisher>,
    /// Where the line per request goes.
    pub access_log: Lines,
    /// What TLS is spoken with.
    pub certs: Arc<Certs>,
    /// Signs the cookies of session affinity: secret, and the same after a restart.
    pub affinity_key: [u8; 32],
}

/// Listeners that are bound and not yet accepted on.
pub struct Prepared(Vec<(Arc<Listening>, Endpoint)>);

/// An address that could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("listen on {addr}: {source}")]
pub struct BindError {
    /// The address.
    pub addr: ListenAddr,
    /// Why.
    pub source: io::Error,
}

impl Router {
    /// Starts the threads. Listens nowhere yet.
    pub fn start(options: Options) -> io::Result<Self> {
        Moment::follow_the_wall();
        let registry = Arc::new(Registry::default());
        let tls = options.certs.server_config();
        let door = Door::new(options.connections_max, registry.clone())?;
        let mut workers = Vec::new();
        let mut threads = Vec::new();
        for index in 0..options.workers {
            let (mailbox, thread) = thread::start(
                format!("worker-{index}"),
                Start {
                    index,
                    publisher: options.publisher.clone(),
                    access_log: options.access_log.clone(),
                    seal: Seal::new(&options.affinity_key),
                    registry: registry.clone(),
                    door: door.clone(),
                    certs: options.certs.clone(),
                    tls: tls.clone(),
                },
            )?;
            workers.push(mailbox);
            threads.push(thread);
        }
        threads.push(door.open(&workers)?);
        Ok(Self { door, workers, threads, registry, certs: options.certs })
    }

    /// Binds those of the wanted addresses that are not listened on yet, taking inherited descriptors
    /// (`LISTEN_FDS`) where their address fits. Nothing else changes until [`apply`](Self::apply).
    pub fn prepare(
        &self,
        wanted: &[Endpoint],
        mut inherited: Vec<OwnedFd>,
    ) -> Result<Prepared, BindError> {
        let current = self.door.listeners();
        let mut prepared: Vec<(Arc<Listening>, Endpoint)> = Vec::new();
        for endpoint in wanted {
            let addr = &endpoint.addr;
            let fail = |source| BindError { addr: addr.clone(), source };
            // Several may want any free port: each keeps its own, by what it is for.
            let is_free = |it: &&Arc<Listening>| {
                it.listener.wanted == *addr
                    && !prepared.iter().any(|(taken, _)| Arc::ptr_eq(taken, it))
            };
            let alike =
                current.iter().filter(is_free).find(|it| it.listener.is_tls() == endpoint.tls);
            if let Some(listening) = alike.or_else(|| current.iter().find(is_free)) {
                prepared.push((listening.clone(), endpoint.clone()));
                continue;
            }
            let fits = |socket: &OwnedFd| {
                bound_address(socket).is_ok_and(|bound| bound.as_ref() == Some(addr))
            };
            let listening = match inherited.iter().position(fits) {
                Some(at) => Listening::adopt(inherited.swap_remove(at), addr),
                None => Listening::bind(addr),
            };
            prepared.push((Arc::new(listening.map_err(fail)?), endpoint.clone()));
        }
        Ok(Prepared(prepared))
    }

    /// Accepts on exactly the prepared addresses from now on. Those that are not among them are emptied
    /// and closed; their connections finish. What connections begin with is read when one is accepted.
    pub fn apply(&self, prepared: Prepared) {
        for (listening, endpoint) in &prepared.0 {
            listening.listener.expect(endpoint);
        }
        self.door.listen(prepared.0.into_iter().map(|(listening, _)| listening).collect());
    }

    /// The addresses that are accepted on, with the ports the kernel chose.
    pub fn listening(&self) -> Vec<Endpoint> {
        self.door.listeners().iter().map(|it| it.listener.endpoint()).collect()
    }

    /// The certificates that it serves by.
    pub fn certs(&self) -> &Arc<Certs> {
        &self.certs
    }

    /// Client connections that are open.
    pub fn connections(&self) -> usize {
        self.door.connections()
    }

    /// Stops accepting; each connection finishes its exchange and closes, and WebSockets are closed (1012), each at a
    /// moment of its own. `bound`: how long until [`stop`](Self::stop).
    pub fn drain(&self, bound: Duration) {
        self.door.listen(Vec::new());
        self.workers.iter().for_each(|worker| worker.post(Message::Drain(bound)));
    }

    /// Waits until no connection is left.
    pub async fn drained(&self) {
        // Looked at twice a tick: the end of a daemon needs no finer clock, and connections no bell for it.
        while self.connections() > 0 {
            time::sleep(limits::TICK / 2).await;
        }
    }

    /// Cuts what is left (H24), then joins the threads. Blocks for at most some ticks.
    pub fn stop(self) {
        self.door.close();
        self.workers.iter().for_each(|worker| worker.post(Message::Stop));
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the router had panicked");
            }
        }
    }

    /// The request counters in Prometheus' text format.
    pub fn render_metrics(&self, out: &mut String) {
        use std::fmt::Write;
        self.registry.render(out);
        // Writing to a String does not fail.
        let _ = writeln!(
            out,
            "# HELP dynomesh_connections Client connections that are open.\n# TYPE dynomesh_connections gauge"
        );
        for listening in &*self.door.listeners() {
            let (addr, open) =
                (&listening.listener.addr, listening.listener.connections.load(Ordering::Relaxed));
            let _ = writeln!(out, "dynomesh_connections{{listener=\"{addr}\"}} {open}");
        }
    }

    /// Workers that have not answered for [`limits::WORKER_STALL`], with the seconds since they last did.
    /// Called each second by the control runtime; posts the next ping.
    pub fn stalled_workers(&self) -> Vec<(usize, f64)> {
        let now = Moment::now().micros();
        let silent = |worker: &Mailbox| {
            Duration::from_micros(now.saturating_sub(worker.pulse.load(Ordering::Relaxed)))
        };
        let stalled =
            self.workers.iter().enumerate().map(|(index, worker)| (index, silent(worker)));
        let stalled = stalled.filter(|(_, silence)| *silence > limits::WORKER_STALL);
        let stalled = stalled.map(|(index, silence)| (index, silence.as_secs_f64())).collect();
        self.workers.iter().for_each(|worker| worker.post(Message::Ping));
        stalled
    }

    /// What each worker holds (connections, pools, lingers), for `/debug/workers`. A worker that does not
    /// answer within [`limits::WORKER_STALL`] is reported as `null`.
    pub async fn report_workers(&self) -> serde_json::Value {
        let mut reports = Vec::new();
        for worker in &self.workers {
            let (answer, report) = oneshot::channel();
            worker.post(Message::Report(answer));
            let report = time::timeout(limits::WORKER_STALL, report).await;
            reports.push(report.ok().and_then(Result::ok).unwrap_or(serde_json::Value::Null));
        }
        serde_json::Value::Array(reports)
    }
}
