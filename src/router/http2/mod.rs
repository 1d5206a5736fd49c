//! A client that speaks HTTP/2 (RFC 9113): one connection, and a task for each stream, which walks the same
//! exchange as an HTTP/1.1 request.
//!
//! Frames, HPACK and flow control are the h2 crate's; a reset is an event that the exchange sees, never a task
//! that is dropped: leases, lines and lingers do not hang on cancellation.

mod connection; // drives the frames, begins streams, ends by GOAWAY
mod shared; // what the streams of a connection share
mod stream; // the client's side of one exchange
mod head; // heads from and to header lists
mod flood; // frames that only cost

pub(crate) use connection::serve;
