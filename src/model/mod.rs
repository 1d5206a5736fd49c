//! The words of the field as types, so that one cannot be taken for another.
//!
//! Invariant: no I/O, no clock, no async. Everything here is a value.

mod app;
mod domain;
mod process_type;
mod dyno;
mod policy;
mod autoscale;
mod guard;
mod size;
mod address;
mod drain;
mod calendar;
mod cron;
mod schedule;
mod usage;
mod id;
mod stated;
mod pipeline; // apps of one code base, stage by stage
mod release;
mod token;
mod eco;

pub use address::{ClientNet, DynoAddr, Endpoint, ListenAddr};
pub use app::AppName;
pub use autoscale::{Autoscale, Target};
pub use calendar::{Civil, Month};
pub use cron::Cron;
pub use domain::{Domain, Host};
pub use drain::{DrainKind, DrainUrl};
pub use dyno::{DynoName, DynoState, Exit};
pub use eco::EcoHours;
pub use guard::{Canary, Guard, Hundredths};
pub use id::Id;
pub use pipeline::{Coupling, Pipeline, Stage};
pub use policy::{
    Affinity, AppPolicy, AppTimeouts, Balance, Expect, ListenerPolicy, TrafficLimits,
};
pub use process_type::{Formation, ProcessType};
pub use release::{Release, ReleaseFailure, ReleaseStatus, Runs};
pub use schedule::{Period, Schedule};
pub use size::{CpuShare, Size, SizeLimits, SizeName, Sizes};
pub use stated::{
    Feature, Stated, StatedAddon, StatedApp, StatedAttachment, StatedAutoscale, StatedCertificate,
    StatedDomain, StatedDrain, certificate_of,
};
pub use token::{Scope, Token};
pub use usage::{Payer, Usage};
