//! Heads between HTTP/2's header lists and HTTP/1.1's text.
//!
//! A request is printed as HTTP/1.1 and read by the same strict parser as any other, so that one place says
//! what is refused: what HTTP/2 would let through and HTTP/1.1 could read two ways does not get to a dyno.

use bytes::{Bytes, BytesMut};
use h2::ext::Protocol;
use http::header::{CONTENT_LENGTH, COOKIE, HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Response, StatusCode, request};

use crate::router::random::Random;
use crate::router::transport::FieldSink;
use crate::wire;

/// Prints a request's head. `bodiless`: its stream has ended with it.
///
/// A WebSocket (RFC 8441 §4) becomes the upgrade that it stands for; it has no key of its own, so it gets one.
pub(super) fn print(out: &mut Vec<u8>, parts: &request::Parts, bodiless: bool, random: &Random) {
    let websocket = is_websocket(parts);
    let method = if websocket { "GET" } else { parts.method.as_str() };
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(parts.uri.path_and_query().map_or("*", |it| it.as_str()).as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    print_host(out, parts);
    let mut cookies = parts.headers.get_all(COOKIE).iter();
    if let Some(first) = cookies.next() {
        // Crumbs are one field again (RFC 9113 §8.2.3).
        out.extend_from_slice(b"Cookie: ");
        out.extend_from_slice(first.as_bytes());
        for crumb in cookies {
            out.extend_from_slice(b"; ");
            out.extend_from_slice(crumb.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
    for (name, value) in &parts.headers {
        let replaced = name == COOKIE || name == HOST || websocket && is_handshake(name);
        if !replaced {
            wire::write_field(out, name.as_str(), value.as_bytes());
        }
    }
    if websocket {
        out.extend_from_slice(b"Upgrade: websocket\r\nConnection: Upgrade\r\n");
        wire::write_field(out, "Sec-WebSocket-Key", &websocket_key(random));
    } else if !bodiless && !parts.headers.contains_key(CONTENT_LENGTH) {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether a request is malformed in a way that the h2 crate lets pass: a value with space around it
/// (RFC 9113 §8.2.1), or a scheme that is not of the web (§8.3.1). A CONNECT that opens no tunnel of ours has no
/// scheme.
pub(super) fn is_malformed(parts: &request::Parts) -> bool {
    let padded = |value: &HeaderValue| {
        let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
        is_space(value.as_bytes().first()) || is_space(value.as_bytes().last())
    };
    let plain_connect =
        parts.method == Method::CONNECT && parts.extensions.get::<Protocol>().is_none();
    let of_the_web = matches!(parts.uri.scheme_str(), Some("http" | "https"));
    parts.headers.values().any(padded) || !of_the_web && !plain_connect
}

/// Whether it asks for a WebSocket by extended CONNECT.
pub(super) fn is_websocket(parts: &request::Parts) -> bool {
    let protocol = parts.extensions.get::<Protocol>();
    parts.method == Method::CONNECT && protocol.is_some_and(|it| it.as_str() == "websocket")
}

/// Where `:authority` and Host differ both are printed, and refused as two Hosts are (RFC 9113 §8.3.1).
fn print_host(out: &mut Vec<u8>, parts: &request::Parts) {
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    if let Some(authority) = authority {
        wire::write_field(out, "Host", authority);
    }
    for host in parts.headers.get_all(HOST) {
        let said = authority.is_some_and(|it| it.eq_ignore_ascii_case(host.as_bytes()));
        if !said {
            wire::write_field(out, "Host", host.as_bytes());
        }
    }
}

fn is_handshake(name: &HeaderName) -> bool {
    name == http::header::SEC_WEBSOCKET_KEY
}

/// Sixteen random bytes in base64 (RFC 6455 §4.1): 22 characters, of which the last has four bits of padding.
fn websocket_key(random: &Random) -> [u8; 24] {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut key = [b'='; 24];
    for character in &mut key[..21] {
        *character = ALPHABET[random.below(64)];
    }
    key[21] = ALPHABET[random.below(4) * 16];
    key
}

/// Trailer fields that have come, as lines that may go on.
pub(super) fn print_trailers(trailers: &HeaderMap) -> Result<Vec<u8>, wire::BadChunk> {
    let mut section = Vec::new();
    for (name, value) in trailers {
        wire::write_field(&mut section, name.as_str(), value.as_bytes());
    }
    section.extend_from_slice(b"\r\n");
    wire::passable_trailers(&section)
}

/// Lines of trailer fields, as the router writes them, as a header list.
pub(super) fn read_trailers(lines: &[u8]) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        append(&mut trailers, &line[..colon], line[colon + 1..].trim_ascii());
    }
    trailers
}

pub(super) fn append(headers: &mut HeaderMap, name: &[u8], value: &[u8]) {
    let name = HeaderName::from_bytes(name);
    let value = HeaderValue::from_bytes(value);
    // Both were checked when they were read; what a header list cannot hold is not in it.
    if let (Ok(name), Ok(value)) = (name, value) {
        headers.append(name, value);
    }
}

/// Prints the head of a dyno's answer as HTTP/1.1. `bodiless`: its stream has ended with it. A body without a
/// length ends with its stream, as it would with a connection.
pub(super) fn print_answer(answer: &Response<()>, bodiless: bool) -> Bytes {
    let mut out = Vec::new();
    wire::write_status_line(&mut out, answer.status().as_u16(), "");
    for (name, value) in answer.headers() {
        wire::write_field(&mut out, name.as_str(), value.as_bytes());
    }
    if bodiless && !answer.headers().contains_key(CONTENT_LENGTH) {
        out.extend_from_slice(b"Content-Length: 0\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out.into()
}

/// An answer's head as a header list.
pub(super) struct AnswerHead {
    response: Response<()>,
    /// Every value in one allocation.
    values: BytesMut,
}

/// Fields and bytes of values that most answers have.
const USUAL_FIELDS: usize = 16;
const USUAL_VALUES: usize = 512;

impl AnswerHead {
    pub(super) fn new() -> Self {
        let mut response = Response::new(());
        *response.headers_mut() = HeaderMap::with_capacity(USUAL_FIELDS);
        Self { response, values: BytesMut::with_capacity(USUAL_VALUES) }
    }

    pub(super) fn into_response(self) -> Response<()> {
        self.response
    }

    /// What answers extended CONNECT where HTTP/1.1 answered 101 (RFC 8441 §5).
    pub(super) fn into_switching(mut self) -> Response<()> {
        *self.response.status_mut() = StatusCode::OK;
        for name in ["upgrade", "connection", "sec-websocket-accept"] {
            self.response.headers_mut().remove(name);
        }
        self.response
    }
}

impl FieldSink for AnswerHead {
    fn status(&mut self, status: u16, _: &str) {
        // Out of range it was refused where it was read.
        *self.response.status_mut() =
            StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    }

    fn field(&mut self, name: &str, value: &[u8]) {
        self.values.extend_from_slice(value);
        let value = HeaderValue::from_maybe_shared(self.values.split().freeze());
        // Both were checked when they were read; what a header list cannot hold is not in it.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), value) {
            self.response.headers_mut().append(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(request: request::Builder, bodiless: bool, expected: &str) {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let mut out = Vec::new();
        print(&mut out, &parts, bodiless, &Random::from_seed(1));
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn requests_are_printed_as_http1() {
        check(
            http::Request::get("http://shop.example/a?b").header("accept", "*/*"),
            true,
            "GET /a?b HTTP/1.1\r\nHost: shop.example\r\nAccept: */*\r\n\r\n",
        );
        check(
            http::Request::post("http://shop.example/"),
            false,
            "POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        check(
            http::Request::post("http://shop.example/").header("content-length", "3"),
            false,
            "POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 3\r\n\r\n",
        );
    }

    #[test]
    fn cookies_are_one_field() {
        check(
            http::Request::get("http://a/").header("cookie", "a=1").header("cookie", "b=2"),
            true,
            "GET / HTTP/1.1\r\nHost: a\r\nCookie: a=1; b=2\r\n\r\n",
        );
    }

    #[test]
    fn two_hosts_are_left_to_the_parser() {
        check(
            http::Request::get("http://a/").header("host", "A"),
            true,
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        );
        check(
            http::Request::get("http://a/").header("host", "b"),
            true,
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        );
    }

    #[test]
    fn websockets_are_upgrades() {
        let request = http::Request::connect("http://a/chat")
            .extension(Protocol::from_static("websocket"))
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "the client's own");
        check(
            request,
            false,
            "GET /chat HTTP/1.1\r\nHost: a\r\nSec-Websocket-Version: 13\r\n\
             Upgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-Websocket-Key: kv+ccw4hSyZmdhbKp0r4EA==\r\n\r\n",
        );
    }

    #[test]
    fn trailers_go_both_ways() {
        let lines = b"Grpc-Status: 0\r\nGrpc-Message: fine\r\n";
        let trailers = read_trailers(lines);
        assert_eq!(trailers.len(), 2);
        assert_eq!(trailers["grpc-message"], "fine");
        assert_eq!(print_trailers(&trailers).unwrap(), lines);
    }
}
