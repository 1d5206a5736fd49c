//! What release commands print, as text while it comes (reference: heroku releases:output).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::config::limits;
use crate::control::deploys::Command;
use crate::control::given::Path;
use crate::control::logs::Events;
use crate::control::{Problem, Running};
use crate::telemetry::{From, Line};

/// `GET /release-output/SECRET`: it ends with the command.
pub(in crate::control) async fn stream(
    State(running): State<Arc<Running>>,
    Path(secret): Path<String>,
) -> Result<Response, Problem> {
    let gone = || Problem::not_found("This output is no more.");
    let command = running.deploys.command(&secret).ok_or_else(gone)?;
    let here = running.clone();
    Ok(streamed(&running, |texts| async move { send_all(&here, &secret, command, &texts).await }))
}

/// An answer whose text is sent while it comes, until all of it was, or its client has left, or the daemon ends.
pub(in crate::control) fn streamed<F: Future<Output = ()> + Send + 'static>(
    running: &Running,
    send: impl FnOnce(mpsc::Sender<Bytes>) -> F,
) -> Response {
    let (texts, received) = mpsc::channel(1);
    let (sent, shutdown) = (send(texts.clone()), running.shutdown.clone());
    running.shutdown.spawn(async move {
        tokio::select! {
            () = sent => {}
            () = texts.closed() => {}
            () = shutdown.begun() => {}
        }
    });
    let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, "no-store")];
    (headers, Body::new(Events(received))).into_response()
}

async fn send_all(
    running: &Running,
    secret: &str,
    mut command: Command,
    texts: &mpsc::Sender<Bytes>,
) {
    let mut follower = running.book.follow(&command.app, From::Begin);
    let mut known = running.deploys.ends();
    loop {
        known.mark_unchanged();
        match running.deploys.command(secret) {
            Some(now) => command = now,
            None => return,
        }
        if command.has_ended {
            running.book.settled().await;
        }
        // Until it has its dyno, no line is its own.
        let Some(dyno) = command.dyno.as_deref() else {
            if command.has_ended || known.changed().await.is_err() {
                return;
            }
            continue;
        };
        // Once it has ended, all that is its own is there, and an app with many requests goes on to have more lines.
        let lines = match command.has_ended {
            true => follower.take(usize::MAX, usize::MAX).lines,
            false => follower.take(limits::LOG_EVENTS, limits::LOG_EVENTS_BYTES).lines,
        };
        let is_last = lines.is_empty();
        let text = lines.iter().filter(|line| line.origin() == ("app", dyno)).map(text);
        let text: Vec<u8> = text.flatten().collect();
        if !text.is_empty() && texts.send(text.into()).await.is_err() {
            return;
        }
        if command.has_ended {
            return;
        }
        if is_last {
            tokio::select! {
                () = follower.grown() => {}
                _ = known.changed() => {}
            }
        }
    }
}

/// What a line says, with its end.
fn text(line: &Line) -> Vec<u8> {
    [line.parts().1, b"\n"].concat()
}
