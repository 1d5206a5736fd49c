//! The router's line: one per request, in Heroku's form (Heroku: HTTP Routing, "Router log format"). What we add comes after its keys.
//!
//! Written by hand into a block that the worker reuses: 64 ns, where an event of the tracing crate takes 1,957.

use std::io::Write;
use std::time::Duration;

use crate::config::limits::LOG_BLOCK;
use crate::model::Exit;
use crate::router::clock::Moment;
use crate::router::reply::Refusal;
use crate::router::security::TlsVersion;
use crate::table::Dyno;
use crate::telemetry::{Lines, Stamp};
use crate::wire::write_number;

/// What is known of a request when it ends.
pub(crate) struct Outcome<'a> {
    /// The app, or `-`.
    pub(crate) app: &'a str,
    /// The keys from `method=` to `fwd=`, made by [`write_request`] when the request was admitted.
    pub(crate) request: &'a [u8],
    /// Why it did not end well, if it did not.
    pub(crate) refusal: Option<Refusal>,
    /// The dyno that was tried last.
    pub(crate) dyno: Option<&'a Dyno>,
    /// From admission to a connection in hand (or to the end of trying).
    pub(crate) connect: Option<Duration>,
    /// From a connection in hand to the end.
    pub(crate) service: Option<Duration>,
    /// What the client was sent; 499: nothing.
    pub(crate) status: u16,
    /// Bytes of the body that the client was sent; `None` where no dyno was reached.
    pub(crate) bytes: Option<u64>,
    /// `http1.1` or `http2.0`.
    pub(crate) protocol: &'static str,
    pub(crate) tls: Option<TlsVersion>,
    /// How often the request was sent again.
    pub(crate) retries: u32,
}

/// A worker's lines, on their way to the writer.
pub(crate) struct AccessLog {
    lines: Lines,
    block: Vec<u8>,
    stamp: Stamp,
}

impl AccessLog {
    pub(crate) fn new(lines: Lines) -> Self {
        Self { block: lines.empty_block(), lines, stamp: Stamp::default() }
    }

    /// Writes the line of a request that has ended.
    pub(crate) fn request(&mut self, outcome: &Outcome<'_>, now: Moment) {
        self.begin(outcome.app, now);
        let out = &mut self.block;
        match outcome.refusal {
            None => out.extend_from_slice(b"at=info"),
            Some(refusal) => write_refusal(out, refusal),
        }
        out.extend_from_slice(outcome.request);
        out.extend_from_slice(b" dyno=");
        if let Some(dyno) = outcome.dyno {
            write_dyno(out, dyno);
        }
        write_millis(out, b" connect=", outcome.connect);
        write_millis(out, b" service=", outcome.service);
        out.extend_from_slice(b" status=");
        write_number(out, outcome.status.into());
        out.extend_from_slice(b" bytes=");
        if let Some(bytes) = outcome.bytes {
            write_number(out, bytes);
        }
        out.extend_from_slice(b" protocol=");
        out.extend_from_slice(outcome.protocol.as_bytes());
        out.extend_from_slice(match outcome.tls {
            None => b" tls=false",
            Some(TlsVersion::Tls12) => b" tls=true tls_version=tls1.2",
            Some(TlsVersion::Tls13) => b" tls=true tls_version=tls1.3",
        });
        if outcome.retries > 0 {
            out.extend_from_slice(b" retries=");
            write_number(out, outcome.retries.into());
        }
        let broken = matches!(
            outcome.refusal,
            Some(Refusal::ClosedWithoutResponse | Refusal::ServerInterrupted)
        );
        if let Some(exit) = outcome.dyno.filter(|_| broken).and_then(Dyno::exit) {
            let (key, number) = match exit {
                Exit::Status(status) => (" exit=", status),
                Exit::Signal(signal) => (" signal=", signal),
            };
            // Writing to a Vec does not fail.
            let _ = write!(out, "{key}{number}");
        }
        self.end();
    }

    /// Writes the second line of a request that its client no longer waited for. It has neither `at=` nor
    /// `method=` nor `code=`, so that nobody counts it as a request.
    pub(crate) fn late(&mut self, late: &Late<'_>, now: Moment) {
        self.begin(late.app, now);
        let out = &mut self.block;
        match late.end {
            LateEnd::Ended { after } => write_millis(out, b"late=", Some(after)),
            LateEnd::Closed(why) => {
                out.extend_from_slice(b"late=");
                out.extend_from_slice(why.as_bytes());
            }
        }
        out.extend_from_slice(b" status=");
        if let Some(status) = late.status {
            write_number(out, status.into());
        }
        out.extend_from_slice(b" bytes=");
        write_number(out, late.bytes);
        out.extend_from_slice(b" request_id=");
        out.extend_from_slice(late.request_id);
        out.extend_from_slice(b" dyno=");
        write_dyno(out, late.dyno);
        self.end();
    }

    /// Hands over what has gathered. Called on each tick.
    pub(crate) fn flush(&mut self) {
        if !self.block.is_empty() {
            let block = std::mem::replace(&mut self.block, self.lines.empty_block());
            self.lines.send(block);
        }
    }

    fn begin(&mut self, app: &str, now: Moment) {
        self.stamp.write(&mut self.block, now.wall());
        self.block.push(b' ');
        self.block.extend_from_slice(app.as_bytes());
        self.block.extend_from_slice(b" heroku[router]: ");
    }

    fn end(&mut self) {
        self.block.push(b'\n');
        if self.block.len() >= LOG_BLOCK {
            self.flush();
        }
    }
}

/// How a lingering request ended.
pub(crate) struct Late<'a> {
    pub(crate) app: &'a str,
    pub(crate) end: LateEnd,
    pub(crate) status: Option<u16>,
    pub(crate) bytes: u64,
    pub(crate) request_id: &'a [u8],
    pub(crate) dyno: &'a Dyno,
}

/// Whether the dyno ended it, or we did.
pub(crate) enum LateEnd {
    /// The dyno answered, or closed, this long after it was given the request.
    Ended { after: Duration },
    /// `timeout`, `drain`, `stop` or `limit`.
    Closed(&'static str),
}

/// Writes the keys from `method=` to `fwd=`, with a space before each.
pub(crate) fn write_request(
    out: &mut Vec<u8>,
    method: &str,
    path: &[u8],
    host: &str,
    request_id: &[u8],
    fwd: &[u8],
) {
    out.extend_from_slice(b" method=");
    out.extend_from_slice(method.as_bytes());
    out.extend_from_slice(b" path=\"");
    write_escaped(out, path);
    out.extend_from_slice(b"\" host=");
    out.extend_from_slice(host.as_bytes());
    out.extend_from_slice(b" request_id=");
    out.extend_from_slice(request_id);
    out.extend_from_slice(b" fwd=\"");
    write_escaped(out, fwd);
    out.push(b'"');
}

/// Writes text so that it can neither end its quotes nor its line: `"`, `\` and everything that is not
/// printable ASCII become `\xNN`.
fn write_escaped(out: &mut Vec<u8>, text: &[u8]) {
    let plain = |byte: &u8| matches!(byte, 0x20..=0x7e) && !matches!(byte, b'"' | b'\\');
    if text.iter().all(plain) {
        return out.extend_from_slice(text);
    }
    for byte in text {
        match plain(byte) {
            true => out.push(*byte),
            false => {
                let _ = write!(out, "\\x{byte:02x}");
            }
        }
    }
}

fn write_refusal(out: &mut Vec<u8>, refusal: Refusal) {
    let row = refusal.row();
    if !row.sock.is_empty() {
        let _ = write!(out, "sock={} ", row.sock);
    }
    let _ = write!(out, "at={}", row.at);
    if !row.code.is_empty() {
        let _ = write!(out, " code={}", row.code);
    }
    let _ = write!(out, " desc=\"{}\"", row.desc);
    if !refusal.cause().is_empty() {
        let _ = write!(out, " cause=\"{}\"", refusal.cause());
    }
}

fn write_dyno(out: &mut Vec<u8>, dyno: &Dyno) {
    let name = dyno.name();
    out.extend_from_slice(name.process_type.as_str().as_bytes());
    out.push(b'.');
    write_number(out, name.number.into());
}

fn write_millis(out: &mut Vec<u8>, key: &[u8], duration: Option<Duration>) {
    out.extend_from_slice(key);
    if let Some(duration) = duration {
        write_number(out, duration.as_millis() as u64);
        out.extend_from_slice(b"ms");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn escaped_text_stays_within_its_quotes_and_can_be_read_back(text: Vec<u8>) {
            let mut out = Vec::new();
            write_escaped(&mut out, &text);
            prop_assert!(out.iter().all(|byte| matches!(byte, 0x20..=0x7e) && *byte != b'"'));
            prop_assert_eq!(unescape(&out), text);
        }

    }

    fn unescape(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = text;
        while let Some((first, after)) = rest.split_first() {
            if *first == b'\\' {
                let hex = std::str::from_utf8(&after[1..3]).unwrap();
                out.push(u8::from_str_radix(hex, 16).unwrap());
                rest = &after[3..];
            } else {
                out.push(*first);
                rest = after;
            }
        }
        out
    }
}
