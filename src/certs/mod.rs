//! Certificates by name: those of the file, those that ACME obtained, and a local CA's for everything else.
//!
//! Invariant: to choose, a handshake reads one snapshot and takes no lock; what cannot be used is refused
//! before it is served, and what is served stays until something better is there.

mod store; // what is served, shared by all
mod resolve; // which certificate a handshake gets
mod load; // the configuration's certificates, read and judged
mod files; // which files they are in, and whether they changed
mod certificate; // a chain with its key, judged
mod local; // the mesh's own names, signed on demand
mod own_name; // what the daemon itself shows, not an app
mod ca; // the local CA
mod report; // what is said of a certificate
mod acme; // automatic certificates for the apps' own domains
#[cfg(test)]
mod fixture; // for tests: a directory of certificates, and a client

pub use acme::{Acme, AcmeState, AcmeStatus};
pub use ca::{Ca, CaError};
pub use certificate::{Certificate, Flaw};
pub use files::Seen;
pub use load::{Loaded, load};
pub use report::{Report, Source};
pub use resolve::ACME_TLS;
pub use store::{Certs, CertsError};
