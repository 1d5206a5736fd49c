//! Features: what Heroku has as switches, and the file as `deploy` and `affinity`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::{AppSource, Deploy};
use crate::control::api::scene::{AppScene, change_app, show_app};
use crate::control::given::{Given, Path};
use crate::control::{Caller, Problem, Running};
use crate::model::{Affinity, Feature, StatedApp};

/// `PATCH /apps/APP/features/FEATURE`
#[derive(Deserialize)]
pub(in crate::control) struct Update {
    enabled: bool,
}

/// `GET /apps/APP/features`
pub(in crate::control) async fn list(
    State(running): State<Arc<Running>>,
    Path(app): Path<String>,
) -> Result<Response, Problem> {
    let features = show_app(&running, &app, |scene| Feature::ALL.map(|it| object(scene, it)))?;
    Ok(Json(features).into_response())
}

/// `GET /apps/APP/features/FEATURE`
pub(in crate::control) async fn show(
    State(running): State<Arc<Running>>,
    Path((app, feature)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let feature = find(&feature)?;
    Ok(Json(show_app(&running, &app, |scene| object(scene, feature))?).into_response())
}

/// `PATCH /apps/APP/features/FEATURE`
pub(in crate::control) async fn update(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Path((app, feature)): Path<(String, String)>,
    Given(Update { enabled }): Given<Update>,
) -> Result<Response, Problem> {
    let feature = find(&feature)?;
    let change =
        move |scene: &AppScene<'_>, now: &mut StatedApp| turn(scene, now, feature, enabled);
    let name = change_app(&running, caller, &app, change).await?;
    Ok(Json(show_app(&running, name.as_str(), |scene| object(scene, feature))?).into_response())
}

fn turn(
    scene: &AppScene<'_>,
    now: &mut StatedApp,
    feature: Feature,
    enabled: bool,
) -> Result<String, Problem> {
    let (name, key) = (scene.name, key(feature));
    if feature == Feature::Preboot {
        scene.refuse_external()?;
    }
    scene.refuse_said(key, &format!("The {key} of {name}"))?;
    now.features.insert(feature, enabled);
    let verb = if enabled { "Enable" } else { "Disable" };
    Ok(format!("{verb} {} feature", feature.as_str()))
}

fn find(name: &str) -> Result<Feature, Problem> {
    Feature::parse(name)
        .ok_or_else(|| Problem::not_found(format!("Couldn't find that feature ({name}).")))
}

/// What the file calls it.
fn key(feature: Feature) -> &'static str {
    match feature {
        Feature::Preboot => "deploy",
        Feature::SessionAffinity => "affinity",
    }
}

fn object(scene: &AppScene<'_>, feature: Feature) -> Value {
    let (enabled, description) = match feature {
        Feature::Preboot => (
            matches!(&scene.app.source, AppSource::Managed(it) if it.deploy == Deploy::Preboot),
            "All new web dynos boot beside the old ones, then requests go to them.",
        ),
        Feature::SessionAffinity => (
            scene.app.policy.affinity != Affinity::Off,
            "The requests of one client go to one dyno.",
        ),
    };
    json!({
        "id": feature.as_str(),
        "name": feature.as_str(),
        "description": description,
        "doc_url": null,
        "display_name": null,
        "enabled": enabled,
        "state": "general",
        "created_at": null,
        "updated_at": null,
    })
}
