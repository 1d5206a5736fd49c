//! Tokens: made, listed and taken back. On the socket alone: a token makes no tokens.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::control::given::{Given, Path};
use crate::control::{Problem, Running};
use crate::model::{Civil, Id, Scope, Token};
use crate::store::AskError;
use crate::wall_clock;

/// `POST /oauth/authorizations`
#[derive(Deserialize)]
pub(in crate::control) struct Make {
    #[serde(default)]
    description: String,
    scope: [String; 1],
}

/// `GET /oauth/authorizations`
pub(in crate::control) async fn list(
    State(running): State<Arc<Running>>,
) -> Result<Response, Problem> {
    let tokens = running.store.tokens().await.map_err(unread)?;
    Ok(Json(tokens.iter().map(|it| object(it, None)).collect::<Vec<_>>()).into_response())
}

/// `POST /oauth/authorizations`: the answer has the token, as nothing has after it.
pub(in crate::control) async fn make(
    State(running): State<Arc<Running>>,
    Given(Make { description, scope: [scope] }): Given<Make>,
) -> Result<Response, Problem> {
    let scope = Scope::parse(&scope).ok_or_else(|| {
        Problem::invalid(format!("There is no scope {scope} (there is: read, operate, admin)."))
    })?;
    let made = running.store.make_token(description, scope, wall_clock::unix()).await;
    let (token, text) = made.map_err(unread)?;
    Ok((StatusCode::CREATED, Json(object(&token, Some(&text)))).into_response())
}

/// `DELETE /oauth/authorizations/ID`
pub(in crate::control) async fn revoke(
    State(running): State<Arc<Running>>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let unknown = || Problem::not_found(format!("Couldn't find the token {id}."));
    let parsed = Id::parse(&id).ok_or_else(unknown)?;
    match running.store.revoke_token(parsed).await.map_err(unread)? {
        true => Ok(Json(json!({ "id": id })).into_response()),
        false => Err(unknown()),
    }
}

fn unread(error: AskError) -> Problem {
    Problem::internal(format!("The tokens: {error}"))
}

fn object(token: &Token, text: Option<&str>) -> Value {
    let Token { id, description, scope, created_at } = token;
    let since = Civil::of(*created_at).rfc3339();
    json!({
        "id": id.to_string(),
        "description": description,
        "scope": [scope.as_str()],
        "access_token": { "id": id.to_string(), "token": text, "expires_in": null },
        "created_at": since,
        "updated_at": since,
    })
}
