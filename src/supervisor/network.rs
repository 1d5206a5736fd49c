//! Networks of dynos' own: what each start is given for it, and what the host has for all of them.
//!
//! Decided once, when the daemon starts, by trying: who asks for them gets them, or no daemon.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::init::{self, Firewall, Netlink, Network, NetworkRequest, overlap};
use crate::model::{AppName, DynoName};
use crate::private_file;
use crate::supervisor::cgroup;
use crate::supervisor::numbers::{LentNumber, Numbers};

/// In the state directory: what the host has for dynos, for whoever is to clear it away.
const FILE: &str = "network.json";

/// The networks that are lent.
pub(crate) struct Networks {
    addresses: Ipv4Net,
    /// A number is half of both of a dyno's addresses.
    pairs: Numbers,
    outbound: bool,
    firewall: Firewall,
}

/// Every address of `[dynos] addresses` is some dyno's.
#[derive(Debug, thiserror::Error)]
#[error("no addresses are left for it ([dynos] addresses)")]
pub(crate) struct NoAddresses;

/// What the host has for all dynos of a daemon.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Ground {
    /// Of the firewall.
    table: String,
    /// Those of dynos, by the first and the length of the prefix.
    addresses: (Ipv4Addr, u8),
    /// Tells our route to them from that of another daemon.
    priority: u32,
}

impl Networks {
    /// Has the host ready for dynos with networks of their own, and says so. Takes some tens of milliseconds, and
    /// must come before anybody waits for all children.
    ///
    /// # Errors
    /// The host cannot, and why.
    pub(crate) fn prepare(config: &Config) -> Result<Self, String> {
        let (state_dir, addresses) = (&config.state_dir, config.dynos.addresses);
        let trial = init::try_network(addresses)?;
        let ground = Ground::of(state_dir, addresses);
        let firewall = Firewall { table: ground.table.clone(), addresses };
        // What an earlier daemon had for other addresses.
        if Ground::read(state_dir).is_some_and(|before| before != ground) {
            clear(state_dir);
        }
        ground.claim(state_dir).map_err(|error| error.to_string())?;
        let raised =
            trial.outbound.and_then(|()| firewall.raise().map_err(|error| error.to_string()));
        tracing::info!("network: each dyno has its own, with addresses of {addresses}");
        if let Some(other) = overlap(addresses) {
            tracing::warn!(
                "network: [dynos] addresses {addresses} are those of a network of this host too, {other}, which dynos do not reach: choose others"
            );
        }
        if let Some(why) = init::unreached_resolver() {
            tracing::warn!("network: dynos find no names: {why}");
        }
        match &raised {
            Ok(switched) => {
                let table = &ground.table;
                tracing::info!(
                    "network: dynos reach what is beyond this host by nft table {table}"
                );
                if *switched {
                    tracing::warn!(
                        "network: this host forwards from now on what arrives for others (net.ipv4.ip_forward was 0)"
                    );
                }
            }
            Err(why) => tracing::warn!(
                "network: dynos reach nothing beyond this host: {why} (`dynomesh doctor` says more)"
            ),
        }
        let outbound = raised.is_ok();
        Ok(Self { addresses, pairs: pairs(addresses), outbound, firewall })
    }

    /// A network for a dyno, and what is to be kept for as long as anything of it is left.
    pub(crate) fn lend(
        &self,
        app: &AppName,
        dyno: &DynoName,
    ) -> Result<(Network, LentNumber), NoAddresses> {
        let host = Netlink::open();
        // The kernel takes its moment to remove an interface; and another daemon may lend the same.
        let is_free = |pair| {
            let interface = Network::interface_of(ends(pair).1);
            host.as_ref().is_ok_and(|host| host.index(&interface).is_err())
        };
        let number = self.pairs.lend_if(is_free).ok_or(NoAddresses)?;
        let (host, dyno_address) = ends(number.number());
        let network = Network {
            interface: Network::interface_of(dyno_address),
            alias: format!("dynomesh: {app} {dyno}"),
            host,
            dyno: dyno_address,
            addresses: (self.addresses.network(), self.addresses.prefix_len()),
            outbound: self.outbound,
        };
        Ok((network, number))
    }

    /// Takes the addresses of a dyno that an earlier daemon started. `None`: somebody else has them.
    pub(crate) fn adopt(&self, network: &Network) -> Option<LentNumber> {
        self.pairs.take(pair(network))
    }

    /// Puts the firewall up again, which somebody may have flushed.
    pub(crate) fn renew(&self) {
        if let (true, Err(error)) = (self.outbound, self.firewall.raise()) {
            tracing::warn!("network: dynos reach nothing beyond this host: {error}");
        }
    }
}

/// Takes the addresses of a dyno of an earlier daemon where none are lent: they are in nobody's way.
pub(crate) fn adopt_alone(network: &Network) -> Option<LentNumber> {
    let pair = pair(network);
    Numbers::new(pair..=pair).take(pair)
}

fn pair(network: &Network) -> u32 {
    network.dyno.to_bits() / 2
}

/// The numbers that stand for the pairs of addresses of a network.
fn pairs(addresses: Ipv4Net) -> Numbers {
    Numbers::new(addresses.network().to_bits() / 2..=addresses.broadcast().to_bits() / 2)
}

/// The host's address and the dyno's.
fn ends(pair: u32) -> (Ipv4Addr, Ipv4Addr) {
    ((2 * pair).into(), (2 * pair + 1).into())
}

/// Removes what a daemon of this state directory has had the host have for dynos. Call it when none of them is left.
pub(crate) fn clear(state_dir: &Path) {
    let Some(ground) = Ground::read(state_dir) else { return };
    match ground.clear() {
        Ok(()) => _ = fs::remove_file(file(state_dir)),
        Err(error) => tracing::warn!("network: what the host has for dynos stays: {error}"),
    }
}

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

impl Ground {
    fn of(state_dir: &Path, addresses: Ipv4Net) -> Self {
        let table = cgroup::parent_name(state_dir);
        let digits = &table[table.len() - 7..];
        let priority = u32::from_str_radix(digits, 16).expect("it ends with sixteen such digits");
        Self { table, addresses: (addresses.network(), addresses.prefix_len()), priority }
    }

    /// What an earlier daemon noted.
    fn read(state_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(file(state_dir)).ok()?).ok()
    }

    /// Notes it, and has all addresses unreachable where no dyno is: one that is gone must be refused at once, and
    /// asked of nobody else.
    fn claim(&self, state_dir: &Path) -> io::Result<()> {
        private_file::replace(state_dir, FILE, &serde_json::to_vec(self)?)?;
        let (first, prefix) = self.addresses;
        match Netlink::open()?.ask(&NetworkRequest::AddUnreachable(first, prefix, self.priority)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            done => done,
        }
    }

    fn clear(&self) -> Result<(), String> {
        let (first, prefix) = self.addresses;
        let addresses = Ipv4Net::new(first, prefix).map_err(|error| error.to_string())?;
        let route = NetworkRequest::RemoveUnreachable(first, prefix, self.priority);
        // It fails where it is not there, after a restart of the machine.
        let _ = Netlink::open().and_then(|host| host.ask(&route));
        match (Firewall { table: self.table.clone(), addresses }).raze() {
            // Then there has never been a table.
            Ok(()) | Err(init::FirewallError::NoProgram) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(numbers: &Numbers) -> Vec<u32> {
        let lent = std::iter::from_fn(|| numbers.lend()).collect::<Vec<_>>();
        lent.iter().map(LentNumber::number).collect()
    }

    #[test]
    fn pairs_fill_a_network_to_both_ends() {
        let all = numbers(&pairs("10.213.7.0/24".parse().unwrap()));
        assert_eq!(all.len(), 128);
        let of = |pair: u32| ends(pair);
        assert_eq!(of(all[0]), ([10, 213, 7, 0].into(), [10, 213, 7, 1].into()));
        assert_eq!(of(all[127]), ([10, 213, 7, 254].into(), [10, 213, 7, 255].into()));
        assert_eq!(Network::interface_of(of(all[0]).1), "dm0ad50701");
    }

    #[test]
    fn the_addresses_of_an_adopted_dyno_are_lent_to_nobody() {
        let addresses = "10.213.7.0/24".parse().unwrap();
        let firewall = Firewall { table: "x".into(), addresses };
        let networks = Networks { addresses, pairs: pairs(addresses), outbound: false, firewall };
        let (app, dyno) = (AppName::parse("shop").unwrap(), DynoName::parse("web.1").unwrap());
        let (network, lent) = networks.lend(&app, &dyno).unwrap();
        assert_eq!(network.alias, "dynomesh: shop web.1");
        assert!(networks.adopt(&network).is_none());
        drop(lent);
        let adopted = networks.adopt(&network);
        assert!(adopted.is_some() && networks.adopt(&network).is_none());
        assert_ne!(networks.lend(&app, &dyno).unwrap().0.dyno, network.dyno);
        // Of an earlier configuration.
        let elsewhere = Network { dyno: [10, 9, 0, 1].into(), ..network };
        assert!(networks.adopt(&elsewhere).is_some() && adopt_alone(&elsewhere).is_some());
    }

    #[test]
    fn each_state_directory_has_a_ground_of_its_own_that_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let addresses = "10.213.0.0/16".parse().unwrap();
        let ground = Ground::of(dir.path(), addresses);
        assert_eq!(Ground::read(dir.path()), None);
        fs::write(file(dir.path()), serde_json::to_vec(&ground).unwrap()).unwrap();
        assert_eq!(Ground::read(dir.path()), Some(Ground::of(dir.path(), addresses)));
        let other = Ground::of(Path::new("/srv/state"), addresses);
        assert!(other.table != ground.table && other.priority != ground.priority);
    }
}
