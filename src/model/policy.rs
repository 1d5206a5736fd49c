//! What the router is told to do: per app and for its listeners.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

/// How the router treats the requests of one app. Fixed for a request when it is admitted.
#[derive(Clone, Debug, PartialEq)]
pub struct AppPolicy {
    /// How long each state of an exchange may last.
    pub timeouts: AppTimeouts,
    /// How a dyno is chosen.
    pub balance: Balance,
    /// Who answers `Expect: 100-continue`.
    pub expect: Expect,
    /// Answer everything with the maintenance page (H80).
    pub maintenance: bool,
    /// Requests that may wait for a dyno, per web dyno (H11 beyond it).
    pub backlog: u32,
    /// Send plain HTTP requests to HTTPS (308).
    pub force_https: bool,
    /// Speak HTTP/2 without TLS to its dynos.
    pub http2_to_dyno: bool,
    /// Whether a client's requests go to the same dyno while it is there.
    pub affinity: Affinity,
    /// Over how long the share of a dyno that has just come up grows to that of the others; absent: it has it
    /// at once.
    pub slow_start: Option<Duration>,
    /// What the app as a whole may be asked.
    pub limits: TrafficLimits,
    /// What one client address may ask of the app.
    pub client_limits: TrafficLimits,
    /// HTML in place of the router's own error page.
    pub error_page: Option<Arc<str>>,
    /// HTML in place of the router's own maintenance page.
    pub maintenance_page: Option<Arc<str>>,
}

/// The timers of one exchange; ARCHITECTURE.md names the states they end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AppTimeouts {
    /// From admission until a connection is in hand: holding and all connects together.
    pub hold: Duration,
    /// One connect.
    pub connect: Duration,
    /// From the last byte of the request accepted by the dyno's socket to the first of the answer.
    pub first_byte: Duration,
    /// Silence on both sides, before and after.
    pub rolling: Duration,
    /// How long a dyno may work on after its client was answered 503, or left.
    pub linger: Duration,
    /// How long a dyno that left the table may finish what it holds, before SIGTERM.
    pub drain: Duration,
    /// Over how long its WebSockets are closed (1012, service restart), one after the other.
    pub ws_drain: Duration,
    /// How long a connection to a dyno may wait unused. Zero: one request a connection.
    pub dyno_keepalive: Duration,
}

/// How a dyno is chosen among those that are up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// Of two drawn at random, the one with fewer requests in flight.
    P2c,
    /// Drawn at random, as Heroku does.
    Random,
    /// The one with the fewest requests in flight.
    Least,
}

/// Whether a client's requests go to the same dyno while it is there (Heroku: Session Affinity).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// To any dyno.
    Off,
    /// To the dyno that a signed cookie leads to.
    Cookie,
    /// To the dyno that the client's address leads to.
    Address,
}

/// Bounds on traffic; beyond them a request is answered 429 (H22). Absent: no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficLimits {
    /// Requests in a second.
    pub requests_per_second: Option<NonZeroU32>,
    /// Client connections with a request in flight or kept after one.
    pub connections: Option<NonZeroU32>,
    /// Requests at one time.
    pub in_flight: Option<NonZeroU32>,
}

/// Who answers `Expect: 100-continue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The router, once it has a connection to a dyno.
    Router,
    /// The dyno.
    Dyno,
}

/// What holds for every connection of clients, before an app is known.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerPolicy {
    /// From a connection to the end of its PROXY header and TLS handshake.
    pub handshake: Duration,
    /// From the first byte of a head to its last.
    pub head: Duration,
    /// Between requests.
    pub keepalive: Duration,
    /// Peers whose X-Forwarded-* fields are believed.
    pub trusted_proxies: Vec<IpNet>,
}

impl ListenerPolicy {
    /// Whether a peer is a trusted proxy. One on a Unix socket, which has no address, is: file permissions
    /// decide who connects there.
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        peer.is_none_or(|peer| self.trusted_proxies.iter().any(|net| net.contains(&peer)))
    }
}
