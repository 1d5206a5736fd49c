//! The formation: how many dynos of each process type there should be, and of which size.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::{AppSource, Config, ManagedApp, limits};
use crate::control::api::account;
use crate::control::api::fixed::{app_of, refuse_external, refuse_said};
use crate::control::api::given::Given;
use crate::control::dynos::{find_app, titled};
use crate::control::{Changed, Problem, Running};
use crate::model::{AppName, ProcessType, Stated};

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
    let (name, app) = find_app(&running, &app)?;
    let AppSource::Managed(managed) = &app.source else {
        return Ok(Json(json!([])).into_response());
    };
    let stated = running.stated.load();
    let types = managed.formation.keys().map(|it| object(&stated, &name, managed, it));
    Ok(Json(types.collect::<Vec<_>>()).into_response())
}

/// `PATCH /apps/APP/formation`: the answer has those that were spoken of.
pub(in crate::control) async fn update(
    State(running): State<Arc<Running>>,
    Path(app): Path<String>,
    Given(update): Given<Update>,
) -> Result<Response, Problem> {
    let (name, _) = find_app(&running, &app)?;
    let of = name.clone();
    let types: Vec<String> = update.updates.iter().map(|it| it.process_type.clone()).collect();
    let change = move |config: &Config, stated: &Stated| scale(config, stated, of, &update.updates);
    running.change(account::EMAIL, change).await?;
    let (name, app) = find_app(&running, name.as_str())?;
    let stated = running.stated.load();
    let AppSource::Managed(managed) = &app.source else {
        return Ok(Json(json!([])).into_response());
    };
    let spoken_of =
        managed.formation.keys().filter(|it| types.iter().any(|name| name == it.as_str()));
    let spoken_of: Vec<_> = spoken_of.map(|it| object(&stated, &name, managed, it)).collect();
    Ok(Json(spoken_of).into_response())
}

fn scale(
    config: &Config,
    stated: &Stated,
    name: AppName,
    updates: &[OfType],
) -> Result<Changed, Problem> {
    let (app, mut now) = app_of(config, stated, &name)?;
    refuse_external(&name, app)?;
    let AppSource::Managed(managed) = &app.source else {
        return Err(Problem::invalid(format!(
            "Nothing is deployed to {name}: it has no process types."
        )));
    };
    for OfType { process_type, quantity, size } in updates {
        let parsed = ProcessType::parse(process_type).ok();
        let known = parsed.and_then(|it| managed.formation.get_key_value(&it));
        let Some((known, running)) = known else {
            let message = format!("Couldn't find that process type ({process_type}).");
            return Err(Problem { id: "not_found", ..Problem::not_found(message) });
        };
        if let Some(quantity) = quantity {
            let wanted = quantity.of(*running).filter(|it| *it <= limits::FORMATION_MAX);
            let wanted = wanted.ok_or_else(|| {
                let max = limits::FORMATION_MAX;
                Problem::invalid(format!("{process_type}: expected 0 to {max} dynos, +N or -N."))
            })?;
            if wanted != *running {
                let what = format!("The number of {process_type} dynos of {name}");
                refuse_said(config, app, &format!("formation.{process_type}"), &what)?;
                now.formation.insert(known.clone(), wanted);
            }
        }
        if let Some(size) = size {
            let found = config.sizes.find(&size.to_ascii_lowercase());
            let found =
                found.ok_or_else(|| Problem::invalid(format!("There is no dyno size {size}.")))?;
            if managed.sizes.get(known).is_none_or(|it| it.name != found.name) {
                let what = format!("The size of {process_type} dynos of {name}");
                refuse_said(config, app, &format!("sizes.{process_type}"), &what)?;
                refuse_said(config, app, "size", &what)?;
                now.sizes.insert(known.clone(), found.name.to_string());
            }
        }
    }
    Ok(Changed { app: name, now: Some(now), description: "Scaled".into() })
}

fn object(stated: &Stated, name: &AppName, app: &ManagedApp, process_type: &ProcessType) -> Value {
    let known = stated.apps.get(name);
    let id = known.map(|it| it.id.to_string());
    let size = app.sizes.get(process_type).map(|size| titled(size.name.as_str()));
    json!({
        "id": id.as_ref().map(|id| format!("{id}/{process_type}")),
        "type": process_type.as_str(),
        "quantity": app.formation.get(process_type),
        "size": size,
        "command": app.commands.get(process_type),
        "app": { "id": id, "name": name.as_str() },
        "created_at": null,
        "updated_at": null,
    })
}
