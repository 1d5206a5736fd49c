//! Which dyno a client belongs to: consistent hashing over the dynos that an app should have.
//!
//! The ring is made of the places that the configuration names, not of the dynos that are up: whoever walks it
//! passes over those that are down. That moves exactly the clients that a ring without them would move, so a
//! crash needs no new ring, and a dyno that comes back finds its clients again.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};

use pingora_ketama::{Bucket, Continuum};
use rustc_hash::FxHashMap;

use crate::config::limits::RING_PLACES_MAX;

/// A ring of dynos. Made by whoever publishes, since it costs milliseconds for a thousand.
pub struct Ring {
    continuum: Continuum,
    numbers: FxHashMap<SocketAddr, u32>,
    places: Vec<Place>,
}

/// One dyno's place on the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// What decides where on the ring it is; it must outlive restarts, of the dyno and of the daemon.
    pub label: String,
    /// The number in its name, by which the line-up knows it.
    pub number: u32,
}

impl Ring {
    /// A ring of these places. `None` without any, and beyond [`RING_PLACES_MAX`].
    pub fn new(places: Vec<Place>) -> Option<Self> {
        if places.is_empty() || places.len() > RING_PLACES_MAX {
            return None;
        }
        let buckets: Vec<_> =
            places.iter().map(|place| Bucket::new(node(&place.label), 1)).collect();
        let numbers = places.iter().map(|place| (node(&place.label), place.number)).collect();
        Some(Self { continuum: Continuum::new(&buckets), numbers, places })
    }

    /// What it was made of.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// The numbers of the dynos from a key's position on, nearest first. Endless: each comes again and again.
    pub fn walk(&self, key: &[u8]) -> impl Iterator<Item = u32> {
        self.continuum.node_iter(key).filter_map(|node| self.numbers.get(node).copied())
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ring of {}", self.places.len())
    }
}

/// Ketama knows its nodes by socket addresses, and dynos may be at Unix sockets, or at another port after each
/// restart: so a label's hash (FNV-1a of 128 bits) is the address.
fn node(label: &str) -> SocketAddr {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0100_0000_0000_0000_0000_013b;
    let hash =
        label.bytes().fold(BASIS, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME));
    SocketAddr::new(Ipv6Addr::from(hash).into(), 0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn place(number: u32) -> Place {
        Place { label: format!("web.{number}"), number }
    }

    fn ring(numbers: impl IntoIterator<Item = u32>) -> Ring {
        Ring::new(numbers.into_iter().map(place).collect()).unwrap()
    }

    /// Where each of these addresses goes.
    fn owners(ring: &Ring, keys: u32) -> Vec<u32> {
        (0..keys).map(|key| ring.walk(&key.to_be_bytes()).next().unwrap()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn another_dyno_takes_its_share_and_nothing_else_moves(count in 1_u32..40) {
            const KEYS: u32 = 4000;
            let (before, after) = (owners(&ring(1..=count), KEYS), owners(&ring(1..=count + 1), KEYS));
            let mut moved = 0;
            for (before, after) in before.iter().zip(&after).filter(|(before, after)| before != after) {
                prop_assert_eq!(*after, count + 1, "a client of web.{} moved to an old dyno", before);
                moved += 1;
            }
            prop_assert!(moved > 0 && moved <= 2 * KEYS / (count + 1), "{moved} of {KEYS} moved");
        }

        #[test]
        fn passing_over_a_dyno_is_a_ring_without_it(count in 2_u32..40, gone in 1_u32..40) {
            let gone = gone.min(count);
            let whole = ring(1..=count);
            let without = ring((1..=count).filter(|number| *number != gone));
            for key in 0..1000_u32 {
                let key = key.to_be_bytes();
                let passing = whole.walk(&key).find(|number| *number != gone);
                prop_assert_eq!(passing, without.walk(&key).next());
            }
        }
    }

    #[test]
    fn clients_spread_over_all_dynos() {
        let mut shares = BTreeMap::<u32, u32>::new();
        for owner in owners(&ring(1..=10), 20_000) {
            *shares.entry(owner).or_default() += 1;
        }
        let fair = shares.values().all(|share| (1000..=3000).contains(share));
        assert!(shares.len() == 10 && fair, "of 2000 expected: {shares:?}");
    }

    #[test]
    fn a_place_is_the_same_after_a_restart_of_the_daemon() {
        // Clients would lose their dynos if an upgrade changed this.
        assert_eq!(owners(&ring(1..=5), 8), [5, 4, 1, 4, 2, 1, 2, 2]);
    }

    #[test]
    fn there_is_no_ring_of_nothing_nor_of_more_than_it_can_tell_apart() {
        assert!(Ring::new(Vec::new()).is_none());
        assert!(Ring::new((0..=RING_PLACES_MAX as u32).map(place).collect()).is_none());
    }
}
