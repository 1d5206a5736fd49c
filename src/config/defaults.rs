//! What holds where the file says nothing. `config/example.toml` shows the same values, and a test in
//! `example.rs` compares them.

use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::Ipv4Net;

use crate::config::{Deploy, SupervisorTimeouts, Upkeep, limits};
use crate::model::{
    Affinity, AppPolicy, AppTimeouts, Balance, Expect, Guard, Hundredths, ListenerPolicy,
    TrafficLimits,
};

pub(crate) const HTTP: &str = "127.0.0.1:8080";
pub(crate) const HTTPS: &str = "127.0.0.1:8443";
pub(crate) const DOMAIN: &str = "localhost";
pub(crate) const STATE_DIR: &str = "state";
/// Relative to the state directory.
pub(crate) const SOCKET: &str = "dynomesh.sock";

/// Above what distributions give to people and services, and where files of nobody else are.
pub(crate) const UIDS: RangeInclusive<u32> = 200_000..=265_535;

/// Where neither home routers nor clouds nor other software for containers have theirs by default.
pub(crate) const ADDRESSES: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 213, 0, 0), 16);

pub(crate) const LISTENER: ListenerPolicy = ListenerPolicy {
    handshake: Duration::from_secs(10),
    head: Duration::from_secs(60),
    keepalive: Duration::from_secs(60),
    trusted_proxies: Vec::new(),
};
pub(crate) const STOP: Duration = Duration::from_secs(30);

/// What `acme.directory` may say in short; the first holds where it says nothing.
pub(crate) const ACME_DIRECTORIES: [(&str, &str); 2] = [
    ("letsencrypt", "https://acme-v02.api.letsencrypt.org/directory"),
    ("letsencrypt-staging", "https://acme-staging-v02.api.letsencrypt.org/directory"),
];
pub(crate) const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Whether an app's domains get certificates by ACME, where there is `[acme]`.
pub(crate) const ACME_OF_APP: bool = true;

/// The safest: nothing goes before what takes its place is there.
pub(crate) const DEPLOY: Deploy = Deploy::Rolling;

/// Off, as on Heroku: two lines a dyno each 20 s drown what the app says, and /metrics has the same figures.
pub(crate) const RUNTIME_METRICS: bool = false;

pub(crate) const APP_TIMEOUTS: AppTimeouts = AppTimeouts {
    hold: Duration::from_secs(75),
    connect: Duration::from_secs(5),
    first_byte: Duration::from_secs(30),
    rolling: Duration::from_secs(55),
    linger: Duration::from_secs(10 * 60),
    drain: Duration::from_secs(5 * 60),
    ws_drain: Duration::from_secs(30),
    dyno_keepalive: Duration::from_secs(90),
};

pub(crate) const SUPERVISOR_TIMEOUTS: SupervisorTimeouts = SupervisorTimeouts {
    boot: Duration::from_secs(60),
    exit: Duration::from_secs(30),
    cool_off_first: Duration::from_secs(1),
    cool_off_max: Duration::from_secs(5 * 60),
};

/// What a file of an app's log may have before it is put aside.
pub(crate) const LOG_FILE_SIZE: u64 = 10 << 20;

/// How many files of an app's log are kept beside the one that is written to.
pub(crate) const LOG_FILES_KEPT: u32 = 5;

pub(crate) const UPKEEP: Upkeep = Upkeep { health: None, cycle: None, freeze_after: None };

/// How soon numbers of dynos follow the requests.
pub(crate) struct Autoscale {
    pub(crate) up_after: Duration,
    pub(crate) down_after: Duration,
}

/// Up: at 20 requests a second a p95 of 10 s is more than ten slow requests, and clients that wait through it have not
/// left yet. Down: between two crowds there are minutes, and a dyno that idles through them costs less than all who
/// wait for it to boot again, which may take a minute itself.
pub(crate) const AUTOSCALE: Autoscale =
    Autoscale { up_after: Duration::from_secs(10), down_after: Duration::from_secs(5 * 60) };

/// By what a release is judged, where there is to be a guard. One request in twenty is more than an app's daily mishaps;
/// two minutes are what caches and connections of most apps take to fill.
pub(crate) const GUARD: Guard = Guard {
    errors: Hundredths(500),
    p95: None,
    within: Duration::from_secs(2 * 60),
    requests: NonZeroU32::new(20).expect("20 is not 0"),
};

/// How long a canary has its part of the requests, where there is to be one: one in twenty of ten a second are 150.
pub(crate) const CANARY_FOR: Duration = Duration::from_secs(5 * 60);

/// How a web dyno is asked, where the file says at which path.
pub(crate) struct Health {
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) unhealthy_after: NonZeroU32,
}

pub(crate) const HEALTH: Health = Health {
    interval: Duration::from_secs(10),
    timeout: Duration::from_secs(5),
    unhealthy_after: NonZeroU32::new(3).expect("3 is not 0"),
};

const NO_LIMITS: TrafficLimits =
    TrafficLimits { requests_per_second: None, connections: None, in_flight: None };

pub(crate) const POLICY: AppPolicy = AppPolicy {
    timeouts: APP_TIMEOUTS,
    balance: Balance::P2c,
    expect: Expect::Router,
    maintenance: false,
    backlog: limits::BACKLOG,
    force_https: false,
    http2_to_dyno: false,
    affinity: Affinity::Off,
    slow_start: None,
    limits: NO_LIMITS,
    client_limits: NO_LIMITS,
    error_page: None,
    maintenance_page: None,
};
