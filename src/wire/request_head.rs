//! A request's head, understood once: what it asks for, how its body ends, what of it concerns this hop only.
//!
//! Whatever leaves a doubt about where this request ends, for whom it is or what it means to the next
//! parser is refused here, and no dyno sees it.

use std::fmt;

use crate::config::limits::{FIELD_NAME_MAX, REQUEST_FIELD_MAX};
use crate::model::Host;
use crate::wire::field::{
    BadCodings, ConnectionOptions, Special, TransferCodings, has_line_beyond, is_special_twin, length, passable_upgrade,
    special,
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
        debug_assert_eq!(crate::wire::HeadScan::default().find_end(head, usize::MAX >> 32), Ok(Some(head.len())));
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
            special(field.name).is_none() && !self.connection.names(field.name) && !is_special_twin(field.name)
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
        for field in fields {
            if let Some(special) = special(field.name) {
                found.add(special, field.value)?;
            }
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
            Special::Connection => self.connection.add(value).map_err(|_| BadRequest::ConnectionMalformed)?,
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
            Special::Expect if value.eq_ignore_ascii_case(b"100-continue") => self.expect_continue = true,
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
fn check_target<'b>(method: &str, target: &'b str, host: &str, lookup: &Host) -> Result<Target<'b>, BadRequest> {
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
    let target = memchr::memchr(b'#', target.as_bytes()).map_or(target, |fragment| &target[..fragment]);
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
            httparse::Error::Version | httparse::Error::NewLine | httparse::Error::Status | httparse::Error::Token,
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
            BadHead::StartLineTooLong => Self::RequestLineTooLong,
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
