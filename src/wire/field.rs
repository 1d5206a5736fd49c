//! The fields that concern the connection or the framing, and the lists in them.
//!
//! Everything else is opaque here.

use crate::wire::head::Field;

/// The fields that this module's neighbours read, or that end at this hop (RFC 9110 §7.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    Connection,
    ContentLength,
    Expect,
    Host,
    Http2Settings,
    KeepAlive,
    ProxyAuthorization,
    ProxyConnection,
    Te,
    TransferEncoding,
    Upgrade,
}

/// What a name stands for. By length first: most names are settled by it.
#[inline]
pub(super) fn special(name: &str) -> Option<Special> {
    use Special::*;
    let one_of = |candidates: &[(&str, Special)]| {
        candidates
            .iter()
            .find(|(known, _)| name.eq_ignore_ascii_case(known))
            .map(|(_, special)| *special)
    };
    match name.len() {
        2 => one_of(&[("te", Te)]),
        4 => one_of(&[("host", Host)]),
        6 => one_of(&[("expect", Expect)]),
        7 => one_of(&[("upgrade", Upgrade)]),
        10 => one_of(&[("connection", Connection), ("keep-alive", KeepAlive)]),
        14 => one_of(&[("content-length", ContentLength), ("http2-settings", Http2Settings)]),
        16 => one_of(&[("proxy-connection", ProxyConnection)]),
        17 => one_of(&[("transfer-encoding", TransferEncoding)]),
        19 => one_of(&[("proxy-authorization", ProxyAuthorization)]),
        _ => None,
    }
}

/// The special fields of a head and their values, in order.
#[inline]
pub(super) fn special_fields<'b>(
    fields: &[Field<'b>],
) -> impl Iterator<Item = (Special, &'b [u8])> {
    fields.iter().filter_map(|field| Some((special(field.name)?, field.value)))
}

/// Whether a name is special to a CGI-style server, which reads `Content_Length` as `Content-Length`.
#[inline]
pub(super) fn is_special_twin(name: &str) -> bool {
    matches!(name.len(), 10 | 14 | 16 | 17 | 19) && name.contains('_') && {
        let mut dashed = [b'-'; 19];
        for (to, from) in dashed.iter_mut().zip(name.bytes()) {
            *to = if from == b'_' { b'-' } else { from };
        }
        str::from_utf8(&dashed[..name.len()]).is_ok_and(|dashed| special(dashed).is_some())
    }
}

/// How many fields one head's Connection may name, beyond those that never pass. In use are none or one;
/// each costs a comparison with every field.
const NAMED_MAX: usize = 8;

/// What the Connection fields of one head say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ConnectionOptions<'b> {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    named: [&'b str; NAMED_MAX],
    named_count: u8,
}

/// A Connection field that is no list of tokens, or names too many fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadConnection;

impl<'b> ConnectionOptions<'b> {
    pub(super) fn add(&mut self, value: &'b [u8]) -> Result<(), BadConnection> {
        for option in members(value).filter(|option| !option.is_empty()) {
            let option = token(option).ok_or(BadConnection)?;
            if option.eq_ignore_ascii_case("close") {
                self.close = true;
                continue;
            }
            match special(option) {
                Some(Special::KeepAlive) => self.keep_alive = true,
                Some(Special::Upgrade) => self.upgrade = true,
                Some(_) => {}
                None => {
                    *self.named.get_mut(usize::from(self.named_count)).ok_or(BadConnection)? =
                        option;
                    self.named_count += 1;
                }
            }
        }
        Ok(())
    }

    /// Whether the sender meant this field for the next hop only.
    #[inline]
    pub(super) fn names(&self, name: &str) -> bool {
        self.named_count > 0
            && self.named[..usize::from(self.named_count)]
                .iter()
                .any(|named| named.eq_ignore_ascii_case(name))
    }
}

/// What the Transfer-Encoding fields of one head say, all of them read as one list.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TransferCodings {
    chunked: bool,
    other: bool,
}

/// Why a list of transfer codings does not say where the body ends, or how to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadCodings {
    /// Not a list of codings: empty, an empty member, or something that is no token.
    Malformed,
    /// Chunked is missing, twice, or not last.
    NotChunked,
    /// Chunked at the end, but something below it that nobody here can undo.
    Unknown,
}

impl TransferCodings {
    pub(super) fn add(&mut self, value: &[u8]) -> Result<(), BadCodings> {
        for coding in members(value) {
            if self.chunked {
                return Err(BadCodings::NotChunked);
            }
            let name = coding.split(|byte| *byte == b';').next().unwrap_or_default();
            token(name.trim_ascii_end()).ok_or(BadCodings::Malformed)?;
            if coding.eq_ignore_ascii_case(b"chunked") {
                self.chunked = true;
            } else {
                self.other = true;
            }
        }
        Ok(())
    }

    /// Says that the body is chunked and nothing else.
    pub(super) fn check(self) -> Result<(), BadCodings> {
        match self {
            Self { chunked: true, other: false } => Ok(()),
            Self { chunked: true, other: true } => Err(BadCodings::Unknown),
            Self { chunked: false, .. } => Err(BadCodings::NotChunked),
        }
    }
}

/// The tokens of an Upgrade list that may pass: the first run of them, as sent. `Err` where it is no list of
/// protocols, or empty.
///
/// A protocol that this router itself speaks must not be spoken past it: behind an upgrade to h2c every
/// further request would go unseen.
pub(super) fn passable_upgrade(value: &[u8]) -> Result<Option<&[u8]>, BadUpgrade> {
    let mut run: Option<(usize, usize)> = None;
    let (mut ended, mut any, mut at) = (false, false, 0);
    for member in value.split(|byte| *byte == b',') {
        let (start, end) = (at, at + member.len());
        at = end + 1;
        let protocol = member.trim_ascii();
        if protocol.is_empty() {
            continue;
        }
        any = true;
        let (name, version) = match protocol.iter().position(|byte| *byte == b'/') {
            Some(slash) => (&protocol[..slash], Some(&protocol[slash + 1..])),
            None => (protocol, None),
        };
        let name = token(name).ok_or(BadUpgrade)?;
        if version.is_some_and(|version| token(version).is_none()) {
            return Err(BadUpgrade);
        }
        if ["h2c", "h2", "http", "tls"].iter().any(|never| name.eq_ignore_ascii_case(never)) {
            ended = run.is_some();
        } else if !ended {
            run = Some((run.map_or(start, |(start, _)| start), end));
        }
    }
    if any { Ok(run.map(|(start, end)| value[start..end].trim_ascii())) } else { Err(BadUpgrade) }
}

/// An Upgrade field that is no list of protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadUpgrade;

/// Reads a Content-Length: digits and nothing else, no list, no sign; `None` beyond 64 bits.
pub(super) fn length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |length, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        length.checked_mul(10)?.checked_add(digit)
    })
}

/// The members of a list (RFC 9110 §5.6.1), empty ones included.
pub(super) fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// A token (RFC 9110 §5.6.2), or `None`.
pub(super) fn token(bytes: &[u8]) -> Option<&str> {
    let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    (!bytes.is_empty() && bytes.iter().all(is_tchar)).then(|| str::from_utf8(bytes).ok())?
}

/// Whether one of the lines of `head`, the first apart, is longer than `limit` without its CRLF.
pub(super) fn has_line_beyond(head: &[u8], limit: usize) -> bool {
    head.split_inclusive(|byte| *byte == b'\n').skip(1).any(|line| line.len() > limit + 2)
}

/// Whether a field of this name is there.
pub(super) fn has(fields: &[Field<'_>], name: &str) -> bool {
    fields.iter().any(|field| field.name.eq_ignore_ascii_case(name))
}
