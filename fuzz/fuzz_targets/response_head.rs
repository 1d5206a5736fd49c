//! An answer's head: never a panic, and what is written from it is read as the same.
#![no_main]

use dynomesh::wire::{
    FieldSlots, HeadScan, ResponseBody, ResponseHead, write_field, write_status_line,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((flags, bytes)) = bytes.split_first() else { return };
    let method_is_head = flags & 1 == 1;
    let Ok(Some(end)) = HeadScan::default().find_end(bytes, 1024 * 1024) else { return };
    let mut slots = FieldSlots::new();
    let head = match ResponseHead::parse(&bytes[..end], &mut slots, method_is_head) {
        Ok(head) => head,
        Err(bad) => {
            assert!(
                matches!((bad.code(), bad.status()), ("H17", 503) | ("H25", 502))
                    && !bad.cause().is_empty()
            );
            return;
        }
    };
    assert!((100..1000).contains(&head.status));
    assert!(!head.reusable || head.body != ResponseBody::UntilClose);
    let mut printed = Vec::new();
    write_status_line(&mut printed, head.status, head.reason);
    for field in head.end_to_end() {
        write_field(&mut printed, field.name, field.value);
    }
    if let Some(length) = head.content_length() {
        write_field(&mut printed, "content-length", length.to_string().as_bytes());
    } else if head.body == ResponseBody::Chunked {
        write_field(&mut printed, "transfer-encoding", b"chunked");
    }
    printed.extend_from_slice(b"\r\n");

    let mut slots = FieldSlots::new();
    let again = match ResponseHead::parse(&printed, &mut slots, method_is_head) {
        Ok(again) => again,
        Err(_) if printed.len() > 8192 => return, // Our own words may be longer than what we take.
        Err(bad) => panic!("a client can read what we write: {bad}"),
    };
    assert_eq!(
        (again.status, again.body, again.content_length()),
        (head.status, head.body, head.content_length())
    );
    let fields = |head: &ResponseHead<'_, '_>| -> Vec<_> {
        head.end_to_end()
            .map(|field| (field.name.to_ascii_lowercase(), field.value.to_vec()))
            .collect()
    };
    assert_eq!(fields(&again), fields(&head));
});
