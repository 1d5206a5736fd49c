//! Releases: listed, and rolled back to.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::control::api::account;
use crate::control::api::range::Part;
use crate::control::api::scene::{AppScene, change_app, show_app};
use crate::control::api::slugs;
use crate::control::dynos::find_app;
use crate::control::given::{Given, Path};
use crate::control::logs::Origin;
use crate::control::{Caller, Problem, Running};
use crate::model::{AppName, Canary, Civil, Release, ReleaseStatus, StatedApp};
use crate::slugs::id_of;

/// `POST /apps/APP/releases`
#[derive(Deserialize)]
pub(in crate::control) struct Make {
    /// The id or the version of the release to go back to.
    release: Option<String>,
    /// Or the id of the slug to run.
    slug: Option<String>,
    /// What is said of the release of a slug.
    description: Option<String>,
}

/// `GET /apps/APP/releases`, the newest first, or the part that the request asks for.
pub(in crate::control) async fn list(
    State(running): State<Arc<Running>>,
    Path(app): Path<String>,
    origin: Option<Extension<Origin>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (name, releases) = of_app(&running, &app).await?;
    let shown = show_app(&running, name.as_str(), |scene| {
        releases.iter().map(|it| (it.version, object(&running, &origin, scene, it))).collect()
    })?;
    Ok(Part::of(&headers, "version").answer("version", shown))
}

/// `GET /apps/APP/releases/RELEASE`
pub(in crate::control) async fn show(
    State(running): State<Arc<Running>>,
    Path((app, release)): Path<(String, String)>,
    origin: Option<Extension<Origin>>,
) -> Result<Response, Problem> {
    let (name, releases) = of_app(&running, &app).await?;
    let release = find(&releases, &release)?;
    let mut shown =
        show_app(&running, name.as_str(), |scene| object(&running, &origin, scene, release))?;
    if let Some(rollout) = running.supervisor.follow_rollout(&name).await {
        let rollout = rollout.borrow();
        if rollout.release == release.version {
            let up: Vec<_> = rollout.up.iter().map(ToString::to_string).collect();
            let wanted: u32 = rollout.types.values().map(|of_type| of_type.wanted).sum();
            shown["rollout"] = json!({ "up": up, "wanted": wanted });
            if let Some(Canary { share, time }) = rollout.canary {
                let share = format!("{share}%");
                shown["rollout"]["canary"] = json!({ "share": share, "secs": time.as_secs() });
            }
            if let Some(guarded_for) = rollout.guarded_for {
                shown["rollout"]["guarded_secs"] = guarded_for.as_secs().into();
            }
        }
    }
    Ok(Json(shown).into_response())
}

/// `GET /apps/APP/releases/RELEASE/config-vars`
pub(in crate::control) async fn config_vars(
    State(running): State<Arc<Running>>,
    Path((app, release)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (_, releases) = of_app(&running, &app).await?;
    Ok(Json(&find(&releases, &release)?.runs.config_vars).into_response())
}

/// `POST /apps/APP/releases`: a new release, of a slug or of what an old one ran.
pub(in crate::control) async fn make(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Path(app): Path<String>,
    origin: Option<Extension<Origin>>,
    Given(make): Given<Make>,
) -> Result<Response, Problem> {
    let (name, releases) = of_app(&running, &app).await?;
    match (make.release, make.slug) {
        (Some(release), None) => {
            let to = find(&releases, &release)?.clone();
            if let Some(slug) = &to.runs.slug {
                slugs::verify(&running, slug).await?;
            }
            change_app(&running, caller, &app, move |scene, now| back(scene, now, &to)).await?;
        }
        (None, Some(slug)) => {
            slugs::release(&running, caller, &name, &slug, make.description).await?
        }
        _ => {
            return Err(Problem::invalid(
                "Say either slug, the one to run, or release, the one to go back to.",
            ));
        }
    }
    let (name, releases) = of_app(&running, name.as_str()).await?;
    let shown = show_app(&running, name.as_str(), |scene| {
        made(&releases).map(|it| object(&running, &origin, scene, it))
    })?;
    Ok((StatusCode::CREATED, Json(shown)).into_response())
}

/// The release that comes of what was asked for last: one that is on its way, else the current one.
pub(in crate::control) fn made(releases: &[Release]) -> Option<&Release> {
    let pending = releases.first().filter(|it| it.status == ReleaseStatus::Pending);
    pending.or_else(|| releases.iter().find(|it| it.current))
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

fn object(
    running: &Running,
    origin: &Option<Extension<Origin>>,
    scene: &AppScene<'_>,
    release: &Release,
) -> Value {
    let Release { id, version, description, user, status, current, runs, failure, created_at } =
        release;
    let since = Civil::of(*created_at).rfc3339();
    let origin = origin.as_ref().map_or("", |Extension(Origin(origin))| origin);
    let output = running.deploys.output_of(scene.name, *version);
    json!({
        "id": id.to_string(),
        "version": version,
        "description": description,
        "status": status.as_str(),
        "current": current,
        "eligible_for_rollback": *status != ReleaseStatus::Failed,
        "user": { "id": account::named()["id"], "email": user },
        "slug": runs.slug.as_ref().map(|slug| json!({ "id": id_of(slug).to_string() })),
        "failure": failure,
        "addon_plan_names": [],
        "output_stream_url": output.map(|path| format!("{origin}{path}")),
        "app": scene.named(),
        "created_at": since,
        "updated_at": since,
    })
}
