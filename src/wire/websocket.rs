//! WebSocket frames (RFC 6455 §5.2), as far as a pipe must know them: where each ends, so that a frame of ours can
//! stand between two of theirs, and whether one of them was the last.

/// The opcode of a close frame (§5.5.1).
const CLOSE: u8 = 0x8;
/// The longest header: two bytes, eight of length, four of mask.
const HEADER_MAX: usize = 14;

/// One way of a WebSocket, from its first byte on. What is no frame does not stop it; then it finds no ends.
#[derive(Debug, Default)]
pub struct Frames {
    header: [u8; HEADER_MAX],
    /// Bytes of the header that have come.
    begun: usize,
    /// Bytes of the payload that are to come.
    left: u64,
    closed: bool,
}

impl Frames {
    /// Goes over all of these bytes.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let end = self.pass_frame(bytes).unwrap_or(bytes.len());
            bytes = &bytes[end..];
        }
    }

    /// Goes over these bytes up to the end of the frame that is under way, or of the next where none is, and says
    /// where that is; over all of them, where it is not among them.
    pub fn pass_frame(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        if self.left == 0 {
            at = self.pass_header(bytes)?;
        }
        let rest = (bytes.len() - at) as u64;
        let passed = self.left.min(rest);
        self.left -= passed;
        (self.left == 0).then_some(at + passed as usize)
    }

    /// Whether the next byte begins a frame.
    pub fn is_between(&self) -> bool {
        self.begun == 0 && self.left == 0
    }

    /// Whether a close frame has begun: whoever sends it sends no other (§5.5.1).
    pub fn has_closed(&self) -> bool {
        self.closed
    }

    /// Where the header ends, once it is whole.
    fn pass_header(&mut self, bytes: &[u8]) -> Option<usize> {
        let had = self.begun;
        let taken = bytes.len().min(HEADER_MAX - had);
        self.header[had..had + taken].copy_from_slice(&bytes[..taken]);
        let there = had + taken;
        let Some(length) = header_length(&self.header[..there]).filter(|it| *it <= there) else {
            self.begun = there;
            return None;
        };
        self.closed |= self.header[0] & 0x0f == CLOSE;
        self.left = payload_length(&self.header);
        self.begun = 0;
        Some(length - had)
    }
}

/// Of a header whose first two bytes are there.
fn header_length(header: &[u8]) -> Option<usize> {
    let second = *header.get(1)?;
    let extended = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    Some(2 + extended + if second & 0x80 == 0 { 0 } else { 4 })
}

fn payload_length(header: &[u8; HEADER_MAX]) -> u64 {
    let [_, second, a, b, c, d, e, f, g, h, ..] = *header;
    match second & 0x7f {
        126 => u64::from(u16::from_be_bytes([a, b])),
        127 => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        length => u64::from(length),
    }
}

/// A close frame with this status code; `mask` where a client would send it (§5.3).
pub fn close_frame(code: u16, mask: Option<[u8; 4]>) -> Vec<u8> {
    let code = code.to_be_bytes();
    match mask {
        None => [[0x80 | CLOSE, 2].as_slice(), &code].concat(),
        Some(mask) => {
            let masked = [code[0] ^ mask[0], code[1] ^ mask[1]];
            [[0x80 | CLOSE, 0x80 | 2].as_slice(), &mask, &masked].concat()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(opcode: u8, length: usize, mask: bool) -> Vec<u8> {
        let mut frame = vec![0x80 | opcode];
        let bit = if mask { 0x80 } else { 0 };
        match length {
            0..126 => frame.push(bit | length as u8),
            126..65_536 => {
                frame.push(bit | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            _ => {
                frame.push(bit | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        if mask {
            frame.extend([1, 2, 3, 4]);
        }
        // Bytes that would begin frames themselves.
        frame.extend(std::iter::repeat_n(0x88, length));
        frame
    }

    #[test]
    fn a_close_frame_is_what_rfc_6455_says() {
        assert_eq!(close_frame(1012, None), [0x88, 0x02, 0x03, 0xf4]);
        let masked = close_frame(1012, Some([0x11, 0x22, 0x33, 0x44]));
        assert_eq!(masked, [0x88, 0x82, 0x11, 0x22, 0x33, 0x44, 0x12, 0xd6]);
        for frame in [close_frame(1012, None), masked] {
            let mut frames = Frames::default();
            assert_eq!(frames.pass_frame(&frame), Some(frame.len()));
            assert!(frames.has_closed() && frames.is_between());
        }
    }

    #[test]
    fn no_bytes_are_no_frame() {
        let mut frames = Frames::default();
        frames.pass(b"");
        assert!(frames.is_between() && !frames.has_closed());
        assert_eq!(frames.pass_frame(&[0x81]), None);
        assert!(!frames.is_between());
    }

    proptest! {
        /// What is no WebSocket at all stops nothing, and cutting it makes no difference.
        #[test]
        fn any_bytes_are_gone_over_however_they_come(
            bytes in prop::collection::vec(any::<u8>(), 0..300), cut in any::<prop::sample::Index>(),
        ) {
            let cut = cut.index(bytes.len() + 1);
            let (mut whole, mut halves) = (Frames::default(), Frames::default());
            whole.pass(&bytes);
            halves.pass(&bytes[..cut]);
            halves.pass(&bytes[cut..]);
            prop_assert_eq!(whole.is_between(), halves.is_between());
            prop_assert_eq!(whole.has_closed(), halves.has_closed());
            prop_assert_eq!(whole.pass_frame(&bytes), halves.pass_frame(&bytes));
        }

        #[test]
        fn frames_end_where_they_end_however_they_come(
            lengths in prop::collection::vec((prop_oneof![0usize..130, 65_530usize..65_540], 0u8..8, any::<bool>()), 1..6),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut bytes = Vec::new();
            let mut ends = Vec::new();
            for (length, opcode, mask) in lengths {
                bytes.extend(frame(opcode, length, mask));
                ends.push(bytes.len());
            }
            let mut cuts = cuts.iter().map(|cut| cut.index(bytes.len())).collect::<Vec<_>>();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let (mut frames, mut found) = (Frames::default(), Vec::new());
            let mut whole = Frames::default();
            for pair in cuts.windows(2) {
                let (mut at, end) = (pair[0], pair[1]);
                whole.pass(&bytes[at..end]);
                while at < end {
                    let Some(passed) = frames.pass_frame(&bytes[at..end]) else { break };
                    at += passed;
                    found.push(at);
                }
                prop_assert_eq!(frames.is_between(), end == 0 || ends.contains(&end));
                prop_assert_eq!(whole.is_between(), frames.is_between());
            }
            prop_assert_eq!(found, ends);
            prop_assert!(!frames.has_closed());
            frames.pass(&frame(CLOSE, 2, true));
            prop_assert!(frames.has_closed());
        }
    }
}
