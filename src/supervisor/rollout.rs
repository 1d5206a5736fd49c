//! A release on its way to an app's dynos: how far it is, and how that ended. Plain data, for whoever follows it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::model::{Canary, DynoName, Exit, ProcessType};
use crate::supervisor::guard::Compared;

/// How far a release is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// 7 is `v7`.
    pub release: u64,
    /// How far each process type is.
    pub types: BTreeMap<ProcessType, Progress>,
    /// The dynos that came up with it, in this order.
    pub up: Vec<DynoName>,
    /// One web dyno is up with it, for so long and with so many of the requests, before all others.
    pub canary: Option<Canary>,
    /// All dynos are up with it, and for so long its requests are looked at before it is done.
    pub guarded_for: Option<Duration>,
    /// How it ended. Absent: it has not.
    pub outcome: Option<Outcome>,
    /// Whether all dynos are up with it. After a failure too: where there is nothing to go back to, they are started
    /// until they come up.
    pub stands: bool,
}

/// How many dynos of a process type run a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// That should.
    pub wanted: u32,
    /// That do, or sleep and will.
    pub up: u32,
}

/// How a rollout ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every dyno runs the release.
    Done,
    /// A dyno did not come up with it, or its guard found it worse than what was before. That goes on where it was not
    /// replaced yet.
    Failed(Failure),
    /// Another release came before it was done.
    Superseded {
        /// Its number.
        by: u64,
    },
}

/// Why a release failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which dyno did not come up; `web`: all web dynos are at fault.
    pub dyno: String,
    /// What was wrong.
    pub reason: Reason,
    /// The last that it printed, at most [`FAILURE_LINES`](crate::config::limits::FAILURE_LINES) lines.
    pub last_lines: Vec<String>,
}

/// What was wrong with a dyno of a release. Prints as the rest of a sentence about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its process could not be started.
    NotStarted(String),
    /// Its process ended before it was up.
    Exited(Exit),
    /// R10.
    BootTimeout {
        /// The seconds that it had.
        secs: u64,
    },
    /// It is up, and worse than what was before it.
    Worse(Compared),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted(why) => write!(f, "could not be started: {why}"),
            Self::Exited(Exit::Status(status)) => {
                write!(f, "exited with status {status} before it was up")
            }
            Self::Exited(Exit::Signal(signal)) => {
                write!(f, "was killed by signal {signal} before it was up")
            }
            Self::BootTimeout { secs } => {
                write!(f, "was not up within {secs} seconds (R10, boot timeout)")
            }
            Self::Worse(compared) => {
                let Compared { rules, standing, .. } = compared;
                write!(
                    f,
                    "is worse than v{standing} by more than its guard allows ({rules}): {compared}"
                )
            }
        }
    }
}
