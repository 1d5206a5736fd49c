//! What a dyno prints while no daemon is there: its last lines, and how many were lost. Pure, but for the time of
//! the first loss, which it is told.

use std::collections::VecDeque;

use crate::init::message::Lost;

/// The last bytes of output, beginning with a whole line where one begins at all. Empty, it has no memory.
#[derive(Debug)]
pub(in crate::init) struct Ring {
    bytes: VecDeque<u8>,
    max: usize,
    lost: Lost,
}

impl Ring {
    /// Keeps so many bytes at most.
    pub(in crate::init) fn new(max: usize) -> Self {
        Self { bytes: VecDeque::new(), max, lost: Lost::default() }
    }

    /// Adds output, at the cost of the oldest lines. `now` is in milliseconds since 1970.
    pub(in crate::init) fn push(&mut self, output: &[u8], now: u64) {
        self.bytes.extend(output);
        let Some(too_many) = self.bytes.len().checked_sub(self.max).filter(|many| *many > 0) else {
            return;
        };
        // The line that the bound falls into goes as a whole, if it has an end.
        let end = self.bytes.iter().skip(too_many - 1).position(|byte| *byte == b'\n');
        let gone = end.map_or(too_many, |end| too_many + end);
        let lines = self.bytes.drain(..gone).filter(|byte| *byte == b'\n').count();
        if self.lost.lines == 0 {
            self.lost.since = now;
        }
        // A piece out of the middle of a line counts as one.
        self.lost.lines += lines.max(1) as u64;
    }

    /// The oldest bytes, so many at most. `None`: there are none.
    pub(in crate::init) fn oldest(&self, max: usize) -> Option<Vec<u8>> {
        (!self.bytes.is_empty()).then(|| self.bytes.iter().take(max).copied().collect())
    }

    /// The oldest bytes, so many of them, were handed on.
    pub(in crate::init) fn forget(&mut self, count: usize) {
        self.bytes.drain(..count);
        if self.bytes.is_empty() {
            self.bytes = VecDeque::new();
        }
    }

    /// What was lost so far.
    pub(in crate::init) fn lost(&self) -> Lost {
        self.lost
    }

    /// What was lost has been said.
    pub(in crate::init) fn forget_lost(&mut self) {
        self.lost = Lost::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rest(ring: &mut Ring) -> String {
        let mut rest = Vec::new();
        while let Some(oldest) = ring.oldest(3) {
            ring.forget(oldest.len());
            rest.extend(oldest);
        }
        String::from_utf8(rest).unwrap()
    }

    fn check(max: usize, pushes: &[&str], expected: &str, lost: u64) {
        let mut ring = Ring::new(max);
        for (now, push) in pushes.iter().enumerate() {
            ring.push(push.as_bytes(), now as u64);
        }
        assert_eq!(rest(&mut ring), expected, "{pushes:?}");
        assert_eq!(ring.lost().lines, lost, "{pushes:?}");
    }

    #[test]
    fn the_oldest_lines_go_first_and_as_a_whole() {
        check(8, &["a\nb\n", "c\nd\n"], "a\nb\nc\nd\n", 0);
        check(8, &["a\nb\n", "c\nd\n", "e"], "b\nc\nd\ne", 1);
        check(8, &["aaa\nbbb\nccc\n"], "bbb\nccc\n", 1);
        check(8, &["aaaa\nbbb\nccc\n"], "bbb\nccc\n", 1);
        check(8, &["aaa\nbbb\ncccc\n"], "cccc\n", 2);
        check(4, &["abcdefgh"], "efgh", 1);
        check(4, &["abcdefgh", "i"], "fghi", 2);
        check(4, &["abcdefgh\n"], "", 1);
    }

    #[test]
    fn a_loss_is_dated_by_its_first_line_and_forgotten_once_it_was_said() {
        let mut ring = Ring::new(2);
        ring.push(b"a\nb\n", 7);
        ring.push(b"c\n", 9);
        assert_eq!(ring.lost(), Lost { lines: 2, since: 7 });
        ring.forget_lost();
        ring.push(b"d\n", 11);
        assert_eq!(ring.lost(), Lost { lines: 1, since: 11 });
    }

    proptest! {
        #[test]
        fn whole_lines_are_kept_or_counted(
            lines in prop::collection::vec("[ab]{0,5}\n", 0..30),
            max in 6usize..40,
        ) {
            let mut ring = Ring::new(max);
            for line in &lines {
                ring.push(line.as_bytes(), 0);
                prop_assert!(ring.bytes.len() <= max);
            }
            let lost = ring.lost().lines as usize;
            prop_assert_eq!(rest(&mut ring), lines[lost..].concat());
        }
    }
}
