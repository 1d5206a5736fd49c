//! Whose all of it is: there is one account, that of whoever may ask.

use axum::Json;
use serde_json::{Value, json};

/// The address that stands where Heroku has an account's.
pub(in crate::control) const EMAIL: &str = "operator@localhost";
/// The account's id: there is no second one that it could be confused with.
const ID: &str = "00000000-0000-4000-8000-000000000001";

/// `GET /account`
pub(in crate::control) async fn show() -> Json<Value> {
    Json(json!({
        "id": ID,
        "email": EMAIL,
        "name": null,
        "verified": true,
        "two_factor_authentication": false,
        "allow_tracking": false,
        "beta": false,
        "suspended_at": null,
        "delinquent_at": null,
        "last_login": null,
        "created_at": "1970-01-01T00:00:00Z",
        "updated_at": "1970-01-01T00:00:00Z",
    }))
}

/// The account where it is named as owner or user.
pub(in crate::control) fn named() -> Value {
    json!({ "id": ID, "email": EMAIL })
}
