//! Bodies in chunks (RFC 9112 §7.1): taken apart byte-exactly, and written anew.
//!
//! Extensions end here: they are counted, never understood. What goes on has our framing, not the sender's.

use crate::config::limits::{CHUNK_EXTENSIONS_MAX, CHUNK_LINE_MAX, FIELD_NAME_MAX, FIELDS_MAX};
use crate::config::limits::{REQUEST_FIELD_MAX, REQUEST_HEAD_MAX};
use crate::wire::field::{has_line_beyond, special};
use crate::wire::head::{Field, HeadScan};
use crate::wire::print::write_fields;

/// Takes a chunked body apart, however its bytes are cut. Allocates nothing until a trailer comes.
#[derive(Debug, Default)]
pub struct ChunkedDecoder {
    /// What the size line says so far; then, bytes of the chunk still to come.
    remaining: u64,
    /// Bytes of extensions in this body.
    extensions: u16,
    /// Bytes of this size line.
    line: u16,
    state: State,
    trailers: Option<Box<Trailers>>,
}

/// What the next byte is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    SizeStart,
    Size,
    Extension,
    SizeLineFeed,
    Data,
    DataReturn,
    DataLineFeed,
    TrailerStart,
    Trailer,
    LastLineFeed,
    End,
}

/// The trailer section: as received until it is whole, as it goes on afterwards.
#[derive(Debug, Default)]
struct Trailers {
    bytes: Vec<u8>,
    scan: HeadScan,
}

/// What a decoder found at the front of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes of the body; never empty.
    Data(&'a [u8]),
    /// The input is used up, the body is not whole.
    More,
    /// The body is whole, trailers included.
    End,
}

impl ChunkedDecoder {
    /// At the first byte of a body.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what it can from the front of `input`. After `End`, the rest of `input` is the next message's.
    /// After an error nothing more may be asked.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Piece<'a>, BadChunk> {
        loop {
            match self.state {
                State::End => return Ok(Piece::End),
                _ if input.is_empty() => return Ok(Piece::More),
                State::Data => {
                    let length = usize::try_from(self.remaining)
                        .map_or(input.len(), |left| left.min(input.len()));
                    let (data, rest) = input.split_at(length);
                    *input = rest;
                    self.remaining -= length as u64;
                    if self.remaining == 0 {
                        self.state = State::DataReturn;
                    }
                    return Ok(Piece::Data(data));
                }
                State::Trailer => self.take_trailers(input)?,
                _ => {
                    let (byte, rest) = (input[0], &input[1..]);
                    let before = self.state;
                    self.state = self.step(byte)?;
                    // The first byte of a trailer is left for the section that it belongs to.
                    if (before, self.state) != (State::TrailerStart, State::Trailer) {
                        *input = rest;
                    }
                }
            }
        }
    }

    /// The trailer fields that may go on, as lines `Name: value`; mostly none. Known once `next` said `End`.
    pub fn trailers(&self) -> &[u8] {
        match &self.trailers {
            Some(trailers) if self.state == State::End => &trailers.bytes,
            _ => &[],
        }
    }

    fn step(&mut self, byte: u8) -> Result<State, BadChunk> {
        Ok(match (self.state, byte) {
            (State::SizeStart | State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                self.add_digit(byte)?
            }
            (State::Size, b';') => self.add_extension()?,
            (State::Size | State::Extension, b'\r') => State::SizeLineFeed,
            (State::SizeStart | State::Size, _) => return Err(BadChunk::Size),
            (State::Extension, b'\t' | b' '..=b'~') => self.add_extension()?,
            (State::Extension, _) => return Err(BadChunk::Extension),
            (State::SizeLineFeed, b'\n') => {
                self.line = 0;
                if self.remaining == 0 { State::TrailerStart } else { State::Data }
            }
            (State::DataReturn, b'\r') => State::DataLineFeed,
            (State::DataLineFeed, b'\n') => State::SizeStart,
            (State::TrailerStart, b'\r') => State::LastLineFeed,
            (State::TrailerStart, _) => State::Trailer,
            (State::LastLineFeed, b'\n') => State::End,
            (
                State::SizeLineFeed | State::DataReturn | State::DataLineFeed | State::LastLineFeed,
                _,
            ) => {
                return Err(BadChunk::LineEnd);
            }
            (State::Data | State::Trailer | State::End, _) => {
                unreachable!("these take more than a byte")
            }
        })
    }

    /// Sixteen digits are 64 bits; a parser of 32 that wraps around would see another size.
    fn add_digit(&mut self, byte: u8) -> Result<State, BadChunk> {
        self.line += 1;
        if self.line > 16 {
            return Err(BadChunk::Size);
        }
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            _ => (byte | 0x20) - b'a' + 10,
        };
        self.remaining = self.remaining << 4 | u64::from(digit);
        Ok(State::Size)
    }

    fn add_extension(&mut self) -> Result<State, BadChunk> {
        const {
            assert!(
                CHUNK_LINE_MAX < CHUNK_EXTENSIONS_MAX && CHUNK_EXTENSIONS_MAX < u16::MAX as usize
            )
        };
        self.line += 1;
        self.extensions += 1;
        if usize::from(self.line) > CHUNK_LINE_MAX
            || usize::from(self.extensions) > CHUNK_EXTENSIONS_MAX
        {
            return Err(BadChunk::ExtensionTooLong);
        }
        Ok(State::Extension)
    }

    #[cold]
    fn take_trailers(&mut self, input: &mut &[u8]) -> Result<(), BadChunk> {
        let trailers = self.trailers.get_or_insert_default();
        let before = trailers.bytes.len();
        let most = REQUEST_HEAD_MAX + 1 - before;
        trailers.bytes.extend_from_slice(&input[..input.len().min(most)]);
        let found = trailers
            .scan
            .find_end(&trailers.bytes, REQUEST_HEAD_MAX)
            .map_err(|_| BadChunk::Trailer)?;
        let end = found.unwrap_or(trailers.bytes.len());
        *input = &input[end - before..];
        if found.is_some() {
            trailers.bytes = passable_trailers(&trailers.bytes[..end])?;
            self.state = State::End;
        }
        Ok(())
    }
}

/// Parses a whole trailer section, blank line included, and prints what of it may go on.
pub fn passable_trailers(section: &[u8]) -> Result<Vec<u8>, BadChunk> {
    let mut slots = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(section, &mut slots)
    else {
        return Err(BadChunk::Trailer);
    };
    // The first line was measured by the scan, as a head's is.
    if has_line_beyond(section, REQUEST_FIELD_MAX)
        || fields.iter().any(|field| field.name.len() > FIELD_NAME_MAX)
    {
        return Err(BadChunk::Trailer);
    }
    let mut out = Vec::new();
    write_fields(&mut out, fields.iter().filter(|field| may_trail(field)));
    Ok(out)
}

/// Fields that decide something before the body is read (RFC 9110 §6.5.1): framing, routing, who asks, what
/// the content is. A server that merges trailers into the head would believe them.
const NEVER_IN_TRAILERS: [&str; 23] = [
    "age",
    "authorization",
    "cache-control",
    "cookie",
    "date",
    "expires",
    "forwarded",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "range",
    "retry-after",
    "set-cookie",
    "trailer",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "x-dynomesh-error",
    "x-http-method-override",
    "x-request-id",
    "x-request-start",
];

fn may_trail(field: &Field) -> bool {
    let begins = |prefix: &str| {
        field.name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    special(field.name).is_none()
        && !NEVER_IN_TRAILERS.iter().any(|never| field.name.eq_ignore_ascii_case(never))
        && !["content-", "if-", "accept", "x-forwarded-"].iter().any(|prefix| begins(prefix))
        // A CGI-style server reads `_` as `-`.
        && !field.name.contains('_')
}

/// Why a body is no body in chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadChunk {
    /// Not 1 to 16 hexadecimal digits.
    #[error("bad chunk size")]
    Size,
    /// A control character or a byte beyond ASCII in an extension.
    #[error("bad chunk extension")]
    Extension,
    /// More extension than anybody needs.
    #[error("chunk extensions too long")]
    ExtensionTooLong,
    /// No CRLF where one belongs.
    #[error("bad chunk end")]
    LineEnd,
    /// The trailer section is malformed or too large.
    #[error("bad trailer")]
    Trailer,
}

impl BadChunk {
    /// Heroku's words for all of them, for `cause="…"` in the log.
    pub fn cause(self) -> &'static str {
        "bad chunk"
    }
}

/// Appends one chunk. Nothing for no data: that would be the last one.
pub fn write_chunk(out: &mut Vec<u8>, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    let digits = (usize::BITS - data.len().leading_zeros()).div_ceil(4);
    out.reserve(digits as usize + data.len() + 4);
    for place in (0..digits).rev() {
        out.push(b"0123456789abcdef"[data.len() >> (place * 4) & 0xf]);
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// Appends the last chunk and the trailers, which are lines as [`ChunkedDecoder::trailers`] gives them.
pub fn write_last_chunk(out: &mut Vec<u8>, trailers: &[u8]) {
    out.extend_from_slice(b"0\r\n");
    out.extend_from_slice(trailers);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Data, whether the body is whole, trailers, and how many bytes belong to the next message.
    type Decoded = Result<(Vec<u8>, bool, Vec<u8>, usize), BadChunk>;

    /// Decodes a body that arrives cut at these places.
    fn decoded(body: &[u8], cuts: &[usize]) -> Decoded {
        let mut decoder = ChunkedDecoder::new();
        let (mut data, mut taken) = (Vec::new(), 0);
        for until in cuts.iter().copied().chain([body.len()]) {
            let mut input = &body[taken..until];
            let piece = loop {
                match decoder.next(&mut input)? {
                    Piece::Data(piece) => data.extend_from_slice(piece),
                    other => break other,
                }
            };
            taken = until - input.len();
            if piece == Piece::End {
                return Ok((data, true, decoder.trailers().to_vec(), body.len() - taken));
            }
            assert_eq!((piece, taken), (Piece::More, until));
        }
        Ok((data, false, decoder.trailers().to_vec(), 0))
    }

    #[track_caller]
    fn check(body: &str, expected: Result<(&str, bool, &str, usize), BadChunk>) {
        let expected = expected
            .map(|(data, whole, trailers, rest)| (data.into(), whole, trailers.into(), rest));
        let body = body.as_bytes();
        assert_eq!(decoded(body, &[]), expected, "in one piece: {}", body.escape_ascii());
        let every: Vec<_> = (0..body.len()).collect();
        assert_eq!(decoded(body, &every), expected, "byte by byte: {}", body.escape_ascii());
    }

    #[test]
    fn bodies_are_taken_apart() {
        check("", Ok(("", false, "", 0)));
        check("0\r\n\r\n", Ok(("", true, "", 0)));
        check("0\r\n\r\nGET /", Ok(("", true, "", 5)));
        check("3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n", Ok(("abc0123456789", true, "", 0)));
        check("3;x=y\r\nabc\r\n00;z\r\n\r\n", Ok(("abc", true, "", 0)));
        check("5\r\nabc", Ok(("abc", false, "", 0)));
        check("ffffffffffffffff\r\nabc", Ok(("abc", false, "", 0)));
    }

    #[test]
    fn trailers_are_checked_and_reduced() {
        check("0\r\ndigest: a\r\n\r\nrest", Ok(("", true, "Digest: a\r\n", 4)));
        check(
            "0\r\nServer-Timing:  a \r\nX-B:\r\n\r\n",
            Ok(("", true, "Server-Timing: a\r\nX-B: \r\n", 0)),
        );
        check("0\r\nDigest: a\r\n", Ok(("", false, "", 0)));
        for never in [
            "Content-Length: 1",
            "Transfer-Encoding: chunked",
            "Host: b",
            "Connection: close",
            "authorization: b",
            "Set-Cookie: b",
            "Content-Type: b",
            "X-Forwarded-For: b",
            "X_Forwarded_For: b",
            "x-dynomesh-error: H12",
            "If-Match: b",
        ] {
            check(
                &format!("0\r\n{never}\r\nDigest: a\r\n\r\n"),
                Ok(("", true, "Digest: a\r\n", 0)),
            );
        }
        check("0\r\na b: c\r\n\r\n", Err(BadChunk::Trailer));
        check("0\r\na: b\n\r\n", Err(BadChunk::Trailer));
        check("0\r\n\n", Err(BadChunk::Trailer));
    }

    #[test]
    fn limits_hold_at_their_edges() {
        let body = |size: &str| format!("{size}\r\na\r\n0\r\n\r\n");
        let whole = Ok(("a", true, "", 0));
        check(&body("0000000000000001"), whole);
        check(&body("00000000000000001"), Err(BadChunk::Size));
        let extension = |line: usize| format!("1;{}", "x".repeat(line - 2));
        check(&body(&extension(CHUNK_LINE_MAX)), whole);
        check(&body(&extension(CHUNK_LINE_MAX + 1)), Err(BadChunk::ExtensionTooLong));

        let many = |bytes: usize| {
            let chunk = format!("{}\r\na\r\n", extension(129));
            chunk.repeat(bytes / 128)
                + &format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(bytes % 128 - 1))
        };
        let data = "a".repeat(CHUNK_EXTENSIONS_MAX / 128);
        check(&many(CHUNK_EXTENSIONS_MAX - 1), Ok((&data, true, "", 0)));
        check(&many(CHUNK_EXTENSIONS_MAX + 1), Err(BadChunk::ExtensionTooLong));

        let trailer = |line: usize| format!("X: {}\r\n", "a".repeat(line - 3));
        let first = trailer(REQUEST_FIELD_MAX);
        check(
            &format!("0\r\n{first}{first}\r\n"),
            Ok(("", true, &[&first[..], &first[..]].concat(), 0)),
        );
        let longer = trailer(REQUEST_FIELD_MAX + 1);
        check(&format!("0\r\n{longer}\r\n"), Err(BadChunk::Trailer));
        check(&format!("0\r\nX: a\r\n{longer}\r\n"), Err(BadChunk::Trailer));
        check(&format!("0\r\n{}\r\n", "X: a\r\n".repeat(FIELDS_MAX + 1)), Err(BadChunk::Trailer));
        check(&format!("0\r\n{}\r\n", first.repeat(8)), Err(BadChunk::Trailer));
        check(
            &format!("0\r\n{}: a\r\n\r\n", "X".repeat(FIELD_NAME_MAX + 1)),
            Err(BadChunk::Trailer),
        );
    }

    #[test]
    fn a_decoder_is_small() {
        assert!(size_of::<ChunkedDecoder>() <= 24);
    }

    #[test]
    fn chunks_are_written() {
        let check = |data: &[u8], expected: &str| {
            let mut out = Vec::new();
            write_chunk(&mut out, data);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        };
        check(b"", "");
        check(b"abc", "3\r\nabc\r\n");
        check(&[b'a'; 16], "10\r\naaaaaaaaaaaaaaaa\r\n");
        let mut out = Vec::new();
        write_last_chunk(&mut out, b"Digest: a\r\n");
        assert_eq!(out, b"0\r\nDigest: a\r\n\r\n");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..600), 0..5),
            trailers in "(X-[A-Z][a-z]{0,5}: [a-z]{0,5}\r\n){0,3}",
            rest in proptest::collection::vec(any::<u8>(), 0..9),
        ) {
            let mut out = Vec::new();
            pieces.iter().for_each(|piece| write_chunk(&mut out, piece));
            write_last_chunk(&mut out, trailers.as_bytes());
            out.extend_from_slice(&rest);
            prop_assert_eq!(decoded(&out, &[]), Ok((pieces.concat(), true, trailers.into_bytes(), rest.len())));
        }

        #[test]
        fn cuts_make_no_difference(
            lines in proptest::collection::vec("([0-3a]|0\r\n|\r\n|;x|X: a|[ab\r\n]{1,3}|2\r\nab\r\n)(\r\n)?", 0..9),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let body = lines.concat().into_bytes();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
            cuts.sort();
            // A cut behind the end of the body belongs to the next message.
            if let Ok((_, true, _, rest)) = decoded(&body, &[]) {
                cuts.retain(|cut| *cut <= body.len() - rest);
                let (data, whole, trailers, _) = decoded(&body[..body.len() - rest], &cuts).unwrap();
                let expected = decoded(&body, &[]).unwrap();
                prop_assert_eq!((data, whole, trailers), (expected.0, expected.1, expected.2));
            } else {
                prop_assert_eq!(decoded(&body, &cuts), decoded(&body, &[]));
            }
        }
    }
}
