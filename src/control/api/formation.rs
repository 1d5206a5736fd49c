//! The formation: how many dynos of each process type there should be, and of which size.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::{AppSource, ManagedApp, limits};
use crate::control::api::scene::{AppScene, change_app, show_app};
use crate::control::dynos::{find_app, titled};
use crate::control::given::{Given, Path};
use crate::control::{Caller, Problem, Running};
use crate::model::{AppName, Autoscale, Formation, ProcessType, StatedApp};

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
    let (name, _) = find_app(&running, &app)?;
    let counts = counts(&running, &name).await;
    let types = show_app(&running, name.as_str(), |scene| objects(scene, &counts, |_| true))?;
    Ok(Json(types).into_response())
}

/// `PATCH /apps/APP/formation`: the answer has those that were spoken of.
pub(in crate::control) async fn update(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Path(app): Path<String>,
    Given(update): Given<Update>,
) -> Result<Response, Problem> {
    let types: Vec<String> = update.updates.iter().map(|it| it.process_type.clone()).collect();
    let (name, _) = find_app(&running, &app)?;
    let before = counts(&running, &name).await;
    let change = move |scene: &AppScene<'_>, now: &mut StatedApp| {
        scale(scene, now, &before, &update.updates)
    };
    let name = change_app(&running, caller, name.as_str(), change).await?;
    let counts = counts(&running, &name).await;
    let is_spoken_of = |it: &ProcessType| types.iter().any(|name| name == it.as_str());
    let spoken_of =
        show_app(&running, name.as_str(), |scene| objects(scene, &counts, is_spoken_of))?;
    Ok(Json(spoken_of).into_response())
}

/// How many dynos of each type the manager wants now.
async fn counts(running: &Running, app: &AppName) -> Formation {
    running.supervisor.formation(app).await.unwrap_or_default()
}

fn scale(
    scene: &AppScene<'_>,
    now: &mut StatedApp,
    counts: &Formation,
    updates: &[OfType],
) -> Result<String, Problem> {
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
        let Some((known, _)) = known else {
            return Err(Problem::not_found(format!(
                "Couldn't find that process type ({process_type})."
            )));
        };
        let running = quantity_of(managed, counts, known);
        if let Some(quantity) = quantity {
            let wanted = quantity.of(running).filter(|it| *it <= limits::FORMATION_MAX);
            let wanted = wanted.ok_or_else(|| {
                let max = limits::FORMATION_MAX;
                Problem::invalid(format!("{process_type}: expected 0 to {max} dynos, +N or -N."))
            })?;
            if wanted != running {
                let what = format!("The number of {process_type} dynos of {name}");
                scene.refuse_said(&format!("formation.{process_type}"), &what)?;
                if let Some(Autoscale { min, max, .. }) = managed.autoscale.get(known) {
                    return Err(Problem::invalid(format!(
                        "{what} follows its requests, from {min} to {max}: ps:autoscale:disable comes first."
                    )));
                }
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

/// How many dynos of a type there are to be: of one that follows the requests the configuration says with how many it
/// began. Of the others it says all, and at this moment: who says `+1` beside somebody else must count his.
fn quantity_of(app: &ManagedApp, counts: &Formation, process_type: &ProcessType) -> u32 {
    let follows = app.autoscale.contains_key(process_type);
    let now = counts.get(process_type).filter(|_| follows);
    now.or(app.formation.get(process_type)).copied().unwrap_or_default()
}

/// The process types of the app that are asked for.
fn objects(
    scene: &AppScene<'_>,
    counts: &Formation,
    wanted: impl Fn(&ProcessType) -> bool,
) -> Vec<Value> {
    match &scene.app.source {
        AppSource::Managed(managed) => {
            let wanted = managed.formation.keys().filter(|it| wanted(it));
            let quantity = |it| quantity_of(managed, counts, it);
            wanted.map(|it| object(scene, managed, it, quantity(it))).collect()
        }
        _ => Vec::new(),
    }
}

fn object(
    scene: &AppScene<'_>,
    app: &ManagedApp,
    process_type: &ProcessType,
    quantity: u32,
) -> Value {
    let id = scene.known().map(|it| it.id);
    let size = app.sizes.get(process_type).map(|size| titled(size.name.as_str()));
    json!({
        "id": id.map(|id| format!("{id}/{process_type}")),
        "type": process_type.as_str(),
        "quantity": quantity,
        "size": size,
        "command": app.commands.get(process_type),
        "app": scene.named(),
        "created_at": null,
        "updated_at": null,
    })
}
