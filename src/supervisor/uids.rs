//! The users that isolated dynos run as: lent one at a time, never twice, and given back when the dyno is gone.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The users that are free to lend, in turn: one that was just given back is lent last, in case something of
/// its former dyno is left. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Uids {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    range: RangeInclusive<u32>,
    /// Where the next search begins.
    next: u32,
    lent: BTreeSet<u32>,
}

/// A user that is lent; given back on drop.
pub(crate) struct LentUid {
    uid: u32,
    uids: Uids,
}

impl Uids {
    /// Lends from these.
    pub(crate) fn new(range: RangeInclusive<u32>) -> Self {
        let shared = Shared { next: *range.start(), range, lent: BTreeSet::new() };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// A user that no dyno has. `None`: none is left.
    pub(crate) fn lend(&self) -> Option<LentUid> {
        let uid = self.shared().find()?;
        Some(LentUid { uid, uids: self.clone() })
    }

    /// Takes a user that a dyno of an earlier daemon has, also where it is of no range that this one lends
    /// from. `None`: somebody else has it.
    pub(crate) fn take(&self, uid: u32) -> Option<LentUid> {
        let taken = self.shared().lent.insert(uid);
        taken.then(|| LentUid { uid, uids: self.clone() })
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        // Nothing panics while this lock is held, so poison says nothing.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// The first free one from `next` on, around the range once.
    fn find(&mut self) -> Option<u32> {
        let (first, last) = (*self.range.start(), *self.range.end());
        let uid =
            (self.next..=last).chain(first..self.next).find(|uid| !self.lent.contains(uid))?;
        self.lent.insert(uid);
        self.next = if uid == last { first } else { uid + 1 };
        Some(uid)
    }
}

impl LentUid {
    /// The number, of the user and of its group.
    pub(crate) fn number(&self) -> u32 {
        self.uid
    }

    /// Never gives it back: its dyno may live on, and nobody knows until when.
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for LentUid {
    fn drop(&mut self) {
        self.uids.shared().lent.remove(&self.uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(uid: &Option<LentUid>) -> Option<u32> {
        uid.as_ref().map(LentUid::number)
    }

    #[test]
    fn a_user_is_lent_once_and_a_returned_one_last() {
        let uids = Uids::new(70_000..=70_002);
        let first = uids.lend();
        let second = uids.lend();
        assert_eq!((number(&first), number(&second)), (Some(70_000), Some(70_001)));
        drop(first);
        let third = uids.lend();
        assert_eq!(number(&third), Some(70_002));
        let again = uids.lend();
        assert_eq!(number(&again), Some(70_000));
        assert_eq!(number(&uids.lend()), None);
        drop(second);
        assert_eq!(number(&uids.lend()), Some(70_001));
    }

    #[test]
    fn a_user_that_an_adopted_dyno_has_is_not_lent() {
        let uids = Uids::new(70_000..=70_001);
        let adopted = uids.take(70_000);
        assert_eq!(number(&adopted), Some(70_000));
        assert_eq!(number(&uids.take(70_000)), None);
        let other = uids.lend();
        assert_eq!(number(&other), Some(70_001));
        drop(adopted);
        assert_eq!(number(&uids.lend()), Some(70_000));
    }

    #[test]
    fn a_user_of_an_earlier_range_is_taken_and_given_back_for_good() {
        let uids = Uids::new(70_000..=70_000);
        let adopted = uids.take(90_000);
        assert_eq!(number(&adopted), Some(90_000));
        drop(adopted);
        let only = uids.lend();
        assert_eq!(number(&only), Some(70_000));
        assert_eq!(number(&uids.lend()), None);
    }
}
