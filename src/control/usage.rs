//! What dynos used: booked now and then, and told to people.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use crate::control::problem::Problem;
use crate::control::{Running, clock};
use crate::model::{Month, Payer, Usage};
use crate::store::Store;
use crate::supervisor::Supervisor;

/// What the dynos of one app, process type and size used in a month so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UsageRow {
    /// `2026-11` (UTC)
    pub month: String,
    /// The app.
    pub app: String,
    /// The process type; `run` and `scheduler` for one-off dynos.
    #[serde(rename = "type")]
    pub process_type: String,
    /// The name of the size.
    pub size: String,
    /// Whole seconds in which dynos ran; two that ran at one time count twice.
    pub dyno_seconds: u64,
}

/// Books what dynos used since the last time. What cannot be booked is booked with the next.
pub async fn book(supervisor: &Supervisor, store: &Store) {
    let (usage, until) = supervisor.take_usage();
    if usage.is_empty() {
        return;
    }
    if let Err(error) = store.book(usage.clone(), until).await {
        tracing::error!("usage is not booked: {error}");
        supervisor.give_back_usage(usage);
    }
}

/// `GET /usage`: this month, every app.
pub(in crate::control) async fn all(State(running): State<Arc<Running>>) -> Response {
    answer(&running, |_| true).await
}

/// `GET /apps/APP/usage`. Apps that are no more have used what they have used.
pub(in crate::control) async fn of_app(
    State(running): State<Arc<Running>>,
    Path(app): Path<String>,
) -> Response {
    answer(&running, |payer| payer.app.as_str() == app).await
}

async fn answer(running: &Running, asked_for: impl Fn(&Payer) -> bool) -> Response {
    book(&running.supervisor, &running.store).await;
    match running.store.usage(Month::of(clock::unix())).await {
        Ok(mut usage) => {
            usage.retain(|(_, payer), _| asked_for(payer));
            Json(rows(&usage)).into_response()
        }
        Err(error) => Problem {
            status: StatusCode::SERVICE_UNAVAILABLE,
            id: "service_unavailable",
            message: format!("read what was booked: {error}"),
        }
        .into_response(),
    }
}

fn rows(usage: &Usage) -> Vec<UsageRow> {
    let row = |((month, payer), millis): (&(Month, Payer), &u64)| UsageRow {
        month: month.to_string(),
        app: payer.app.to_string(),
        process_type: payer.process_type.to_string(),
        size: payer.size.to_string(),
        dyno_seconds: millis / 1000,
    };
    usage.iter().map(row).collect()
}
