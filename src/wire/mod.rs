//! HTTP/1.1 as bytes (RFC 9112), strict: whatever two parsers could read two ways is refused.
//!
//! Invariant: no sockets, no clock, no async. Bytes in, values and bytes out.
