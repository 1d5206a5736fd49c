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
                    let length = usize::try_from(self.remaining).map_or(input.len(), |left| left.min(input.len()));
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
            (State::SizeStart | State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.add_digit(byte)?,
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
            (State::SizeLineFeed | State::DataReturn | State::DataLineFeed | State::LastLineFeed, _) => {
                return Err(BadChunk::LineEnd);
            }
            (State::Data | State::Trailer | State::End, _) => unreachable!("these take more than a byte"),
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
        const { assert!(CHUNK_LINE_MAX < u16::MAX as usize && CHUNK_EXTENSIONS_MAX < u16::MAX as usize) };
        self.line += 1;
        self.extensions += 1;
        if usize::from(self.line) > CHUNK_LINE_MAX || usize::from(self.extensions) > CHUNK_EXTENSIONS_MAX {
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
        let found = trailers.scan.find_end(&trailers.bytes, REQUEST_HEAD_MAX).map_err(|_| BadChunk::Trailer)?;
        let end = found.unwrap_or(trailers.bytes.len());
        *input = &input[end - before..];
        if found.is_some() {
            trailers.bytes = passable_trailers(&trailers.bytes[..end])?;
            self.state = State::End;
        }
        Ok(())
    }
}

/// Parses a whole trailer section, and prints what of it may go on.
fn passable_trailers(section: &[u8]) -> Result<Vec<u8>, BadChunk> {
    let mut slots = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(section, &mut slots) else {
        return Err(BadChunk::Trailer);
    };
    // The first line was measured by the scan, as a head's is.
    if has_line_beyond(section, REQUEST_FIELD_MAX) || fields.iter().any(|field| field.name.len() > FIELD_NAME_MAX) {
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
