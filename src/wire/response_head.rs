//! An answer's head, understood once: how its body ends, and whether the dyno's connection outlives it.
//!
//! A dyno is not an attacker, but its client's cache is worth the same care: what cannot be framed is refused.

use std::fmt;

use crate::config::limits::{RESPONSE_FIELD_MAX, STATUS_LINE_MAX};
use crate::wire::field::{
    BadCodings, ConnectionOptions, Special, TransferCodings, has, has_line_beyond, is_special_twin,
    length, members, passable_upgrade, special, special_fields,
};
use crate::wire::head::{BadHead, Field, FieldSlots, Version};

/// An answer's head, borrowed from the bytes it came in.
#[derive(Clone, Debug)]
pub struct ResponseHead<'h, 'b> {
    /// 100 to 999.
    pub status: u16,
    /// As sent; empty where none was sent, or none that is ASCII.
    pub reason: &'b str,
    /// The version of the dyno.
    pub version: Version,
    /// All fields, in order, as sent.
    pub fields: &'h [Field<'b>],
    /// Where the body ends.
    pub body: ResponseBody,
    /// Whether the dyno takes another request on this connection once the body is whole.
    pub reusable: bool,
    /// For how many seconds the dyno says that it keeps the connection.
    pub keep_alive_timeout: Option<u32>,
    content_length: Option<u64>,
    upgrade_tokens: Option<&'b [u8]>,
    connection: ConnectionOptions<'b>,
}

/// Where an answer's body ends (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseBody {
    /// There is none, whatever the head says: HEAD, 1xx, 204, 304.
    None,
    /// After this many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection.
    UntilClose,
}

/// What dynomesh says of its own errors. A dyno cannot say it.
const ERROR_FIELD: &str = "x-dynomesh-error";

impl<'h, 'b> ResponseHead<'h, 'b> {
    /// Parses `head`, which is exactly what [`HeadScan`](crate::wire::HeadScan) delimited.
    pub fn parse(
        head: &'b [u8],
        slots: &'h mut FieldSlots<'b>,
        method_is_head: bool,
    ) -> Result<Self, BadResponse> {
        debug_assert_eq!(
            crate::wire::HeadScan::default().find_end(head, u32::MAX as usize),
            Ok(Some(head.len()))
        );
        let mut response = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            head,
            &mut slots.0,
        );
        let (Some(status), Some(version), Ok(httparse::Status::Complete(_))) =
            (response.code, response.version, parsed)
        else {
            return Err(explain(parsed.err()));
        };
        if status < 100 {
            return Err(BadResponse::StatusLine);
        }
        let reason = response.reason.unwrap_or_default();
        let fields: &'h [Field<'b>] = response.headers;
        if head.len() > STATUS_LINE_MAX {
            measure(head, fields)?;
        }
        let version = if version == 0 { Version::Http10 } else { Version::Http11 };
        let special = SpecialFields::read(fields)?;
        let framing = special.framing(status, version, method_is_head)?;
        let connection = special.connection;
        let persists = !connection.close && (version == Version::Http11 || connection.keep_alive);
        Ok(Self {
            status,
            reason,
            version,
            fields,
            body: framing.body,
            reusable: persists && framing.is_certain,
            keep_alive_timeout: special.keep_alive_timeout,
            content_length: framing.content_length,
            upgrade_tokens: special.upgrade.filter(|_| connection.upgrade),
            connection,
        })
    }

    /// Whether another answer follows this one.
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    /// The fields that go on to the client: not the framing, not those that end at this hop
    /// (RFC 9110 §7.6.1), and not `X-Dynomesh-Error`.
    #[inline]
    pub fn end_to_end(&self) -> impl Iterator<Item = &'h Field<'b>> {
        self.fields.iter().filter(move |field| {
            !ends_here(field.name)
                && !self.connection.names(field.name)
                && !is_special_twin(field.name)
                && !field.name.eq_ignore_ascii_case(ERROR_FIELD)
        })
    }

    /// The length as sent, where it means something: also of an answer to HEAD and of a 304, which have no
    /// body but may say how long it would be.
    pub fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// The protocols that the dyno changes to and that may pass, as sent.
    pub fn upgrade_tokens(&self) -> Option<&'b [u8]> {
        self.upgrade_tokens
    }

    /// Whether the dyno sent a field of this name.
    pub fn has(&self, name: &str) -> bool {
        has(self.fields, name)
    }
}

/// Whether a field of an answer is for this hop only, or framing. What only means something in requests is none
/// of our business here.
fn ends_here(name: &str) -> bool {
    match special(name) {
        Some(
            Special::Connection
            | Special::ContentLength
            | Special::KeepAlive
            | Special::ProxyConnection
            | Special::Te
            | Special::TransferEncoding
            | Special::Upgrade,
        ) => true,
        Some(
            Special::Expect | Special::Host | Special::Http2Settings | Special::ProxyAuthorization,
        )
        | None => false,
    }
}

/// What the one pass over the fields finds.
#[derive(Default)]
struct SpecialFields<'b> {
    length: Option<u64>,
    codings: Option<TransferCodings>,
    connection: ConnectionOptions<'b>,
    upgrade: Option<&'b [u8]>,
    keep_alive_timeout: Option<u32>,
}

struct Framing {
    body: ResponseBody,
    content_length: Option<u64>,
    /// Whether nobody can be of another opinion about where the next answer begins.
    is_certain: bool,
}

impl<'b> SpecialFields<'b> {
    fn read(fields: &[Field<'b>]) -> Result<Self, BadResponse> {
        let mut found = Self::default();
        for (special, value) in special_fields(fields) {
            found.add(special, value)?;
        }
        Ok(found)
    }

    fn add(&mut self, special: Special, value: &'b [u8]) -> Result<(), BadResponse> {
        match special {
            Special::ContentLength => {
                let length = length(value).ok_or(BadResponse::LengthMalformed)?;
                // Heroku takes equal ones for one; one is what the client gets.
                if self.length.replace(length).is_some_and(|earlier| earlier != length) {
                    return Err(BadResponse::LengthsDiffer);
                }
            }
            Special::TransferEncoding => self.codings.get_or_insert_default().add(value)?,
            Special::Connection => {
                self.connection.add(value).map_err(|_| BadResponse::ConnectionMalformed)?
            }
            Special::KeepAlive => {
                self.keep_alive_timeout = timeout(value).or(self.keep_alive_timeout)
            }
            Special::Upgrade => {
                self.upgrade = self.upgrade.or(passable_upgrade(value).ok().flatten())
            }
            Special::Expect
            | Special::Host
            | Special::Http2Settings
            | Special::ProxyAuthorization
            | Special::ProxyConnection
            | Special::Te => {}
        }
        Ok(())
    }

    fn framing(
        &self,
        status: u16,
        version: Version,
        method_is_head: bool,
    ) -> Result<Framing, BadResponse> {
        if status < 200 || status == 204 {
            // RFC 9110 §8.6, RFC 9112 §6.1: neither field belongs here. A dyno that sends one may send the
            // body too, on a connection that others would read from.
            let is_certain = status != 101
                && self.codings.is_none()
                && self.length.is_none_or(|length| length == 0);
            return Ok(Framing { body: ResponseBody::None, content_length: None, is_certain });
        }
        if let Some(codings) = self.codings {
            if version == Version::Http10 {
                return Err(BadResponse::CodingsIn10);
            }
            codings.check()?;
        }
        let bodiless = method_is_head || status == 304;
        let body = match (bodiless, self.codings, self.length) {
            (true, ..) => ResponseBody::None,
            (false, Some(_), _) => ResponseBody::Chunked,
            (false, None, Some(length)) => ResponseBody::Length(length),
            (false, None, None) => ResponseBody::UntilClose,
        };
        Ok(Framing {
            body,
            // RFC 9112 §6.3: chunked wins over a length, and the connection is not to be trusted afterwards.
            content_length: self.length.filter(|_| self.codings.is_none()),
            is_certain: body != ResponseBody::UntilClose
                && !(self.codings.is_some() && self.length.is_some()),
        })
    }
}

/// Reads the `timeout=N` of a Keep-Alive field; servers tell us with it how long they wait.
fn timeout(value: &[u8]) -> Option<u32> {
    members(value).find_map(|member| {
        let (name, seconds) = member.split_at_checked("timeout=".len())?;
        if !name.eq_ignore_ascii_case(b"timeout=") {
            return None;
        }
        u32::try_from(length(seconds)?).ok()
    })
}

/// Holds the limits of lines. Most heads are shorter than the least of them.
#[cold]
fn measure(head: &[u8], fields: &[Field]) -> Result<(), BadResponse> {
    let is_long_cookie = |field: &Field| {
        let name = "set-cookie";
        field.name.eq_ignore_ascii_case(name)
            && name.len() + ": ".len() + field.value.len() > STATUS_LINE_MAX
    };
    if fields.iter().any(is_long_cookie) {
        return Err(BadResponse::CookieTooLong);
    }
    if head.len() > RESPONSE_FIELD_MAX && has_line_beyond(head, RESPONSE_FIELD_MAX) {
        return Err(BadResponse::FieldTooLong);
    }
    Ok(())
}

/// Says why httparse did not take a head.
#[cold]
fn explain(error: Option<httparse::Error>) -> BadResponse {
    match error {
        Some(httparse::Error::TooManyHeaders) => BadResponse::TooManyFields,
        Some(
            httparse::Error::HeaderName | httparse::Error::HeaderValue | httparse::Error::NewLine,
        ) => BadResponse::Field,
        Some(httparse::Error::Version | httparse::Error::Status | httparse::Error::Token)
        | None => BadResponse::StatusLine,
    }
}

/// Why an answer is not passed on. The app's fault, always.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "`table` says it in words")]
pub enum BadResponse {
    BareLineFeed,
    BareCarriageReturn,
    Nul,
    BlankLines,
    StatusLine,
    StatusLineTooLong,
    HeadTooLarge,
    TooManyFields,
    FieldTooLong,
    CookieTooLong,
    Field,
    LengthMalformed,
    LengthsDiffer,
    CodingsIn10,
    CodingsMalformed,
    CodingsNotChunked,
    CodingUnknown,
    ConnectionMalformed,
}

impl BadResponse {
    /// Heroku's code: H25 for what is restricted, H17 for what is not HTTP.
    pub fn code(self) -> &'static str {
        self.table().0
    }

    /// The status of the answer to the client.
    pub fn status(self) -> u16 {
        if self.code() == "H25" { 502 } else { 503 }
    }

    /// What is wrong, for `cause="…"` in the log.
    pub fn cause(self) -> &'static str {
        self.table().1
    }

    fn table(self) -> (&'static str, &'static str) {
        match self {
            Self::BareLineFeed => ("H17", "bare line feed"),
            Self::BareCarriageReturn => ("H17", "bare carriage return"),
            Self::Nul => ("H17", "nul byte in head"),
            Self::BlankLines => ("H17", "blank line before status line"),
            Self::StatusLine => ("H17", "bad status line"),
            Self::StatusLineTooLong => ("H25", "status line too long"),
            Self::HeadTooLarge => ("H25", "response head too large"),
            Self::TooManyFields => ("H25", "too many fields"),
            Self::FieldTooLong => ("H25", "field too long"),
            Self::CookieTooLong => ("H25", "cookie too long"),
            Self::Field => ("H17", "bad field"),
            Self::LengthMalformed => ("H25", "bad content length"),
            Self::LengthsDiffer => ("H25", "content lengths differ"),
            Self::CodingsIn10 => ("H17", "transfer encoding in http 1.0"),
            Self::CodingsMalformed => ("H17", "bad transfer encoding"),
            Self::CodingsNotChunked => ("H17", "transfer encoding does not end in chunked"),
            Self::CodingUnknown => ("H17", "transfer coding not supported"),
            Self::ConnectionMalformed => ("H17", "bad connection options"),
        }
    }
}

impl fmt::Display for BadResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.cause())
    }
}

impl From<BadHead> for BadResponse {
    fn from(bad: BadHead) -> Self {
        match bad {
            BadHead::BareLineFeed => Self::BareLineFeed,
            BadHead::BareCarriageReturn => Self::BareCarriageReturn,
            BadHead::Nul => Self::Nul,
            BadHead::BlankLines => Self::BlankLines,
            BadHead::LineTooLong => Self::StatusLineTooLong,
            BadHead::TooLarge => Self::HeadTooLarge,
        }
    }
}

impl From<BadCodings> for BadResponse {
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
    use super::*;

    /// Parses an answer to GET written with `\n` for its line ends, and shows what `show` makes of it.
    fn parsed<T>(head: &str, show: impl FnOnce(&ResponseHead) -> T) -> T {
        show(
            &ResponseHead::parse(
                head.replace('\n', "\r\n").as_bytes(),
                &mut FieldSlots::new(),
                false,
            )
            .unwrap(),
        )
    }

    #[test]
    fn where_bodies_end() {
        use ResponseBody as Body;
        let check = |method_is_head, head: &str, body, length, reusable| {
            let head = head.replace('\n', "\r\n");
            let mut slots = FieldSlots::new();
            let parsed = ResponseHead::parse(head.as_bytes(), &mut slots, method_is_head).unwrap();
            assert_eq!(
                (parsed.body, parsed.content_length(), parsed.reusable),
                (body, length, reusable),
                "{head}"
            );
        };
        check(false, "HTTP/1.1 200 OK\nContent-Length: 3\n\n", Body::Length(3), Some(3), true);
        check(false, "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", Body::Chunked, None, true);
        check(false, "HTTP/1.1 200 OK\n\n", Body::UntilClose, None, false);
        check(
            false,
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nContent-Length: 3\n\n",
            Body::Chunked,
            None,
            false,
        );
        check(true, "HTTP/1.1 200 OK\nContent-Length: 3\n\n", Body::None, Some(3), true);
        check(true, "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", Body::None, None, true);
        check(true, "HTTP/1.1 200 OK\n\n", Body::None, None, true);
        check(false, "HTTP/1.1 304 Not Modified\nContent-Length: 3\n\n", Body::None, Some(3), true);
        check(false, "HTTP/1.1 204 No Content\n\n", Body::None, None, true);
        check(false, "HTTP/1.1 204 No Content\nContent-Length: 0\n\n", Body::None, None, true);
        check(false, "HTTP/1.1 204 No Content\nContent-Length: 3\n\n", Body::None, None, false);
        check(
            false,
            "HTTP/1.1 204 No Content\nTransfer-Encoding: chunked\n\n",
            Body::None,
            None,
            false,
        );
        check(false, "HTTP/1.1 101 Switching Protocols\n\n", Body::None, None, false);
        check(false, "HTTP/1.1 103 Early Hints\n\n", Body::None, None, true);
    }

    #[test]
    fn connections_that_outlive_an_answer() {
        let check = |start: &str, expected| {
            assert_eq!(
                parsed(&format!("{start}\nContent-Length: 0\n\n"), |head| head.reusable),
                expected,
                "{start}"
            );
        };
        check("HTTP/1.1 200 OK", true);
        check("HTTP/1.1 200 OK\nConnection: close", false);
        check("HTTP/1.1 200 OK\nConnection: keep-alive, Close", false);
        check("HTTP/1.0 200 OK", false);
        check("HTTP/1.0 200 OK\nConnection: keep-alive", true);
    }

    #[test]
    fn how_long_a_dyno_keeps_it() {
        let check = |value: &str, expected| {
            let head = format!("HTTP/1.1 200 OK\nKeep-Alive: {value}\n\n");
            assert_eq!(parsed(&head, |head| head.keep_alive_timeout), expected, "{value}");
        };
        check("timeout=5", Some(5));
        check("max=100, Timeout=65", Some(65));
        check("timeout=5;max=1", None);
        check("timeout=", None);
        check("timeout=99999999999", None);
        check("5", None);
    }

    #[test]
    fn what_goes_on_to_the_client() {
        let check = |fields: &str, expected: &str| {
            let names = parsed(&format!("HTTP/1.1 200 OK\n{fields}\n"), |head| {
                head.end_to_end().map(|field| field.name).collect::<Vec<_>>().join(" ")
            });
            assert_eq!(names, expected, "{fields}");
        };
        check(
            "Date: a\nserver: b\nTrailer: c\nSet-Cookie: d\nSet-Cookie: e\n",
            "Date server Trailer Set-Cookie Set-Cookie",
        );
        check(
            "Connection: close, X-One\nX-One: a\nKeep-Alive: timeout=1\nProxy-Connection: b\nTE: c\n",
            "",
        );
        check("Content-Length: 3\nUpgrade: h2c\nX-DYNOMESH-error: H12\nETag: a\n", "ETag");
        check("Transfer-Encoding: chunked\nProxy-Authenticate: a\n", "Proxy-Authenticate");
    }

    #[test]
    fn what_it_says_of_itself() {
        let head = "HTTP/1.1 101 Switching\nConnection: upgrade\nUpgrade: websocket\nDate: a\n\n";
        parsed(head, |head| {
            assert_eq!(
                (head.status, head.reason, head.version),
                (101, "Switching", Version::Http11)
            );
            assert_eq!(head.upgrade_tokens(), Some(&b"websocket"[..]));
            assert!(head.has("date") && !head.has("server") && !head.is_interim());
        });
        assert!(parsed("HTTP/1.1 100 Continue\n\n", |head| head.is_interim()));
        for silent in
            ["Connection: upgrade\nUpgrade: h2c", "Upgrade: websocket", "Connection: upgrade"]
        {
            let tokens = parsed(&format!("HTTP/1.1 101\n{silent}\n\n"), |head| {
                head.upgrade_tokens().is_some()
            });
            assert!(!tokens, "{silent}");
        }
    }
}
