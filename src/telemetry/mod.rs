//! What leaves the process as text: lines through one writer thread per target.

mod lines; // a bounded queue to a writer thread
mod stamp; // time as the first field of a line
mod app_log; // lines of apps, dynos and the router's supervisor side
mod events; // tracing's events in the same form

pub use app_log::AppLog;
pub use events::install;
pub use lines::{Lines, Target};
pub use stamp::Stamp;
