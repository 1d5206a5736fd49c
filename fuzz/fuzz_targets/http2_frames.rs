//! The frames of an HTTP/2 client: how they are cut makes no difference, and what goes on is frames again, each of
//! which passes as what it is.
#![no_main]

use dynomesh::wire::{BadFrame, FrameHeader, FramePassage};
use libfuzzer_sys::fuzz_target;

const PREFACE: usize = 24;

/// What comes of a client's bytes.
#[derive(Debug, PartialEq)]
struct Passed {
    bytes: Vec<u8>,
    headers: Vec<FrameHeader>,
    bad: Option<BadFrame>,
}

fn pass(mut bytes: &[u8], piece_max: usize) -> Passed {
    let mut passage = FramePassage::default();
    let (mut passed, mut headers) = (Vec::new(), Vec::new());
    while !bytes.is_empty() {
        let (piece, behind) = bytes.split_at(bytes.len().min(piece_max));
        let mut rest = Vec::new();
        let same = passage.pass(piece, &mut rest, |header| headers.push(header));
        passed.extend_from_slice(&piece[..same]);
        passed.extend(rest);
        bytes = behind;
    }
    Passed { bytes: passed, headers, bad: passage.bad() }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((piece_max, bytes)) = bytes.split_first() else { return };
    // Fuzzers are slow to find what every client says first.
    let bytes = [&[0; PREFACE], bytes].concat();
    let whole = pass(&bytes, usize::MAX);
    assert_eq!(pass(&bytes, usize::from(*piece_max).max(1)), whole);
    // Trailers may become two frames of at least nine bytes and a mark, and nothing else grows.
    assert!(whole.bytes.len() <= bytes.len() + 10 * whole.headers.len());
    let again = pass(&whole.bytes, usize::MAX);
    assert!(again.bad.is_none() && again.headers.len() >= whole.headers.len().saturating_sub(1));
});
