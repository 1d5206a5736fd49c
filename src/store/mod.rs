//! What is remembered from one daemon to the next: a SQLite database in the state directory.
//!
//! Invariant: one thread owns the connection, and whoever asks waits without blocking a runtime. A start needs
//! nothing of it: where it cannot be opened, a database in memory takes its place.

mod database; // opening, and the steps from one schema to the next
mod handle; // the thread, and how it is asked
mod usage; // dyno-seconds by month
mod jobs; // when each job ran last

pub use database::StoreError;
pub use handle::Store;
