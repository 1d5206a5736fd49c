//! A request's head: how it is cut makes no difference, and what is written from it is read as the same.
#![no_main]

use dynomesh::wire::{
    FieldSlots, HeadScan, RequestBody, RequestHead, Target, blank_lines, write_field,
};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 64 * 1024;

fuzz_target!(|bytes: &[u8]| {
    let Ok(blank) = blank_lines(bytes) else { return };
    let bytes = &bytes[blank..];
    let found = HeadScan::default().find_end(bytes, LIMIT);
    let mut scan = HeadScan::default();
    let first = (0..=bytes.len())
        .map(|cut| scan.find_end(&bytes[..cut], LIMIT))
        .find(|found| *found != Ok(None));
    assert_eq!(first.unwrap_or(Ok(None)), found, "cut byte by byte");

    let Ok(Some(end)) = found else { return };
    let head = &bytes[..end];
    let mut slots = FieldSlots::new();
    let head = match RequestHead::parse(head, &mut slots) {
        Ok(head) => head,
        Err(bad) => {
            assert!((400..=505).contains(&bad.status()) && !bad.cause().is_empty());
            return;
        }
    };
    let target = match head.target {
        Target::Origin(target) => target,
        Target::Asterisk => "*",
    };
    let mut printed =
        format!("{} {target} HTTP/1.1\r\nHost: {}\r\n", head.method, head.host).into_bytes();
    for field in head.end_to_end() {
        write_field(&mut printed, field.name, field.value);
    }
    match head.body {
        RequestBody::None => {}
        RequestBody::Length(length) => {
            write_field(&mut printed, "content-length", length.to_string().as_bytes())
        }
        RequestBody::Chunked => write_field(&mut printed, "transfer-encoding", b"chunked"),
    }
    printed.extend_from_slice(b"\r\n");

    assert_eq!(HeadScan::default().find_end(&printed, u32::MAX as usize), Ok(Some(printed.len())));
    if printed.len() > 8192 {
        return; // Our own words may be longer than what we take.
    }
    let mut slots = FieldSlots::new();
    let again = RequestHead::parse(&printed, &mut slots).expect("a dyno can read what we write");
    assert_eq!(
        (again.method, again.target, again.host, again.body),
        (head.method, head.target, head.host, head.body)
    );
    assert!(again.keep_alive && !again.upgrade && !again.expect_continue);
    let fields = |head: &RequestHead<'_, '_>| -> Vec<_> {
        head.end_to_end()
            .map(|field| (field.name.to_ascii_lowercase(), field.value.to_vec()))
            .collect()
    };
    assert_eq!(fields(&again), fields(&head));
});
