//! The formation: how many dynos of each process type there should be, and of which size.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::{AppSource, ManagedApp, limits};
use crate::control::api::scene::{AppScene, change_app, show_app};
use crate::control::dynos::titled;
use crate::control::given::{Given, Path};
use crate::control::{Caller, Problem, Running};
use crate::model::{ProcessType, StatedApp};

/// `PATCH /apps/APP/formation`
#[derive(Deserialize)]
pub(in crate::control) struct Update {
    updates: Vec<OfType>,
}

#[derive(Deserialize)]
struct OfType {
    #[serde(rename = "type")]
    process_type: String,
    #[serde(default)]
    quantity: Option<Quantity>,
    #[serde(default)]
    size: Option<String>,
}

/// `3`, `"3"`, `"+1"`, `"-1"`: the CLI sends texts.
#[derive(Deserialize)]
#[serde(untagged)]
enum Quantity {
    Number(u32),
    Text(String),
}

impl Quantity {
    fn of(&self, now: u32) -> Option<u32> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => match text.as_bytes().first()? {
                b'+' => now.checked_add(text[1..].parse().ok()?),
                b'-' => Some(now.saturating_sub(text[1..].parse().ok()?)),
                _ => text.parse().ok(),
            },
        }
    }
}

/// `GET /apps/APP/formation`
pub(in crate::control) async fn list(
    State(running): State<Arc<Running>>,
    Path(app): Path<String>,
) -> Result<Response, Problem> {
    Ok(Json(show_app(&running, &app, |scene| objects(scene, |_| true))?).into_response())
}

/// `PATCH /apps/APP/formation`: the answer has those that were spoken of.
pub(in crate::control) async fn update(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Path(app): Path<String>,
    Given(update): Given<Update>,
) -> Result<Response, Problem> {
    let types: Vec<String> = update.updates.iter().map(|it| it.process_type.clone()).collect();
    let change =
        move |scene: &AppScene<'_>, now: &mut StatedApp| scale(scene, now, &update.updates);
    let name = change_app(&running, caller, &app, change).await?;
    let is_spoken_of = |it: &ProcessType| types.iter().any(|name| name == it.as_str());
    let spoken_of = show_app(&running, name.as_str(), |scene| objects(scene, is_spoken_of))?;
    Ok(Json(spoken_of).into_response())
}

fn scale(scene: &AppScene<'_>, now: &mut StatedApp, updates: &[OfType]) -> Result<String, Problem> {
    scene.refuse_external()?;
    let AppScene { config, name, app, .. } = *scene;
    let AppSource::Managed(managed) = &app.source else {
        return Err(Problem::invalid(format!(
            "Nothing is deployed to {name}: it has no process types."
        )));
    };
    for OfType { process_type, quantity, size } in updates {
        let parsed = ProcessType::parse(process_type).ok();
        let known = parsed.and_then(|it| managed.formation.get_key_value(&it));
        let Some((known, running)) = known else {
            return Err(Problem::not_found(format!(
                "Couldn't find that process type ({process_type})."
            )));
        };
        if let Some(quantity) = quantity {
            let wanted = quantity.of(*running).filter(|it| *it <= limits::FORMATION_MAX);
            let wanted = wanted.ok_or_else(|| {
                let max = limits::FORMATION_MAX;
                Problem::invalid(format!("{process_type}: expected 0 to {max} dynos, +N or -N."))
            })?;
            if wanted != *running {
                let what = format!("The number of {process_type} dynos of {name}");
                scene.refuse_said(&format!("formation.{process_type}"), &what)?;
                now.formation.insert(known.clone(), wanted);
            }
        }
        if let Some(size) = size {
            let found = config.sizes.find(&size.to_ascii_lowercase());
            let found =
                found.ok_or_else(|| Problem::invalid(format!("There is no dyno size {size}.")))?;
            if managed.sizes.get(known).is_none_or(|it| it.name != found.name) {
                let what = format!("The size of {process_type} dynos of {name}");
                scene.refuse_said(&format!("sizes.{process_type}"), &what)?;
                scene.refuse_said("size", &what)?;
                now.sizes.insert(known.clone(), found.name.to_string());
            }
        }
    }
    Ok("Scaled".into())
}

/// The process types of the app that are asked for.
fn objects(scene: &AppScene<'_>, wanted: impl Fn(&ProcessType) -> bool) -> Vec<Value> {
    match &scene.app.source {
        AppSource::Managed(managed) => {
            let wanted = managed.formation.keys().filter(|it| wanted(it));
            wanted.map(|it| object(scene, managed, it)).collect()
        }
        _ => Vec::new(),
    }
}

fn object(scene: &AppScene<'_>, app: &ManagedApp, process_type: &ProcessType) -> Value {
    let id = scene.known().map(|it| it.id);
    let size = app.sizes.get(process_type).map(|size| titled(size.name.as_str()));
    json!({
        "id": id.map(|id| format!("{id}/{process_type}")),
        "type": process_type.as_str(),
        "quantity": app.formation.get(process_type),
        "size": size,
        "command": app.commands.get(process_type),
        "app": scene.named(),
        "created_at": null,
        "updated_at": null,
    })
}
