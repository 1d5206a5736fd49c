//! Random numbers: those that nobody may guess, and those that only have to differ.

use std::hash::{BuildHasher, Hasher, RandomState};

use aws_lc_rs::rand;

/// Bytes that nobody can guess: for keys, tokens and ids.
pub(crate) fn secret<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("the kernel gives random numbers");
    bytes
}

/// Good enough for names and jitter: the standard library seeds each of these differently.
pub(crate) fn number() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// The same, from 0 to 1.
pub(crate) fn fraction() -> f64 {
    number() as f64 / u64::MAX as f64
}
