//! What leaves the process as text: lines through one writer thread per target, and the book in which each app's
//! newest can be read back.

mod lines; // a bounded queue to a writer thread
mod block; // what is in it
mod split; // a block taken apart
mod lost; // lines that somebody lost
mod book; // the newest lines of each app, in one order
mod stamp; // time as the first field of a line
mod app_log; // lines of apps, dynos and the router's supervisor side
mod events; // tracing's events in the same form

pub use app_log::AppLog;
pub use book::{Follower, From, Line, LogBook, Lost, Taken};
pub use events::install;
pub use lines::{Lines, Target};
pub use lost::LINES_DROPPED;
pub use stamp::Stamp;
