//! What an app or a client may ask at most, and what a request counts against while it lives.
//!
//! The counters are the table's: all workers share them. Here is in which order they are asked, and for how long
//! each is held.

use std::cell::RefCell;
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::model::ClientNet;
use crate::router::clock::Moment;
use crate::table::{ClientSlot, Slot, Traffic};

/// A limit that a request met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    Requests,
    Connections,
    InFlight,
    ClientRequests,
    ClientConnections,
    ClientInFlight,
}

impl Limit {
    /// Every limit there is, for the counters.
    pub(crate) const ALL: [Self; 6] = [
        Self::Requests,
        Self::Connections,
        Self::InFlight,
        Self::ClientRequests,
        Self::ClientConnections,
        Self::ClientInFlight,
    ];

    /// Its key in the configuration, below the app.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Requests => "limits.requests_per_second",
            Self::Connections => "limits.connections",
            Self::InFlight => "limits.in_flight",
            Self::ClientRequests => "client_limits.requests_per_second",
            Self::ClientConnections => "client_limits.connections",
            Self::ClientInFlight => "client_limits.in_flight",
        }
    }

    /// The same in words.
    pub(crate) fn cause(self) -> &'static str {
        match self {
            Self::Requests => "requests per second",
            Self::Connections => "connections",
            Self::InFlight => "in flight",
            Self::ClientRequests => "client requests per second",
            Self::ClientConnections => "client connections",
            Self::ClientInFlight => "client in flight",
        }
    }
}

/// What a request in flight counts against, until this is dropped, also when a panic unwinds.
///
/// A client's request is in flight for as long as its exchange lives: it is the client's patience that is
/// limited. An app's is for as long as somebody works on it: where a dyno goes on without the client, the
/// [`Linger`](crate::router::linger::Linger) takes the app's slot along.
pub(crate) struct InFlight {
    pub(crate) app: Option<Slot>,
    #[expect(dead_code, reason = "its drop is what counts")]
    client: Option<ClientSlot>,
}

/// Who asks.
pub(crate) struct Asking {
    /// On which of the worker's connections.
    pub(crate) connection: u32,
    /// Whose that is; `None` for a trusted proxy's, which carries the requests of many.
    pub(crate) owner: Option<ClientNet>,
    /// Whose the request is. Who has no address has no limits of a client.
    pub(crate) client: Option<ClientNet>,
    pub(crate) now: Moment,
}

/// Counts a request against the limits of its app, or says which of them it meets.
///
/// The client's come before the app's, so that a client beyond its own takes nothing of what others share; rates
/// come last, since what was counted there cannot be given back.
pub(crate) fn admit(traffic: &Traffic, seats: &Seats, asking: &Asking) -> Result<InFlight, Limit> {
    seats.take(traffic, asking)?;
    let client = match (&traffic.client_in_flight, asking.client) {
        (Some(limit), Some(client)) => Some(limit.take(client).ok_or(Limit::ClientInFlight)?),
        _ => None,
    };
    let app = match &traffic.in_flight {
        Some(limit) => Some(limit.take().ok_or(Limit::InFlight)?),
        None => None,
    };
    let now = Duration::from_micros(asking.now.micros());
    if let (Some(limit), Some(client)) = (&traffic.client_requests, asking.client)
        && !limit.take(client, now)
    {
        return Err(Limit::ClientRequests);
    }
    if traffic.requests.as_ref().is_some_and(|limit| !limit.take(now)) {
        return Err(Limit::Requests);
    }
    Ok(InFlight { app, client })
}

/// What the open connections of a worker count against: each once for every app that limits connections and
/// that it has asked, until it closes. Kept apart from the connections: most hold nothing here,
/// and an idle one must stay small.
#[derive(Default)]
pub(crate) struct Seats(RefCell<FxHashMap<u32, Taken>>);

#[derive(Default)]
struct Taken {
    of_apps: Vec<Slot>,
    of_clients: Vec<ClientSlot>,
}

impl Seats {
    /// Takes what the connection does not have yet.
    fn take(&self, traffic: &Traffic, asking: &Asking) -> Result<(), Limit> {
        let client = traffic.client_connections.as_ref().zip(asking.owner);
        if client.is_none() && traffic.connections.is_none() {
            return Ok(());
        }
        let mut seats = self.0.borrow_mut();
        let taken = seats.entry(asking.connection).or_default();
        if let Some((limit, owner)) = client
            && !taken.of_clients.iter().any(|slot| limit.counts(slot))
        {
            taken.of_clients.push(limit.take(owner).ok_or(Limit::ClientConnections)?);
        }
        if let Some(limit) = &traffic.connections
            && !taken.of_apps.iter().any(|slot| limit.counts(slot))
        {
            taken.of_apps.push(limit.take().ok_or(Limit::Connections)?);
        }
        Ok(())
    }

    /// The connection has closed.
    pub(crate) fn leave(&self, connection: u32) {
        let mut seats = self.0.borrow_mut();
        if !seats.is_empty() {
            seats.remove(&connection);
        }
    }
}
