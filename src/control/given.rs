//! What requests say, taken apart; and what is wrong with it, in the API's own form.

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::control::Problem;
use crate::control::api::unknown;

/// A body: a JSON object. An empty one counts as `{}`.
pub(in crate::control) struct Given<T>(pub(in crate::control) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Given<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(|error| {
            let (status, id) = (error.status(), "bad_request");
            Problem { status, id, message: format!("The body of the request: {error}.") }
        })?;
        parse(&body).map(Self).map_err(|wrong| Problem {
            id: "bad_request",
            ..Problem::invalid(format!("The body of the request: {wrong}"))
        })
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    let body = body.trim_ascii();
    let text = if body.is_empty() { b"{}" } else { body };
    let given = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    // serde takes a list for the fields of a struct, in the order in which they happen to stand there.
    match text.starts_with(b"{") {
        true => Ok(given),
        false => Err("expected an object".into()),
    }
}

/// The parts of a path that vary. What is no text names nothing that there is.
pub(in crate::control) struct Path<T>(pub(in crate::control) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let given: Result<axum::extract::Path<T>, PathRejection> =
            axum::extract::Path::from_request_parts(parts, state).await;
        match given {
            Ok(axum::extract::Path(given)) => Ok(Self(given)),
            Err(rejection) if rejection.status() == StatusCode::BAD_REQUEST => {
                Err(unknown(parts.uri.clone()).await)
            }
            Err(rejection) => Err(Problem::internal(rejection.body_text())),
        }
    }
}

/// What stands behind the question mark.
pub(in crate::control) struct Query<T>(pub(in crate::control) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match axum::extract::Query::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(given)) => Ok(Self(given)),
            Err(rejection) => Err(Problem {
                id: "bad_request",
                ..Problem::invalid(format!("{}.", rejection.body_text()))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Thing {
        name: Option<String>,
    }

    #[test]
    fn a_body_is_an_object_or_nothing() {
        let check = |body: &str, name: Option<&str>| {
            let expected = Thing { name: name.map(str::to_owned) };
            assert_eq!(parse(body.as_bytes()), Ok(expected), "{body:?}");
        };
        check("", None);
        check(" \n", None);
        check("{}", None);
        check(" {\"name\": \"a\", \"other\": 1}\n", Some("a"));
        for body in ["[]", "[\"a\"]", "null", "\"a\"", "1", "{", "{\"name\": 1}", "{} {}"] {
            assert!(parse::<Thing>(body.as_bytes()).is_err(), "{body:?}");
        }
    }
}
