//! Bodies of requests: JSON, and what is wrong with it in the API's own form.

use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::control::Problem;

/// A body of JSON. An empty one counts as `{}`.
pub(in crate::control) struct Given<T>(pub(in crate::control) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Given<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(|error| Problem::invalid(error.to_string()))?;
        let text: &[u8] = if body.is_empty() { b"{}" } else { &body };
        let given = serde_json::from_slice(text);
        given.map(Self).map_err(|error| Problem {
            id: "bad_request",
            ..Problem::invalid(format!("The body of the request: {error}"))
        })
    }
}
