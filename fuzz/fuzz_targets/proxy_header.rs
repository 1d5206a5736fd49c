//! A PROXY header: how it is cut makes no difference, what is decided stays decided, and who is asked for more
//! can give it.
#![no_main]

use dynomesh::wire::{BadProxyHeader, ProxyHeader};
use libfuzzer_sys::fuzz_target;

/// What arbitrary bytes do not find by themselves.
const STARTS: [&[u8]; 5] = [
    b"",
    b"PROXY TCP4 192.0.2.1 ",
    b"PROXY TCP6 2001:db8::1 ",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x20",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0",
];

fuzz_target!(|bytes: &[u8]| {
    let Some((start, bytes)) = bytes.split_first() else { return };
    let bytes = [STARTS[usize::from(*start) % STARTS.len()], bytes].concat();
    let whole = ProxyHeader::parse(&bytes);
    let decided = (0..=bytes.len()).find(|end| ProxyHeader::parse(&bytes[..*end]) != Ok(None));
    let Some(end) = decided else {
        assert_eq!(whole, Ok(None));
        let may_follow = |byte| ProxyHeader::parse(&[&bytes[..], &[byte]].concat());
        assert!(
            (0..=0xff).any(|byte| matches!(may_follow(byte), Ok(_) | Err(BadProxyHeader::Checksum)))
        );
        return;
    };
    assert_eq!(ProxyHeader::parse(&bytes[..end]), whole, "cut at {end}");
    if let Ok(Some(header)) = whole {
        assert_eq!(header.length, end);
        assert_eq!(header.source.is_some(), header.destination.is_some());
    }
});
