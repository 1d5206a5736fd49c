//! Heads as they are written: one form, whatever form they came in.

use crate::wire::head::Field;

/// Appends a name as `Like-This`, as Heroku's router does, whichever way it was sent.
pub fn write_name(out: &mut Vec<u8>, name: &str) {
    let start = out.len();
    out.extend_from_slice(name.as_bytes());
    let mut begins = true;
    for byte in &mut out[start..] {
        *byte = if begins { byte.to_ascii_uppercase() } else { byte.to_ascii_lowercase() };
        begins = *byte == b'-';
    }
}

/// Appends a field line. The value goes as it is: it was checked when its head was parsed, or is ours.
pub fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    debug_assert!(
        !value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)),
        "a field of more than one line"
    );
    write_name(out, name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends a status line of HTTP/1.1, with the standard reason where `reason` is empty and there is one.
pub fn write_status_line(out: &mut Vec<u8>, status: u16, reason: &str) {
    debug_assert!((100..1000).contains(&status), "a status of three digits");
    let digit = |value: u16| b'0' + (value % 10) as u8;
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&[digit(status / 100), digit(status / 10), digit(status), b' ']);
    let reason = if reason.is_empty() { standard_reason(status) } else { reason };
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn standard_reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or_default()
}

/// Appends these fields.
pub(super) fn write_fields<'f, 'b: 'f>(
    out: &mut Vec<u8>,
    fields: impl Iterator<Item = &'f Field<'b>>,
) {
    for field in fields {
        write_field(out, field.name, field.value);
    }
}

/// Appends a number in decimal, without the machinery of `fmt`.
pub fn write_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(write: impl FnOnce(&mut Vec<u8>), expected: &str) {
        let mut out = b"before:".to_vec();
        write(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), format!("before:{expected}"));
    }

    #[test]
    fn names_are_capitalised() {
        for (name, expected) in [
            ("host", "Host"),
            ("CuStOm-HeAdEr", "Custom-Header"),
            ("ETag", "Etag"),
            ("x--y-", "X--Y-"),
            ("-a", "-A"),
            ("x_forwarded_for", "X_forwarded_for"),
            ("sec-websocket-key1", "Sec-Websocket-Key1"),
        ] {
            check(|out| write_name(out, name), expected);
        }
    }

    #[test]
    fn fields_are_lines() {
        check(|out| write_field(out, "accept", b"*/*"), "Accept: */*\r\n");
        check(|out| write_field(out, "x-empty", b""), "X-Empty: \r\n");
    }

    #[test]
    fn status_lines_have_a_reason() {
        check(|out| write_status_line(out, 200, ""), "HTTP/1.1 200 OK\r\n");
        check(|out| write_status_line(out, 404, "Nowhere"), "HTTP/1.1 404 Nowhere\r\n");
        check(|out| write_status_line(out, 101, ""), "HTTP/1.1 101 Switching Protocols\r\n");
        check(|out| write_status_line(out, 999, ""), "HTTP/1.1 999 \r\n");
    }

    #[test]
    fn numbers() {
        for number in [0, 9, 10, 65_535, u64::MAX] {
            check(|out| write_number(out, number), &number.to_string());
        }
    }
}
