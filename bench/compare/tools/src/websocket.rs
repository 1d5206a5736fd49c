//! As much of WebSockets (RFC 6455) as an echo needs: the answer to a key, and frames.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Joined to each key: RFC 6455 §1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// A frame's head at its longest: RFC 6455 §5.2.
const HEAD_MAX: usize = 14;

/// Opcodes, RFC 6455 §5.2.
pub const BINARY: u8 = 2;
/// The connection ends.
pub const CLOSE: u8 = 8;
/// Asks for a [`PONG`] with the same payload.
pub const PING: u8 = 9;
/// Answers a [`PING`].
pub const PONG: u8 = 10;

/// The `Sec-WebSocket-Accept` of a `Sec-WebSocket-Key`.
pub fn accept(key: &str) -> String {
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes()))
}

/// A whole frame at the beginning of some bytes.
#[derive(Debug, PartialEq)]
pub struct Frame {
    /// What kind of frame.
    pub opcode: u8,
    /// Where its payload begins, and where the frame ends.
    pub payload: std::ops::Range<usize>,
}

impl Frame {
    /// Finds a frame and takes the mask off its payload, where it stands. `None`: more bytes are needed.
    pub fn take(bytes: &mut [u8]) -> Option<Self> {
        let (first, second) = (*bytes.first()?, *bytes.get(1)?);
        let (length, mut at) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?)), 4),
            127 => (u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?), 10),
            short => (u64::from(short), 2),
        };
        let mask: Option<[u8; 4]> =
            if second & 0x80 == 0 { None } else { Some(*bytes.get(at..)?.first_chunk()?) };
        at += if mask.is_some() { 4 } else { 0 };
        let end = at.checked_add(usize::try_from(length).ok()?)?;
        let payload = bytes.get_mut(at..end)?;
        if let Some(mask) = mask {
            apply(mask, payload);
        }
        Some(Self { opcode: first & 0x0f, payload: at..end })
    }
}

/// Appends a frame that is a whole message. Clients have a mask, servers have none.
pub fn push(out: &mut Vec<u8>, opcode: u8, payload: &[u8], mask: Option<[u8; 4]>) {
    const FINAL: u8 = 0x80;
    out.reserve(HEAD_MAX + payload.len());
    let masked = if mask.is_some() { 0x80 } else { 0 };
    out.push(FINAL | opcode);
    match payload.len() {
        length @ 0..126 => out.push(masked | length as u8),
        length @ 126..0x1_0000 => {
            out.push(masked | 126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(masked | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend(mask.into_iter().flatten());
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(mask) = mask {
        apply(mask, &mut out[start..]);
    }
}

fn apply(mask: [u8; 4], payload: &mut [u8]) {
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_the_standard_has_the_answer_of_the_standard() {
        // RFC 6455 §1.3.
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn frames_of_every_length_come_back_and_no_part_of_one_does() {
        for length in [0, 1, 125, 126, 0xffff, 0x1_0000] {
            for mask in [None, Some([1, 2, 3, 4])] {
                let payload: Vec<u8> = (0..length).map(|at| at as u8).collect();
                let mut bytes = Vec::new();
                push(&mut bytes, BINARY, &payload, mask);
                let whole = bytes.len();
                assert_eq!(Frame::take(&mut bytes[..whole - 1]), None, "{length}");
                bytes.extend(*b"next");
                let frame = Frame::take(&mut bytes).unwrap();
                assert_eq!((frame.opcode, frame.payload.end), (BINARY, whole));
                assert_eq!(bytes[frame.payload], payload);
            }
        }
    }

    #[test]
    fn the_masked_hello_of_the_standard_is_read() {
        // RFC 6455 §5.7.
        let mut bytes = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        let frame = Frame::take(&mut bytes).unwrap();
        assert_eq!((frame.opcode, &bytes[frame.payload]), (1, &b"Hello"[..]));
    }
}
