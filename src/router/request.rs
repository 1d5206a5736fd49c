//! What an exchange keeps of a request once its head has been read.

use crate::router::affinity::Wish;
use crate::wire::{RequestBody, RequestHead, Version};

/// The facts, and what was composed of the head; the head as it came is gone with the turn that read it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The head as the dyno sees it, kept for as long as it may have to be sent again, and behind it the keys
    /// of the log's line that are known from the beginning: one allocation for both.
    text: Vec<u8>,
    head_length: usize,
    pub(crate) version: Version,
    pub(crate) body: RequestBody,
    /// The client's connection may carry another request after this one.
    pub(crate) keep_alive: bool,
    /// The client said that this is its last request: its FIN is a half-close, not a farewell.
    pub(crate) said_close: bool,
    pub(crate) expect_continue: bool,
    pub(crate) upgrade: bool,
    pub(crate) is_head: bool,
    /// Sending it twice does what sending it once does (RFC 9110 §9.2.2).
    pub(crate) is_idempotent: bool,
    /// It asks for nothing to be changed (RFC 9110 §9.2.1).
    pub(crate) is_safe: bool,
    pub(crate) wants_json: bool,
    /// Which dyno it should go to.
    pub(crate) wish: Wish,
}

impl Request {
    /// The facts of a head.
    pub(crate) fn of(
        head: &RequestHead<'_, '_>,
        text: Vec<u8>,
        head_length: usize,
        wants_json: bool,
        wish: Wish,
    ) -> Self {
        Self {
            text,
            head_length,
            version: head.version,
            body: head.body,
            keep_alive: head.keep_alive,
            said_close: head.said_close,
            expect_continue: head.expect_continue,
            upgrade: head.upgrade,
            is_head: head.method == "HEAD",
            is_idempotent: head.is_idempotent(),
            is_safe: head.is_safe(),
            wants_json,
            wish,
        }
    }

    /// What is known of a request whose head could not be read.
    pub(crate) fn unreadable(line: Vec<u8>) -> Self {
        Self {
            text: line,
            head_length: 0,
            version: Version::Http11,
            body: RequestBody::None,
            keep_alive: false,
            said_close: false,
            expect_continue: false,
            upgrade: false,
            is_head: false,
            is_idempotent: false,
            is_safe: false,
            wants_json: false,
            wish: Wish::Any,
        }
    }

    /// The head as the dyno sees it.
    pub(crate) fn head(&self) -> &[u8] {
        &self.text[..self.head_length]
    }

    /// The keys of the log's line from `method=` to `fwd=`.
    pub(crate) fn line(&self) -> &[u8] {
        &self.text[self.head_length..]
    }

    /// Whether a body follows the head.
    pub(crate) fn has_body(&self) -> bool {
        !matches!(self.body, RequestBody::None | RequestBody::Length(0))
    }

    /// Whether the client understands chunked bodies and interim answers.
    pub(crate) fn is_http11(&self) -> bool {
        self.version == Version::Http11
    }
}
