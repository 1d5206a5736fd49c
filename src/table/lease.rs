//! The word that counts the leases of one dyno and closes it.
//!
//! "Publish a table without the dyno, then wait until no lease is held" loses the request of a worker that
//! read the old table and has not counted yet. So the word itself says whether leases are still given: its
//! top bit is CLOSED, the rest is the count, and taking a lease is one addition that sees both.
//!
//! The bit below it is FROZEN: the process is stopped where it is, which is done only while no lease is held, and
//! whoever takes the first one sees that it has to be set going. `tests/loom_lease.rs` checks every interleaving.

use crate::table::atomic::{AtomicU32, Ordering};

const CLOSED: u32 = 1 << 31;
const FROZEN: u32 = 1 << 30;

/// Leases held, and whether more are given.
pub struct LeaseWord(AtomicU32);

/// The answer to [`LeaseWord::take`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// The caller holds a lease and must give it back once.
    Granted,
    /// As [`Granted`](Self::Granted), but the process is stopped.
    Frozen {
        /// Whether the caller is the first, and rings so that it is set going.
        rings: bool,
    },
    /// Closed; the caller holds nothing. `rings` as in [`LeaseWord::give_back`].
    Refused {
        /// Whether this failed try was the last thing the closer waits for.
        rings: bool,
    },
}

impl LeaseWord {
    /// Open, with no lease held.
    #[expect(
        clippy::new_without_default,
        reason = "a word by default says nothing about open or closed"
    )]
    pub fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Takes a lease, unless closed.
    pub fn take(&self) -> Take {
        let before = self.0.fetch_add(1, Ordering::AcqRel);
        if before & (CLOSED | FROZEN) == 0 {
            Take::Granted
        } else if before & CLOSED == 0 {
            Take::Frozen { rings: before == FROZEN }
        } else {
            Take::Refused { rings: self.give_back() }
        }
    }

    /// Gives a lease back. `true`: it was the last one of a closed word, and the caller rings the closer.
    ///
    /// The failing path of [`take`](Self::take) rings too: its short-lived count may be what the closer saw.
    #[must_use]
    pub fn give_back(&self) -> bool {
        self.0.fetch_sub(1, Ordering::AcqRel) == CLOSED | 1
    }

    /// Marks it as frozen, unless a lease is held or it is closed. Whether it is, and the process may be stopped.
    pub fn freeze(&self) -> bool {
        self.0.compare_exchange(0, FROZEN, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// The process goes on.
    pub fn thaw(&self) {
        self.0.fetch_and(!FROZEN, Ordering::AcqRel);
    }

    /// Closes the word, which must not be frozen, for good. Wait for [`is_drained`](Self::is_drained) afterwards.
    pub fn close(&self) {
        self.0.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// Whether no more leases are given.
    pub fn is_closed(&self) -> bool {
        self.0.load(Ordering::Acquire) & CLOSED != 0
    }

    /// Whether the word is closed and no lease is held.
    pub fn is_drained(&self) -> bool {
        self.0.load(Ordering::Acquire) == CLOSED
    }

    /// How many leases are held.
    pub fn held(&self) -> u32 {
        self.0.load(Ordering::Relaxed) & !(CLOSED | FROZEN)
    }
}
