//! Why a request of the API is refused, in the form of Heroku's Platform API: `{"id": …, "message": …}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What HTTP says of it.
    pub status: StatusCode,
    /// For programs: `not_found`, `invalid_params`.
    pub id: &'static str,
    /// A sentence for people.
    pub message: String,
}

impl Problem {
    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, id: "not_found", message: message.into() }
    }

    /// There is no such app.
    pub fn no_app(name: &str) -> Self {
        Self::not_found(format!("Couldn't find the app {name}."))
    }

    /// What is asked for cannot be.
    pub fn invalid(message: impl Into<String>) -> Self {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Self { status, id: "invalid_params", message: message.into() }
    }

    /// Something else is under way that this would come in the way of.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self { status: StatusCode::CONFLICT, id: "conflict", message: message.into() }
    }

    /// Of this there is as much as there may be: `id` says of what.
    pub fn too_many(id: &'static str, message: impl Into<String>) -> Self {
        Self { status: StatusCode::TOO_MANY_REQUESTS, id, message: message.into() }
    }

    /// Not now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self { status, id: "maintenance", message: message.into() }
    }

    /// It is our own fault.
    pub fn internal(message: impl Into<String>) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self { status, id: "internal_server_error", message: message.into() }
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
