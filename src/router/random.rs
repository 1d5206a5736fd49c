//! A worker's source of random numbers: for choosing dynos and request ids, not for secrets.

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher, RandomState};

/// SplitMix64 (Steele, Lea, Flood 2014): one addition and three mixes a number.
pub(crate) struct Random(Cell<u64>);

impl Random {
    /// Seeded by the operating system.
    pub(crate) fn from_system() -> Self {
        Self::from_seed(RandomState::new().build_hasher().finish())
    }

    /// Seeded by hand, for tests that can be run again.
    pub(crate) fn from_seed(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    /// Any number.
    pub(crate) fn number(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0. The bias of the multiplication is below 2⁻³² here.
    pub(crate) fn below(&self, bound: usize) -> usize {
        ((u128::from(self.number()) * bound as u128) >> 64) as usize
    }

    /// Two numbers below `bound`, distinct unless there is only one.
    pub(crate) fn two_below(&self, bound: usize) -> (usize, usize) {
        let first = self.below(bound);
        let second = (first + 1 + self.below((bound - 1).max(1))) % bound;
        (first, second)
    }

    /// A version 4 UUID (RFC 9562 §5.4) as text.
    pub(crate) fn uuid(&self) -> [u8; 36] {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let high = self.number() & !0xf000 | 0x4000;
        let low = self.number() & !(3 << 62) | 2 << 62;
        let bytes = (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
        let mut text = [b'-'; 36];
        let mut at = 0;
        for (index, byte) in bytes.iter().enumerate() {
            at += usize::from(matches!(index, 4 | 6 | 8 | 10));
            text[at] = HEX[usize::from(byte >> 4)];
            text[at + 1] = HEX[usize::from(byte & 15)];
            at += 2;
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_version_4() {
        let random = Random::from_seed(1);
        for _ in 0..1000 {
            let text = String::from_utf8(random.uuid().to_vec()).unwrap();
            let groups: Vec<_> = text.split('-').map(str::len).collect();
            assert_eq!(groups, [8, 4, 4, 4, 12]);
            assert_eq!(text.as_bytes()[14], b'4');
            assert!(b"89ab".contains(&text.as_bytes()[19]), "{text}");
        }
    }
}
