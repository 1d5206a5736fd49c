//! What apps run by the clock: each job's one-off dynos, when they are due.
//!
//! Invariant: what was due while nobody looked is said, and not made up for.

mod timetable; // which jobs are due
mod keep; // the loop that starts them

pub use keep::{Parts, keep};
