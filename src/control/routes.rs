//! Which path gives which answer.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::config::Summary;
use crate::control::api::{Part, Rates};
use crate::control::repeats::answer_once;
use crate::control::{
    ReloadOutcome, Running, api, description, dynos, exposition, logs, metrics, one_offs, output,
    readiness, usage,
};

/// Where the Platform API is to be found, for those who may open the control socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listening {
    /// With the port that the kernel chose; absent: nowhere.
    pub api: Option<SocketAddr>,
    /// The certificate of the local CA, which signs for it.
    pub ca: PathBuf,
    /// Where the daemon keeps things.
    pub state_dir: PathBuf,
}

/// How long a report waits for the workers: one that is stuck must not keep the others' from being read.
const REPORT: Duration = Duration::from_secs(2);

/// What the admin listener answers. Reads only.
pub(in crate::control) fn admin(running: Arc<Running>) -> axum::Router {
    pages().with_state(running)
}

/// What the Platform API's listener answers of this part, to whoever has a token for it and came by this scheme.
pub(in crate::control) fn api(
    running: Arc<Running>,
    rates: Arc<Rates>,
    part: Part,
    scheme: &'static str,
) -> axum::Router {
    let (behind_gate, beside_it) = match part {
        Part::Platform => (apps(), told()),
        Part::Metrics => (api::metrics_routes(), axum::Router::new()),
    };
    let once = middleware::from_fn_with_state(running.clone(), answer_once);
    let gate = api::Gate { running: running.clone(), rates, part, scheme };
    behind_gate
        .layer(once)
        .layer(middleware::from_fn_with_state(gate, api::require_token))
        .merge(beside_it)
        .fallback(api::unknown)
        .method_not_allowed_fallback(api::wrong_method)
        .with_state(running)
}

/// What the control socket answers: all of the admin listener's, and what changes things.
pub(in crate::control) fn control(running: Arc<Running>, listening: Listening) -> axum::Router {
    pages()
        .route("/listening", get(async move || Json(listening)))
        .route("/config", get(config))
        .route("/dynos", get(all_dynos))
        .route("/reload", post(reload))
        .route("/usage", get(usage::all))
        .merge(apps().layer(middleware::from_fn_with_state(running.clone(), answer_once)))
        .merge(api::token_routes())
        .route("/apps/{app}/dynos/{dyno}/attach", get(one_offs::attach))
        .merge(told())
        .fallback(api::unknown)
        .method_not_allowed_fallback(api::wrong_method)
        .with_state(running)
}

/// What is uploaded to, and what streams: who knows the address was told it, and needs no token. And what tells all.
pub(in crate::control) fn told() -> axum::Router<Arc<Running>> {
    api::upload_routes()
        .route("/openapi.json", get(description::show))
        .route("/log-sessions/{ticket}", get(logs::stream))
        .route("/release-output/{secret}", get(output::stream))
}

/// Apps, and what may be done with them.
pub(in crate::control) fn apps() -> axum::Router<Arc<Running>> {
    api::routes()
        .route("/apps/{app}/usage", get(usage::of_app))
        .route("/apps/{app}/dynos", get(dynos::list).post(one_offs::create).delete(dynos::restart))
        .route("/apps/{app}/formations/{type}", delete(dynos::restart_type))
        .route("/apps/{app}/dynos/{dyno}", delete(dynos::restart_one))
        .route("/apps/{app}/dynos/{dyno}/actions/stop", post(dynos::stop))
        .route("/apps/{app}/log-sessions", post(logs::create))
}

fn pages() -> axum::Router<Arc<Running>> {
    axum::Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .route("/debug/certs", get(certs))
        .route("/debug/dynos", get(all_dynos))
        .route("/debug/workers", get(workers))
}

async fn scrape(State(running): State<Arc<Running>>) -> Response {
    ([(CONTENT_TYPE, exposition::MEDIA_TYPE)], metrics::render(&running)).into_response()
}

/// Whether the daemon works at all. Says nothing of the apps.
async fn health(State(running): State<Arc<Running>>) -> Response {
    let stalled = running.stalled();
    let reasons = stalled
        .iter()
        .map(|(worker, seconds)| format!("worker {worker} has not answered for {seconds:.1} s"));
    verdict(reasons.collect())
}

/// Whether requests would be served.
async fn ready(State(running): State<Arc<Running>>) -> Response {
    verdict(readiness::missing(running.phase(), &running.config.load(), &running.publisher.table()))
}

fn verdict(against: Vec<String>) -> Response {
    match against.is_empty() {
        true => "ok\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, against.join("\n") + "\n").into_response(),
    }
}

/// How each name of automatic certificates stands.
async fn certs(State(running): State<Arc<Running>>) -> Response {
    Json(running.acme.states()).into_response()
}

async fn all_dynos(State(running): State<Arc<Running>>) -> Response {
    Json(running.supervisor.status()).into_response()
}

async fn workers(State(running): State<Arc<Running>>) -> Response {
    match timeout(REPORT, running.router.report_workers()).await {
        Ok(report) => Json(report).into_response(),
        Err(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, "some worker does not answer\n").into_response()
        }
    }
}

async fn config(State(running): State<Arc<Running>>) -> Response {
    Json(Summary::of(&running.config.load())).into_response()
}

async fn reload(State(running): State<Arc<Running>>) -> Response {
    let (answer, outcome) = oneshot::channel();
    let asked = running.reloads.try_send(answer).is_ok();
    match outcome.await {
        Ok(outcome @ ReloadOutcome::Ok { .. }) if asked => Json(outcome).into_response(),
        Ok(outcome) => (StatusCode::UNPROCESSABLE_ENTITY, Json(outcome)).into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "stopping, or too many reloads asked for\n")
            .into_response(),
    }
}
