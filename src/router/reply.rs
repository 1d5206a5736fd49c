//! The router's own answers: each reason for one, in one enum and one table.

use crate::model::AppPolicy;
use crate::router::clock::Moment;
use crate::router::http_date::HttpDate;
use crate::router::traffic::Limit;
use crate::router::transport::{AnswerKind, FieldSink, Transport};

/// Why a request did not end with its dyno's whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No app answers at the host.
    NoSuchApp,
    /// The app is in maintenance.
    Maintenance,
    /// The app has never had a release.
    BlankApp,
    /// The month's hours of dynos like its own are used up.
    OutOfHours,
    /// No web dyno is wanted.
    NoWebProcesses,
    /// Every web dyno is crashed.
    AppCrashed,
    /// Too many requests of the app wait for a dyno.
    BacklogTooDeep,
    /// No dyno came up in time.
    AppBootTimeout,
    /// Every dyno that is up stayed quarantined.
    AllQuarantined,
    /// No dyno accepted a connection in time.
    ConnectTimeout,
    /// Each dyno that was tried refused.
    ConnectRefused,
    /// The app, or this client of it, was asked as much as it may be.
    TooManyRequests(Limit),
    /// The router itself is out of descriptors, ports or memory.
    PlatformError,
    /// No byte of an answer in time, or the dyno does not take the request.
    RequestTimeout,
    /// The dyno closed without a byte of an answer.
    ClosedWithoutResponse,
    /// The dyno's connection ended in the middle.
    ServerInterrupted,
    /// The dyno fell silent in the middle of its answer.
    IdleConnection,
    /// The dyno's answer cannot be read.
    BadResponse(&'static str),
    /// The dyno's answer is not safe to pass on.
    Restriction(&'static str),
    /// The request cannot be read, or not be served.
    BadRequest { status: u16, cause: &'static str },
    /// The connection was made for another app's name.
    Misdirected,
    /// It is an ACME server's question, and here is the answer.
    AcmeChallenge,
    /// The app is for HTTPS only.
    HttpsOnly,
    /// The client went away.
    ClientInterrupted,
    /// The client neither sent nor took anything for too long.
    ClientIdle,
    /// The daemon stopped.
    ForcedClose,
}

/// One row of the table.
pub(crate) struct Row {
    /// Heroku's code; empty where there is none (Heroku: Error Codes).
    pub(crate) code: &'static str,
    /// What the log says of it.
    pub(crate) desc: &'static str,
    /// How bad it is, in the log.
    pub(crate) at: &'static str,
    /// What the client is answered; 499: nothing.
    pub(crate) status: u16,
    /// Which socket ended, where that is the reason.
    pub(crate) sock: &'static str,
}

impl Refusal {
    /// The table. Retries are decided before a refusal is made (`retry.rs`), so none of these is retried.
    #[rustfmt::skip]
    pub(crate) fn row(self) -> Row {
        let row = |code, desc, at, status, sock| Row { code, desc, at, status, sock };
        match self {
            Self::NoSuchApp              => row("",    "No such app",                        "error",   404, ""),
            Self::AppCrashed             => row("H10", "App crashed",                        "error",   503, ""),
            Self::BacklogTooDeep         => row("H11", "Backlog too deep",                   "error",   503, ""),
            Self::RequestTimeout         => row("H12", "Request timeout",                    "error",   503, ""),
            Self::ClosedWithoutResponse  => row("H13", "Connection closed without response", "error",   503, ""),
            Self::NoWebProcesses         => row("H14", "No web processes running",           "error",   503, ""),
            Self::IdleConnection         => row("H15", "Idle connection",                    "error",   503, ""),
            Self::BadResponse(_)         => row("H17", "Poorly formatted HTTP response",     "error",   503, ""),
            Self::ServerInterrupted      => row("H18", "Server Request Interrupted",         "error",   503, "backend"),
            Self::ConnectTimeout         => row("H19", "Backend connection timeout",         "error",   503, ""),
            Self::AppBootTimeout         => row("H20", "App boot timeout",                   "error",   503, ""),
            Self::ConnectRefused         => row("H21", "Backend connection refused",         "error",   503, ""),
            Self::TooManyRequests(_)     => row("H22", "Connection limit reached",           "error",   429, ""),
            Self::ForcedClose            => row("H24", "Forced close",                       "error",   503, ""),
            Self::Restriction(_)         => row("H25", "HTTP restriction",                   "error",   502, ""),
            Self::BadRequest { status, .. } => row("H26", "Request Error",                   "error",   status, ""),
            Self::ClientInterrupted      => row("H27", "Client Request Interrupted",         "warning", 499, "client"),
            Self::ClientIdle             => row("H28", "Client Connection Idle",             "warning", 499, ""),
            Self::Misdirected            => row("H31", "Misdirected Request",                "error",   421, ""),
            Self::AcmeChallenge          => row("",    "ACME challenge",                     "info",    200, ""),
            Self::HttpsOnly              => row("",    "HTTPS only",                         "info",    308, ""),
            Self::AllQuarantined         => row("H34", "All up dynos are quarantined",       "error",   503, ""),
            Self::Maintenance            => row("H80", "Maintenance mode",                   "info",    503, ""),
            Self::BlankApp               => row("H81", "Blank app",                          "info",    502, ""),
            Self::OutOfHours             => row("H82", "You've used up your dyno hour pool", "info",    503, ""),
            Self::PlatformError          => row("H99", "Platform error",                     "error",   503, ""),
        }
    }

    /// Whether it is the dyno that failed the request, and not its client, a limit or the router.
    pub(crate) fn blames_dyno(self) -> bool {
        matches!(
            self,
            Self::RequestTimeout
                | Self::ClosedWithoutResponse
                | Self::IdleConnection
                | Self::BadResponse(_)
                | Self::ServerInterrupted
                | Self::ConnectTimeout
                | Self::ConnectRefused
                | Self::Restriction(_)
        )
    }

    /// What exactly was wrong, where there is more to say.
    pub(crate) fn cause(self) -> &'static str {
        match self {
            Self::BadRequest { cause, .. }
            | Self::BadResponse(cause)
            | Self::Restriction(cause) => cause,
            Self::TooManyRequests(limit) => limit.cause(),
            _ => "",
        }
    }

    /// Every code there is, for the counters.
    pub(crate) const CODES: [&str; 23] = [
        "H10", "H11", "H12", "H13", "H14", "H15", "H17", "H18", "H19", "H20", "H21", "H22", "H24",
        "H25", "H26", "H27", "H28", "H31", "H34", "H80", "H81", "H82", "H99",
    ];
}

/// What an answer of the router's own must know of the request.
pub(crate) struct Reply<'a> {
    pub(crate) refusal: Refusal,
    pub(crate) request_id: &'a [u8],
    pub(crate) wants_json: bool,
    pub(crate) is_head: bool,
    /// What the client is told of its connection, where that is a field.
    pub(crate) connection: Option<&'static str>,
    /// The app's own pages, where an app is known.
    pub(crate) policy: Option<&'a AppPolicy>,
    /// Where to go instead, or what an ACME server wants to read.
    pub(crate) note: &'a str,
}

impl Reply<'_> {
    /// The whole answer: its head as fields, and its body, which HEAD does not get.
    pub(crate) fn write(
        &self,
        transport: &mut impl Transport,
        out: &mut Vec<u8>,
        date: &mut HttpDate,
        now: Moment,
    ) -> usize {
        let row = self.refusal.row();
        let (content_type, body) = self.body(&row);
        let kind = AnswerKind::Final { whole: self.is_head || body.is_empty() };
        transport.answer(out, kind, |to| {
            to.status(row.status, "");
            to.field("Date", date.text(now.wall()));
            to.field("Content-Type", content_type.as_bytes());
            to.field("Content-Length", body.len().to_string().as_bytes());
            self.compose(to, &row);
        });
        if self.is_head {
            return 0;
        }
        transport.ends(&[]);
        out.extend_from_slice(body.as_bytes());
        body.len()
    }

    fn compose(&self, to: &mut dyn FieldSink, row: &Row) {
        to.field("Cache-Control", b"no-store");
        if row.status == 503 {
            to.field("Retry-After", b"5");
        }
        if self.refusal == Refusal::HttpsOnly {
            to.field("Location", self.note.as_bytes());
        }
        if row.status == 429 {
            // The limits are on what is under way, and on a second.
            to.field("Retry-After", b"1");
        }
        if row.status == 405 {
            to.field("Allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE");
        }
        if !self.request_id.is_empty() {
            to.field("X-Request-Id", self.request_id);
        }
        if !row.code.is_empty() {
            to.field("X-Dynomesh-Error", row.code.as_bytes());
        }
        if let Some(connection) = self.connection {
            to.field("Connection", connection.as_bytes());
        }
    }

    fn body(&self, row: &Row) -> (&'static str, std::borrow::Cow<'_, str>) {
        const HTML: &str = "text/html; charset=utf-8";
        if self.refusal == Refusal::AcmeChallenge {
            return ("application/octet-stream", self.note.into());
        }
        if self.wants_json {
            return ("application/json", json(row, self.refusal.cause(), self.request_id).into());
        }
        let own = self.policy.and_then(|policy| match self.refusal {
            Refusal::Maintenance => policy.maintenance_page.as_deref(),
            _ => policy.error_page.as_deref(),
        });
        match own {
            Some(page) => (HTML, page.into()),
            None => (HTML, html(self.refusal, row).into()),
        }
    }
}

/// The same facts for programs. Codes and causes are ours and need no escaping; ids have only
/// characters that JSON takes as they are.
fn json(row: &Row, cause: &str, request_id: &[u8]) -> String {
    let request_id = String::from_utf8_lossy(request_id);
    format!(
        "{{\"error\":{{\"code\":\"{}\",\"status\":{},\"message\":\"{}\",\"cause\":\"{cause}\",\"request_id\":\"{request_id}\"}}}}\n",
        row.code, row.status, row.desc
    )
}

fn html(refusal: Refusal, row: &Row) -> String {
    let (title, text) = match refusal {
        Refusal::NoSuchApp => ("No such app", "There is no app at this address."),
        Refusal::Maintenance => {
            ("Offline for maintenance", "This app is being worked on and will be back soon.")
        }
        Refusal::BlankApp => ("Nothing here yet", "Nothing has been deployed to this app so far."),
        Refusal::OutOfHours => {
            ("Out of hours", "This app has used up its hours and is back with the next month.")
        }
        Refusal::Misdirected => (
            "Misdirected request",
            "This connection was made for another name. Open one for the name that you want.",
        ),
        Refusal::HttpsOnly => ("HTTPS only", "This app answers over HTTPS."),
        Refusal::TooManyRequests(_) => {
            ("Too many requests", "There is too much to do right now. Try again in a moment.")
        }
        Refusal::BadRequest { .. } => ("Bad request", "The request could not be understood."),
        _ => (
            "Application error",
            "The app did not answer this request. If it is yours, its log has the details: look for the code below.",
        ),
    };
    let code = if row.code.is_empty() {
        String::new()
    } else {
        format!("<p><code>{}</code></p>\n", row.code)
    };
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n\
         <style>body{{font:1.1em/1.5 system-ui,sans-serif;max-width:36em;margin:15vh auto;padding:0 1em}}</style>\n\
         <h1>{title}</h1>\n<p>{text}</p>\n{code}</html>\n"
    )
}

/// Whether an Accept field prefers JSON to HTML (RFC 9110 §12.5.1, the two types that we have).
pub(crate) fn prefers_json(accept: &[u8]) -> bool {
    let Ok(accept) = std::str::from_utf8(accept) else { return false };
    let (mut json, mut html) = (0.0_f32, 0.0_f32);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts
            .find_map(|part| part.strip_prefix("q="))
            .and_then(|q| q.parse().ok())
            .unwrap_or(1.0);
        match kind.as_str() {
            "text/html" | "application/xhtml+xml" | "text/*" | "*/*" => html = html.max(quality),
            kind if kind == "application/json" || kind.ends_with("+json") => {
                json = json.max(quality)
            }
            _ => {}
        }
    }
    json > 0.0 && json >= html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_for_those_who_prefer_it() {
        for (accept, expected) in [
            ("", false),
            ("*/*", false),
            ("text/html,application/xhtml+xml,*/*;q=0.8", false),
            ("application/json", true),
            ("application/json, text/plain, */*", true),
            ("application/vnd.api+json;q=0.9, text/html;q=0.5", true),
            ("application/json;q=0.2, text/html", false),
            ("application/json;q=0", false),
        ] {
            assert_eq!(prefers_json(accept.as_bytes()), expected, "{accept}");
        }
    }

    #[test]
    fn every_code_is_counted() {
        for refusal in [
            Refusal::AppCrashed,
            Refusal::BacklogTooDeep,
            Refusal::RequestTimeout,
            Refusal::ClosedWithoutResponse,
            Refusal::NoWebProcesses,
            Refusal::IdleConnection,
            Refusal::BadResponse(""),
            Refusal::ServerInterrupted,
            Refusal::ConnectTimeout,
            Refusal::AppBootTimeout,
            Refusal::ConnectRefused,
            Refusal::ForcedClose,
            Refusal::Restriction(""),
            Refusal::BadRequest { status: 400, cause: "" },
            Refusal::ClientInterrupted,
            Refusal::ClientIdle,
            Refusal::Misdirected,
            Refusal::AllQuarantined,
            Refusal::Maintenance,
            Refusal::BlankApp,
            Refusal::OutOfHours,
            Refusal::PlatformError,
            Refusal::TooManyRequests(Limit::InFlight),
        ] {
            assert!(Refusal::CODES.contains(&refusal.row().code), "{refusal:?}");
        }
    }

    #[test]
    fn json_answers_are_json() {
        let row = Refusal::BadRequest { status: 400, cause: "bad chunk" }.row();
        let value: serde_json::Value =
            serde_json::from_str(&json(&row, "bad chunk", b"a-b")).unwrap();
        assert_eq!(value["error"]["code"], "H26");
        assert_eq!(value["error"]["cause"], "bad chunk");
    }
}
