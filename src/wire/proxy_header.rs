//! The header by which a proxy says who its client is: the PROXY protocol, versions 1 and 2 (HAProxy's
//! `proxy-protocol.txt`; section numbers are those of that document).
//!
//! Strict, like the rest of the wire: who speaks first on a connection decides whom we take the client for.
//! What cannot become a header any more is refused at once, not when more has come.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::config::limits::PROXY_EXTENSIONS_MAX;

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Its bytes. What comes after them is the client's.
    pub length: usize,
    /// The client; `None` where the connection is the proxy's own or its kind is not told, and the ends of
    /// the connection itself hold.
    pub source: Option<SocketAddr>,
    /// Where the client connected to.
    pub destination: Option<SocketAddr>,
}

/// Why bytes are no header, and never will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadProxyHeader {
    /// Neither version's first bytes: a client that connects without the proxy, or a proxy that says nothing.
    #[error("no PROXY header")]
    Missing,
    /// Version 1: not one of TCP4, TCP6 and UNKNOWN.
    #[error("PROXY header of an unknown protocol")]
    Protocol,
    /// Version 1: an address that is not written as the specification says, or of the other family.
    #[error("bad address in PROXY header")]
    Address,
    /// Version 1: not a number from 0 to 65535 without leading zeros.
    #[error("bad port in PROXY header")]
    Port,
    /// Version 1: no CRLF where one belongs, or a part of one elsewhere.
    #[error("bad line end in PROXY header")]
    LineEnd,
    /// The binary form, but not version 2.
    #[error("PROXY header of an unknown version")]
    Version,
    /// Version 2: neither LOCAL nor PROXY.
    #[error("PROXY header with an unknown command")]
    Command,
    /// Version 2: an address family or a transport that is not specified.
    #[error("PROXY header of an unknown family")]
    Family,
    /// Version 2: too short for its addresses, or longer than anybody needs.
    #[error("bad length of PROXY header")]
    Length,
    /// Version 2: what follows the addresses is not a row of types, lengths and values.
    #[error("bad extension in PROXY header")]
    Extension,
    /// Version 2: a checksum that is not that of the header.
    #[error("bad checksum in PROXY header")]
    Checksum,
}

impl ProxyHeader {
    /// Reads the header at the front of what a connection has brought so far. `None`: the header is not
    /// whole yet.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, BadProxyHeader> {
        if begins_alike(bytes, &SIGNATURE) {
            binary(bytes)
        } else if begins_alike(bytes, WORD) {
            line(bytes)
        } else {
            Err(BadProxyHeader::Missing)
        }
    }

    fn new(length: usize, ends: Ends) -> Self {
        let (source, destination) = ends.unzip();
        Self { length, source, destination }
    }
}

/// Source and destination, where they are told.
type Ends = Option<(SocketAddr, SocketAddr)>;

/// Whether one of the two is how the other begins.
fn begins_alike(a: &[u8], b: &[u8]) -> bool {
    a.iter().zip(b).all(|(a, b)| a == b)
}

// ---- version 1: a line (§2.1) ---------------------------------------------------------------------------

const WORD: &[u8] = b"PROXY ";
const CRLF: &[u8] = b"\r\n";
/// Bytes of the longest line, CRLF included.
const LINE_MAX: usize = 107;
/// Bytes of the longest address.
const ADDRESS_MAX: usize = 39;

fn line(bytes: &[u8]) -> Result<Option<ProxyHeader>, BadProxyHeader> {
    let after_word = bytes.get(WORD.len()..).unwrap_or_default();
    let longest = &after_word[..after_word.len().min(LINE_MAX - 1 - WORD.len())];
    let end = longest.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    let (text, line_end) = after_word.split_at(end.unwrap_or(longest.len()));
    let ends = Words { rest: text, is_whole: end.is_some() }.addresses()?;
    let length = WORD.len() + text.len() + CRLF.len();
    if length > LINE_MAX || !begins_alike(line_end, CRLF) {
        return Err(BadProxyHeader::LineEnd);
    }
    let Some(ends) = ends else { return Ok(None) };
    let is_whole = line_end.len() >= CRLF.len();
    Ok(is_whole.then(|| ProxyHeader::new(length, ends)))
}

/// The words of a line after the first.
struct Words<'a> {
    rest: &'a [u8],
    /// Whether the line's end has been seen.
    is_whole: bool,
}

/// One of them, or as much of it as there is.
struct Word<'a> {
    text: &'a str,
    is_whole: bool,
}

impl<'a> Words<'a> {
    /// `None` where the words are not all there.
    fn addresses(mut self) -> Result<Option<Ends>, BadProxyHeader> {
        let protocol = self.next().ok_or(BadProxyHeader::Protocol)?;
        match protocol.text {
            "TCP4" if protocol.is_whole => self.tcp::<Ipv4Addr>(),
            "TCP6" if protocol.is_whole => self.tcp::<Ipv6Addr>(),
            // Whatever follows it is not looked at.
            "UNKNOWN" if protocol.is_whole => Ok(self.is_whole.then_some(None)),
            text if !protocol.is_whole
                && ["TCP4", "TCP6", "UNKNOWN"].iter().any(|it| it.starts_with(text)) =>
            {
                Ok(None)
            }
            _ => Err(BadProxyHeader::Protocol),
        }
    }

    fn tcp<T: FromStr + Into<IpAddr>>(mut self) -> Result<Option<Ends>, BadProxyHeader> {
        let Some(source) = self.next_address::<T>()? else { return Ok(None) };
        let Some(destination) = self.next_address::<T>()? else { return Ok(None) };
        let Some(source_port) = self.next().ok_or(BadProxyHeader::Port)?.port()? else {
            return Ok(None);
        };
        // The last word reaches to the end of the line.
        let last =
            Word { text: text(self.rest).ok_or(BadProxyHeader::Port)?, is_whole: self.is_whole };
        let Some(destination_port) = last.port()? else { return Ok(None) };
        let source = SocketAddr::new(source, source_port);
        Ok(Some(Some((source, SocketAddr::new(destination, destination_port)))))
    }

    fn next_address<T: FromStr + Into<IpAddr>>(
        &mut self,
    ) -> Result<Option<IpAddr>, BadProxyHeader> {
        let word = self.next().ok_or(BadProxyHeader::Address)?;
        Ok(word.address::<T>()?.map(Into::into))
    }

    /// The bytes up to the next space. `None` where they are not text.
    fn next(&mut self) -> Option<Word<'a>> {
        let space = self.rest.iter().position(|byte| *byte == b' ');
        let (word, rest) = self.rest.split_at(space.unwrap_or(self.rest.len()));
        self.rest = rest.get(1..).unwrap_or_default();
        Some(Word { text: text(word)?, is_whole: space.is_some() || self.is_whole })
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    str::from_utf8(bytes).ok()
}

impl Word<'_> {
    /// An address as the standard library reads it: no leading zeros in decimal numbers, one `::` at most.
    fn address<T: FromStr>(&self) -> Result<Option<T>, BadProxyHeader> {
        if !self.is_whole && self.may_become_address::<T>() {
            return Ok(None);
        }
        match self.text.parse() {
            Ok(address) if self.is_whole && self.text.len() <= ADDRESS_MAX => Ok(Some(address)),
            _ => Err(BadProxyHeader::Address),
        }
    }

    /// Whether more bytes could make an address of it: all that begins one becomes one by one of these ends.
    fn may_become_address<T: FromStr>(&self) -> bool {
        const ENDS: [&str; 10] =
            ["", "0", ":", "::", ".0", "0.0", ".0.0", "0.0.0", ".0.0.0", "0.0.0.0"];
        let mut buffer = [0; ADDRESS_MAX];
        let start = self.text.len();
        let Some(begun) = buffer.get_mut(..start) else { return false };
        begun.copy_from_slice(self.text.as_bytes());
        ENDS.iter().any(|end| {
            let Some(ended) = buffer.get_mut(start..start + end.len()) else { return false };
            ended.copy_from_slice(end.as_bytes());
            text(&buffer[..start + end.len()]).is_some_and(|it| it.parse::<T>().is_ok())
        })
    }

    fn port(&self) -> Result<Option<u16>, BadProxyHeader> {
        if self.text.is_empty() && !self.is_whole {
            return Ok(None);
        }
        let is_number = self.text.bytes().all(|byte| byte.is_ascii_digit());
        let has_leading_zero = self.text.len() > 1 && self.text.starts_with('0');
        // Every beginning of a port is one.
        match self.text.parse() {
            Ok(port) if is_number && !has_leading_zero => Ok(self.is_whole.then_some(port)),
            _ => Err(BadProxyHeader::Port),
        }
    }
}

// ---- version 2: binary (§2.2) ---------------------------------------------------------------------------

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes before the addresses: the signature, version and command, family and transport, two of length.
const FIXED: usize = 16;
/// The type of an extension that holds the header's checksum.
const CRC32C: u8 = 3;
const CRC32C_LENGTH: usize = 4;

/// What the addresses of a header are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    /// None that are looked at: what follows is skipped as a whole.
    Unspecified,
    V4,
    V6,
    /// Paths, which say nothing of a client elsewhere.
    Unix,
}

fn binary(bytes: &[u8]) -> Result<Option<ProxyHeader>, BadProxyHeader> {
    let Some(&command) = bytes.get(12) else { return Ok(None) };
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ if command >> 4 != 2 => return Err(BadProxyHeader::Version),
        _ => return Err(BadProxyHeader::Command),
    };
    let Some(&kind) = bytes.get(13) else { return Ok(None) };
    // The proxy's own connection, to see whether we live: what it says of a family is void.
    let family = if is_local { Family::Unspecified } else { Family::of(kind)? };
    let length = length_at(bytes, 14);
    let addresses = family.addresses_length();
    if *length.start() > addresses + PROXY_EXTENSIONS_MAX || *length.end() < addresses {
        return Err(BadProxyHeader::Length);
    }
    let Some(end) = known(&length).map(|length| FIXED + length) else { return Ok(None) };
    let checksum = match family {
        // Where its extensions would begin is not told.
        Family::Unspecified => None,
        _ => checksum_in(&bytes[..bytes.len().min(end)], FIXED + addresses, end)?,
    };
    let Some(header) = bytes.get(..end) else { return Ok(None) };
    if checksum.is_some_and(|at| !is_checksum_right(header, at)) {
        return Err(BadProxyHeader::Checksum);
    }
    Ok(Some(ProxyHeader::new(header.len(), family.ends(header))))
}

impl Family {
    /// The upper four bits are the family, the lower ones the transport. With neither stream nor datagrams
    /// there need not be ports, so nothing is read of such.
    fn of(kind: u8) -> Result<Self, BadProxyHeader> {
        match (kind >> 4, kind & 0xf) {
            (0, 0..=2) | (1..=3, 0) => Ok(Self::Unspecified),
            (1, 1 | 2) => Ok(Self::V4),
            (2, 1 | 2) => Ok(Self::V6),
            (3, 1 | 2) => Ok(Self::Unix),
            _ => Err(BadProxyHeader::Family),
        }
    }

    fn addresses_length(self) -> usize {
        match self {
            Self::Unspecified => 0,
            Self::V4 => 2 * 4 + 2 * 2,
            Self::V6 => 2 * 16 + 2 * 2,
            Self::Unix => 2 * 108,
        }
    }

    /// Takes the addresses from a header that is whole.
    fn ends(self, header: &[u8]) -> Ends {
        match self {
            Self::Unspecified | Self::Unix => None,
            Self::V4 => ends::<4>(header),
            Self::V6 => ends::<16>(header),
        }
    }
}

/// Two addresses of `N` bytes, then their ports. That they fit in the header has been checked.
fn ends<const N: usize>(header: &[u8]) -> Ends
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = header.get(FIXED..)?.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (source_port, rest) = rest.split_first_chunk::<2>()?;
    let (destination_port, _) = rest.split_first_chunk::<2>()?;
    let end = |ip: &[u8; N], port: &[u8; 2]| (IpAddr::from(*ip), u16::from_be_bytes(*port)).into();
    Some((end(source, source_port), end(destination, destination_port)))
}

/// What the two bytes of a length may come to, also where not both are there.
fn length_at(bytes: &[u8], at: usize) -> RangeInclusive<usize> {
    let bound = |missing: u8| {
        let pair = [at, at + 1].map(|at| bytes.get(at).copied().unwrap_or(missing));
        usize::from(u16::from_be_bytes(pair))
    };
    bound(0x00)..=bound(0xff)
}

fn known(length: &RangeInclusive<usize>) -> Option<usize> {
    (length.start() == length.end()).then_some(*length.start())
}

/// Walks over the extensions: a type, two bytes of length, a value, and so on to the header's end, of which
/// `header` has as much as has come. None is of use to us but the checksum: returns where its value is.
fn checksum_in(header: &[u8], start: usize, end: usize) -> Result<Option<usize>, BadProxyHeader> {
    let mut checksum = None;
    let mut at = start;
    while at < end {
        let value = at + 3;
        let kind = header.get(at);
        let is_checksum = kind == Some(&CRC32C);
        let mut length = length_at(header, at + 1);
        if is_checksum {
            // Two cannot both be right: each is made with only itself left out.
            if checksum.is_some() || !length.contains(&CRC32C_LENGTH) {
                return Err(BadProxyHeader::Extension);
            }
            length = CRC32C_LENGTH..=CRC32C_LENGTH;
            checksum = Some(value);
        }
        if value + length.start() > end {
            return Err(BadProxyHeader::Extension);
        }
        let Some(length) = known(&length) else { break };
        at = value + length;
    }
    Ok(checksum)
}

/// Whether the four bytes at `at` are the checksum of a header in which they are zero (§2.2.3).
fn is_checksum_right(header: &[u8], at: usize) -> bool {
    let (before, rest) = header.split_at(at);
    let Some((found, after)) = rest.split_first_chunk::<CRC32C_LENGTH>() else { return false };
    let parts = [before, &[0; CRC32C_LENGTH], after];
    !parts.into_iter().fold(!0, crc32c) == u32::from_be_bytes(*found)
}

/// One step of CRC-32C (RFC 4960, appendix B). Bit by bit, as it runs once in the life of a connection and
/// mostly over a hundred bytes.
fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    bytes.iter().fold(crc, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 }
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    type Parsed = Result<Option<ProxyHeader>, BadProxyHeader>;

    /// What a connection that brings its bytes one by one comes to, and how many of them that takes.
    fn one_by_one(bytes: &[u8]) -> (usize, Parsed) {
        let parsed = (0..=bytes.len()).map(|end| (end, ProxyHeader::parse(&bytes[..end])));
        parsed.into_iter().find(|(_, it)| *it != Ok(None)).unwrap_or((bytes.len(), Ok(None)))
    }

    /// A header, alone and before a request.
    #[track_caller]
    fn check(header: &[u8], expected: Option<(&str, &str)>) {
        let parse = |addr: &str| Some(addr.parse().unwrap());
        let (source, destination) =
            expected.map_or((None, None), |(from, to)| (parse(from), parse(to)));
        let expected = Ok(Some(ProxyHeader { length: header.len(), source, destination }));
        let text = header.escape_ascii();
        assert_eq!(one_by_one(header), (header.len(), expected), "{text}");
        let request = [header, b"GET / HTTP/1.1\r\n\r\nPROXY "].concat();
        assert_eq!(ProxyHeader::parse(&request), expected, "{text}");
    }

    /// Bytes that are refused as soon as the last of them is there.
    #[track_caller]
    fn check_bad(bytes: &[u8], expected: BadProxyHeader) {
        let text = bytes.escape_ascii();
        assert_eq!(one_by_one(bytes), (bytes.len(), Err(expected)), "{text}");
        let more = [bytes, &[b'0'; 200]].concat();
        assert_eq!(ProxyHeader::parse(&more), Err(expected), "{text}");
    }

    fn header(command: u8, kind: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, kind], &length, block].concat()
    }

    fn extension(kind: u8, value: &[u8]) -> Vec<u8> {
        [&[kind], &u16::try_from(value.len()).unwrap().to_be_bytes()[..], value].concat()
    }

    /// 192.0.2.1:56324 to 192.0.2.2:443
    const V4: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 0xdc, 0x04, 0x01, 0xbb];
    const V4_ENDS: Option<(&str, &str)> = Some(("192.0.2.1:56324", "192.0.2.2:443"));

    /// A header with these extensions after its addresses, and a checksum among them.
    fn with_checksum(before: &[u8], after: &[u8]) -> Vec<u8> {
        let block = [&V4, before, &extension(CRC32C, &[0; 4]), after].concat();
        let mut header = header(0x21, 0x11, &block);
        let at = FIXED + V4.len() + before.len() + 3;
        let checksum = !crc32c(!0, &header);
        header[at..at + 4].copy_from_slice(&checksum.to_be_bytes());
        header
    }

    #[test]
    fn lines_of_the_specification_are_read() {
        check(
            b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
            Some(("192.168.0.1:56324", "192.168.0.11:443")),
        );
        // The longest of each kind (§2.1).
        check(
            b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
            Some(("255.255.255.255:65535", "255.255.255.255:65535")),
        );
        let all = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let end = format!("[{all}]:65535");
        check(format!("PROXY TCP6 {all} {all} 65535 65535\r\n").as_bytes(), Some((&end, &end)));
        check(b"PROXY UNKNOWN\r\n", None);
        let longest = format!("PROXY UNKNOWN {all} {all} 65535 65535\r\n");
        assert_eq!(longest.len(), LINE_MAX);
        check(longest.as_bytes(), None);
    }

    #[test]
    fn lines_may_be_written_in_other_ways() {
        check(b"PROXY TCP4 0.0.0.0 1.2.3.4 0 1\r\n", Some(("0.0.0.0:0", "1.2.3.4:1")));
        check(b"PROXY TCP6 :: ::1 0 65535\r\n", Some(("[::]:0", "[::1]:65535")));
        check(
            b"PROXY TCP6 2001:DB8::a 2001:db8:0:0:0:0:0:b 10 20\r\n",
            Some(("[2001:db8::a]:10", "[2001:db8::b]:20")),
        );
        // As inet_ntop prints a v4 client of a v6 socket.
        check(
            b"PROXY TCP6 ::ffff:192.0.2.1 1:2:3:4:5:6:7:: 1 2\r\n",
            Some(("[::ffff:192.0.2.1]:1", "[1:2:3:4:5:6:7:0]:2")),
        );
        check(b"PROXY UNKNOWN \xff\0 TCP4  1\r\n", None);
        check(b"PROXY UNKNOWN \r\n", None);
    }

    #[test]
    fn lines_are_read_strictly() {
        use BadProxyHeader::*;
        for bad in ["X", "p", "PROXY\t", "PROXY\r", "G", "\x16", "\n", "PROXYT", "PROX\0"] {
            check_bad(bad.as_bytes(), Missing);
        }
        for bad in ["T ", "TCP5", "TCP ", "UD", "UNKNOWNS", "u", "\r", "TCP44", " "] {
            check_bad(format!("PROXY {bad}").as_bytes(), Protocol);
        }
        for bad in ["1.2.3.4\r", "1.2.3.4 1.2.3\r", "1.2.3.4 00", "1.2.3 ", "1.2.3.4."] {
            check_bad(format!("PROXY TCP4 {bad}").as_bytes(), Address);
        }
        for bad in [" ", "01", "256", "1..", "a", ":", "-", "\n"] {
            check_bad(format!("PROXY TCP4 {bad}").as_bytes(), Address);
        }
        for bad in ["1.", ":::", "::1::", "12345", "g", "[", "::%", "::256.", "::01.", "1:2:3 "] {
            check_bad(format!("PROXY TCP6 {bad}").as_bytes(), Address);
        }
        for bad in ["1:2:3:4:5:6:7:8:", "1:2:3:4:5:6:7:1.", "::1 1."] {
            check_bad(format!("PROXY TCP6 {bad}").as_bytes(), Address);
        }
        check_bad(b"PROXY TCP6 \xff", Address);
        check_bad(b"PROXY TCP6 0000:0000:0000:0000:0000:ffff:192.16", Address);
        for bad in [" ", "00", "65536", "+", "-", "1\r", "1  ", "1 2 ", "1 02", "1 \r", "a", "1 2x"]
        {
            check_bad(format!("PROXY TCP4 1.2.3.4 5.6.7.8 {bad}").as_bytes(), Port);
        }
        let line = "PROXY TCP4 1.2.3.4 5.6.7.8 1 2";
        for bad in ["\n", "\r\r", "\rG", "\r "] {
            check_bad(format!("{line}{bad}").as_bytes(), LineEnd);
        }
        check_bad(b"PROXY UNKNOWN a\n", LineEnd);
        check_bad(b"PROXY UNKNOWN a\rb", LineEnd);
        check_bad(&[b"PROXY UNKNOWN ", &[b'x'; LINE_MAX - 15][..]].concat(), LineEnd);
    }

    #[test]
    fn binary_headers_are_read() {
        check(&header(0x21, 0x11, &V4), V4_ENDS);
        check(&header(0x21, 0x12, &V4), V4_ENDS);
        let mut v6 = [0; 36];
        v6[..2].copy_from_slice(&[0x20, 0x01]);
        v6[31] = 1;
        v6[32..].copy_from_slice(&[0, 1, 0xff, 0xff]);
        check(&header(0x21, 0x21, &v6), Some(("[2001::]:1", "[::1]:65535")));
        check(&header(0x21, 0x22, &v6), Some(("[2001::]:1", "[::1]:65535")));
        let paths = [b"/run/a", &[0; 210][..]].concat();
        check(&header(0x21, 0x31, &paths), None);
        check(&header(0x21, 0x32, &paths), None);
    }

    #[test]
    fn headers_without_an_address_leave_the_connections_own() {
        check(&header(0x20, 0x00, b""), None);
        check(&header(0x20, 0x11, &V4), None);
        // What a proxy says of its own connection is void, whatever it is.
        check(&header(0x20, 0xff, b"\x03\x00\x04what"), None);
        check(&header(0x21, 0x00, b"anything"), None);
        for kind in [0x01, 0x02, 0x10, 0x20, 0x30] {
            check(&header(0x21, kind, b"ab"), None);
        }
        check(&header(0x20, 0x00, &[0; PROXY_EXTENSIONS_MAX]), None);
        let long = header(0x20, 0x00, &[0; PROXY_EXTENSIONS_MAX + 1]);
        check_bad(&long[..FIXED], BadProxyHeader::Length);
    }

    #[test]
    fn binary_headers_are_read_strictly() {
        use BadProxyHeader::*;
        for at in 0..SIGNATURE.len() {
            let mut bytes = SIGNATURE;
            bytes[at] ^= 1;
            // "\r\n" and then a request is what a client sends that knows nothing of proxies.
            check_bad(&bytes[..=at], Missing);
        }
        for command in [0x00, 0x01, 0x11, 0x31, 0xff] {
            check_bad(&[&SIGNATURE[..], &[command]].concat(), Version);
        }
        for command in [0x22, 0x2f] {
            check_bad(&[&SIGNATURE[..], &[command]].concat(), Command);
        }
        for kind in [0x03, 0x13, 0x1f, 0x23, 0x33, 0x40, 0x41, 0xf0] {
            check_bad(&[&SIGNATURE[..], &[0x21, kind]].concat(), Family);
        }
        for (kind, length) in [(0x11, 11), (0x21, 35), (0x31, 215), (0x12, 0)] {
            check_bad(&header(0x21, kind, &vec![0; length])[..FIXED], Length);
        }
        let most = u16::try_from(V4.len() + PROXY_EXTENSIONS_MAX).unwrap();
        let [high, low] = (most + 1).to_be_bytes();
        check_bad(&[&SIGNATURE[..], &[0x21, 0x11, high, low]].concat(), Length);
        check_bad(&[&SIGNATURE[..], &[0x21, 0x11, high + 1]].concat(), Length);
    }

    #[test]
    fn extensions_are_skipped() {
        let longest = extension(0xe0, &[0xff; PROXY_EXTENSIONS_MAX - 3]);
        for extensions in [
            extension(4, b""),
            [extension(1, b"h2"), extension(2, b"shop.test"), extension(4, &[0; 300])].concat(),
            longest,
        ] {
            check(&header(0x21, 0x11, &[&V4, &extensions[..]].concat()), V4_ENDS);
        }
    }

    #[test]
    fn extensions_fit_into_their_header() {
        // One and two bytes are no extension, whatever they are.
        for left in [1, 2] {
            let whole =
                header(0x21, 0x11, &[&V4[..], &extension(4, b"ab"), &vec![0; left]].concat());
            let known = FIXED + V4.len() + 3;
            check_bad(&whole[..known], BadProxyHeader::Extension);
        }
        check_bad(&header(0x21, 0x11, &[0; 14])[..FIXED], BadProxyHeader::Extension);
        for (length, known) in [([0, 3], 3), ([1, 0], 2)] {
            let block = [&V4[..], &[1, length[0], length[1], 0, 0]].concat();
            let bytes = &header(0x21, 0x11, &block)[..FIXED + V4.len() + known];
            check_bad(bytes, BadProxyHeader::Extension);
        }
    }

    #[test]
    fn checksums_are_verified() {
        // RFC 3720, appendix B.4.
        assert_eq!(!crc32c(!0, &[0; 32]), 0x8a91_36aa);
        assert_eq!(!crc32c(!0, &[0xff; 32]), 0x62a8_ab43);
        // In network byte order.
        assert!(with_checksum(b"", b"").ends_with(&[3, 0, 4, 0xd6, 0xc8, 0xc7, 0x5f]));
        let name = extension(2, b"shop.test");
        for (before, after) in [(&b""[..], &b""[..]), (&name, b""), (b"", &name), (&name, &name)] {
            let header = with_checksum(before, after);
            check(&header, V4_ENDS);
            // Of another type it would be no checksum.
            let kind = FIXED + V4.len() + before.len();
            for at in (FIXED..header.len()).filter(|at| *at != kind) {
                let mut other = header.clone();
                other[at] ^= 0x20;
                assert!(ProxyHeader::parse(&other).is_err(), "{at} of {}", other.escape_ascii());
            }
        }
        let mut wrong = with_checksum(b"", &name);
        *wrong.last_mut().unwrap() ^= 1;
        check_bad(&wrong, BadProxyHeader::Checksum);
    }

    #[test]
    fn there_is_one_checksum_of_four_bytes() {
        let block = |extensions: &[u8]| header(0x21, 0x11, &[&V4, extensions].concat());
        let known = FIXED + V4.len();
        let long = block(&extension(CRC32C, &[0; 7]));
        check_bad(&long[..known + 3], BadProxyHeader::Extension);
        let longer = block(&extension(CRC32C, &[0; 256]));
        check_bad(&longer[..known + 2], BadProxyHeader::Extension);
        let short = block(&[CRC32C, 0, 3, 0, 0, 0]);
        check_bad(&short[..known + 1], BadProxyHeader::Extension);
        let twice = block(&extension(CRC32C, &[0; 4]).repeat(2));
        check_bad(&twice[..known + 8], BadProxyHeader::Extension);
    }

    fn addr(is_v4: bool) -> BoxedStrategy<SocketAddr> {
        match is_v4 {
            true => (any::<[u8; 4]>(), any::<u16>()).prop_map(SocketAddr::from).boxed(),
            // Zeros make it short.
            false => (any::<[u16; 8]>(), any::<u8>(), any::<u16>())
                .prop_map(|(mut groups, kept, port)| {
                    let bits = (0..8).filter(|bit| kept & (1 << bit) == 0);
                    bits.for_each(|bit| groups[bit] = 0);
                    SocketAddr::from((groups, port))
                })
                .boxed(),
        }
    }

    fn ends_of_one_family() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
        any::<bool>().prop_flat_map(|is_v4| (addr(is_v4), addr(is_v4)))
    }

    fn block(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
        let ip = |addr: SocketAddr| match addr.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let port = |addr: SocketAddr| addr.port().to_be_bytes().to_vec();
        [ip(source), ip(destination), port(source), port(destination)].concat()
    }

    /// What arbitrary bytes rarely begin with.
    const STARTS: &[&[u8]] = &[
        b"",
        b"PROXY ",
        b"PROXY TCP4 1.2.3.4 ",
        b"PROXY TCP6 ::",
        &SIGNATURE,
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0",
    ];

    proptest! {
        #[test]
        fn lines_are_read_as_written((source, destination) in ends_of_one_family()) {
            let line = format!(
                "PROXY TCP{} {} {} {} {}\r\n",
                if source.is_ipv4() { 4 } else { 6 },
                source.ip(), destination.ip(), source.port(), destination.port()
            );
            let (from, to) = (source.to_string(), destination.to_string());
            check(line.as_bytes(), Some((&from, &to)));
        }

        #[test]
        fn binary_headers_are_read_as_written(
            (source, destination) in ends_of_one_family(),
            extensions in vec((4u8.., vec(any::<u8>(), 0..20)), 0..5),
        ) {
            let extensions: Vec<u8> =
                extensions.iter().flat_map(|(kind, value)| extension(*kind, value)).collect();
            let kind = if source.is_ipv4() { 0x11 } else { 0x21 };
            let header = header(0x21, kind, &[block(source, destination), extensions].concat());
            let (from, to) = (source.to_string(), destination.to_string());
            check(&header, Some((&from, &to)));
        }

        #[test]
        fn what_is_decided_stays_decided(
            start in select(STARTS),
            bytes in prop_oneof![vec(any::<u8>(), 0..60), "[0-9a-f:. TCPUNKOW\r\n]{0,60}".prop_map(String::into_bytes)],
        ) {
            let bytes = [start, &bytes].concat();
            let (decided_at, decision) = one_by_one(&bytes);
            for end in decided_at..=bytes.len() {
                prop_assert_eq!(ProxyHeader::parse(&bytes[..end]), decision);
            }
            if let Ok(Some(header)) = decision {
                prop_assert_eq!(header.length, decided_at);
            }
        }

        #[test]
        fn who_is_asked_for_more_can_give_it(
            start in select(STARTS),
            // Small numbers make lengths that the wishes get to the end of.
            wishes in vec(prop_oneof![0..3u8, select(&b"0123456789abcdef:. \r"[..])], 0..400),
        ) {
            let mut bytes = start.to_vec();
            for wish in wishes {
                let next: Vec<u8> = (wish..=0xff).chain(0..wish).collect();
                let fits = next.into_iter().find(|byte| {
                    let parsed = ProxyHeader::parse(&[&bytes[..], &[*byte]].concat());
                    matches!(parsed, Ok(_) | Err(BadProxyHeader::Checksum))
                });
                prop_assert!(fits.is_some(), "{}", bytes.escape_ascii());
                bytes.extend(fits);
                if ProxyHeader::parse(&bytes) != Ok(None) {
                    break;
                }
            }
        }
    }
}
