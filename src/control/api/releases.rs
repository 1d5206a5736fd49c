//! Releases: listed, and rolled back to.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::control::api::account;
use crate::control::api::given::Given;
use crate::control::api::range::Part;
use crate::control::api::scene::{AppScene, change_app, show_app};
use crate::control::dynos::find_app;
use crate::control::{Caller, Problem, Running};
use crate::model::{AppName, Civil, Release, StatedApp};

/// `POST /apps/APP/releases`: the id or the version of the release to go back to.
#[derive(Deserialize)]
pub(in crate::control) struct RollBack {
    release: String,
}

/// `GET /apps/APP/releases`, the newest first, or the part that the request asks for.
pub(in crate::control) async fn list(
    State(running): State<Arc<Running>>,
    Path(app): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (name, releases) = of_app(&running, &app).await?;
    let shown = show_app(&running, name.as_str(), |scene| {
        releases.iter().map(|it| (it.version, object(scene, it))).collect()
    })?;
    Ok(Part::of(&headers, "version").answer("version", shown))
}

/// `GET /apps/APP/releases/RELEASE`
pub(in crate::control) async fn show(
    State(running): State<Arc<Running>>,
    Path((app, release)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (name, releases) = of_app(&running, &app).await?;
    let release = find(&releases, &release)?;
    Ok(Json(show_app(&running, name.as_str(), |scene| object(scene, release))?).into_response())
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
    caller: Caller,
    Path(app): Path<String>,
    Given(RollBack { release }): Given<RollBack>,
) -> Result<Response, Problem> {
    let (name, releases) = of_app(&running, &app).await?;
    let to = find(&releases, &release)?.clone();
    change_app(&running, caller, &app, move |scene, now| back(scene, now, &to)).await?;
    let (name, releases) = of_app(&running, name.as_str()).await?;
    let current = releases.iter().find(|it| it.current);
    let shown =
        show_app(&running, name.as_str(), |scene| current.map(|release| object(scene, release)))?;
    Ok((StatusCode::CREATED, Json(shown)).into_response())
}

fn back(scene: &AppScene<'_>, now: &mut StatedApp, to: &Release) -> Result<String, Problem> {
    scene.refuse_external()?;
    if now.slug != to.runs.slug {
        scene.refuse_said("dir", &format!("What {} runs", scene.name))?;
    }
    now.slug.clone_from(&to.runs.slug);
    // What the file says of them stays as it is, and what add-ons do.
    let attached = scene.stated.attached(scene.name);
    let by_command = |name: &str| {
        scene.app.said.line(&format!("config.{name}")).is_none() && !attached.contains_key(name)
    };
    let vars = to.runs.config_vars.iter().filter(|(name, _)| by_command(name));
    now.config_vars = vars.map(|(name, value)| (name.clone(), value.clone())).collect();
    Ok(format!("Rollback to v{}", to.version))
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

fn object(scene: &AppScene<'_>, release: &Release) -> Value {
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
        "app": scene.named(),
        "created_at": since,
        "updated_at": since,
    })
}
