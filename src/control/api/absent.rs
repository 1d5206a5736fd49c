//! What Heroku has and there is none of here: said as an empty list where clients look for one, and as 404 elsewhere.

use axum::Json;
use axum::http::{Method, StatusCode, Uri};
use serde_json::{Value, json};

use crate::control::Problem;

/// Where dynos run: the host's own system.
pub(in crate::control) const STACK: &str = "host";

/// A list of nothing.
pub(in crate::control) async fn none() -> Json<Value> {
    Json(json!([]))
}

/// Whatever else is asked for.
pub(in crate::control) async fn unknown(uri: Uri) -> Problem {
    Problem::not_found(format!("There is no {} here.", uri.path()))
}

/// Whatever else is asked of what there is; Allow says what may be.
pub(in crate::control) async fn wrong_method(method: Method, uri: Uri) -> Problem {
    Problem {
        status: StatusCode::METHOD_NOT_ALLOWED,
        id: "method_not_allowed",
        message: format!("There is no {method} of {} here.", uri.path()),
    }
}

/// `GET /regions`
pub(in crate::control) async fn regions() -> Json<Value> {
    Json(json!([{
        "id": "us", "name": "us", "description": "this machine", "country": null, "locale": null,
        "private_capable": false, "provider": null, "created_at": null, "updated_at": null,
    }]))
}

/// `GET /stacks`
pub(in crate::control) async fn stacks() -> Json<Value> {
    Json(json!([{ "id": STACK, "name": STACK, "default": true, "state": "public",
        "created_at": null, "updated_at": null }]))
}
