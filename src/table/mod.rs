//! The route table: the only thing that the router and the supervisor share.
//!
//! The supervisor publishes it, the router reads it, neither imports the other. Two levels: a snapshot of
//! domain → app, replaced as a whole on reload, and each app's roster of dynos, replaced by itself when a
//! dyno comes or goes (a million dynos take 100 ms to index, a crash must leave the table within 1 ms).

pub mod lease; // one request's slot on one dyno; the word behind the drain
pub mod atomic; // the atomics of `lease`, replaced by loom's in its test
mod dyno; // the record of one process start
mod doorbell; // how a request wakes who sleeps or is frozen
mod ring; // which dyno a client belongs to
mod traffic; // what an app is asked, counted against its limits
mod histogram; // how many took how long
mod tally; // what a release's dynos have answered, where that is judged
mod load; // how long its requests take, where its number of dynos follows that
mod roster; // an app's dynos, as routable now
mod snapshot; // domain → app
mod publish; // swap, tell the workers, bury the old

pub use doorbell::Doorbell;
pub use dyno::{Dyno, Lease};
pub use load::{Load, Pipe, Served};
pub use publish::{Acknowledged, Notice, Publisher, Subscriber};
pub use ring::{Place, Ring};
pub use roster::{Canary, Lineup, Roster, Standing};
pub use snapshot::{App, AppId, Routes, Table};
pub use tally::{Answered, Tally};
pub use traffic::{ClientSlot, Limited, Slot, Traffic};
