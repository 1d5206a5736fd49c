//! Who asks, and by which request.

use std::convert::Infallible;

use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::control::Caller;
use crate::control::api::account;
use crate::hexadecimal;

/// The longest `Request-Id` that is looked at: the heroku CLI makes it a list that grows up to 7 KB.
const REQUEST_ID_MAX: usize = 8 * 1024;

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let id = parts.headers.get("request-id").map(|it| it.as_bytes());
        let request = id.filter(|id| !id.is_empty() && id.len() <= REQUEST_ID_MAX).map(|id| {
            let (method, path) = (parts.method.as_str(), parts.uri.path());
            let text = [method.as_bytes(), b" ", path.as_bytes(), b" ", id].concat();
            hexadecimal::of(digest(&SHA256, &text).as_ref())
        });
        Ok(Self { user: account::EMAIL.to_owned(), request })
    }
}
