//! What an exchange asks of its client's side, whichever protocol that speaks.
//!
//! HTTP/1.1 has the connection to itself and frames its bodies (`http1.rs`); HTTP/2 has one stream of many, and
//! the frames are the connection's business (`http2_stream.rs`). Everything else about an exchange is the same.

use std::task::{Context, Poll};

use crate::router::duplex::{Sink, Source};
use crate::router::security::Security;
use crate::router::stream::Peek;
use crate::wire::{self, BadChunk, RequestBody};

/// The client's side of one exchange.
pub(crate) trait Transport: Source + Sink {
    /// Whether bodies travel in HTTP/1.1's framing. Where not, reading ends at the body's end, and what is
    /// written is the body's own bytes.
    const FRAMED: bool;
    /// Whether the connection ends with this side of it.
    const IS_CONNECTION: bool;
    /// As the log says it.
    const PROTOCOL: &'static str;
    /// What a client is sent when both sides may send anything from now on.
    const SWITCHED: u16;

    /// What TLS says of the connection, if it is secured by it.
    fn security(&self) -> Option<Security<'_>>;

    /// Whether there are bytes that were read and not used.
    fn has_input(&self) -> bool;

    /// Takes back bytes that were read and belong to the next request.
    fn unread(&mut self, rest: &[u8]);

    /// The number of the connection that carries it together with others; `None` where it is one.
    fn connection(&self) -> Option<u32>;

    /// Whether the beginning of another request has come behind this one's body.
    fn is_followed(&self, body: RequestBody) -> bool;

    /// Takes the body if it has come whole; `false` if the request goes on beyond what is here.
    fn take_body(&mut self, body: RequestBody) -> bool;

    /// The trailer fields of a body that has been read to its end, as lines; not asked where bodies are framed.
    fn trailers(&mut self) -> Result<Vec<u8>, BadChunk>;

    /// Looks whether the client has ended or sent anything; the task is woken when it does. What must be read
    /// to see it is kept as input; `scratch` is for that.
    fn poll_peek(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<Peek>;

    /// Gives the head of an answer, which `compose` writes field by field: appends it to `out`, for the caller
    /// to write, or sends it.
    fn answer(
        &mut self,
        out: &mut Vec<u8>,
        kind: AnswerKind,
        compose: impl FnOnce(&mut dyn FieldSink),
    );

    /// The bytes that are written next, all of them, are the last of the answer; `trailers` go behind.
    fn ends(&mut self, trailers: &[u8]);

    /// The answer's last byte has been written.
    fn finish(&mut self);

    /// An answer has begun that will not be finished. `looks_whole`: in HTTP/1.1 the connection's end would
    /// look like the answer's.
    fn break_off(&mut self, looks_whole: bool);
}

/// What kind of answer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerKind {
    /// 1xx.
    Interim,
    /// The last one; `whole`: no body follows.
    Final { whole: bool },
    /// Both sides may send anything from now on.
    Switching,
}

/// Where a head is composed.
pub(crate) trait FieldSink {
    /// Comes first.
    fn status(&mut self, status: u16, reason: &str);

    /// One field.
    fn field(&mut self, name: &str, value: &[u8]);
}

impl FieldSink for Vec<u8> {
    fn status(&mut self, status: u16, reason: &str) {
        wire::write_status_line(self, status, reason);
    }

    fn field(&mut self, name: &str, value: &[u8]) {
        wire::write_field(self, name, value);
    }
}
