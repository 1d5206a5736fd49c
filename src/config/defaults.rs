//! What holds where the file says nothing. `config/example.toml` shows the same values, and a test in
//! `example.rs` compares them.

use std::time::Duration;

use crate::config::{SupervisorTimeouts, limits};
use crate::model::{Affinity, AppPolicy, AppTimeouts, Balance, Expect, TrafficLimits};

pub(crate) const HTTP: &str = "127.0.0.1:8080";
pub(crate) const DOMAIN: &str = "localhost";
pub(crate) const STATE_DIR: &str = "state";
/// Relative to the state directory.
pub(crate) const SOCKET: &str = "dynomesh.sock";

pub(crate) const HANDSHAKE: Duration = Duration::from_secs(10);
pub(crate) const HEAD: Duration = Duration::from_secs(60);
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(60);
pub(crate) const STOP: Duration = Duration::from_secs(30);

pub(crate) const APP_TIMEOUTS: AppTimeouts = AppTimeouts {
    hold: Duration::from_secs(75),
    connect: Duration::from_secs(5),
    first_byte: Duration::from_secs(30),
    rolling: Duration::from_secs(55),
    linger: Duration::from_secs(10 * 60),
    drain: Duration::from_secs(5 * 60),
    dyno_keepalive: Duration::from_secs(90),
};

pub(crate) const SUPERVISOR_TIMEOUTS: SupervisorTimeouts = SupervisorTimeouts {
    boot: Duration::from_secs(60),
    exit: Duration::from_secs(30),
    cool_off_first: Duration::from_secs(1),
    cool_off_max: Duration::from_secs(5 * 60),
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
    limits: NO_LIMITS,
    client_limits: NO_LIMITS,
    error_page: None,
    maintenance_page: None,
};
