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
use crate::router::client::Client;
use crate::router::clock::{Moment, Tick};
use crate::router::dyno_stream::DynoStream;
use crate::router::pick::{Choice, Pick, pick};
use crate::router::pool::{Checkout, Ticket, Upstream, Wanted};
use crate::router::reply::Refusal;
use crate::router::request::Request;
use crate::router::retry::{ConnectError, Retry, blame};
use crate::router::transport::Transport;
use crate::router::worker::Worker;
use crate::table::{App, Dyno, Lease, Roster, Standing};

/// The search of one request, kept over its retries: one budget, and no dyno twice.
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
    /// The dyno of that connection.
    failing: Option<u64>,
    /// Whether to go on looking if the client has gone.
    watching: bool,
    connecting: bool,
    /// The dyno that was tried last.
    last: Option<Arc<Dyno>>,
}

impl Search {
    pub(crate) fn new(client: &Client<impl Transport>, app: &App) -> Self {
        let since = client.worker.now();
        Self {
            since,
            budget: since.deadline(app.policy.timeouts.hold),
            tried: Vec::new(),
            attempts: 0,
            cause: None,
            fresh_only: false,
            failing: None,
            watching: true,
            connecting: false,
            last: None,
        }
    }

    /// Since when connecting counts, if it came to that.
    pub(crate) fn connecting_since(&self) -> Option<Moment> {
        self.connecting.then_some(self.since)
    }

    /// The dyno that was tried last, for the line.
    pub(crate) fn last(&self) -> Option<&Arc<Dyno>> {
        self.last.as_ref()
    }

    /// A connection that was found has failed, and the request may be sent again.
    pub(crate) fn failed(&mut self, dyno: &Dyno, retry: Retry, cause: Refusal) {
        self.cause = Some(cause);
        self.attempts += 1;
        match retry {
            Retry::AnotherDyno => self.tried.push(dyno.id()),
            Retry::AnyDyno | Retry::No => {
                self.fresh_only = true;
                self.failing = Some(dyno.id());
            }
        }
    }

    /// A slot on a dyno and an idle connection to it, where both are to be had without waiting: what most
    /// requests meet.
    pub(crate) fn find_now(
        &self,
        request: &Request,
        client: &Client<impl Transport>,
        app: &App,
    ) -> Option<(Lease, Upstream)> {
        let Ok(Pick::Leased(lease)) = self.pick(request, client, app) else { return None };
        let worker = &client.worker;
        let upstream = worker.pools.reuse(lease.dyno(), worker.now(), self.wanted(request))?;
        Some((lease, upstream))
    }

    /// A slot on a dyno, and a connection to it.
    pub(crate) async fn find(
        &mut self,
        request: &Request,
        client: &mut Client<impl Transport>,
        app: &Arc<App>,
    ) -> Result<(Lease, Upstream), Refusal> {
        let mut held = None;
        let found = self.look(request, client, app, &mut held).await;
        client.deadline.wait_for_changes(false);
        found
    }

    async fn look(
        &mut self,
        request: &Request,
        client: &mut Client<impl Transport>,
        app: &Arc<App>,
        held: &mut Option<Held>,
    ) -> Result<(Lease, Upstream), Refusal> {
        loop {
            let changes = client.worker.changes();
            match self.pick(request, client, app)? {
                Pick::Leased(lease) => {
                    self.last = Some(lease.dyno().clone());
                    if let Some(upstream) = self.connect(request, client, app, &lease, held).await?
                    {
                        return Ok((lease, upstream));
                    }
                }
                Pick::Quarantined(until) => {
                    self.hold(request, client, app, changes, until, held).await?;
                }
                Pick::Exhausted => {
                    self.hold(request, client, app, changes, self.budget, held).await?;
                }
            }
        }
    }

    fn wanted(&self, request: &Request) -> Wanted {
        let repeatable = request.is_idempotent && !request.has_body();
        Wanted { repeatable, fresh_only: self.fresh_only }
    }

    /// Chooses; an error where waiting would not help (Heroku: Error Codes).
    fn pick(
        &self,
        request: &Request,
        client: &Client<impl Transport>,
        app: &App,
    ) -> Result<Pick, Refusal> {
        let worker = &client.worker;
        let lineup = app.roster.lineup();
        if lineup.dynos.is_empty() {
            return match lineup.standing {
                Standing::Crashed => Err(Refusal::AppCrashed),
                Standing::NoWeb => Err(Refusal::NoWebProcesses),
                Standing::Blank => Err(Refusal::BlankApp),
                Standing::OutOfHours => Err(Refusal::OutOfHours),
                Standing::Asleep => {
                    app.roster.bell().ring();
                    Ok(Pick::Exhausted)
                }
                Standing::Starting | Standing::Up => Ok(Pick::Exhausted),
            };
        }
        if self.attempts >= limits::TRIES_MAX {
            return Err(self.cause.unwrap_or(Refusal::ConnectRefused));
        }
        let now = worker.now().tick();
        let choose = |spared: &[u64]| {
            let wished = request.wish.lease(&worker.seal, app, &lineup, spared, now);
            let policy =
                Choice { balance: app.policy.balance, slow_start: app.policy.slow_start.is_some() };
            let any = || pick(&lineup, policy, spared, now, &worker.random);
            wished.map_or_else(any, Pick::Leased)
        };
        let pick = match self.failing {
            // Any dyno may have the request again, but the one whose connection just failed may be dying.
            Some(failing) => match choose(&[&self.tried[..], &[failing]].concat()) {
                leased @ Pick::Leased(_) => leased,
                Pick::Quarantined(_) | Pick::Exhausted => choose(&self.tried),
            },
            None => choose(&self.tried),
        };
        match (&pick, self.cause) {
            // It has tried every dyno itself: the last cause says why.
            (Pick::Exhausted, Some(cause)) => Err(cause),
            _ => Ok(pick),
        }
    }

    /// Waits until a dyno changes, or until `until`.
    async fn hold(
        &mut self,
        request: &Request,
        client: &mut Client<impl Transport>,
        app: &Arc<App>,
        changes: u64,
        until: Tick,
        held: &mut Option<Held>,
    ) -> Result<(), Refusal> {
        Held::enter(held, client, app)?;
        client.deadline.set(until.min(self.budget));
        poll_fn(|cx| {
            if client.worker.changes() != changes {
                return Poll::Ready(Ok(()));
            }
            self.poll_interrupted(request, client, cx).map(|interrupted| match interrupted {
                Some(refusal) => Err(refusal),
                None => self.in_budget(client, app),
            })
        })
        .await?;
        client.worker.read_clock();
        let in_maintenance = |now: &Arc<App>| now.id == app.id && now.policy.maintenance;
        // Switched on while this request waited.
        if client.worker.table().apps().iter().any(in_maintenance) {
            Err(Refusal::Maintenance)
        } else {
            Ok(())
        }
    }

    /// Whether the search may go on now that a deadline has passed.
    fn in_budget(&self, client: &Client<impl Transport>, app: &App) -> Result<(), Refusal> {
        if client.worker.read_clock().tick() < self.budget {
            return Ok(());
        }
        let any_up = !app.roster.lineup().dynos.is_empty();
        Err(if any_up { Refusal::AllQuarantined } else { Refusal::AppBootTimeout })
    }

    /// Gets a connection to a leased dyno; `None`: look for another dyno.
    async fn connect(
        &mut self,
        request: &Request,
        client: &mut Client<impl Transport>,
        app: &Arc<App>,
        lease: &Lease,
        held: &mut Option<Held>,
    ) -> Result<Option<Upstream>, Refusal> {
        let dyno = lease.dyno();
        let mut timed = false;
        while !dyno.is_closed() {
            let worker = client.worker.clone();
            let wanted = self.wanted(request);
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
            *held = None;
            client.deadline.wait_for_changes(true);
            if !std::mem::replace(&mut timed, true) {
                let connect = worker.read_clock().deadline(app.policy.timeouts.connect);
                client.deadline.set(connect.min(self.budget));
            }
            let attempt = match leave {
                Leave::Connect(place) => self.attempt(request, client, app, place).await,
                Leave::Wait(queued) => self.await_place(request, client, queued).await,
            };
            worker.read_clock();
            match attempt {
                Attempt::Connected(stream) => return Ok(Some(Upstream { stream, reused: false })),
                Attempt::LookAgain => {}
                Attempt::Gone => break,
                Attempt::Interrupted(refusal) => return Err(refusal),
                Attempt::Failed(failed) => {
                    self.blame(dyno, failed, worker.now())?;
                    break;
                }
            }
        }
        Ok(None)
    }

    /// One connect.
    async fn attempt(
        &mut self,
        request: &Request,
        client: &mut Client<impl Transport>,
        app: &App,
        place: Place,
    ) -> Attempt {
        let mut connecting = Box::pin(connect_patiently(&place.dyno, app.policy.http2_to_dyno));
        poll_fn(|cx| {
            if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
                return Poll::Ready(match connected {
                    Ok(stream) => Attempt::Connected(stream),
                    Err(error) => Attempt::Failed(Failed::Connect(blame(&error))),
                });
            }
            let late = Failed::Connect(ConnectError::TimedOut);
            self.poll_attempt(request, client, &place.dyno, late, cx)
        })
        .await
    }

    /// Waits until a connection to the dyno comes back or another connect ends.
    async fn await_place(
        &mut self,
        request: &Request,
        client: &mut Client<impl Transport>,
        mut queued: Queued,
    ) -> Attempt {
        poll_fn(|cx| {
            if queued.worker.pools.is_called(&queued.dyno, queued.ticket) {
                queued.used = true;
                return Poll::Ready(Attempt::LookAgain);
            }
            self.poll_attempt(request, client, &queued.dyno, Failed::Crowded, cx)
        })
        .await
    }

    /// What can end a connect other than its own end.
    fn poll_attempt(
        &mut self,
        request: &Request,
        client: &mut Client<impl Transport>,
        dyno: &Arc<Dyno>,
        late: Failed,
        cx: &mut Context<'_>,
    ) -> Poll<Attempt> {
        if dyno.is_closed() {
            // It left the table: not a try, nobody is blamed.
            return Poll::Ready(Attempt::Gone);
        }
        self.poll_interrupted(request, client, cx).map(|interrupted| match interrupted {
            Some(refusal) => Attempt::Interrupted(refusal),
            None => Attempt::Failed(late),
        })
    }

    /// Ready when the wait must end: with a refusal, or with `None` because the deadline has passed.
    fn poll_interrupted(
        &mut self,
        request: &Request,
        client: &mut Client<impl Transport>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Refusal>> {
        if client.worker.is_stopping() {
            return Poll::Ready(Some(Refusal::ForcedClose));
        }
        if self.watching && !client.transport.is_followed(request.body) {
            match client.poll_gone(cx, request.said_close) {
                Some(true) => return Poll::Ready(Some(Refusal::ClientInterrupted)),
                Some(false) => self.watching = false,
                None => {}
            }
        }
        if client.deadline.is_due() { Poll::Ready(None) } else { Poll::Pending }
    }

    /// Counts a failed attempt against its dyno, for all workers where the dyno is to blame; an error if it
    /// was our own fault, or the last attempt that the budget allows.
    fn blame(&mut self, dyno: &Dyno, failed: Failed, now: Moment) -> Result<(), Refusal> {
        self.attempts += 1;
        self.tried.push(dyno.id());
        let out_of_time = now.tick() >= self.budget;
        // A connect that our own budget cut short says nothing against the dyno, nor does a queue of ours.
        let (cause, its_fault) = match failed {
            Failed::Connect(ConnectError::Ours) => return Err(Refusal::PlatformError),
            Failed::Connect(ConnectError::Refused) => (Refusal::ConnectRefused, true),
            Failed::Connect(_) => (Refusal::ConnectTimeout, !out_of_time),
            Failed::Crowded => (Refusal::ConnectTimeout, false),
        };
        if its_fault {
            dyno.quarantine(now.deadline(limits::QUARANTINE));
        }
        self.cause = Some(cause);
        if out_of_time { Err(cause) } else { Ok(()) }
    }
}

/// Why an attempt failed.
#[derive(Clone, Copy)]
enum Failed {
    Connect(ConnectError),
    /// Too many others were connecting to the same dyno.
    Crowded,
}

/// How one connect went.
enum Attempt {
    Connected(DynoStream),
    /// Something has come free.
    LookAgain,
    /// The dyno has left the table.
    Gone,
    Failed(Failed),
    Interrupted(Refusal),
}

/// Connects; where a Unix socket's listen queue is full (it says so at once, TCP waits by itself), again
/// and again. The caller bounds it.
async fn connect_patiently(dyno: &Dyno, http2: bool) -> io::Result<DynoStream> {
    loop {
        match DynoStream::connect(dyno, http2).await {
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

/// One of the requests of an app for which there is no dyno.
///
/// Requests that wait for a connection to a dyno that is up are not among them: ten thousand clients that come
/// at once are served, sixteen connects at a time.
struct Held(Arc<Roster>);

impl Held {
    /// Joins those who wait, unless there are too many (H11) or this request is among them already.
    fn enter(
        held: &mut Option<Self>,
        client: &Client<impl Transport>,
        app: &App,
    ) -> Result<(), Refusal> {
        if held.is_none() {
            client.deadline.wait_for_changes(true);
            let dynos = app.roster.lineup().dynos.len().max(1) as u32;
            let before = app.roster.held().fetch_add(1, Ordering::Relaxed);
            *held = Some(Self(app.roster.clone()));
            if before >= app.policy.backlog.saturating_mul(dynos) {
                return Err(Refusal::BacklogTooDeep);
            }
        }
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held().fetch_sub(1, Ordering::Relaxed);
    }
}
