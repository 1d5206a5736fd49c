//! Which network a dyno is to have, as the order says it. Plain data.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// A network of a dyno's own: a pair of interfaces, one of which is the host's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The host's interface.
    pub interface: String,
    /// Whose it is, for people (`ip link`).
    pub alias: String,
    /// The address of the host's end, and the dyno's way out.
    pub host: Ipv4Addr,
    /// The dyno's address. With the host's it is a network of two (RFC 3021).
    pub dyno: Ipv4Addr,
    /// The addresses of all dynos, by the first and the length of the prefix: none but these two is to be reached.
    pub addresses: (Ipv4Addr, u8),
    /// Whether the host passes on what comes from the dyno.
    pub outbound: bool,
}

impl Network {
    /// Bits that the two addresses share.
    pub const PREFIX: u8 = 31;

    /// The host's interface for the dyno with this address.
    pub fn interface_of(dyno: Ipv4Addr) -> String {
        format!("dm{:08x}", dyno.to_bits())
    }
}
