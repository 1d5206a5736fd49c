//! A worker's connections to dynos: idle ones to be used again, and how many may be made at once.
//!
//! Keyed by dyno record, one per start of a process, so that no connection outlives what it leads to.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::config::limits::{CONNECTS_MAX, FRESH_ENOUGH, POOL_MAX, POOL_SURPLUS, POOL_SURPLUS_AGE};
use crate::router::clock::{Moment, Tick};
use crate::router::dyno_stream::DynoStream;
use crate::table::Dyno;

/// A connection to a dyno that carries, or may carry, a request.
pub(crate) struct Upstream {
    pub(crate) stream: DynoStream,
    /// Whether it has carried a request before.
    pub(crate) reused: bool,
}

/// What a request may get from the pool.
pub(crate) enum Checkout {
    /// An idle connection.
    Reuse(Upstream),
    /// Leave to make one. Drop the place when the connect is over.
    Connect,
    /// Too many connects are in progress: the waker is woken, first come first served, when one ends or a
    /// connection comes back. [`leave`](Pools::leave) the queue in any case.
    Wait(Ticket),
}

/// What a request needs of a connection.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    /// It may be sent again should the dyno close the connection just now. One that may not be takes only a
    /// connection that was used within [`FRESH_ENOUGH`].
    pub(crate) repeatable: bool,
    /// A used connection has failed it already.
    pub(crate) fresh_only: bool,
}

/// A number in a queue; later ones are larger.
pub(crate) type Ticket = u64;

/// The connections of one worker.
#[derive(Default)]
pub(crate) struct Pools {
    by_dyno: RefCell<FxHashMap<u64, Pool>>,
    /// Never begins again, so that a ticket means the same for as long as somebody holds it.
    next_ticket: Cell<Ticket>,
}

#[derive(Default)]
struct Pool {
    /// Last in, first out: the rest grow old and go.
    idle: Vec<Idle>,
    connecting: u32,
    waiting: VecDeque<(Ticket, Waker)>,
}

struct Idle {
    stream: DynoStream,
    used: Moment,
    until: Tick,
}

impl Pools {
    /// An idle connection that the dyno has not closed, if there is one.
    pub(crate) fn reuse(&self, dyno: &Dyno, now: Moment, wanted: Wanted) -> Option<Upstream> {
        self.by_dyno.borrow_mut().get_mut(&dyno.id())?.reuse(now, wanted)
    }

    /// An idle connection that the dyno has not closed, or leave to make one.
    pub(crate) fn checkout(
        &self,
        dyno: &Dyno,
        now: Moment,
        wanted: Wanted,
        waker: &Waker,
    ) -> Checkout {
        let pools = &mut *self.by_dyno.borrow_mut();
        let pool = pools.entry(dyno.id()).or_default();
        if let Some(upstream) = pool.reuse(now, wanted) {
            return Checkout::Reuse(upstream);
        }
        if pool.connecting < CONNECTS_MAX {
            pool.connecting += 1;
            return Checkout::Connect;
        }
        let ticket = self.next_ticket.replace(self.next_ticket.get() + 1);
        pool.waiting.push_back((ticket, waker.clone()));
        Checkout::Wait(ticket)
    }

    /// Whether a ticket's turn has come.
    pub(crate) fn is_called(&self, dyno: &Dyno, ticket: Ticket) -> bool {
        let pools = self.by_dyno.borrow();
        let first = pools.get(&dyno.id()).and_then(|pool| pool.waiting.front());
        first.is_none_or(|(first, _)| *first > ticket)
    }

    /// Leaves the queue. A ticket that was called and not `used` passes the call on.
    pub(crate) fn leave(&self, dyno: &Dyno, ticket: Ticket, used: bool) {
        let pools = &mut *self.by_dyno.borrow_mut();
        let Some(pool) = pools.get_mut(&dyno.id()) else { return };
        match pool.waiting.binary_search_by_key(&ticket, |(ticket, _)| *ticket) {
            Ok(at) => drop(pool.waiting.remove(at)),
            Err(_) if !used => pool.call_next(),
            Err(_) => {}
        }
    }

    /// Ends a connect that [`checkout`](Self::checkout) gave leave for, however it went.
    pub(crate) fn connected(&self, dyno: &Dyno) {
        if let Some(pool) = self.by_dyno.borrow_mut().get_mut(&dyno.id()) {
            pool.connecting = pool.connecting.saturating_sub(1);
            pool.call_next();
        }
    }

    /// Keeps a connection for the next request, for at most `keepalive`.
    pub(crate) fn put_back(
        &self,
        dyno: &Dyno,
        stream: DynoStream,
        now: Moment,
        keepalive: Duration,
    ) {
        let pools = &mut *self.by_dyno.borrow_mut();
        let pool = pools.entry(dyno.id()).or_default();
        let keepalive = match pool.idle.len() {
            ..POOL_MAX => keepalive,
            _ => keepalive.min(POOL_SURPLUS_AGE),
        };
        if !dyno.is_closed() && !keepalive.is_zero() && pool.idle.len() < POOL_MAX + POOL_SURPLUS {
            pool.idle.push(Idle { stream, used: now, until: now.deadline(keepalive) });
        }
        pool.call_next();
    }

    /// Closes the connections that are too old, or that their dyno has closed or written to. Each tick:
    /// without it they would stand in CLOSE_WAIT until somebody wants them.
    pub(crate) fn sweep(&self, now: Tick) {
        self.by_dyno.borrow_mut().retain(|_, pool| {
            pool.idle.retain_mut(|idle| idle.until > now && idle.stream.is_idle());
            pool.is_in_use()
        });
    }

    /// Closes every idle connection to a dyno that has left the table, and lets those who wait for one look
    /// for another dyno.
    pub(crate) fn purge(&self, dyno: &Dyno) {
        if let Some(pool) = self.by_dyno.borrow_mut().get_mut(&dyno.id()) {
            pool.idle = Vec::new();
            pool.waiting.drain(..).for_each(|(_, waker)| waker.wake());
        }
    }

    /// Idle connections and connects in progress, by dyno record.
    pub(crate) fn report(&self) -> Vec<(u64, usize, u32)> {
        let pools = self.by_dyno.borrow();
        pools.iter().map(|(id, pool)| (*id, pool.idle.len(), pool.connecting)).collect()
    }
}

impl Pool {
    fn reuse(&mut self, now: Moment, wanted: Wanted) -> Option<Upstream> {
        if wanted.fresh_only {
            return None;
        }
        loop {
            let idle = self.idle.last()?;
            if !wanted.repeatable && now.since(idle.used) > FRESH_ENOUGH {
                return None;
            }
            let Idle { mut stream, until, .. } = self.idle.pop()?;
            if until > now.tick() && stream.is_idle() {
                return Some(Upstream { stream, reused: true });
            }
        }
    }

    fn call_next(&mut self) {
        if let Some((_, waker)) = self.waiting.pop_front() {
            waker.wake();
        }
    }

    fn is_in_use(&self) -> bool {
        !self.idle.is_empty() || self.connecting > 0 || !self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::model::{DynoAddr, DynoName};
    use crate::table::Dyno;

    const KEEPALIVE: Duration = Duration::from_secs(90);

    /// Those that a moment with much in flight needed are there for the next such moment, and not for longer.
    #[tokio::test]
    async fn what_a_pool_has_beyond_its_size_it_has_for_a_second() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = DynoAddr::parse(&listener.local_addr().unwrap().to_string()).unwrap();
        let dyno = Dyno::new(DynoName::parse("web.1").unwrap(), addr, true);
        let (pools, now) = (Pools::default(), Moment::now());
        let mut dynos_ends = Vec::new();
        for _ in 0..POOL_MAX + 20 {
            let stream = DynoStream::connect(&dyno, false).await.unwrap();
            dynos_ends.push(listener.accept().await.unwrap());
            pools.put_back(&dyno, stream, now, KEEPALIVE);
        }
        let idle = || pools.report()[0].1;
        pools.sweep(now.tick());
        assert_eq!(idle(), POOL_MAX + 20);
        pools.sweep(now.deadline(POOL_SURPLUS_AGE));
        assert_eq!(idle(), POOL_MAX);
        pools.sweep(now.deadline(KEEPALIVE));
        assert!(pools.report().is_empty());
    }
}
