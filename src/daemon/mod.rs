//! Builds all in order, stops in reverse; the only part that knows all others.

mod serve; // start, run, stop: the daemon's life
mod reload; // one file swapped for another, or refused
mod releases; // what each app runs, numbered
mod rollouts; // what comes of releases
mod prepare; // what runs before one
mod silence; // what the store has not said in time
mod books; // what dynos used is booked now and then
mod jobs; // what apps run by the clock is started
mod watch; // what is looked at each second
mod signals; // what the operating system asks for
mod descriptors; // how many connections the process may hold
mod inherited; // sockets that the service manager opened for us
mod notify; // what the service manager is told
mod keys; // secrets of the daemon's own
mod access_log; // where the router's lines go
mod url; // addresses as the log names them

pub use access_log::AccessLogError;
pub use serve::{ServeError, serve};
