//! The Date field (RFC 9110 §5.6.7), which a gateway adds where the dyno sent none.

use std::time::Duration;

/// `Sun, 06 Nov 1994 08:49:37 GMT`, remembered for the current second.
#[derive(Default)]
pub(crate) struct HttpDate {
    second: Option<u64>,
    text: Vec<u8>,
}

impl HttpDate {
    /// The text for a time since the Unix epoch.
    pub(crate) fn text(&mut self, since_epoch: Duration) -> &[u8] {
        let second = since_epoch.as_secs();
        if self.second != Some(second) {
            self.second = Some(second);
            self.text = httpdate::fmt_http_date(std::time::UNIX_EPOCH + since_epoch).into_bytes();
        }
        &self.text
    }
}
