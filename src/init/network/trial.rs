//! Whether this host can give dynos networks of their own, found out by doing it: a throwaway process enters one, and
//! tries the firewall there, where nobody else has any.

use std::ffi::OsStr;
use std::io;

use ipnet::Ipv4Net;
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use crate::init::network::enter::enter;
use crate::init::network::firewall::Firewall;
use crate::init::network::plan::Network;
use crate::init::sandbox::ask_ourselves;

/// The first argument by which a throwaway process knows that this is wanted of it.
pub(in crate::init) const TRIAL: &str = "network";

/// What a host can do, if it can do it at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkTrial {
    /// Whether dynos reach what is beyond the host, or why not.
    pub outbound: Result<(), String>,
}

/// Tries it with one of these addresses, and leaves nothing behind. Takes some 30 ms. Call it as root.
///
/// # Errors
/// The step that the host refused.
pub fn try_network(addresses: Ipv4Net) -> Result<NetworkTrial, String> {
    let last = addresses.broadcast().to_bits();
    let network = Network {
        // Others may try at the same time, or have a dyno at this address.
        interface: format!("dmtry{}", std::process::id()),
        alias: "dynomesh: a trial".into(),
        host: (last - 1).into(),
        dyno: last.into(),
        addresses: (addresses.network(), addresses.prefix_len()),
        outbound: false,
    };
    let asked = serde_json::to_string(&network).map_err(io::Error::other);
    let answer = asked.and_then(|network| ask_ourselves(&[TRIAL.into(), network.into()]));
    let answer = answer.map_err(|error| error.to_string())?;
    serde_json::from_str(&answer).map_err(|_| "no answer".to_owned())?
}

/// What the throwaway process says.
pub(in crate::init) fn answer(network: &OsStr) -> io::Result<String> {
    let network = network.to_str().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(serde_json::to_string(&within(&serde_json::from_str(network)?))?)
}

fn within(network: &Network) -> Result<NetworkTrial, String> {
    enter(network, UnshareFlags::empty()).map_err(|failure| failure.to_string())?;
    let (first, prefix) = network.addresses;
    let addresses = Ipv4Net::new(first, prefix).map_err(|error| error.to_string())?;
    // In the network of this process, and gone with it.
    let firewall = Firewall { table: "dynomesh-trial".into(), addresses };
    let outbound = firewall.raise().map(drop).map_err(|error| error.to_string());
    Ok(NetworkTrial { outbound })
}
