//! The stream of an attached one-off dyno, between the daemon and the command that a person runs: frames of a
//! byte that says what, four of length (big-endian), and so many bytes.
//!
//! Pure: bytes in, frames out.

/// Bytes of a frame's payload at most: a quarter of what a pipe holds.
pub const PAYLOAD_MAX: usize = 16 * 1024;
const HEAD: usize = 5;

/// One frame, either way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// To the process' input. Empty: its input has ended. The next one is sent after [`Taken`](Self::Taken).
    Input(Vec<u8>),
    /// The process' side has taken the last input.
    Taken,
    /// The person's window has this size now, in characters.
    Resize {
        /// Lines.
        rows: u16,
        /// Characters of a line.
        columns: u16,
    },
    /// Send every process of the dyno this signal.
    Signal(u8),
    /// From the process' output.
    Output(Vec<u8>),
    /// The process has ended with this status, as a shell has it; nothing follows.
    Exit(i32),
}

/// Bytes that are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream of the one-off dyno is garbled")]
pub struct Garbled;

impl Frame {
    /// The bytes of the frame. Its payload is not longer than [`PAYLOAD_MAX`].
    pub fn print(&self) -> Vec<u8> {
        let (kind, payload) = match self {
            Self::Input(bytes) => (b'i', bytes.clone()),
            Self::Taken => (b't', Vec::new()),
            Self::Resize { rows, columns } => {
                (b'r', [rows.to_be_bytes(), columns.to_be_bytes()].concat())
            }
            Self::Signal(signal) => (b's', vec![*signal]),
            Self::Output(bytes) => (b'o', bytes.clone()),
            Self::Exit(status) => (b'x', status.to_be_bytes().to_vec()),
        };
        let length = u32::try_from(payload.len()).expect("payloads have 16 KiB at most");
        [&[kind], &length.to_be_bytes()[..], &payload].concat()
    }

    fn parse(kind: u8, payload: &[u8]) -> Result<Self, Garbled> {
        Ok(match (kind, payload) {
            (b'i', bytes) => Self::Input(bytes.to_vec()),
            (b't', []) => Self::Taken,
            (b'r', &[a, b, c, d]) => Self::Resize {
                rows: u16::from_be_bytes([a, b]),
                columns: u16::from_be_bytes([c, d]),
            },
            (b's', &[signal]) => Self::Signal(signal),
            (b'o', bytes) => Self::Output(bytes.to_vec()),
            (b'x', &[a, b, c, d]) => Self::Exit(i32::from_be_bytes([a, b, c, d])),
            _ => return Err(Garbled),
        })
    }
}

/// Bytes as they arrive, of which frames are taken.
#[derive(Default)]
pub struct Frames {
    bytes: Vec<u8>,
}

impl Frames {
    /// Takes in what has arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next frame, if it is whole.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Garbled> {
        let Some((&[kind, a, b, c, d], rest)) = self.bytes.split_first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > PAYLOAD_MAX {
            return Err(Garbled);
        }
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        let frame = Frame::parse(kind, payload)?;
        self.bytes.drain(..HEAD + length);
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame() -> impl Strategy<Value = Frame> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..50);
        prop_oneof![
            bytes().prop_map(Frame::Input),
            bytes().prop_map(Frame::Output),
            Just(Frame::Taken),
            any::<(u16, u16)>().prop_map(|(rows, columns)| Frame::Resize { rows, columns }),
            any::<u8>().prop_map(Frame::Signal),
            any::<i32>().prop_map(Frame::Exit),
        ]
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in(
            sent in prop::collection::vec(frame(), 0..9),
            pieces in 1..40_usize,
        ) {
            let bytes: Vec<u8> = sent.iter().flat_map(Frame::print).collect();
            let (mut frames, mut received) = (Frames::default(), Vec::new());
            for piece in bytes.chunks(pieces) {
                frames.push(piece);
                while let Some(frame) = frames.next_frame().unwrap() {
                    received.push(frame);
                }
            }
            prop_assert_eq!(received, sent);
        }

        #[test]
        fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..99)) {
            let mut frames = Frames::default();
            frames.push(&bytes);
            while let Ok(Some(_)) = frames.next_frame() {}
        }
    }

    #[test]
    fn what_no_frame_can_be_is_an_error() {
        for bytes in [&b"i\xff\0\0\0"[..], b"?\0\0\0\0", b"s\0\0\0\0", b"r\0\0\0\x01a"] {
            let mut frames = Frames::default();
            frames.push(bytes);
            assert_eq!(frames.next_frame(), Err(Garbled), "{bytes:?}");
        }
    }
}
