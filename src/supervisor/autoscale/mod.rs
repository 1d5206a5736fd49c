//! How many dynos there are to be, where that follows the requests.

mod decide; // what is seen → at most one step. Pure
mod accept_queue; // who waits at a listening socket
mod observe; // what is seen of an app

pub(crate) use accept_queue::AcceptQueues;
pub use decide::{Autoscaler, Judged, Look, Seen, Shortfall, Verdict};
pub(crate) use observe::{Observed, observe};
