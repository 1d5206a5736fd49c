//! Where a head ends, and that its lines end as lines must: what requests and answers have in common.
//!
//! httparse takes a bare LF for a line end. Here each CR, LF and NUL is looked at before it sees any of them.

use std::mem::MaybeUninit;

use memchr::memchr3;

use crate::config::limits::{BLANK_LINES_MAX, FIELDS_MAX, REQUEST_LINE_MAX, STATUS_LINE_MAX};

/// The two versions spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// One field as sent: a name, and a value without the white space around it.
pub type Field<'b> = httparse::Header<'b>;

/// Room for the fields of one head, on the stack of the caller.
pub struct FieldSlots<'b>(pub(super) [MaybeUninit<Field<'b>>; FIELDS_MAX]);

impl FieldSlots<'_> {
    /// Costs nothing: no slot is written before a field is found for it.
    #[inline]
    pub const fn new() -> Self {
        Self([const { MaybeUninit::uninit() }; FIELDS_MAX])
    }
}

impl Default for FieldSlots<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// Finds the end of a head that arrives in pieces, and looks at each byte once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadScan {
    /// Bytes looked at. A CR whose LF has not come yet does not count.
    scanned: u32,
    /// Where the current line began.
    line: u32,
}

impl HeadScan {
    /// Looks for the blank line. `head` is everything received of this head so far, from its first line on;
    /// called again with more, it goes on where it stopped.
    ///
    /// `Some(len)`: the head is `head[..len]`, blank line included. `None`: more is needed.
    /// How the bytes were cut into calls makes no difference, for errors either.
    pub fn find_end(&mut self, head: &[u8], limit: usize) -> Result<Option<usize>, BadHead> {
        debug_assert!(limit <= u32::MAX as usize && self.scanned as usize <= head.len());
        let within = &head[..head.len().min(limit)];
        let mut at = self.scanned as usize;
        while let Some(found) = memchr3(b'\r', b'\n', 0, &within[at..]) {
            let end = at + found;
            self.check_start_line(end)?;
            match (within[end], within.get(end + 1)) {
                (b'\r', Some(b'\n')) => {
                    at = end + 2;
                    if end == self.line as usize {
                        return Ok(Some(at));
                    }
                    self.line = at as u32;
                }
                (b'\r', None) => {
                    self.scanned = end as u32;
                    return if head.len() > limit { Err(BadHead::TooLarge) } else { Ok(None) };
                }
                (b'\r', Some(_)) => return Err(BadHead::BareCarriageReturn),
                (b'\n', _) => return Err(BadHead::BareLineFeed),
                _ => return Err(BadHead::Nul),
            }
        }
        self.scanned = within.len() as u32;
        self.check_start_line(within.len())?;
        if head.len() > limit { Err(BadHead::TooLarge) } else { Ok(None) }
    }

    /// Refuses a start line that has not ended before `end`. Field lines are measured once they are parsed:
    /// their limits differ, but a start line that never ends has a status of its own (414).
    fn check_start_line(self, end: usize) -> Result<(), BadHead> {
        const { assert!(REQUEST_LINE_MAX == STATUS_LINE_MAX) };
        if self.line == 0 && end > REQUEST_LINE_MAX { Err(BadHead::LineTooLong) } else { Ok(()) }
    }
}

/// Counts the bytes of the blank lines (CRLF) before a request line; RFC 9112 §2.2 asks to skip them.
///
/// `bytes` begins where the last request ended. Called again, while nothing but blank lines has come, with
/// all of them, or a client could send them for ever.
pub fn blank_lines(bytes: &[u8]) -> Result<usize, BadHead> {
    let lines =
        bytes.chunks_exact(2).take(BLANK_LINES_MAX + 1).take_while(|line| line == b"\r\n").count();
    if lines > BLANK_LINES_MAX { Err(BadHead::BlankLines) } else { Ok(lines * 2) }
}

/// Why bytes are no head, whichever way they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHead {
    /// An LF without a CR: some parsers end the line here, others do not.
    #[error("bare line feed")]
    BareLineFeed,
    /// A CR without an LF.
    #[error("bare carriage return")]
    BareCarriageReturn,
    /// A NUL: for parsers in C, the end of everything.
    #[error("nul byte")]
    Nul,
    /// More blank lines before a request line than are skipped.
    #[error("too many blank lines")]
    BlankLines,
    /// The request or status line is longer than 8 KiB.
    #[error("start line too long")]
    LineTooLong,
    /// No end within the limit.
    #[error("head too large")]
    TooLarge,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 20_000;

    /// The outcome when the head arrives cut at these places.
    fn scanned(head: &[u8], cuts: &[usize]) -> Result<Option<usize>, BadHead> {
        let mut scan = HeadScan::default();
        for cut in cuts {
            let found = scan.find_end(&head[..*cut], LIMIT);
            if found != Ok(None) {
                return found;
            }
        }
        scan.find_end(head, LIMIT)
    }

    #[track_caller]
    fn check(head: &[u8], expected: Result<Option<usize>, BadHead>) {
        assert_eq!(scanned(head, &[]), expected, "in one piece");
        let every: Vec<_> = (0..head.len()).collect();
        assert_eq!(scanned(head, &every), expected, "byte by byte");
    }

    #[test]
    fn a_head_ends_at_its_first_blank_line() {
        check(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest", Ok(Some(27)));
        check(b"GET / HTTP/1.1\r\n\r\n\r\n", Ok(Some(18)));
        check(b"\r\nGET /", Ok(Some(2)));
        for part in ["", "G", "GET / HTTP/1.1\r", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\n\r"] {
            check(part.as_bytes(), Ok(None));
        }
    }

    #[test]
    fn lines_end_with_both_or_not_at_all() {
        check(b"GET / HTTP/1.1\nHost: a\n\n", Err(BadHead::BareLineFeed));
        check(b"GET / HTTP/1.1\r\nA: b\n\r\n", Err(BadHead::BareLineFeed));
        check(b"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", Err(BadHead::BareCarriageReturn));
        check(b"GET / HTTP/1.1\r\r\n", Err(BadHead::BareCarriageReturn));
        check(b"GET / HTTP/1.1\r\nA: \0\r\n\r\n", Err(BadHead::Nul));
    }

    #[test]
    fn limits_hold_at_their_edges() {
        let line = |length| [&[b'a'; 9000][..length], b"\r\n\r\n"].concat();
        check(&line(REQUEST_LINE_MAX), Ok(Some(REQUEST_LINE_MAX + 4)));
        check(&line(REQUEST_LINE_MAX + 1), Err(BadHead::LineTooLong));
        check(&[b'a'; REQUEST_LINE_MAX + 1], Err(BadHead::LineTooLong));
        let head = |length: usize| [b"a\r\n", &vec![b'b'; length - 7][..], b"\r\n\r\n"].concat();
        check(&head(LIMIT), Ok(Some(LIMIT)));
        check(&head(LIMIT + 1), Err(BadHead::TooLarge));
        check(&head(LIMIT + 2), Err(BadHead::TooLarge));
        check(&head(LIMIT)[..LIMIT - 1], Ok(None));
    }

    #[test]
    fn five_blank_lines_are_skipped() {
        let check = |bytes: &str, expected| {
            assert_eq!(blank_lines(bytes.as_bytes()), expected, "{bytes:?}")
        };
        check("", Ok(0));
        check("GET", Ok(0));
        check("\r", Ok(0));
        check("\r\n", Ok(2));
        check("\r\n\r\n\r", Ok(4));
        check("\n\r\n", Ok(0));
        check(&"\r\n".repeat(5), Ok(10));
        check(&("\r\n".repeat(5) + "GET / HTTP/1.1\r\n"), Ok(10));
        check(&"\r\n".repeat(6), Err(BadHead::BlankLines));
    }

    proptest! {
        #[test]
        fn cuts_make_no_difference(
            lines in proptest::collection::vec("[a-c \r\n\0]{0,6}(\r\n)?", 0..8),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let head = lines.concat().into_bytes();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(head.len() + 1)).collect();
            cuts.sort();
            prop_assert_eq!(scanned(&head, &cuts), scanned(&head, &[]));
        }
    }
}
