//! By what the number of an app's dynos follows what the app is asked.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

/// How many dynos of a process type there may be, and what decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Autoscale {
    /// Never fewer; at least 1.
    pub min: u32,
    /// Never more; at least `min`.
    pub max: u32,
    /// What is to be kept.
    pub target: Target,
    /// How long a target must have been missed until a dyno is added: the time over which each judgement looks.
    pub up_after: Duration,
    /// How long one dyno fewer must have been enough until one is taken away.
    pub down_after: Duration,
}

/// What is to be kept by adding dynos.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// At most one request in twenty takes the dyno longer than this.
    P95(Duration),
    /// Requests that a dyno holds at one time, on the average.
    InFlight(NonZeroU32),
    /// How long a request waits until its dyno has accepted it.
    Queue(Duration),
}

impl Target {
    /// `p95`, `in_flight`, `queue`
    pub fn word(&self) -> &'static str {
        match self {
            Self::P95(_) => "p95",
            Self::InFlight(_) => "in_flight",
            Self::Queue(_) => "queue",
        }
    }
}

/// `p95 500ms`, `in_flight 20`: as the file has it, in milliseconds.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word();
        match self {
            Self::P95(time) | Self::Queue(time) => write!(f, "{word} {}ms", time.as_millis()),
            Self::InFlight(requests) => write!(f, "{word} {requests}"),
        }
    }
}
