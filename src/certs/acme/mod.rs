//! Automatic certificates for the apps' own domains (RFC 8555).
//!
//! Invariant: never two orders of one name; what a server says is judged before it is believed; nothing that
//! fails here takes anything from a certificate that is served.

mod handle; // the way in
mod wanted; // what the configuration asks for
mod manager; // which names have certificates: orders, renewals, waits
mod back_off; // how long a name waits after a failure
mod renewal; // when a certificate is renewed
mod board; // how each name stands, for people
mod authority; // what is asked of whoever issues certificates
mod order; // one order, by RFC 8555
mod shown; // what is shown to a server that checks a name
mod https; // asking the server: HTTPS, bounded
mod obtained; // a certificate, judged
mod store; // the account and the certificates on the disk
#[cfg(test)]
mod scripted; // for tests: an authority that does as it is told
#[cfg(test)]
mod tests; // the manager's life on a paused clock

pub use board::{AcmeState, AcmeStatus};
pub use handle::Acme;
