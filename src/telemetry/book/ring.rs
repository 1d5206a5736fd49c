//! The lines of one app that are kept: the newest, in their order.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;

use crate::config::limits;

/// One line of an app. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Grows from line to line, and from daemon to daemon: the microsecond of its time stamp, or the next number that is free.
    pub number: u64,
    /// `TIMESTAMP SOURCE[PROCESS]: MESSAGE`
    pub text: Arc<[u8]>,
}

/// An app's lines.
pub(crate) struct Ring {
    lines: VecDeque<Line>,
    bytes: usize,
    /// How many lines are gone: the place of the first that is kept.
    gone: u64,
    /// The number of the last line that is gone.
    last_gone: u64,
    last: u64,
    followers: usize,
    grown: watch::Sender<()>,
    /// Whether its app is no more.
    closed: bool,
}

impl Ring {
    pub(crate) fn new() -> Self {
        Self {
            lines: VecDeque::new(),
            bytes: 0,
            gone: 0,
            last_gone: 0,
            last: 0,
            followers: 0,
            grown: watch::Sender::new(()),
            closed: false,
        }
    }

    /// Takes a line with its time stamp in microseconds, and gives up old ones. Its number.
    pub(crate) fn push(&mut self, micros: u64, text: Arc<[u8]>) -> u64 {
        self.last = micros.max(self.last + 1);
        let line = Line { number: self.last, text };
        self.bytes += cost(&line);
        self.lines.push_back(line);
        self.trim();
        self.last
    }

    /// Tells followers of what was pushed.
    pub(crate) fn announce(&self) {
        self.grown.send_replace(());
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives up the older half of its lines.
    pub(crate) fn halve(&mut self) {
        for _ in 0..self.lines.len().div_ceil(2) {
            self.give_up();
        }
    }

    /// Nothing more will come.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.announce();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// One more follower, who hears of what is pushed.
    pub(crate) fn follow(&mut self) -> watch::Receiver<()> {
        self.followers += 1;
        self.grown.subscribe()
    }

    /// One follower less.
    pub(crate) fn unfollow(&mut self) {
        self.followers -= 1;
        self.trim();
    }

    /// The place behind the last line.
    pub(crate) fn end(&self) -> u64 {
        self.gone + self.lines.len() as u64
    }

    /// The place of the oldest line that is kept whoever follows.
    pub(crate) fn begin(&self) -> u64 {
        self.end() - self.lines.len().min(limits::BOOK_LINES) as u64
    }

    /// The place of the first line after this number, and whether lines between them are gone.
    pub(crate) fn after(&self, number: u64) -> (u64, bool) {
        let index = self.lines.partition_point(|line| line.number <= number);
        (self.gone + index as u64, number < self.last_gone)
    }

    /// How many lines are gone from a place on, and those that are not.
    pub(crate) fn from(&self, place: u64) -> (u64, impl Iterator<Item = &Line>) {
        let lost = self.gone.saturating_sub(place);
        let index = place.saturating_sub(self.gone) as usize;
        (lost, self.lines.range(index.min(self.lines.len())..))
    }

    fn trim(&mut self) {
        let most = match self.followers {
            0 => limits::BOOK_LINES,
            _ => limits::BOOK_LINES_FOLLOWED,
        };
        while self.lines.len() > most || self.bytes > limits::BOOK_BYTES {
            self.give_up();
        }
    }

    fn give_up(&mut self) {
        if let Some(line) = self.lines.pop_front() {
            self.bytes -= cost(&line);
            self.gone += 1;
            self.last_gone = line.number;
        }
    }
}

fn cost(line: &Line) -> usize {
    line.text.len() + limits::BOOK_LINE_COST
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(length: usize) -> Arc<[u8]> {
        vec![b'x'; length].into()
    }

    #[test]
    fn numbers_are_stamps_and_grow() {
        let mut ring = Ring::new();
        let numbers = [5, 7, 7, 6, 20].map(|micros| ring.push(micros, text(1)));
        assert_eq!(numbers, [5, 7, 8, 9, 20]);
        assert_eq!(ring.after(4), (0, false));
        assert_eq!(ring.after(8), (3, false));
        assert_eq!(ring.after(99), (5, false));
    }

    #[test]
    fn followers_make_it_longer_for_as_long_as_they_are() {
        let mut ring = Ring::new();
        let _grown = ring.follow();
        for micros in 0..20_000 {
            ring.push(micros, text(1));
        }
        assert_eq!(ring.from(0).1.count(), limits::BOOK_LINES_FOLLOWED);
        assert_eq!(ring.end() - ring.begin(), limits::BOOK_LINES as u64);
        ring.unfollow();
        assert_eq!(ring.from(0).0, 20_000 - limits::BOOK_LINES as u64);
        assert_eq!(ring.from(0).1.count(), limits::BOOK_LINES);
        assert!(ring.after(100).1);
    }

    proptest! {
        #[test]
        fn bounds_hold_and_every_line_is_there_or_gone(
            lengths in prop::collection::vec(prop_oneof![1usize..300, 400_000usize..3_000_000], 1..200),
            place in 0u64..200,
            halve in any::<bool>(),
        ) {
            let mut ring = Ring::new();
            for (micros, length) in lengths.iter().enumerate() {
                ring.push(micros as u64, text(*length));
                prop_assert!(ring.bytes() <= limits::BOOK_BYTES);
            }
            if halve {
                ring.halve();
            }
            let (lost, kept) = ring.from(place);
            let kept: Vec<_> = kept.collect();
            prop_assert_eq!(lost + kept.len() as u64, (lengths.len() as u64).saturating_sub(place));
            prop_assert!(kept.is_sorted_by_key(|line| line.number));
            let all: usize = ring.from(0).1.map(cost).sum();
            prop_assert_eq!(all, ring.bytes());
        }
    }
}
