//! HTTP/2 (RFC 9113). A client that speaks it: one connection, and a task for each stream, which walks the same
//! exchange as an HTTP/1.1 request. A dyno that speaks it: a connection of the pool like any other.
//!
//! Frames, HPACK and flow control are the h2 crate's; a reset is an event that the exchange sees, never a task
//! that is dropped: leases, lines and lingers do not hang on cancellation.

mod connection; // drives the frames, begins streams, ends by GOAWAY
mod shared; // what the streams of a connection share
mod stream; // the client's side of one exchange
mod outgoing; // a body on its way out
mod head; // heads from and to header lists
mod flood; // frames that only cost
mod dyno; // a connection to a dyno

pub(crate) use connection::{Remains, serve};
pub(crate) use dyno::DynoConnection;
