//! Bytes into lines that are safe to print: one line of output stays one line of the log, and cannot pass
//! for a line of somebody else. Pure.

use crate::config::limits;

/// Collects lines across reads.
#[derive(Default)]
pub(crate) struct Lines {
    unfinished: Vec<u8>,
}

impl Lines {
    /// The lines that these bytes finish, without their ends. Lines beyond [`limits::OUTPUT_LINE_MAX`] are
    /// cut into several, as soon as they are that long.
    pub(crate) fn split(&mut self, mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            self.take(&bytes[..end], &mut lines);
            lines.push(self.finish());
            bytes = &bytes[end + 1..];
        }
        self.take(bytes, &mut lines);
        lines
    }

    /// Passes over these bytes, and over the line that they finish, and says how many lines they end; a piece
    /// out of the middle of a line counts as one. Much cheaper than to split them. What follows the last end
    /// is passed over too: that line loses its head.
    pub(crate) fn skip(&mut self, bytes: &[u8]) -> u64 {
        self.unfinished.clear();
        memchr::memchr_iter(b'\n', bytes).count().max(1) as u64
    }

    /// What was printed after the last line's end.
    pub(crate) fn rest(&mut self) -> Option<Vec<u8>> {
        (!self.unfinished.is_empty()).then(|| self.finish())
    }

    fn take(&mut self, bytes: &[u8], lines: &mut Vec<Vec<u8>>) {
        self.unfinished.extend_from_slice(bytes);
        while self.unfinished.len() > limits::OUTPUT_LINE_MAX {
            let rest = self.unfinished.split_off(cut(&self.unfinished));
            lines.push(self.finish());
            self.unfinished = rest;
        }
    }

    fn finish(&mut self) -> Vec<u8> {
        let line = std::mem::take(&mut self.unfinished);
        escape(line.strip_suffix(b"\r").unwrap_or(&line))
    }
}

/// How many bytes to pass over so that `kept` of them are left at most, beginning with a whole line if a line
/// begins there at all.
pub(crate) fn older(bytes: &[u8], kept: usize) -> usize {
    let Some(too_many) = bytes.len().checked_sub(kept).filter(|it| *it > 0) else { return 0 };
    let end = memchr::memchr(b'\n', &bytes[too_many - 1..]);
    end.map_or(too_many, |end| too_many + end)
}

/// Where to cut a line that is too long: not inside a character of UTF-8.
fn cut(line: &[u8]) -> usize {
    let is_inside = |at: &usize| line[*at] & 0b1100_0000 == 0b1000_0000;
    let longest = limits::OUTPUT_LINE_MAX;
    (longest - 3..=longest).rev().find(|at| !is_inside(at)).unwrap_or(longest)
}

/// Control bytes as `\r` or `\x0b`, but for the tab and for colours (`ESC [ … m`): anything else moves the
/// cursor of whoever reads the log, and can overwrite what stands there. Bytes beyond ASCII pass, UTF-8 or not.
fn escape(line: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(line.len());
    let mut at = 0;
    while at < line.len() {
        let colour = colour(&line[at..]);
        match line[at] {
            b'\x1b' if colour > 0 => {
                out.extend_from_slice(&line[at..at + colour]);
                at += colour;
                continue;
            }
            b'\t' => out.push(b'\t'),
            b'\r' => out.extend_from_slice(b"\\r"),
            byte if byte.is_ascii_control() => {
                out.extend_from_slice(format!("\\x{byte:02x}").as_bytes())
            }
            byte => out.push(byte),
        }
        at += 1;
    }
    out
}

/// The length of the colour sequence at the start; 0 where there is none.
fn colour(bytes: &[u8]) -> usize {
    let Some(parameters) = bytes.strip_prefix(b"\x1b[") else { return 0 };
    let end = parameters.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b';'));
    end.filter(|end| parameters[*end] == b'm').map_or(0, |end| end + 3)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(reads: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut lines = Lines::default();
        let mut out = reads.iter().flat_map(|read| lines.split(read)).collect::<Vec<_>>();
        out.extend(lines.rest());
        out
    }

    fn check(reads: &[&str], expected: &[&str]) {
        let reads = reads.iter().map(|read| read.as_bytes()).collect::<Vec<_>>();
        let expected = expected.iter().map(|line| line.as_bytes()).collect::<Vec<_>>();
        assert_eq!(lines(&reads), expected);
    }

    #[test]
    fn lines_end_where_they_end() {
        check(&["a\nb\n"], &["a", "b"]);
        check(&["a", "b\n\nc"], &["ab", "", "c"]);
        check(&["a\r\nb\r", "\n"], &["a", "b"]);
        check(&[], &[]);
    }

    #[test]
    fn what_would_fake_a_line_is_escaped() {
        check(&["50%\r100%\n"], &["50%\\r100%"]);
        check(&["a\x1b[31mred\x1b[0m\tb\n"], &["a\x1b[31mred\x1b[0m\tb"]);
        check(
            &["\x1b[1A\x1b[2Kfake \x1b]0;title\x07\n"],
            &["\\x1b[1A\\x1b[2Kfake \\x1b]0;title\\x07"],
        );
        check(&["é\0\x7f\n"], &["é\\x00\\x7f"]);
        assert_eq!(lines(&[b"\xff\xfe\n"]), [b"\xff\xfe"]);
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        let max = limits::OUTPUT_LINE_MAX;
        let lengths =
            |text: String| lines(&[text.as_bytes()]).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lengths("x".repeat(max) + "\n"), [max]);
        assert_eq!(lengths("x".repeat(max + 1) + "\n"), [max, 1]);
        assert_eq!(lengths("x".repeat(max - 1) + "é\n"), [max - 1, 2]);
        assert_eq!(lengths("x".repeat(3 * max)), [max; 3]);
    }

    #[test]
    fn skipped_lines_are_counted_by_their_ends() {
        let mut lines = Lines::default();
        assert_eq!(lines.split(b"a\nb"), [b"a"]);
        assert_eq!(lines.skip(b"b\nc\nd"), 2);
        assert_eq!(lines.skip(b"d"), 1);
        assert_eq!(lines.split(b"d\ne\n"), [b"d", b"e"]);
        assert_eq!(lines.rest(), None);
    }

    #[test]
    fn what_is_kept_begins_with_a_whole_line() {
        for (bytes, kept, expected) in [
            ("a\nb\n", 4, 0),
            ("a\nb\n", 9, 0),
            ("a\nb\n", 3, 2),
            ("a\nb\n", 2, 2),
            ("a\nb\n", 1, 4),
            ("abcd", 1, 3),
            ("ab\n", 0, 3),
        ] {
            assert_eq!(older(bytes.as_bytes(), kept), expected, "{bytes:?} {kept}");
        }
    }

    proptest! {
        #[test]
        fn any_split_of_the_input_gives_the_same_lines(
            bytes in prop::collection::vec(prop::sample::select(b"ab\n\r\x1b[m\xc3\xa9".to_vec()), 0..60),
            at in 0usize..60,
        ) {
            let at = at.min(bytes.len());
            prop_assert_eq!(lines(&[&bytes[..at], &bytes[at..]]), lines(&[&bytes]));
        }
    }
}
