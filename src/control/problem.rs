//! Why a request of the API is refused, in the form of Heroku's Platform API: `{"id": …, "message": …}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

/// A refusal. Its message is a sentence for people.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::control) struct Problem {
    pub(in crate::control) status: StatusCode,
    /// For programs: `not_found`, `invalid_params`.
    pub(in crate::control) id: &'static str,
    pub(in crate::control) message: String,
}

impl Problem {
    /// There is no such thing.
    pub(in crate::control) fn not_found(message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, id: "not_found", message: message.into() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, id, message } = self;
        (status, Json(Told { id: id.into(), message })).into_response()
    }
}

/// A refusal as it is sent.
#[derive(Serialize, Deserialize)]
struct Told {
    id: String,
    message: String,
}

/// The message of a refusal that the daemon sent; the whole text where it is none.
pub fn message(body: &[u8]) -> String {
    match serde_json::from_slice::<Told>(body) {
        Ok(told) => told.message,
        Err(_) if body.is_empty() => "it does not say why".into(),
        Err(_) => String::from_utf8_lossy(body).trim_end().to_owned(),
    }
}
