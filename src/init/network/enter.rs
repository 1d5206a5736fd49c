//! The order of calls by which a dyno gets a network of its own.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::thread::UnshareFlags;

use crate::init::failure::{During, Failure};
use crate::init::namespaces::leave;
use crate::init::network::netlink::{Netlink, Request};
use crate::init::network::plan::Network;

/// The dyno's end, as programs expect it.
const INTERFACE: &str = "eth0";

/// Leaves the host's network and these namespaces, for a network that has a way to the host and the addresses of
/// the order: for this thread alone, and what it starts.
///
/// # Errors
/// The step that failed. What was made until then goes with this thread.
pub(in crate::init) fn enter(network: &Network, others: UnshareFlags) -> Result<(), Failure> {
    let host = Netlink::open().during("ask for interfaces")?;
    leave(others | UnshareFlags::NEWNET).during("leave the host's namespaces")?;
    let Network { interface, .. } = network;
    let step = |what: &str| format!("make its network: {what} {interface}");

    make_pair(&host, network).during(step("make"))?;
    let index = host.index(interface).during(step("find"))?;
    let ask = |what: &str, request| host.ask(&request).during(step(what));
    ask("name", Request::SetAlias(index, &network.alias))?;
    // Before it works: nothing may pass that should not.
    ask("bound", Request::SetForwarding(index, network.outbound))?;
    without_ipv6(&host, index).during(step("bound"))?;
    ask("address", Request::AddAddress(index, network.host, Network::PREFIX))?;
    ask("set up", Request::SetUp(index))?;
    furnish(network).during(step("furnish the other end of"))
}

fn make_pair(host: &Netlink, network: &Network) -> io::Result<()> {
    let Network { interface, host: ours, dyno, .. } = network;
    let here = File::open("/proc/thread-self/ns/net")?;
    host.ask(&Request::NewPair {
        name: interface,
        mac: mac(*ours),
        peer_name: INTERFACE,
        peer_mac: mac(*dyno),
        peer_network: here.as_fd(),
    })
}

/// Addresses and routes in the dyno's own network, where this process is now.
fn furnish(network: &Network) -> io::Result<()> {
    let here = Netlink::open()?;
    here.ask(&Request::SetUp(here.index("lo")?))?;
    let index = here.index(INTERFACE)?;
    without_ipv6(&here, index)?;
    here.ask(&Request::AddAddress(index, network.dyno, Network::PREFIX))?;
    here.ask(&Request::SetUp(index))?;
    here.ask(&Request::AddDefaultRoute(network.host))?;
    let (first, prefix) = network.addresses;
    here.ask(&Request::AddUnreachable(first, prefix, 0))
}

fn without_ipv6(kernel: &Netlink, index: u32) -> io::Result<()> {
    match kernel.ask(&Request::WithoutIpv6(index)) {
        // A kernel without IPv6.
        Err(error) if error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error()) => Ok(()),
        done => done,
    }
}

/// A hardware address that is nobody else's: administered locally, and made of the address. Where none is given, the
/// kernel draws one, and udev gives the host's end another later on, when the dyno may have learnt the first.
fn mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0xd7, a, b, c, d]
}
