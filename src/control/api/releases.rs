//! Releases: listed, and rolled back to.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::Config;
use crate::control::api::account;
use crate::control::api::fixed::{app_of, refuse_external, refuse_said};
use crate::control::api::given::Given;
use crate::control::dynos::find_app;
use crate::control::{Changed, Problem, Running};
use crate::model::{AppName, Civil, Release, Stated};

/// `POST /apps/APP/releases`: the id or the version of the release to go back to.
#[derive(Deserialize)]
pub(in crate::control) struct RollBack {
    release: String,
}

/// `GET /apps/APP/releases`, the newest first; `Range: version ..; max=N` for fewer.
pub(in crate::control) async fn list(
    State(running): State<Arc<Running>>,
    Path(app): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (name, releases) = of_app(&running, &app).await?;
    let range = headers.get("range").and_then(|it| it.to_str().ok()).unwrap_or_default();
    let max =
        range.split([';', ',']).find_map(|part| part.trim().strip_prefix("max=")?.parse().ok());
    let stated = running.stated.load();
    let shown =
        releases.iter().take(max.unwrap_or(usize::MAX)).map(|it| object(&stated, &name, it));
    Ok(Json(shown.collect::<Vec<_>>()).into_response())
}

/// `GET /apps/APP/releases/RELEASE`
pub(in crate::control) async fn show(
    State(running): State<Arc<Running>>,
    Path((app, release)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (name, releases) = of_app(&running, &app).await?;
    Ok(Json(object(&running.stated.load(), &name, find(&releases, &release)?)).into_response())
}

/// `GET /apps/APP/releases/RELEASE/config-vars`
pub(in crate::control) async fn config_vars(
    State(running): State<Arc<Running>>,
    Path((app, release)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (_, releases) = of_app(&running, &app).await?;
    Ok(Json(&find(&releases, &release)?.runs.config_vars).into_response())
}

/// `POST /apps/APP/releases`: a new release that runs what an old one ran.
pub(in crate::control) async fn roll_back(
    State(running): State<Arc<Running>>,
    Path(app): Path<String>,
    Given(RollBack { release }): Given<RollBack>,
) -> Result<Response, Problem> {
    let (name, releases) = of_app(&running, &app).await?;
    let to = find(&releases, &release)?.clone();
    let of = name.clone();
    running.change(account::EMAIL, move |config, stated| back(config, stated, of, &to)).await?;
    let (name, releases) = of_app(&running, name.as_str()).await?;
    let shown =
        releases.iter().find(|it| it.current).map(|it| object(&running.stated.load(), &name, it));
    Ok((StatusCode::CREATED, Json(shown)).into_response())
}

fn back(config: &Config, stated: &Stated, name: AppName, to: &Release) -> Result<Changed, Problem> {
    let (app, mut now) = app_of(config, stated, &name)?;
    refuse_external(&name, app)?;
    if now.slug != to.runs.slug {
        refuse_said(config, app, "dir", &format!("What {name} runs"))?;
    }
    now.slug.clone_from(&to.runs.slug);
    // What the file says of them stays as it is.
    let by_command = |name: &str| app.said.line(&format!("config.{name}")).is_none();
    let vars = to.runs.config_vars.iter().filter(|(name, _)| by_command(name));
    now.config_vars = vars.map(|(name, value)| (name.clone(), value.clone())).collect();
    Ok(Changed { app: name, now: Some(now), description: format!("Rollback to v{}", to.version) })
}

async fn of_app(running: &Running, app: &str) -> Result<(AppName, Vec<Release>), Problem> {
    let (name, _) = find_app(running, app)?;
    let releases = running.store.releases(&name).await;
    let releases =
        releases.map_err(|error| Problem::internal(format!("Read the releases: {error}")))?;
    Ok((name, releases))
}

/// By id, by version, or by version with the `v`.
fn find<'a>(releases: &'a [Release], which: &str) -> Result<&'a Release, Problem> {
    let version = which.strip_prefix('v').unwrap_or(which);
    let is = |it: &&Release| it.id.to_string() == which || it.version.to_string() == version;
    releases
        .iter()
        .find(is)
        .ok_or_else(|| Problem::not_found(format!("Couldn't find that release ({which}).")))
}

fn object(stated: &Stated, name: &AppName, release: &Release) -> Value {
    let Release { id, version, description, user, status, current, runs, created_at } = release;
    let since = Civil::of(*created_at).rfc3339();
    json!({
        "id": id.to_string(),
        "version": version,
        "description": description,
        "status": status.as_str(),
        "current": current,
        "eligible_for_rollback": status.as_str() == "succeeded",
        "user": { "id": account::named()["id"], "email": user },
        "slug": runs.slug.as_ref().map(|slug| json!({ "id": slug })),
        "addon_plan_names": [],
        "output_stream_url": null,
        "app": { "id": stated.apps.get(name).map(|it| it.id.to_string()), "name": name.as_str() },
        "created_at": since,
        "updated_at": since,
    })
}
