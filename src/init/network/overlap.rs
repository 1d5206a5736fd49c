//! Whether somebody else has the addresses of dynos, as the host's routes tell it (proc_pid_net(5), `route`).

use std::fs;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Our own interfaces, and routes that lead to none.
const OURS: [&str; 2] = ["dm", "*"];

/// Another network of this host with some of these addresses: `10.0.0.0/8 of eth1`. Dynos would have its place.
pub fn overlap(addresses: Ipv4Net) -> Option<String> {
    let routes = fs::read_to_string("/proc/self/net/route").unwrap_or_default();
    overlap_in(&routes, addresses)
}

fn overlap_in(routes: &str, addresses: Ipv4Net) -> Option<String> {
    let overlapping = |line: &str| {
        // INTERFACE DESTINATION GATEWAY FLAGS REFERENCES USE METRIC MASK …
        let mut fields = line.split_ascii_whitespace();
        let (interface, destination, mask) = (fields.next()?, fields.next()?, fields.nth(5)?);
        let prefix = address(mask)?.to_bits().leading_ones() as u8;
        let network = Ipv4Net::new(address(destination)?, prefix).ok()?;
        let is_theirs = prefix > 0 && !OURS.iter().any(|ours| interface.starts_with(ours));
        let overlaps = network.contains(&addresses) || addresses.contains(&network);
        (is_theirs && overlaps).then(|| format!("{network} of {interface}"))
    };
    routes.lines().skip(1).find_map(overlapping)
}

/// As this machine reads its four bytes as a number.
fn address(hex: &str) -> Option<Ipv4Addr> {
    u32::from_str_radix(hex, 16).ok().map(|it| it.to_ne_bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn a_network_around_or_within_is_found() {
        let routes =
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
*\t0000D50A\t00000000\t0200\t0\t0\t7\t0000FFFF\t0\t0\t0
dm0ad50001\t0000D50A\t00000000\t0001\t0\t0\t0\tFEFFFFFF\t0\t0\t0
wg0\t0007640A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
broken
";
        let check = |addresses: &str, expected: Option<&str>| {
            let found = overlap_in(routes, addresses.parse().unwrap());
            assert_eq!(found.as_deref(), expected, "{addresses}");
        };
        check("10.213.0.0/16", None);
        check("10.100.0.0/16", Some("10.100.7.0/24 of wg0"));
        check("10.0.0.0/8", Some("10.100.7.0/24 of wg0"));
        check("192.0.2.0/24", Some("192.0.2.0/24 of eth0"));
        check("172.16.0.0/12", None);
    }
}
