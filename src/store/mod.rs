//! What is remembered from one daemon to the next: a SQLite database in the state directory.
//!
//! Invariant: one thread owns the connection, and whoever asks waits without blocking a runtime. Where there is no database
//! and none can be made, one in memory takes its place; one that is there and cannot be read is a reason not to start.

mod database; // opening, and the steps from one schema to the next
mod sealed; // config vars, encrypted
mod handle; // the thread, and how it is asked
mod columns; // read as what they stand for
mod apps; // what commands said
mod drains; // where they said that logs go
mod features; // what they turned on or off
mod autoscale; // how many dynos they said there may be
mod certificates; // what is shown to clients
mod addons; // what is outside, and who is told of it
mod requests; // what was done already
mod releases; // what apps ran
mod commit; // a change of both, in one transaction
mod pipelines; // apps of one code base
mod tokens; // who may ask over the network
mod usage; // dyno-seconds by month
mod backup; // a copy of all of it
mod jobs; // when each job ran last

pub use backup::BackupError;
pub use commit::{Commit, Committed, WentBack, new_id};
pub use database::StoreError;
pub use handle::{AskError, OpenError, Store};
pub use releases::Maker;
pub use sealed::SealError;
