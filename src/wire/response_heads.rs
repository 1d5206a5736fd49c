//! The heads of an answer as they arrive: interim ones, then the final one.

use std::mem;

use crate::config::limits::RESPONSE_HEAD_MAX;
use crate::wire::head::{FieldSlots, HeadScan};
use crate::wire::response_head::{BadResponse, ResponseHead};

/// Reads the heads of one answer, however they are cut.
#[derive(Debug, Default)]
pub struct ResponseHeads {
    /// The beginning of a head that is not whole yet.
    kept: Vec<u8>,
    scan: HeadScan,
}

impl ResponseHeads {
    /// Whether nothing has come since the last whole head.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Takes more bytes, and has `each` see every head that is whole by then. Returns what follows the final head;
    /// `None` while that is not whole.
    ///
    /// Each byte is looked at once. A head that comes in one piece is read where it is, one that does not is copied
    /// once.
    pub fn take<'a, E: From<BadResponse>>(
        &mut self,
        bytes: &'a [u8],
        method_is_head: bool,
        mut each: impl FnMut(&ResponseHead<'_, '_>) -> Result<(), E>,
    ) -> Result<Option<&'a [u8]>, E> {
        let mut joined = mem::take(&mut self.kept);
        let begun = !joined.is_empty();
        if begun {
            joined.extend_from_slice(bytes);
        }
        let whole = if begun { &joined } else { bytes };
        let mut used = 0;
        while used < whole.len() {
            let found = self.scan.find_end(&whole[used..], RESPONSE_HEAD_MAX);
            let Some(length) = found.map_err(BadResponse::from)? else {
                if begun {
                    joined.drain(..used);
                    self.kept = joined;
                } else {
                    self.kept = bytes[used..].to_vec();
                }
                return Ok(None);
            };
            self.scan = HeadScan::default();
            let mut slots = FieldSlots::new();
            let head = &whole[used..used + length];
            let head = ResponseHead::parse(head, &mut slots, method_is_head)?;
            used += length;
            let is_final = !head.is_interim();
            each(&head)?;
            if is_final {
                return Ok(Some(&bytes[bytes.len() - (whole.len() - used)..]));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HINT: &str = "HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n";
    const FINE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n";

    /// What comes of these pieces: the heads' statuses, and what follows the last with all pieces behind it.
    fn read(pieces: &[&[u8]]) -> Result<(Vec<u16>, Option<Vec<u8>>), BadResponse> {
        let mut heads = ResponseHeads::default();
        let mut statuses = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            let mut each = |head: &ResponseHead<'_, '_>| {
                statuses.push(head.status);
                Ok::<_, BadResponse>(())
            };
            if let Some(rest) = heads.take(piece, false, &mut each)? {
                return Ok((statuses, Some([rest, &pieces[index + 1..].concat()].concat())));
            }
        }
        Ok((statuses, None))
    }

    #[test]
    fn however_they_are_cut_they_are_the_same() {
        let text = [HINT, HINT, FINE, "body"].concat();
        let expected = Ok((vec![103, 103, 200], Some(b"body".to_vec())));
        assert_eq!(read(&[text.as_bytes()]), expected);
        for cut in 0..=text.len() {
            let (first, second) = text.as_bytes().split_at(cut);
            assert_eq!(read(&[first, second]), expected, "cut at {cut}");
        }
        assert_eq!(read(&text.as_bytes().chunks(1).collect::<Vec<_>>()), expected);
    }

    #[test]
    fn without_the_final_one_there_is_more_to_come() {
        for (text, statuses) in [("", vec![]), (HINT, vec![103]), ("HTTP/1.1 200 OK\r\n", vec![])] {
            assert_eq!(read(&[text.as_bytes()]), Ok((statuses, None)), "{text:?}");
        }
        let mut heads = ResponseHeads::default();
        let each = |_: &ResponseHead<'_, '_>| Ok::<_, BadResponse>(());
        for (text, is_empty) in [(HINT, true), ("HTTP/1.1", false), (" 100 \r\n\r\n", true)] {
            assert_eq!(heads.take(text.as_bytes(), false, each), Ok(None));
            assert_eq!(heads.is_empty(), is_empty, "after {text:?}");
        }
    }

    #[test]
    fn what_is_wrong_ends_it() {
        let text = [HINT, "HTTP/1.1 200 OK\n\n"].concat();
        assert_eq!(read(&[text.as_bytes()]), Err(BadResponse::BareLineFeed));
        let text = [HINT, "220 smtp\r\n\r\n"].concat();
        assert_eq!(read(&[text.as_bytes()]), Err(BadResponse::StatusLine));
        let mut heads = ResponseHeads::default();
        let refuse = |_: &ResponseHead<'_, '_>| Err(BadResponse::TooManyFields);
        assert_eq!(heads.take(HINT.as_bytes(), false, refuse), Err(BadResponse::TooManyFields));
        let endless = vec![b'a'; 4096];
        let mut heads = ResponseHeads::default();
        let each = |_: &ResponseHead<'_, '_>| Ok::<_, BadResponse>(());
        let mut take = |bytes: &[u8]| heads.take(bytes, false, each).map(|_| ());
        take(b"HTTP/1.1 200 OK\r\nA: ").unwrap();
        let taken = (0..).take_while(|_| take(&endless).is_ok()).count() * endless.len();
        assert!((RESPONSE_HEAD_MAX - 8192..=RESPONSE_HEAD_MAX).contains(&taken), "{taken}");
    }
}
