//! Finding a dyno: hold while none is up, pick one, and get a connection to it.
//!
//! One budget (`hold`, 75 s) covers all of it. A request whose dyno is up and has an idle connection passes
//! through without waiting for anything.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time;

use crate::config::limits;
use crate::router::clock::{Moment, Tick};
use crate::router::connection::Connection;
use crate::router::exchange::Exchange;
use crate::router::pick::{Pick, pick};
use crate::router::pool::{Checkout, Ticket, Upstream, Wanted};
use crate::router::reply::Refusal;
use crate::router::retry::{ConnectError, Retry, blame};
use crate::router::stream::Stream;
use crate::router::worker::Worker;
use crate::table::{App, Dyno, Lease, Roster, Standing};

/// The search of one exchange, kept over its retries: one budget, and no dyno twice.
pub(crate) struct Search {
    since: Moment,
    budget: Tick,
    /// Ids of dynos that failed this request.
    tried: Vec<u64>,
    attempts: usize,
    /// What to say when there is nothing left to try.
    cause: Option<Refusal>,
    /// A used connection has failed this request: it gets a fresh one.
    fresh_only: bool,
    /// Whether to go on looking if the client has gone.
    watching: bool,
    connecting: bool,
}

impl Search {
    pub(crate) fn new(client: &Connection, app: &App) -> Self {
        let since = client.worker.now();
        Self {
            since,
            budget: since.deadline(app.policy.timeouts.hold),
            tried: Vec::new(),
            attempts: 0,
            cause: None,
            fresh_only: false,
            watching: true,
            connecting: false,
        }
    }

    /// Since when connecting counts, if it came to that.
    pub(crate) fn connecting_since(&self) -> Option<Moment> {
        self.connecting.then_some(self.since)
    }

    /// A connection that was found has failed, and the request may be sent again.
    pub(crate) fn failed(&mut self, dyno: &Dyno, retry: Retry, cause: Refusal) {
        self.cause = Some(cause);
        match retry {
            Retry::AnotherDyno => self.tried.push(dyno.id()),
            Retry::AnyDyno | Retry::No => self.fresh_only = true,
        }
    }

    /// A slot on a dyno, and a connection to it.
    pub(crate) async fn find(
        &mut self,
        exchange: &mut Exchange,
        client: &mut Connection,
        app: &Arc<App>,
    ) -> Result<(Lease, Upstream), Refusal> {
        let mut waiting = None;
        let found = self.look(exchange, client, app, &mut waiting).await;
        if waiting.is_some() {
            client.deadline.wait_for_changes(false);
        }
        found
    }

    async fn look(
        &mut self,
        exchange: &mut Exchange,
        client: &mut Connection,
        app: &Arc<App>,
        waiting: &mut Option<Waiting>,
    ) -> Result<(Lease, Upstream), Refusal> {
        loop {
            let changes = client.worker.changes();
            match self.pick(client, app)? {
                Pick::Leased(lease) => {
                    exchange.tried(lease.dyno());
                    if let Some(upstream) =
                        self.connect(exchange, client, app, &lease, waiting).await?
                    {
                        return Ok((lease, upstream));
                    }
                }
                Pick::Quarantined(until) => {
                    self.hold(exchange, client, app, changes, until, waiting).await?;
                }
                Pick::Exhausted => {
                    self.hold(exchange, client, app, changes, self.budget, waiting).await?;
                }
            }
        }
    }

    /// Chooses; an error where waiting would not help (heroku.md §1.5).
    fn pick(&self, client: &Connection, app: &App) -> Result<Pick, Refusal> {
        let worker = &client.worker;
        let lineup = app.roster.lineup();
        if lineup.dynos.is_empty() {
            return match lineup.standing {
                Standing::Crashed => Err(Refusal::AppCrashed),
                Standing::NoWeb => Err(Refusal::NoWebProcesses),
                Standing::Blank => Err(Refusal::BlankApp),
                Standing::Starting | Standing::Up => Ok(Pick::Exhausted),
            };
        }
        if self.attempts >= limits::TRIES_MAX {
            return Err(self.cause.unwrap_or(Refusal::ConnectRefused));
        }
        let pick = pick(
            &lineup.dynos,
            app.policy.balance,
            &self.tried,
            worker.now().tick(),
            &worker.random,
        );
        match (&pick, self.cause) {
            // It has tried every dyno itself: the last cause says why.
            (Pick::Exhausted, Some(cause)) => Err(cause),
            _ => Ok(pick),
        }
    }

    /// Waits until a dyno changes, or until `until`.
    async fn hold(
        &mut self,
        exchange: &Exchange,
        client: &mut Connection,
        app: &Arc<App>,
        changes: u64,
        until: Tick,
        waiting: &mut Option<Waiting>,
    ) -> Result<(), Refusal> {
        Waiting::enter(waiting, client, app)?;
        client.deadline.set(until.min(self.budget));
        poll_fn(|cx| {
            if client.worker.changes() != changes {
                return Poll::Ready(Ok(()));
            }
            self.poll_interrupted(exchange, client, cx).map(|interrupted| match interrupted {
                Some(refusal) => Err(refusal),
                None => self.in_budget(client, app),
            })
        })
        .await?;
        client.worker.read_clock();
        Ok(())
    }

    /// Whether the search may go on now that a deadline has passed.
    fn in_budget(&self, client: &Connection, app: &App) -> Result<(), Refusal> {
        if client.worker.read_clock().tick() < self.budget {
            return Ok(());
        }
        let any_up = !app.roster.lineup().dynos.is_empty();
        Err(if any_up { Refusal::AllQuarantined } else { Refusal::AppBootTimeout })
    }

    /// Gets a connection to a leased dyno; `None`: look for another dyno.
    async fn connect(
        &mut self,
        exchange: &mut Exchange,
        client: &mut Connection,
        app: &Arc<App>,
        lease: &Lease,
        waiting: &mut Option<Waiting>,
    ) -> Result<Option<Upstream>, Refusal> {
        let dyno = lease.dyno();
        let repeatable = exchange.request.is_idempotent && !exchange.request.has_body();
        let mut timed = false;
        while !dyno.is_closed() {
            let worker = client.worker.clone();
            let wanted = Wanted { repeatable, fresh_only: self.fresh_only };
            let checkout = poll_fn(|cx| {
                Poll::Ready(worker.pools.checkout(dyno, worker.now(), wanted, cx.waker()))
            });
            // Whatever is given back on drop is in hand before anything can fail.
            let leave = match checkout.await {
                Checkout::Reuse(upstream) => return Ok(Some(upstream)),
                Checkout::Connect => {
                    Leave::Connect(Place { worker: worker.clone(), dyno: dyno.clone() })
                }
                Checkout::Wait(ticket) => Leave::Wait(Queued {
                    worker: worker.clone(),
                    dyno: dyno.clone(),
                    ticket,
                    used: false,
                }),
            };
            self.connecting = true;
            Waiting::enter(waiting, client, app)?;
            if !std::mem::replace(&mut timed, true) {
                let connect = worker.read_clock().deadline(app.policy.timeouts.connect);
                client.deadline.set(connect.min(self.budget));
            }
            let attempt = match leave {
                Leave::Connect(place) => self.attempt(exchange, client, place).await,
                Leave::Wait(queued) => self.await_place(exchange, client, queued).await,
            };
            worker.read_clock();
            match attempt {
                Attempt::Connected(stream) => return Ok(Some(Upstream { stream, reused: false })),
                Attempt::LookAgain => {}
                Attempt::Gone => break,
                Attempt::Interrupted(refusal) => return Err(refusal),
                Attempt::Failed(error) => {
                    self.blame(dyno, error, worker.now())?;
                    break;
                }
            }
        }
        Ok(None)
    }

    /// One connect.
    async fn attempt(
        &mut self,
        exchange: &Exchange,
        client: &mut Connection,
        place: Place,
    ) -> Attempt {
        let mut connecting = Box::pin(connect_patiently(&place.dyno));
        poll_fn(|cx| {
            if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
                return Poll::Ready(match connected {
                    Ok(stream) => Attempt::Connected(stream),
                    Err(error) => Attempt::Failed(blame(&error)),
                });
            }
            self.poll_attempt(exchange, client, &place.dyno, cx)
        })
        .await
    }

    /// Waits until a connection to the dyno comes back or another connect ends.
    async fn await_place(
        &mut self,
        exchange: &Exchange,
        client: &mut Connection,
        mut queued: Queued,
    ) -> Attempt {
        poll_fn(|cx| {
            if queued.worker.pools.is_called(&queued.dyno, queued.ticket) {
                queued.used = true;
                return Poll::Ready(Attempt::LookAgain);
            }
            self.poll_attempt(exchange, client, &queued.dyno, cx)
        })
        .await
    }

    /// What can end a connect other than its own end.
    fn poll_attempt(
        &mut self,
        exchange: &Exchange,
        client: &Connection,
        dyno: &Arc<Dyno>,
        cx: &mut Context<'_>,
    ) -> Poll<Attempt> {
        if dyno.is_closed() {
            // It left the table: not a try, nobody is blamed.
            return Poll::Ready(Attempt::Gone);
        }
        self.poll_interrupted(exchange, client, cx).map(|interrupted| match interrupted {
            Some(refusal) => Attempt::Interrupted(refusal),
            None => Attempt::Failed(ConnectError::TimedOut),
        })
    }

    /// Ready when the wait must end: with a refusal, or with `None` because the deadline has passed.
    fn poll_interrupted(
        &mut self,
        exchange: &Exchange,
        client: &Connection,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Refusal>> {
        if client.worker.is_stopping() {
            return Poll::Ready(Some(Refusal::ForcedClose));
        }
        if self.watching && client.input.is_empty() {
            match client.poll_gone(cx, exchange.request.said_close) {
                Some(true) => return Poll::Ready(Some(Refusal::ClientInterrupted)),
                Some(false) => self.watching = false,
                None => {}
            }
        }
        if client.deadline.is_due() { Poll::Ready(None) } else { Poll::Pending }
    }

    /// Counts a failed connect against its dyno, for all workers; an error if it was our own fault.
    fn blame(&mut self, dyno: &Dyno, error: ConnectError, now: Moment) -> Result<(), Refusal> {
        self.attempts += 1;
        self.tried.push(dyno.id());
        self.cause = Some(match error {
            ConnectError::Refused => Refusal::ConnectRefused,
            ConnectError::TimedOut | ConnectError::QueueFull => Refusal::ConnectTimeout,
            ConnectError::Ours => return Err(Refusal::PlatformError),
        });
        dyno.quarantine(now.deadline(limits::QUARANTINE));
        if now.tick() >= self.budget { Err(Refusal::ConnectTimeout) } else { Ok(()) }
    }
}

/// How one connect went.
enum Attempt {
    Connected(Stream),
    /// Something has come free.
    LookAgain,
    /// The dyno has left the table.
    Gone,
    Failed(ConnectError),
    Interrupted(Refusal),
}

/// Connects; where a Unix socket's listen queue is full (it says so at once, TCP waits by itself), again
/// and again. The caller bounds it.
async fn connect_patiently(dyno: &Dyno) -> io::Result<Stream> {
    loop {
        match Stream::connect(dyno.addr()).await {
            Err(error) if blame(&error) == ConnectError::QueueFull => {
                time::sleep(Duration::from_millis(20)).await;
            }
            connected => return connected,
        }
    }
}

/// What the pool gave leave for.
enum Leave {
    Connect(Place),
    Wait(Queued),
}

/// Leave to connect, given back on drop.
struct Place {
    worker: Rc<Worker>,
    dyno: Arc<Dyno>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.worker.pools.connected(&self.dyno);
    }
}

/// A place in the queue for a connection, left on drop. Whoever was called and does not look calls the next.
struct Queued {
    worker: Rc<Worker>,
    dyno: Arc<Dyno>,
    ticket: Ticket,
    used: bool,
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.worker.pools.leave(&self.dyno, self.ticket, self.used);
    }
}

/// One of the requests of an app that wait for a dyno.
struct Waiting(Arc<Roster>);

impl Waiting {
    /// Joins those who wait, unless there are too many (H11) or this request is among them already.
    fn enter(place: &mut Option<Self>, client: &Connection, app: &App) -> Result<(), Refusal> {
        if place.is_none() {
            client.deadline.wait_for_changes(true);
            let dynos = app.roster.lineup().dynos.len().max(1) as u32;
            let before = app.roster.waiting().fetch_add(1, Ordering::Relaxed);
            *place = Some(Self(app.roster.clone()));
            if before >= app.policy.backlog.saturating_mul(dynos) {
                return Err(Refusal::BacklogTooDeep);
            }
        }
        Ok(())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting().fetch_sub(1, Ordering::Relaxed);
    }
}
