//! Bytes as text: two hexadecimal digits each.

/// `[0x0a, 0xff]` is `0aff`.
pub(crate) fn of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
