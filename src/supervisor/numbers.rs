//! Numbers that stand for what isolated dynos have of their own, users and pairs of addresses: lent one at a time, never
//! twice, and given back when the dyno is gone.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The numbers that are free to lend, in turn: one that was just given back is lent last, in case something of
/// its former dyno is left. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Numbers {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    range: RangeInclusive<u32>,
    /// Where the next search begins.
    next: u32,
    lent: BTreeSet<u32>,
}

/// A number that is lent; given back on drop.
pub(crate) struct LentNumber {
    number: u32,
    numbers: Numbers,
}

impl Numbers {
    /// Lends from these.
    pub(crate) fn new(range: RangeInclusive<u32>) -> Self {
        let shared = Shared { next: *range.start(), range, lent: BTreeSet::new() };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// A number that no dyno has. `None`: none is left.
    pub(crate) fn lend(&self) -> Option<LentNumber> {
        self.lend_if(|_| true)
    }

    /// A number that no dyno has, and of which this is true.
    pub(crate) fn lend_if(&self, fits: impl Fn(u32) -> bool) -> Option<LentNumber> {
        let number = self.shared().find(fits)?;
        Some(LentNumber { number, numbers: self.clone() })
    }

    /// Takes a number that a dyno of an earlier daemon has, also where it is of no range that this one lends
    /// from. `None`: somebody else has it.
    pub(crate) fn take(&self, number: u32) -> Option<LentNumber> {
        let taken = self.shared().lent.insert(number);
        taken.then(|| LentNumber { number, numbers: self.clone() })
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        // Nothing panics while this lock is held, so poison says nothing.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// The first free one from `next` on, around the range once.
    fn find(&mut self, fits: impl Fn(u32) -> bool) -> Option<u32> {
        let (first, last) = (*self.range.start(), *self.range.end());
        let mut in_turn = (self.next..=last).chain(first..self.next);
        let number = in_turn.find(|it| !self.lent.contains(it) && fits(*it))?;
        self.lent.insert(number);
        self.next = if number == last { first } else { number + 1 };
        Some(number)
    }
}

impl LentNumber {
    /// Which it is.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Never gives it back: its dyno may live on, and nobody knows until when.
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for LentNumber {
    fn drop(&mut self) {
        self.numbers.shared().lent.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(lent: &Option<LentNumber>) -> Option<u32> {
        lent.as_ref().map(LentNumber::number)
    }

    #[test]
    fn a_number_is_lent_once_and_a_returned_one_last() {
        let numbers = Numbers::new(70_000..=70_002);
        let first = numbers.lend();
        let second = numbers.lend();
        assert_eq!((number(&first), number(&second)), (Some(70_000), Some(70_001)));
        drop(first);
        let third = numbers.lend();
        assert_eq!(number(&third), Some(70_002));
        let again = numbers.lend();
        assert_eq!(number(&again), Some(70_000));
        assert_eq!(number(&numbers.lend()), None);
        drop(second);
        assert_eq!(number(&numbers.lend()), Some(70_001));
    }

    #[test]
    fn a_number_that_an_adopted_dyno_has_is_not_lent() {
        let numbers = Numbers::new(70_000..=70_001);
        let adopted = numbers.take(70_000);
        assert_eq!(number(&adopted), Some(70_000));
        assert_eq!(number(&numbers.take(70_000)), None);
        let other = numbers.lend();
        assert_eq!(number(&other), Some(70_001));
        drop(adopted);
        assert_eq!(number(&numbers.lend()), Some(70_000));
    }

    #[test]
    fn a_number_of_an_earlier_range_is_taken_and_given_back_for_good() {
        let numbers = Numbers::new(70_000..=70_000);
        let adopted = numbers.take(90_000);
        assert_eq!(number(&adopted), Some(90_000));
        drop(adopted);
        let only = numbers.lend();
        assert_eq!(number(&only), Some(70_000));
        assert_eq!(number(&numbers.lend()), None);
    }

    #[test]
    fn a_number_that_does_not_fit_is_passed_over_and_stays_free() {
        let numbers = Numbers::new(1..=3);
        let even = numbers.lend_if(|it| it % 2 == 0);
        assert_eq!(number(&even), Some(2));
        assert_eq!(number(&numbers.lend_if(|it| it > 3)), None);
        let others = (numbers.lend(), numbers.lend(), numbers.lend());
        assert_eq!(
            (number(&others.0), number(&others.1), number(&others.2)),
            (Some(3), Some(1), None)
        );
    }
}
