//! Log sessions: what an app said, read back and followed, as server-sent events.
//!
//! A session is nothing but its URL: what is wanted, until when, and a signature by a key that outlives the daemon. Who
//! has the URL may read that one app's log, and nobody can make one up; it is never logged.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use hyper::body::Frame;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep_until};

use crate::config::limits;
use crate::control::Running;
use crate::control::dynos::find_app;
use crate::control::given::{Given, Path};
use crate::control::problem::Problem;
use crate::model::{AppName, Civil};
use crate::shutdown::Shutdown;
use crate::store::new_id;
use crate::telemetry::{Follower, From, Line, Stamp};
use crate::wall_clock;

/// Lines that are shown where nobody says how many (Heroku: Logging).
const LINES: usize = 100;

/// `POST /apps/APP/log-sessions`, as Heroku's Platform API has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogSessionCreate {
    /// How many lines of those that are there, 1,500 at most.
    pub lines: Option<u64>,
    /// Whether those that come follow.
    pub tail: bool,
    /// Of `app` alone, or of `heroku`, or of one of its parts: `router`.
    pub source: Option<String>,
    /// Of one dyno, `web.1`, or of those of a process type.
    pub dyno: Option<String>,
}

/// A log session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSession {
    /// A number in a UUID's clothes.
    pub id: String,
    /// Where it is read; a path alone over the control socket.
    pub logplex_url: String,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// The same.
    pub updated_at: String,
}

/// What stands in front of the paths that are handed out, where a request came by a host that one can come back to:
/// `https://localhost:5000`.
#[derive(Clone)]
pub(in crate::control) struct Origin(pub(in crate::control) String);

impl Origin {
    /// `rendezvous://localhost:5000/SECRET`; its port is written out, for the CLI knows none of its own.
    pub(in crate::control) fn rendezvous(&self, secret: &str) -> String {
        let (scheme, host) = self.0.split_once("://").unwrap_or(("http", &self.0));
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let port = match (has_port, scheme) {
            (true, _) => "",
            (false, "https") => ":443",
            (false, _) => ":80",
        };
        format!("rendezvous://{host}{port}/{secret}")
    }
}

/// Signs sessions, and bounds how many are read at one time.
pub struct LogSessions {
    key: hmac::Key,
    streams: Arc<Semaphore>,
}

/// What a session's URL says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Ticket {
    id: String,
    app: String,
    #[serde(flatten)]
    wanted: LogSessionCreate,
    /// The Unix second of its end.
    until: u64,
}

impl LogSessions {
    /// None is read yet.
    pub fn new(key: &[u8; 32]) -> Self {
        let streams = Arc::new(Semaphore::new(limits::LOG_STREAMS));
        Self { key: hmac::Key::new(HMAC_SHA256, key), streams }
    }

    fn sign(&self, ticket: &Ticket) -> String {
        let text = serde_json::to_vec(ticket).expect("it has text and numbers only");
        let signature = hmac::sign(&self.key, &text);
        format!("{}.{}", URL_SAFE_NO_PAD.encode(&text), URL_SAFE_NO_PAD.encode(signature))
    }

    fn verify(&self, signed: &str, now: u64) -> Option<Ticket> {
        let (text, signature) = signed.split_once('.')?;
        let text = URL_SAFE_NO_PAD.decode(text).ok()?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        hmac::verify(&self.key, &text, &signature).ok()?;
        serde_json::from_slice(&text).ok().filter(|ticket: &Ticket| now < ticket.until)
    }
}

/// `POST /apps/APP/log-sessions`
pub(in crate::control) async fn create(
    State(running): State<Arc<Running>>,
    Path(app): Path<String>,
    origin: Option<Extension<Origin>>,
    Given(mut wanted): Given<LogSessionCreate>,
) -> Result<Response, Problem> {
    let (app, _) = find_app(&running, &app)?;
    let bound = |text: &Option<String>| text.as_ref().is_none_or(|text| text.len() <= FILTER_MAX);
    if !bound(&wanted.source) || !bound(&wanted.dyno) {
        let message = format!("source and dyno have at most {FILTER_MAX} bytes.");
        return Err(Problem::invalid(message));
    }
    wanted.lines = Some(wanted.lines.map_or(LINES as u64, |it| it.min(limits::BOOK_LINES as u64)));
    let now = wall_clock::unix();
    let (id, until) = (new_id().to_string(), now + limits::LOG_SESSION_AGE.as_secs());
    let ticket = Ticket { id: id.clone(), app: app.to_string(), wanted, until };
    let origin = origin.map_or(String::new(), |Extension(Origin(origin))| origin);
    let logplex_url = format!("{origin}/log-sessions/{}", running.log_sessions.sign(&ticket));
    let created_at = Civil::of(now).rfc3339();
    let updated_at = created_at.clone();
    let session = LogSession { id, logplex_url, created_at, updated_at };
    Ok((StatusCode::CREATED, Json(session)).into_response())
}

/// Bytes of a filter; the longest names are shorter.
const FILTER_MAX: usize = 256;

/// `GET /log-sessions/TICKET`: server-sent events, whose ids are the numbers of lines.
pub(in crate::control) async fn stream(
    State(running): State<Arc<Running>>,
    Path(ticket): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let now = wall_clock::unix();
    let gone = || Problem::not_found("This log session is no more: ask for another one.");
    let ticket = running.log_sessions.verify(&ticket, now).ok_or_else(gone)?;
    let (app, _) = find_app(&running, &ticket.app)?;
    let slot = running.log_sessions.streams.clone().try_acquire_owned();
    let slot = slot.map_err(|_| {
        let max = limits::LOG_STREAMS;
        let message = format!("{max} logs are followed already: end one of them.");
        Problem::too_many("too_many_streams", message)
    })?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let left = Duration::from_secs(ticket.until - now);
    if !ticket.wanted.tail {
        running.book.settled().await;
    }
    let follower = |app: &AppName| match last {
        Some(number) => running.book.follow(app, From::After(number)),
        None => running.book.follow(app, From::Begin),
    };
    let (events, received) = mpsc::channel(1);
    let session = Session {
        follower: follower(&app),
        // What is sent after a break is all that came meanwhile.
        first: last.is_none(),
        wanted: ticket.wanted,
        events,
        end: Instant::now() + left,
        _slot: slot,
    };
    let shutdown = running.shutdown.clone();
    running.shutdown.spawn(async move { session.run(&shutdown).await });
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    Ok((headers, Body::new(Events(received))).into_response())
}

/// One reader. It ends when it has all, or its client has left, or the daemon ends.
struct Session {
    follower: Follower,
    /// Whether it begins with the last so many lines.
    first: bool,
    wanted: LogSessionCreate,
    events: mpsc::Sender<Bytes>,
    end: Instant,
    _slot: OwnedSemaphorePermit,
}

impl Session {
    async fn run(mut self, shutdown: &Shutdown) {
        let end = self.end;
        tokio::select! {
            () = self.send_all() => {}
            () = sleep_until(end) => {}
            // A clean end: who follows comes back to the next daemon with the last id it has.
            () = shutdown.begun() => {
                let _ = self.events.try_send(retry(limits::LOG_RETRY));
            }
        }
    }

    async fn send_all(&mut self) {
        if !self.wanted.tail && !self.send(retry(Duration::from_millis(1))).await {
            return;
        }
        if std::mem::take(&mut self.first) {
            let backlog = self.backlog();
            if !backlog.is_empty() && !self.send(backlog).await {
                return;
            }
        }
        let mut silent_since = Instant::now();
        loop {
            let taken = self.follower.take(limits::LOG_EVENTS, limits::LOG_EVENTS_BYTES);
            let mut out = Vec::new();
            if let Some(lost) = taken.lost {
                let (lines, since) = lost.words();
                out.extend_from_slice(b"data: ");
                Stamp::default().write_now(&mut out);
                out.extend_from_slice(
                    format!(" heroku[logplex]: Error L11 (Tail buffer overflow) -> This tail session dropped {lines} messages since {since}.\n\n").as_bytes(),
                );
            }
            let is_last = taken.lines.is_empty();
            taken.lines.iter().filter(|line| self.wants(line)).for_each(|line| put(&mut out, line));
            if !out.is_empty() {
                if !self.send(out.into()).await {
                    return;
                }
                silent_since = Instant::now();
            }
            if !is_last {
                continue;
            }
            if !self.wanted.tail || self.follower.is_over() {
                return;
            }
            tokio::select! {
                () = self.follower.grown() => {}
                () = sleep_until(silent_since + limits::LOG_COMMENT) => {
                    if !self.send(Bytes::from_static(b":\n\n")).await {
                        return;
                    }
                    silent_since = Instant::now();
                }
                () = self.events.closed() => return,
            }
        }
    }

    /// The last so many of the lines that are there and wanted.
    fn backlog(&mut self) -> Bytes {
        let there = self.follower.take(usize::MAX, usize::MAX).lines;
        let wanted: Vec<_> = there.iter().filter(|line| self.wants(line)).collect();
        let lines = self.wanted.lines.map_or(LINES, |lines| lines as usize);
        let mut out = Vec::new();
        wanted[wanted.len().saturating_sub(lines)..].iter().for_each(|line| put(&mut out, line));
        out.into()
    }

    fn wants(&self, line: &Line) -> bool {
        let (source, process) = line.origin();
        let process_type = process.split('.').next().unwrap_or_default();
        let fits = |wanted: &Option<String>, names: [&str; 2]| {
            wanted.as_ref().is_none_or(|wanted| names.contains(&wanted.as_str()))
        };
        fits(&self.wanted.source, [source, process])
            && fits(&self.wanted.dyno, [process, process_type])
    }

    /// `false`: the client has left.
    async fn send(&self, bytes: Bytes) -> bool {
        self.events.send(bytes).await.is_ok()
    }
}

/// An event with one line. There is no line end in it: output is escaped.
fn put(out: &mut Vec<u8>, line: &Line) {
    out.extend_from_slice(format!("id: {}\ndata: ", line.number).as_bytes());
    out.extend_from_slice(String::from_utf8_lossy(&line.text).as_bytes());
    out.extend_from_slice(b"\n\n");
}

/// How long the client is to wait until it comes back.
fn retry(wait: Duration) -> Bytes {
    format!("retry: {}\n\n", wait.as_millis()).into()
}

/// What a session sends, as the body of an answer.
pub(in crate::control) struct Events(pub(in crate::control) mpsc::Receiver<Bytes>);

impl hyper::body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(until: u64) -> Ticket {
        let wanted = LogSessionCreate { dyno: Some("web".into()), ..LogSessionCreate::default() };
        Ticket { id: new_id().to_string(), app: "shop".into(), wanted, until }
    }

    #[test]
    fn sessions_are_believed_until_their_end_and_as_they_were_signed() {
        let sessions = LogSessions::new(&[7; 32]);
        let signed = sessions.sign(&ticket(100));
        assert_eq!(sessions.verify(&signed, 99).unwrap().app, "shop");
        assert_eq!(sessions.verify(&signed, 100), None);
        assert_eq!(LogSessions::new(&[8; 32]).verify(&signed, 99), None);
        let other = sessions.sign(&Ticket { app: "blog".into(), ..ticket(100) });
        let (text, _) = other.split_once('.').unwrap();
        let (_, signature) = signed.split_once('.').unwrap();
        assert_eq!(sessions.verify(&format!("{text}.{signature}"), 99), None);
        for wrong in ["", ".", "a.b", &signed[..signed.len() - 2]] {
            assert_eq!(sessions.verify(wrong, 99), None, "{wrong}");
        }
    }

    #[test]
    fn ids_look_like_herokus() {
        let id = new_id().to_string();
        assert_eq!((id.len(), &id[14..15]), (36, "4"));
        assert!(matches!(&id[19..20], "8" | "9" | "a" | "b"), "{id}");
    }
}
