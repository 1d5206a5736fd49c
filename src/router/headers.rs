//! The heads that the router writes: what a dyno sees of a request, what a client sees of an answer.
//!
//! Rules: Heroku's (HTTP Routing, "Heroku headers"), with hop-by-hop fields that `Connection` names dropped too (RFC 9110 §7.6.1).

use std::io::Write;
use std::net::IpAddr;

use smallvec::SmallVec;

use crate::config::limits::VIA_MAX;
use crate::router::clock::Moment;
use crate::router::http_date::HttpDate;
use crate::router::random::Random;
use crate::router::transport::FieldSink;
use crate::wire::{self, Field, RequestBody, RequestHead, ResponseHead, Target};

/// Our name in Via (RFC 9110 §7.6.3).
const VIA: &[u8] = b"1.1 dynomesh";

/// What a request's new head is made from, beside the head that came.
pub(crate) struct Forwarding<'a> {
    /// The client's address; `None` on a Unix socket.
    pub(crate) peer: Option<IpAddr>,
    /// Whether the peer's own X-Forwarded-* fields are believed.
    pub(crate) trusted: bool,
    /// Whether the client's connection is secured by TLS.
    pub(crate) secure: bool,
    /// The port that the client connected to.
    pub(crate) port: u16,
    /// When the request's head was whole.
    pub(crate) now: Moment,
    pub(crate) random: &'a Random,
    /// Whether the connection to the dyno is kept for further requests.
    pub(crate) keep: bool,
    /// Whether the dyno is to answer `Expect: 100-continue`.
    pub(crate) expect: bool,
}

/// A request's id: ours fits, a client's own may be longer.
pub(crate) type RequestId = SmallVec<[u8; 40]>;

/// What the composing found out.
pub(crate) struct Composed {
    /// The request's id, the client's or ours.
    pub(crate) request_id: RequestId,
    /// What X-Forwarded-For says to the dyno.
    pub(crate) fwd: SmallVec<[u8; 48]>,
    /// Whether the client prefers JSON to HTML.
    pub(crate) wants_json: bool,
    /// Whether the request has come through this router too often.
    pub(crate) is_loop: bool,
    /// Whether the client's own connection is secured, here or at a proxy that is believed.
    pub(crate) is_secure: bool,
}

/// The client's fields that the router answers for.
#[derive(Default)]
struct Ours<'b> {
    request_id: Option<&'b [u8]>,
    forwarded_for: Vec<&'b [u8]>,
    forwarded_proto: Option<&'b [u8]>,
    forwarded_port: Option<&'b [u8]>,
    via: Vec<&'b [u8]>,
    accept: Option<&'b [u8]>,
}

/// Appends the head that the dyno sees.
pub(crate) fn compose_request(
    out: &mut Vec<u8>,
    head: &RequestHead<'_, '_>,
    with: &Forwarding<'_>,
) -> Composed {
    let mut ours = Ours::default();
    out.extend_from_slice(head.method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(match head.target {
        Target::Origin(path) => path.as_bytes(),
        Target::Asterisk => b"*",
    });
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    out.extend_from_slice(head.host.as_bytes());
    out.extend_from_slice(b"\r\n");
    for field in head.end_to_end() {
        if !ours.take(field, with.trusted) {
            wire::write_field(out, field.name, field.value);
        }
    }
    let composed = ours.decide(with);
    ours.write(out, &composed, with);
    write_framing(out, head, with);
    out.extend_from_slice(b"\r\n");
    composed
}

impl<'b> Ours<'b> {
    /// Takes a field that the router answers for; `false` for one that goes on as it is.
    ///
    /// CGI-style servers read `X_Forwarded_For` as X-Forwarded-For: such twins are dropped.
    fn take(&mut self, field: &Field<'b>, trusted: bool) -> bool {
        let name = field.name;
        match name.len() {
            3 if name.eq_ignore_ascii_case("via") => self.via.push(field.value),
            6 if name.eq_ignore_ascii_case("accept") => {
                self.accept = Some(field.value);
                return false;
            }
            9 if name.eq_ignore_ascii_case("forwarded") => return !trusted,
            12 if is_twin(name, "x-request-id") => {
                if !name.contains('_') {
                    self.request_id = Some(field.value);
                }
            }
            15 if is_twin(name, "x-forwarded-for") => {
                if trusted && !name.contains('_') && !field.value.is_empty() {
                    self.forwarded_for.push(field.value);
                }
            }
            17 if is_twin(name, "x-forwarded-proto") => {
                if trusted && !name.contains('_') {
                    self.forwarded_proto = Some(field.value);
                }
            }
            16 if is_twin(name, "x-forwarded-port") => {
                if trusted && !name.contains('_') {
                    self.forwarded_port = Some(field.value);
                }
            }
            15 if is_twin(name, "x-request-start") => {}
            _ => return false,
        }
        true
    }

    fn decide(&self, with: &Forwarding<'_>) -> Composed {
        let request_id = match self.request_id.filter(|id| is_request_id(id)) {
            Some(id) => id.into(),
            None => with.random.uuid()[..].into(),
        };
        let mut fwd = SmallVec::new();
        for (index, forwarded_for) in self.forwarded_for.iter().enumerate() {
            fwd.extend_from_slice(if index > 0 { b", " } else { b"" });
            fwd.extend_from_slice(forwarded_for);
        }
        if let Some(peer) = with.peer {
            fwd.extend_from_slice(if fwd.is_empty() { b"" } else { b", " });
            // Writing to a SmallVec does not fail.
            let _ = write!(fwd, "{peer}");
        }
        let own_vias = self.via.iter().flat_map(|via| via.split(|byte| *byte == b','));
        let own_vias = own_vias.filter(|via| via.trim_ascii().ends_with(b" dynomesh")).count();
        Composed {
            request_id,
            fwd,
            wants_json: self.accept.is_some_and(crate::router::reply::prefers_json),
            is_loop: own_vias >= VIA_MAX,
            is_secure: match self.forwarded_proto {
                Some(proto) => proto.eq_ignore_ascii_case(b"https"),
                None => with.secure,
            },
        }
    }

    fn write(&self, out: &mut Vec<u8>, composed: &Composed, with: &Forwarding<'_>) {
        wire::write_field(out, "X-Request-Id", &composed.request_id);
        if !composed.fwd.is_empty() {
            wire::write_field(out, "X-Forwarded-For", &composed.fwd);
        }
        let proto: &[u8] = if with.secure { b"https" } else { b"http" };
        wire::write_field(out, "X-Forwarded-Proto", self.forwarded_proto.unwrap_or(proto));
        out.extend_from_slice(b"X-Forwarded-Port: ");
        match self.forwarded_port {
            Some(port) => out.extend_from_slice(port),
            None => {
                wire::write_number(out, with.port.into());
            }
        }
        out.extend_from_slice(b"\r\nX-Request-Start: ");
        wire::write_number(out, with.now.wall().as_millis() as u64);
        out.extend_from_slice(b"\r\nVia: ");
        for via in &self.via {
            out.extend_from_slice(via);
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(VIA);
        out.extend_from_slice(b"\r\n");
    }
}

/// Whether a name is `canonical` (lower-case, with dashes), read as a CGI-style server would.
fn is_twin(name: &str, canonical: &str) -> bool {
    let fold = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    name.bytes().map(fold).eq(canonical.bytes())
}

/// Heroku's rule: 20 to 200 of these characters.
fn is_request_id(id: &[u8]) -> bool {
    let character =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-');
    (20..=200).contains(&id.len()) && id.iter().all(character)
}

/// The framing is always the router's own: what reaches a dyno can be read in one way only.
fn write_framing(out: &mut Vec<u8>, head: &RequestHead<'_, '_>, with: &Forwarding<'_>) {
    match head.body {
        RequestBody::Length(length) => {
            write_length(out, length);
        }
        RequestBody::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        // RFC 9110 §8.6: methods that mean something by a body say that they have none.
        RequestBody::None if matches!(head.method, "POST" | "PUT" | "PATCH") => {
            out.extend_from_slice(b"Content-Length: 0\r\n");
        }
        RequestBody::None => {}
    }
    if with.expect {
        out.extend_from_slice(b"Expect: 100-continue\r\n");
    }
    match head.upgrade_tokens() {
        Some(tokens) => {
            wire::write_field(out, "Upgrade", tokens);
            out.extend_from_slice(b"Connection: Upgrade\r\n");
        }
        None if !with.keep => out.extend_from_slice(b"Connection: close\r\n"),
        None => {}
    }
}

fn write_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"Content-Length: ");
    wire::write_number(out, length);
    out.extend_from_slice(b"\r\n");
}

/// How the body of an answer goes to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// No body, and nothing said of one.
    None,
    /// A body of this length, or (for HEAD and 304) the length it would have.
    Length(u64),
    /// Chunked.
    Chunked,
    /// Until the connection closes.
    UntilClose,
}

/// Composes the head of a final answer, as the client sees it.
pub(crate) fn compose_response(
    to: &mut dyn FieldSink,
    head: &ResponseHead<'_, '_>,
    framing: Framing,
    connection: Option<&str>,
    date: &mut HttpDate,
    now: Moment,
) {
    compose_interim(to, head);
    if !head.has("date") {
        to.field("Date", date.text(now.wall()));
    }
    match framing {
        Framing::Length(length) => {
            let mut digits = SmallVec::<[u8; 20]>::new();
            // Writing to a SmallVec does not fail.
            let _ = write!(digits, "{length}");
            to.field("Content-Length", &digits);
        }
        Framing::Chunked => to.field("Transfer-Encoding", b"chunked"),
        Framing::None | Framing::UntilClose => {}
    }
    if let Some(connection) = connection {
        to.field("Connection", connection.as_bytes());
    }
}

/// Composes a cookie of the router's own, beside the app's: fields of this name are never joined
/// (RFC 6265 §3).
pub(crate) fn compose_cookie(to: &mut dyn FieldSink, cookie: Option<&str>) {
    if let Some(cookie) = cookie {
        to.field("Set-Cookie", cookie.as_bytes());
    }
}

/// Composes the head of the answer that turns the connection into a pipe.
pub(crate) fn compose_switching(
    to: &mut dyn FieldSink,
    head: &ResponseHead<'_, '_>,
    tokens: &[u8],
) {
    compose_interim(to, head);
    to.field("Upgrade", tokens);
    to.field("Connection", b"Upgrade");
}

/// Composes status and end-to-end fields, with our name added to Via: all of an interim (1xx) answer.
pub(crate) fn compose_interim(to: &mut dyn FieldSink, head: &ResponseHead<'_, '_>) {
    to.status(head.status, head.reason);
    let is_via = |field: &&Field<'_>| field.name.eq_ignore_ascii_case("via");
    let mut vias = SmallVec::<[u8; 64]>::new();
    for via in head.end_to_end().filter(is_via) {
        vias.extend_from_slice(via.value);
        vias.extend_from_slice(b", ");
    }
    vias.extend_from_slice(VIA);
    to.field("Via", &vias);
    for field in head.end_to_end().filter(|field| !is_via(field)) {
        to.field(field.name, field.value);
    }
}
