//! What gives a dyno a network of its own, and what the host has for all of them.
//!
//! Neither knows the daemon. An interface of a dyno's has never been anything else: it is made with one end in the
//! dyno's namespace, and the kernel removes it with that namespace, so that nothing is to be cleared away.

mod plan; // which network: part of the order
mod netlink; // what is asked of the kernel, as bytes
mod enter; // the order of calls by which a dyno gets it
mod overlap; // whether somebody else has the addresses
mod firewall; // what lets dynos out, and nobody in
mod trial; // whether a host can do all this, found out by doing it

pub use firewall::{Firewall, FirewallError};
pub use netlink::{Netlink, Request};
pub use overlap::overlap;
pub use plan::Network;
pub use trial::{NetworkTrial, try_network};

pub(in crate::init) use enter::enter;
pub(in crate::init) use trial::{TRIAL, answer};
