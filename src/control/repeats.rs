//! What changes something is done to its end, also where its client's connection breaks meanwhile, and is answered once: a
//! client that asks again, by the same `Request-Id`, hears what the first request was answered, and waits for that.
//!
//! In memory alone. What the store was changed by, it remembers, so the next daemon does nothing twice either.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::config::limits;
use crate::control::{Caller, Problem, Running};

/// What was answered to whom.
#[derive(Default)]
pub struct Repeats {
    known: Mutex<HashMap<String, (Instant, Answer)>>,
}

/// What one request was answered; empty until it has been done.
type Answer = Arc<OnceCell<Response<Bytes>>>;

impl Repeats {
    /// What this request was answered, or is to be. The oldest is forgotten for it.
    fn of(&self, request: String) -> Answer {
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (at, _)| now.duration_since(*at) < limits::REQUESTS_REMEMBERED);
        if known.len() >= limits::ANSWERS_REMEMBERED && !known.contains_key(&request) {
            let oldest = known.iter().min_by_key(|(_, (at, _))| *at).map(|(key, _)| key.clone());
            oldest.map(|key| known.remove(&key));
        }
        known.entry(request).or_insert_with(|| (now, Answer::default())).1.clone()
    }
}

/// Stands before whatever changes something. A refusal is no answer that is kept: what was in the way may be gone.
pub(in crate::control) async fn answer_once(
    State(running): State<Arc<Running>>,
    caller: Caller,
    request: Request,
    next: Next,
) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    let known = caller.request.clone().map(|request| running.repeats.of(request));
    let (here, is_removal) = (running.clone(), *request.method() == Method::DELETE);
    let done = running.shutdown.spawn(async move {
        let answer = async || {
            let answer = next.run(request).await;
            let is_gone = is_removal && answer.status() == StatusCode::NOT_FOUND;
            kept(if is_gone { gone(&here, &caller, answer).await } else { answer }).await
        };
        match known.unwrap_or_default().get_or_try_init(answer).await {
            Ok(answer) => answer.clone().map(Body::from),
            Err(refusal) => refusal,
        }
    });
    done.await.unwrap_or_else(|panic| Problem::internal(panic.to_string()).into_response())
}

/// What is said of a removal that finds nothing: it is done, where an earlier daemon was asked for it and had no time to
/// answer.
async fn gone(running: &Running, caller: &Caller, refusal: Response) -> Response {
    match running.was_done(caller).await {
        Ok(true) => Json(json!({})).into_response(),
        Ok(false) => refusal,
        Err(problem) => problem.into_response(),
    }
}

/// An answer as it can be given again; or as it is to be given this once.
async fn kept(answer: Response) -> Result<Response<Bytes>, Response> {
    if !answer.status().is_success() {
        return Err(answer);
    }
    let (head, body) = answer.into_parts();
    let body = body.collect().await;
    let body = body.map_err(|error| Problem::internal(error.to_string()).into_response())?;
    let body = body.to_bytes();
    match body.len() <= limits::ANSWER_REMEMBERED_MAX {
        true => Ok(Response::from_parts(head, body)),
        false => Err(Response::from_parts(head, Body::from(body))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_is_known_for_a_while() {
        let repeats = Repeats::default();
        let first = repeats.of("one".into());
        assert!(Arc::ptr_eq(&first, &repeats.of("one".into())));
        assert!(!Arc::ptr_eq(&first, &repeats.of("other".into())));
        advance(limits::REQUESTS_REMEMBERED + Duration::from_secs(1)).await;
        assert!(!Arc::ptr_eq(&first, &repeats.of("one".into())));
        assert_eq!(repeats.known.lock().unwrap().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_of_too_many_requests_is_forgotten() {
        let repeats = Repeats::default();
        let first = repeats.of("first".into());
        advance(Duration::from_millis(1)).await;
        let second = repeats.of("second".into());
        advance(Duration::from_millis(1)).await;
        for number in 2..limits::ANSWERS_REMEMBERED {
            repeats.of(number.to_string());
        }
        assert!(Arc::ptr_eq(&first, &repeats.of("first".into())));
        repeats.of("one more".into());
        assert!(Arc::ptr_eq(&second, &repeats.of("second".into())));
        assert!(!Arc::ptr_eq(&first, &repeats.of("first".into())));
        assert_eq!(repeats.known.lock().unwrap().len(), limits::ANSWERS_REMEMBERED);
    }

    #[tokio::test]
    async fn only_what_was_done_is_kept() {
        let check = async |status: u16, length: usize, expected: bool| {
            let body = Body::from(vec![b'a'; length]);
            let answer = Response::builder().status(status).body(body).unwrap();
            assert_eq!(kept(answer).await.is_ok(), expected, "{status} {length}");
        };
        check(201, limits::ANSWER_REMEMBERED_MAX, true).await;
        check(201, limits::ANSWER_REMEMBERED_MAX + 1, false).await;
        check(409, 1, false).await;
        check(503, 1, false).await;
    }
}
