//! A body in chunks: how it is cut makes no difference, and what is written from it is read as the same.
#![no_main]

use dynomesh::wire::{BadChunk, ChunkedDecoder, Piece, write_chunk, write_last_chunk};
use libfuzzer_sys::fuzz_target;

/// What a body comes to.
#[derive(Debug, PartialEq)]
struct Decoded {
    data: Vec<u8>,
    /// Whether the body is whole, or why it never will be.
    end: Result<bool, BadChunk>,
    trailers: Vec<u8>,
    /// Bytes that belong to the next message; all of them are looked at unless there was an error.
    rest: usize,
}

fn decode(bytes: &[u8], piece_max: usize) -> Decoded {
    let mut decoder = ChunkedDecoder::new();
    let (mut data, mut taken) = (Vec::new(), 0);
    let end = 'body: loop {
        let until = bytes.len().min(taken + piece_max);
        let mut input = &bytes[taken..until];
        let end = loop {
            match decoder.next(&mut input) {
                Ok(Piece::Data(piece)) => {
                    assert!(!piece.is_empty());
                    data.extend_from_slice(piece);
                }
                Ok(Piece::More) => {
                    assert!(input.is_empty());
                    break Ok(false);
                }
                Ok(Piece::End) => break Ok(true),
                Err(bad) => break Err(bad),
            }
        };
        taken = until - input.len();
        if end != Ok(false) || until == bytes.len() {
            break 'body end;
        }
    };
    let rest = if end.is_ok() { bytes.len() - taken } else { 0 };
    Decoded { data, end, trailers: decoder.trailers().to_vec(), rest }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((piece_max, bytes)) = bytes.split_first() else { return };
    let whole = decode(bytes, usize::MAX >> 1);
    assert_eq!(decode(bytes, usize::from(*piece_max).max(1)), whole);
    if whole.end == Ok(true) {
        let mut printed = Vec::new();
        write_chunk(&mut printed, &whole.data);
        write_last_chunk(&mut printed, &whole.trailers);
        assert_eq!(decode(&printed, 7), Decoded { rest: 0, ..whole });
    }
});
