//! Config vars: shown, set and unset.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::config::{AppSource, check_config_var};
use crate::control::api::scene::{AppScene, change_app, show_app};
use crate::control::given::{Given, Path};
use crate::control::{Caller, Problem, Running};
use crate::model::StatedApp;

/// What is set, and by `null` unset.
type Update = BTreeMap<String, Option<String>>;

/// `GET /apps/APP/config-vars`
pub(in crate::control) async fn show(
    State(running): State<Arc<Running>>,
    Path(app): Path<String>,
) -> Result<Response, Problem> {
    Ok(Json(show_app(&running, &app, vars)?).into_response())
}

/// `PATCH /apps/APP/config-vars`: the answer has all of them.
pub(in crate::control) async fn update(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Path(app): Path<String>,
    Given(update): Given<Update>,
) -> Result<Response, Problem> {
    let updated = update.clone();
    let name =
        change_app(&running, caller, &app, move |scene, now| set(scene, now, &update)).await?;
    let mut shown = show_app(&running, name.as_str(), vars)?;
    // While its release command runs they are not there yet.
    for (var, value) in updated {
        match value {
            Some(value) => drop(shown.insert(var, value)),
            None => drop(shown.remove(&var)),
        }
    }
    Ok(Json(shown).into_response())
}

/// Those that the app's dynos have; before there are any, those that commands said.
fn vars(scene: &AppScene<'_>) -> BTreeMap<String, String> {
    match &scene.app.source {
        AppSource::Managed(managed) => managed.config_vars.clone(),
        _ => {
            let mut vars = scene.known().map(|it| it.config_vars.clone()).unwrap_or_default();
            vars.extend(scene.stated.attached(scene.name));
            vars
        }
    }
}

fn set(scene: &AppScene<'_>, now: &mut StatedApp, update: &Update) -> Result<String, Problem> {
    scene.refuse_external()?;
    let before = vars(scene);
    let (mut set, mut removed) = (Vec::new(), Vec::new());
    for (var, value) in update {
        // Who edits one sends all of them back.
        if before.get(var) == value.as_ref() {
            continue;
        }
        scene.refuse_said(&format!("config.{var}"), &format!("The config var {var}"))?;
        if now.attachments.iter().any(|it| it.var() == *var) {
            let message = format!("Cannot overwrite attachment values {var}.");
            return Err(Problem::invalid(message));
        }
        match value {
            Some(value) => {
                let checked = check_config_var(var, value);
                checked.map_err(|wrong| Problem::invalid(format!("{var}: {wrong}.")))?;
                now.config_vars.insert(var.clone(), value.clone());
                set.push(var.as_str());
            }
            None => {
                now.config_vars.remove(var);
                removed.push(var.as_str());
            }
        }
    }
    Ok(described(&set, &removed))
}

/// As Heroku describes such releases.
fn described(set: &[&str], removed: &[&str]) -> String {
    let part = |verb: &str, names: &[&str]| match names {
        [] => None,
        names => Some(format!("{verb} {} config vars", names.join(", "))),
    };
    let parts: Vec<String> =
        [part("Set", set), part("Remove", removed)].into_iter().flatten().collect();
    parts.join("; ")
}
