//! Config vars: shown, set and unset.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};

use crate::config::{AppConfig, AppSource, Config, check_config_var};
use crate::control::api::fixed::{app_of, refuse_external, refuse_said};
use crate::control::api::given::Given;
use crate::control::dynos::find_app;
use crate::control::{Caller, Changed, Problem, Running};
use crate::model::{AppName, Stated};

/// What is set, and by `null` unset.
type Update = BTreeMap<String, Option<String>>;

/// `GET /apps/APP/config-vars`
pub(in crate::control) async fn show(
    State(running): State<Arc<Running>>,
    Path(app): Path<String>,
) -> Result<Response, Problem> {
    let (name, app) = find_app(&running, &app)?;
    Ok(Json(vars(&app, &running.stated.load(), &name)).into_response())
}

/// `PATCH /apps/APP/config-vars`: the answer has all of them.
pub(in crate::control) async fn update(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Path(app): Path<String>,
    Given(update): Given<Update>,
) -> Result<Response, Problem> {
    let (name, _) = find_app(&running, &app)?;
    let (of, updated) = (name.clone(), update.clone());
    running.change(caller, move |config, stated| set(config, stated, of, &update)).await?;
    let (name, app) = find_app(&running, name.as_str())?;
    let mut shown = vars(&app, &running.stated.load(), &name);
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
fn vars(app: &AppConfig, stated: &Stated, name: &AppName) -> BTreeMap<String, String> {
    match &app.source {
        AppSource::Managed(managed) => managed.config_vars.clone(),
        _ => stated.apps.get(name).map(|it| it.config_vars.clone()).unwrap_or_default(),
    }
}

fn set(
    config: &Config,
    stated: &Stated,
    name: AppName,
    update: &Update,
) -> Result<Changed, Problem> {
    let (app, mut now) = app_of(config, stated, &name)?;
    refuse_external(&name, app)?;
    let before = vars(app, stated, &name);
    let (mut set, mut removed) = (Vec::new(), Vec::new());
    for (var, value) in update {
        // Who edits one sends all of them back.
        if before.get(var) == value.as_ref() {
            continue;
        }
        refuse_said(config, app, &format!("config.{var}"), &format!("The config var {var}"))?;
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
    Ok(Changed { app: name, now: Some(now), description: described(&set, &removed) })
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
