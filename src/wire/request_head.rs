//! A request's head, understood once: what it asks for, how its body ends, what of it concerns this hop only.
//!
//! Whatever leaves a doubt about where this request ends, for whom it is or what it means to the next
//! parser is refused here, and no dyno sees it.

use std::fmt;

use crate::config::limits::{FIELD_NAME_MAX, REQUEST_FIELD_MAX};
use crate::model::Host;
use crate::wire::field::{
    BadCodings, ConnectionOptions, Special, TransferCodings, has_line_beyond, is_special_twin,
    length, passable_upgrade, special, special_fields,
};
use crate::wire::head::{BadHead, Field, FieldSlots, Version};

/// A request's head, borrowed from the bytes it came in.
#[derive(Clone, Debug)]
pub struct RequestHead<'h, 'b> {
    /// As sent; a token of at most 127 bytes, never CONNECT.
    pub method: &'b str,
    /// What is asked for.
    pub target: Target<'b>,
    /// The version of the client.
    pub version: Version,
    /// The value of the one Host field, as sent.
    pub host: &'b str,
    /// The same in the form for look-up.
    pub lookup: Host<'b>,
    /// All fields, in order, as sent.
    pub fields: &'h [Field<'b>],
    /// Where the body ends.
    pub body: RequestBody,
    /// Whether the client means to send another request on this connection.
    pub keep_alive: bool,
    /// Whether the client said that this is its last request; then a FIN after it is a half-close.
    pub said_close: bool,
    /// Whether the client waits for a 100 before it sends the body. Never from HTTP/1.0; a head without a
    /// body may say it too.
    pub expect_continue: bool,
    /// Whether the client asks to leave HTTP for a protocol that may pass. Never from HTTP/1.0.
    pub upgrade: bool,
    upgrade_tokens: Option<&'b [u8]>,
    connection: ConnectionOptions<'b>,
}

/// What a request asks for (RFC 9112 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'b> {
    /// Path and query as sent, without fragment. An absolute form is reduced to these.
    Origin(&'b str),
    /// `*`: the server as a whole. With OPTIONS only.
    Asterisk,
}

/// Where a request's body ends (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestBody {
    /// There is none: the head says nothing of one.
    None,
    /// After this many bytes; 0 where the head says so.
    Length(u64),
    /// With the last chunk.
    Chunked,
}

impl<'h, 'b> RequestHead<'h, 'b> {
    /// Parses `head`, which is exactly what [`HeadScan`](crate::wire::HeadScan) delimited.
    pub fn parse(head: &'b [u8], slots: &'h mut FieldSlots<'b>) -> Result<Self, BadRequest> {
        debug_assert_eq!(
            crate::wire::HeadScan::default().find_end(head, u32::MAX as usize),
            Ok(Some(head.len()))
        );
        let mut request = httparse::Request::new(&mut []);
        let parsed = request.parse_with_uninit_headers(head, &mut slots.0);
        let (Some(method), Some(target), Some(version), Ok(httparse::Status::Complete(_))) =
            (request.method, request.path, request.version, parsed)
        else {
            return Err(explain(head, parsed.err()));
        };
        let fields: &'h [Field<'b>] = request.headers;
        if head.len() > FIELD_NAME_MAX {
            measure(head, fields)?;
        }
        let version = if version == 0 { Version::Http10 } else { Version::Http11 };
        let special = SpecialFields::read(fields)?;
        let host = special.host.ok_or(BadRequest::HostMissing)?;
        let lookup = Host::parse(host).ok_or(BadRequest::HostMalformed)?;
        let target = check_target(method, target, host, &lookup)?;
        let body = special.body(version)?;
        let upgrade_tokens = special.upgrade_tokens(version)?;
        let connection = special.connection;
        let keep_alive = !connection.close && (version == Version::Http11 || connection.keep_alive);
        Ok(Self {
            method,
            target,
            version,
            host,
            lookup,
            fields,
            body,
            keep_alive,
            said_close: !keep_alive,
            expect_continue: special.expect_continue && version == Version::Http11,
            upgrade: upgrade_tokens.is_some(),
            upgrade_tokens,
            connection,
        })
    }

    /// The fields that go on to the dyno: not Host, not the framing, not those that end at this hop
    /// (RFC 9110 §7.6.1), nor what a CGI-style server would take for one of them. `Trailer` goes on.
    #[inline]
    pub fn end_to_end(&self) -> impl Iterator<Item = &'h Field<'b>> {
        self.fields.iter().filter(move |field| {
            special(field.name).is_none()
                && !self.connection.names(field.name)
                && !is_special_twin(field.name)
        })
    }

    /// The protocols that the client would change to and that may pass, as sent.
    pub fn upgrade_tokens(&self) -> Option<&'b [u8]> {
        self.upgrade_tokens
    }

    /// Whether sending it twice means the same as once (RFC 9110 §9.2.2).
    pub fn is_idempotent(&self) -> bool {
        self.is_safe() || matches!(self.method, "PUT" | "DELETE")
    }

    /// Whether it asks to change nothing (RFC 9110 §9.2.1).
    pub fn is_safe(&self) -> bool {
        matches!(self.method, "GET" | "HEAD" | "OPTIONS" | "TRACE")
    }
}

/// What the one pass over the fields finds.
#[derive(Default)]
struct SpecialFields<'b> {
    host: Option<&'b str>,
    length: Option<u64>,
    codings: Option<TransferCodings>,
    connection: ConnectionOptions<'b>,
    upgrade: Option<Upgrade<'b>>,
    expect_continue: bool,
}

/// What the Upgrade fields say: the first tokens that may pass, or that there are none.
#[derive(Clone, Copy)]
enum Upgrade<'b> {
    Passable(&'b [u8]),
    Never,
    Malformed,
}

impl<'b> SpecialFields<'b> {
    fn read(fields: &[Field<'b>]) -> Result<Self, BadRequest> {
        let mut found = Self::default();
        for (special, value) in special_fields(fields) {
            found.add(special, value)?;
        }
        Ok(found)
    }

    fn add(&mut self, special: Special, value: &'b [u8]) -> Result<(), BadRequest> {
        match special {
            Special::Host => {
                let host = str::from_utf8(value).map_err(|_| BadRequest::HostMalformed)?;
                if self.host.replace(host).is_some() {
                    return Err(BadRequest::HostRepeated);
                }
            }
            Special::ContentLength => {
                // Even equal ones: which of two a parser takes, or that it adds them up, is its secret.
                let length = length(value).ok_or(BadRequest::LengthMalformed)?;
                if self.length.replace(length).is_some() {
                    return Err(BadRequest::LengthRepeated);
                }
            }
            Special::TransferEncoding => self.codings.get_or_insert_default().add(value)?,
            Special::Connection => {
                self.connection.add(value).map_err(|_| BadRequest::ConnectionMalformed)?
            }
            Special::Upgrade => {
                let upgrade = match passable_upgrade(value) {
                    Ok(Some(tokens)) => Upgrade::Passable(tokens),
                    Ok(None) => Upgrade::Never,
                    Err(_) => Upgrade::Malformed,
                };
                self.upgrade = Some(match self.upgrade {
                    None | Some(Upgrade::Never) => upgrade,
                    Some(_) if matches!(upgrade, Upgrade::Malformed) => upgrade,
                    Some(earlier) => earlier,
                });
            }
            Special::Expect if value.eq_ignore_ascii_case(b"100-continue") => {
                self.expect_continue = true
            }
            Special::Expect if !value.is_empty() => return Err(BadRequest::ExpectUnknown),
            Special::Expect
            | Special::Http2Settings
            | Special::KeepAlive
            | Special::ProxyAuthorization
            | Special::ProxyConnection
            | Special::Te => {}
        }
        Ok(())
    }

    fn body(&self, version: Version) -> Result<RequestBody, BadRequest> {
        match (self.codings, self.length) {
            (None, None) => Ok(RequestBody::None),
            (None, Some(length)) => Ok(RequestBody::Length(length)),
            (Some(_), Some(_)) => Err(BadRequest::LengthAndCodings),
            (Some(_), None) if version == Version::Http10 => Err(BadRequest::CodingsIn10),
            (Some(codings), None) => {
                codings.check()?;
                Ok(RequestBody::Chunked)
            }
        }
    }

    fn upgrade_tokens(&self, version: Version) -> Result<Option<&'b [u8]>, BadRequest> {
        // RFC 9110 §7.8: from HTTP/1.0, and without the connection option, Upgrade means nothing.
        if version == Version::Http10 || !self.connection.upgrade {
            return Ok(None);
        }
        match self.upgrade {
            Some(Upgrade::Passable(tokens)) => Ok(Some(tokens)),
            Some(Upgrade::Never) => Ok(None),
            Some(Upgrade::Malformed) => Err(BadRequest::UpgradeMalformed),
            None => Err(BadRequest::UpgradeMissing),
        }
    }
}

/// Longer than any method in use (the longest registered has 16 bytes).
const METHOD_MAX: usize = 127;

/// Checks a target against its method and the Host field, and reduces it to path and query.
fn check_target<'b>(
    method: &str,
    target: &'b str,
    host: &str,
    lookup: &Host,
) -> Result<Target<'b>, BadRequest> {
    if method.len() > METHOD_MAX {
        return Err(BadRequest::MethodTooLong);
    }
    if method == "CONNECT" {
        return Err(BadRequest::Connect);
    }
    // httparse lets well-formed UTF-8 through; to the next parser it may be something else.
    if !target.is_ascii() {
        return Err(BadRequest::TargetMalformed);
    }
    let target =
        memchr::memchr(b'#', target.as_bytes()).map_or(target, |fragment| &target[..fragment]);
    if target.starts_with('/') {
        return Ok(Target::Origin(target));
    }
    if target == "*" && method == "OPTIONS" {
        return Ok(Target::Asterisk);
    }
    let (authority, rest) = split_absolute(target).ok_or(BadRequest::TargetMalformed)?;
    // RFC 9112 §3.2.2 has the target win over Host. The dyno gets the Host alone, so they must agree.
    if Host::parse(authority).as_ref() != Some(lookup) || port(authority) != port(host) {
        return Err(BadRequest::TargetOfOtherHost);
    }
    match rest {
        // RFC 9112 §3.2.4
        "" if method == "OPTIONS" => Ok(Target::Asterisk),
        "" => Ok(Target::Origin("/")),
        path if path.starts_with('/') => Ok(Target::Origin(path)),
        _ => Err(BadRequest::TargetMalformed),
    }
}

/// Authority, and path and query, of an `http` or `https` URI.
fn split_absolute(target: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = target.split_once("://")?;
    let known = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    known.then(|| rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len())))
}

/// The port of an authority that [`Host::parse`] took, as sent.
fn port(authority: &str) -> Option<&str> {
    let after_address = authority.rfind(']').map_or(authority, |bracket| &authority[bracket..]);
    after_address.split_once(':').map(|(_, port)| port)
}

/// Holds the limits of field lines and names. Most heads are shorter than these.
#[cold]
fn measure(head: &[u8], fields: &[Field]) -> Result<(), BadRequest> {
    if fields.iter().any(|field| field.name.len() > FIELD_NAME_MAX) {
        return Err(BadRequest::FieldNameTooLong);
    }
    if head.len() > REQUEST_FIELD_MAX && has_line_beyond(head, REQUEST_FIELD_MAX) {
        return Err(BadRequest::FieldTooLong);
    }
    Ok(())
}

/// Says why httparse did not take a head.
#[cold]
fn explain(head: &[u8], error: Option<httparse::Error>) -> BadRequest {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    match error {
        Some(httparse::Error::TooManyHeaders) => BadRequest::TooManyFields,
        Some(httparse::Error::HeaderName) => explain_name(head),
        Some(httparse::Error::HeaderValue) => BadRequest::FieldValue,
        Some(httparse::Error::Version) if is_of_other_version(line) => BadRequest::OtherVersion,
        Some(
            httparse::Error::Version
            | httparse::Error::NewLine
            | httparse::Error::Status
            | httparse::Error::Token,
        )
        | None => BadRequest::RequestLine,
    }
}

/// Says what is wrong with the name of the first field whose name is wrong.
fn explain_name(head: &[u8]) -> BadRequest {
    let lines = head.split(|byte| *byte == b'\n').skip(1);
    for line in lines {
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return BadRequest::Folded;
        }
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        if name.len() < line.len() && (name.ends_with(b" ") || name.ends_with(b"\t")) {
            return BadRequest::SpaceBeforeColon;
        }
    }
    BadRequest::FieldName
}

/// Whether a request line is well formed, but for a version that is not spoken here.
fn is_of_other_version(line: &[u8]) -> bool {
    let mut words = line.split(|byte| *byte == b' ');
    let version = words.nth(2).unwrap_or_default();
    words.next().is_none()
        && matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// Why a request is refused. The client's fault, always.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "`table` says it in words")]
pub enum BadRequest {
    BareLineFeed,
    BareCarriageReturn,
    Nul,
    BlankLines,
    RequestLine,
    RequestLineTooLong,
    MethodTooLong,
    Connect,
    TargetMalformed,
    TargetOfOtherHost,
    OtherVersion,
    HeadTooLarge,
    TooManyFields,
    FieldTooLong,
    FieldNameTooLong,
    FieldName,
    FieldValue,
    SpaceBeforeColon,
    Folded,
    HostMissing,
    HostRepeated,
    HostMalformed,
    LengthMalformed,
    LengthRepeated,
    LengthAndCodings,
    CodingsIn10,
    CodingsMalformed,
    CodingsNotChunked,
    CodingUnknown,
    ConnectionMalformed,
    UpgradeMissing,
    UpgradeMalformed,
    ExpectUnknown,
}

impl BadRequest {
    /// The status of the answer.
    pub fn status(self) -> u16 {
        self.table().0
    }

    /// What is wrong, for `cause="…"` in the log.
    pub fn cause(self) -> &'static str {
        self.table().1
    }

    fn table(self) -> (u16, &'static str) {
        match self {
            Self::BareLineFeed => (400, "bare line feed"),
            Self::BareCarriageReturn => (400, "bare carriage return"),
            Self::Nul => (400, "nul byte in head"),
            Self::BlankLines => (400, "too many blank lines before request line"),
            Self::RequestLine => (400, "bad request line"),
            Self::RequestLineTooLong => (414, "request line too long"),
            Self::MethodTooLong => (400, "method too long"),
            Self::Connect => (405, "connect not supported"),
            Self::TargetMalformed => (400, "bad request target"),
            Self::TargetOfOtherHost => (400, "request target and host differ"),
            Self::OtherVersion => (505, "http version not supported"),
            Self::HeadTooLarge => (431, "request head too large"),
            Self::TooManyFields => (431, "too many fields"),
            Self::FieldTooLong => (431, "field too long"),
            Self::FieldNameTooLong => (431, "field name too long"),
            Self::FieldName => (400, "bad field name"),
            Self::FieldValue => (400, "bad field value"),
            Self::SpaceBeforeColon => (400, "space before colon"),
            Self::Folded => (400, "folded field"),
            Self::HostMissing => (400, "missing host"),
            Self::HostRepeated => (400, "multiple hosts"),
            Self::HostMalformed => (400, "bad host"),
            Self::LengthMalformed => (400, "bad content length"),
            Self::LengthRepeated => (400, "multiple content lengths"),
            Self::LengthAndCodings => (400, "content length with transfer encoding"),
            Self::CodingsIn10 => (400, "transfer encoding in http 1.0"),
            Self::CodingsMalformed => (400, "bad transfer encoding"),
            Self::CodingsNotChunked => (400, "transfer encoding does not end in chunked"),
            Self::CodingUnknown => (501, "transfer coding not supported"),
            Self::ConnectionMalformed => (400, "bad connection options"),
            Self::UpgradeMissing => (400, "connection upgrade without upgrade"),
            Self::UpgradeMalformed => (400, "bad upgrade"),
            Self::ExpectUnknown => (417, "expectation not supported"),
        }
    }
}

impl fmt::Display for BadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.cause())
    }
}

impl From<BadHead> for BadRequest {
    fn from(bad: BadHead) -> Self {
        match bad {
            BadHead::BareLineFeed => Self::BareLineFeed,
            BadHead::BareCarriageReturn => Self::BareCarriageReturn,
            BadHead::Nul => Self::Nul,
            BadHead::BlankLines => Self::BlankLines,
            BadHead::LineTooLong => Self::RequestLineTooLong,
            BadHead::TooLarge => Self::HeadTooLarge,
        }
    }
}

impl From<BadCodings> for BadRequest {
    fn from(bad: BadCodings) -> Self {
        match bad {
            BadCodings::Malformed => Self::CodingsMalformed,
            BadCodings::NotChunked => Self::CodingsNotChunked,
            BadCodings::Unknown => Self::CodingUnknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::print::write_fields;

    /// Parses a head written with `\n` for its line ends, and shows what `show` makes of it.
    fn parsed<T>(head: &str, show: impl FnOnce(&RequestHead) -> T) -> Result<T, BadRequest> {
        let head = head.replace('\n', "\r\n");
        RequestHead::parse(head.as_bytes(), &mut FieldSlots::new()).map(|head| show(&head))
    }

    fn names_end_to_end(head: &RequestHead) -> String {
        head.end_to_end().map(|field| field.name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn targets_are_reduced_to_path_and_query() {
        let check = |method: &str, target: &str, expected| {
            let head = format!("{method} {target} HTTP/1.1\nHost: a:80\n\n");
            let target = parsed(&head, |head| match head.target {
                Target::Origin(target) => target.to_owned(),
                Target::Asterisk => "(asterisk)".to_owned(),
            });
            assert_eq!(target.as_deref(), expected, "{method} {target:?}");
        };
        check("GET", "/", Ok("/"));
        check("GET", "/a/../b?c=d?e", Ok("/a/../b?c=d?e"));
        check("GET", "/a#b", Ok("/a"));
        check("GET", "/a?b#c#d", Ok("/a?b"));
        check("GET", "//a/b", Ok("//a/b"));
        check("GET", "http://a:80", Ok("/"));
        check("GET", "http://A.:80/b?c", Ok("/b?c"));
        check("GET", "https://a:80/b#c", Ok("/b"));
        check("OPTIONS", "*", Ok("(asterisk)"));
        check("OPTIONS", "http://a:80", Ok("(asterisk)"));
        check("OPTIONS", "http://a:80/", Ok("/"));
        check("GET", "http://a", Err(&BadRequest::TargetOfOtherHost));
        check("GET", "http://a:80?b", Err(&BadRequest::TargetMalformed));
        check("GET", "#a", Err(&BadRequest::TargetMalformed));
    }

    #[test]
    fn ports_of_addresses_are_compared_too() {
        let check = |target: &str, host: &str, expected| {
            assert_eq!(
                parsed(&format!("GET {target} HTTP/1.1\nHost: {host}\n\n"), |_| ()),
                expected,
                "{target} {host}"
            );
        };
        check("http://[::1]:80/", "[0::1]:80", Ok(()));
        check("http://[::1]:80/", "[::1]:81", Err(BadRequest::TargetOfOtherHost));
        check("http://[::1]/", "[::1]:81", Err(BadRequest::TargetOfOtherHost));
        check("http://127.0.0.1:80/", "127.0.0.1:80", Ok(()));
    }

    #[test]
    fn the_connection_ends_when_one_side_said_so() {
        let check = |version: &str, fields: &str, expected: bool| {
            let head = format!("GET / HTTP/{version}\nHost: a\n{fields}\n");
            assert_eq!(
                parsed(&head, |head| (head.keep_alive, head.said_close)),
                Ok((expected, !expected)),
                "{head}"
            );
        };
        check("1.1", "", true);
        check("1.1", "Connection: close\n", false);
        check("1.1", "Connection: Keep-Alive, CLOSE\n", false);
        check("1.1", "Connection: keep-alive\nConnection: close\n", false);
        check("1.1", "Proxy-Connection: close\n", true);
        check("1.0", "", false);
        check("1.0", "Connection: keep-alive\n", true);
        check("1.0", "Connection: keep-alive, close\n", false);
    }

    #[test]
    fn protocols_that_may_pass() {
        let check = |version: &str, upgrade: &str, expected: Option<&str>| {
            let head = format!(
                "GET / HTTP/{version}\nHost: a\nConnection: Upgrade, HTTP2-Settings\n{upgrade}\n"
            );
            let tokens = parsed(&head, |head| {
                assert_eq!(head.upgrade, head.upgrade_tokens().is_some());
                assert_eq!(names_end_to_end(head), "");
                head.upgrade_tokens().map(|tokens| String::from_utf8_lossy(tokens).into_owned())
            });
            assert_eq!(tokens.unwrap().as_deref(), expected, "{upgrade}");
        };
        check("1.1", "Upgrade: WebSocket\n", Some("WebSocket"));
        check("1.1", "Upgrade: foo/2, bar\n", Some("foo/2, bar"));
        check("1.0", "Upgrade: websocket\n", None);
        check("1.1", "Upgrade: h2c\nHTTP2-Settings: AAMAAABk\n", None);
        check("1.1", "Upgrade: H2C\n", None);
        check("1.1", "Upgrade: HTTP/2.0\n", None);
        check("1.1", "Upgrade: TLS/1.0, HTTP/1.1\n", None);
        check("1.1", "Upgrade: h2c, websocket\n", Some("websocket"));
        check("1.1", "Upgrade: websocket , h2c, foo\n", Some("websocket"));
        check("1.1", "Upgrade: h2c\nUpgrade: websocket\n", Some("websocket"));
    }

    #[test]
    fn what_concerns_this_hop_ends_here() {
        let check = |fields: &str, expected: &str| {
            let head = format!("GET / HTTP/1.1\nHost: a\n{fields}\n");
            assert_eq!(parsed(&head, names_end_to_end).as_deref(), Ok(expected), "{fields}");
        };
        check("Accept: b\nTrailer: Digest\nCookie: c\n", "Accept Trailer Cookie");
        check(
            "TE: trailers\nKeep-Alive: timeout=1\nProxy-Connection: close\nAccept: b\n",
            "Accept",
        );
        check("Proxy-Authorization: c\nAuthorization: b\n", "Authorization");
        check("Connection: X-One, x-two\nX-One: b\nX-TWO: c\nX-Three: d\n", "X-Three");
        check("X-One: b\nConnection: close,, x-one\n", "");
        check("Content-Length: 1\nContent_Length: 2\nKEEP_ALIVE: b\nProxy-authorization: c\n", "");
        check("content_type: b\n", "content_type");
    }

    #[test]
    fn waiting_for_100() {
        let check = |head: &str, expected| {
            assert_eq!(parsed(head, |head| head.expect_continue), expected, "{head}")
        };
        check("PUT / HTTP/1.1\nHost: a\nExpect: 100-continue\nContent-Length: 1\n\n", Ok(true));
        check("PUT / HTTP/1.0\nHost: a\nExpect: 100-continue\nContent-Length: 1\n\n", Ok(false));
        check("PUT / HTTP/1.1\nHost: a\nExpect:\n\n", Ok(false));
    }

    #[test]
    fn causes_say_what_is_wrong() {
        let check =
            |head: &str, expected| assert_eq!(parsed(head, |_| ()), Err(expected), "{head}");
        check("GET / HTTP/2.0\nHost: a\n\n", BadRequest::OtherVersion);
        check("GET / HTTP/x\nHost: a\n\n", BadRequest::RequestLine);
        check("GET / HTTP/1.1\nHost : a\n\n", BadRequest::SpaceBeforeColon);
        check("GET / HTTP/1.1\nHost: a\n b\n\n", BadRequest::Folded);
        check("GET / HTTP/1.1\nHost: a\nX Y: b\n\n", BadRequest::FieldName);
        check("GET / HTTP/1.1\nHost: a\nX: \x01\n\n", BadRequest::FieldValue);
    }

    #[test]
    fn methods_that_may_be_repeated() {
        let check = |method: &str, expected| {
            let head = format!("{method} / HTTP/1.1\nHost: a\n\n");
            assert_eq!(
                parsed(&head, |head| (head.is_safe(), head.is_idempotent())),
                Ok(expected),
                "{method}"
            );
        };
        for method in ["GET", "HEAD", "OPTIONS", "TRACE"] {
            check(method, (true, true));
        }
        for method in ["PUT", "DELETE"] {
            check(method, (false, true));
        }
        for method in ["POST", "PATCH", "get", "PROPFIND"] {
            check(method, (false, false));
        }
    }

    /// Fields that mean nothing to the parser.
    fn plain_fields() -> impl Strategy<Value = Vec<(String, String)>> {
        let name = "[A-Za-z!#$%&'*+.^_`|~][A-Za-z0-9-]{0,20}"
            .prop_filter("names that mean something", |name| {
                special(name).is_none() && !is_special_twin(name)
            });
        proptest::collection::vec((name, "([!-~]([!-~ \t]{0,20}[!-~])?)?"), 0..8)
    }

    /// A head that nothing is wrong with: its lines, without their ends.
    fn valid_head() -> impl Strategy<Value = Vec<String>> {
        let body = prop_oneof![
            Just(None),
            any::<u64>().prop_map(|length| Some(format!("Content-Length: {length}"))),
            Just(Some("transfer-encoding: Chunked".to_owned())),
        ];
        let line = "(GET|POST|X-[a-z]{1,5}) /[!-\"$-~]{0,20} HTTP/1\\.1";
        (line, "[a-z]{1,9}(\\.[a-z]{1,5})?(:80)?", plain_fields(), body).prop_map(
            |(line, host, fields, body)| {
                let mut lines = vec![line, format!("Host: {host}")];
                lines.extend(fields.iter().map(|(name, value)| format!("{name}:{value}")));
                lines.extend(body);
                lines
            },
        )
    }

    fn joined(lines: &[String]) -> String {
        lines.join("\n") + "\n\n"
    }

    /// One thing that RFC 9112 forbids, put into a valid head; and the status that meets it.
    fn spoil(lines: &mut Vec<String>, what: usize, at: prop::sample::Index) -> u16 {
        let field = 1 + at.index(lines.len() - 1);
        let has_body = |lines: &[String]| {
            lines.iter().any(|line| line.contains("Content-Length") || line.contains("Chunked"))
        };
        match what {
            0 => lines.insert(field + 1, " folded".into()),
            1 => lines[field] = lines[field].replacen(':', " :", 1),
            2 => lines[field].push('\x01'),
            3 => lines[field].push('\x7f'),
            4 => lines[field].insert(0, '\t'),
            5 => lines[field] = lines[field].replacen(':', "", usize::MAX),
            6 => lines.insert(field, lines[1].clone()),
            7 => drop(lines.remove(1)),
            8 => lines[0] = lines[0].replacen(' ', "  ", 1),
            9 => lines[0].push(' '),
            10 => lines[0] = lines[0].replacen('/', "/\u{e9}", 1),
            11 => lines[0] = lines[0].replacen(" /", " x", 1),
            12 => lines.insert(field, "Content-Length: 1, 1".into()),
            13 => lines.insert(field, "Transfer-Encoding: chunked, identity".into()),
            14 => {
                if !has_body(lines) {
                    lines.push("Content-Length: 1".into());
                }
                lines.insert(field, "Content-Length: 1".into());
            }
            15 => {
                lines.insert(field, "Transfer-Encoding: chunked".into());
                lines.insert(field, "Content-Length: 1".into());
            }
            16 => lines[0] = lines[0].replace("HTTP/1.1", "HTTP/1.1\t"),
            17 => {
                lines[0] = lines[0].replace("HTTP/1.1", "HTTP/1.2");
                return 505;
            }
            18 => {
                lines.insert(field, "Expect: more".into());
                return 417;
            }
            _ => unreachable!("a fault of this number"),
        }
        400
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_as_the_same(lines in valid_head()) {
            let text = joined(&lines).replace('\n', "\r\n");
            let mut slots = FieldSlots::new();
            let head = RequestHead::parse(text.as_bytes(), &mut slots).unwrap();
            let Target::Origin(target) = head.target else { panic!("a path") };
            prop_assert_eq!(format!("{} {target} HTTP/1.1", head.method), &lines[0][..]);
            prop_assert_eq!(head.fields.len(), lines.len() - 1);

            let mut printed = format!("{}\r\n", lines[0]).into_bytes();
            write_fields(&mut printed, head.fields.iter());
            printed.extend_from_slice(b"\r\n");
            let mut slots = FieldSlots::new();
            let again = RequestHead::parse(&printed, &mut slots).unwrap();
            prop_assert_eq!((again.method, again.target, again.host, again.body), (head.method, head.target, head.host, head.body));
            for (field, printed) in head.fields.iter().zip(again.fields) {
                prop_assert!(field.name.eq_ignore_ascii_case(printed.name) && field.value == printed.value);
            }
            prop_assert_eq!(head.end_to_end().count(), plain_count(&lines));
        }

        #[test]
        fn one_fault_is_enough(mut lines in valid_head(), what in 0..19usize, at: prop::sample::Index) {
            let sound = joined(&lines);
            prop_assert_eq!(parsed(&sound, |_| ()), Ok(()));
            let status = spoil(&mut lines, what, at);
            let refused = parsed(&joined(&lines), |_| ()).map_err(BadRequest::status);
            prop_assert_eq!(refused, Err(status), "{}", joined(&lines));
        }

        #[test]
        fn nothing_of_this_hop_goes_on(
            fields in proptest::collection::vec(
                (prop::sample::select(HOP_FIELDS), any::<[bool; 19]>(), any::<bool>()), 0..6),
            named in "[A-Za-z]{1,3}",
        ) {
            let mut head = format!("GET / HTTP/1.1\nHost: a\nConnection: close, {named}\n{named}: b\n");
            for (name, capitals, underscored) in fields {
                let name: String = name.chars().zip(capitals)
                    .map(|(char, capital)| if capital { char.to_ascii_uppercase() } else { char }).collect();
                let name = if underscored { name.replace('-', "_") } else { name };
                // Framing is another law's; here it is only its twins.
                if !name.eq_ignore_ascii_case("content-length") && !name.eq_ignore_ascii_case("transfer-encoding") {
                    head += &format!("{name}:\n");
                }
            }
            prop_assert_eq!(parsed(&(head + "\n"), names_end_to_end), Ok(String::new()));
        }

        #[test]
        fn any_bytes_are_answered(bytes in "[ -~\r\n\t:é\0]{0,200}") {
            let bytes = format!("{bytes}\r\n\r\n").into_bytes();
            let Ok(Some(end)) = crate::wire::HeadScan::default().find_end(&bytes, 8192) else { return Ok(()) };
            let refused = RequestHead::parse(&bytes[..end], &mut FieldSlots::new()).err();
            prop_assert!(refused.is_none_or(|bad| (400..=505).contains(&bad.status())));
        }
    }

    const HOP_FIELDS: &[&str] = &[
        "te",
        "expect",
        "upgrade",
        "keep-alive",
        "content-length",
        "http2-settings",
        "proxy-connection",
        "transfer-encoding",
        "proxy-authorization",
    ];

    fn plain_count(lines: &[String]) -> usize {
        lines[1..].iter().filter(|line| special(line.split(':').next().unwrap()).is_none()).count()
    }
}
