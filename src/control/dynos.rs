//! Apps and their dynos, as Heroku's Platform API shows them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::config::{AppConfig, AppSource};
use crate::control::Running;
use crate::control::given::Path;
use crate::control::problem::Problem;
use crate::model::{AppName, Civil, Id, ProcessType, Stated};
use crate::supervisor::{DynoStatus, Which};

/// An app, as `GET /apps` has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppObject {
    /// Its name.
    pub name: String,
}

/// A dyno, as `GET /apps/APP/dynos` has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DynoObject {
    /// Whose it is.
    pub app: AppObject,
    /// `web.1`
    pub name: String,
    /// `web`; `run` and `scheduler` for one-off dynos.
    #[serde(rename = "type")]
    pub process_type: String,
    /// What it runs; empty where somebody else runs it.
    pub command: String,
    /// `Standard-1X`; empty where somebody else runs it.
    pub size: String,
    /// `starting`, `up`, `crashed`, `idle`, `down`; `external` where somebody else runs it.
    pub state: String,
    /// Since when it is in this state (RFC 3339, UTC).
    pub updated_at: String,
    /// What it runs; none of a dyno that has not come up yet, and of those that somebody else runs.
    #[serde(default)]
    pub release: Option<ReleaseObject>,
    /// Where a client attaches to it, by an upgrade of the connection; of an attached one-off alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attach_url: Option<String>,
}

/// The release of a dyno.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseObject {
    /// `v7` is 7.
    pub version: u64,
}

/// `GET /apps/APP/dynos`
pub(in crate::control) async fn list(
    State(running): State<Arc<Running>>,
    Path(app): Path<String>,
) -> Result<Response, Problem> {
    let (name, app) = find_app(&running, &app)?;
    let dynos = running.supervisor.status();
    let dynos = dynos.iter().filter(|dyno| dyno.app == name.as_str());
    let dynos: Vec<_> = dynos.map(|dyno| object(dyno, &app)).collect();
    Ok(Json(dynos).into_response())
}

/// `DELETE /apps/APP/dynos`: restarts all of the formation.
pub(in crate::control) async fn restart(
    State(running): State<Arc<Running>>,
    Path(app): Path<String>,
) -> Result<Response, Problem> {
    let (app, _) = find_app(&running, &app)?;
    running.supervisor.restart(&app, Which::All).await;
    Ok(accepted())
}

/// `DELETE /apps/APP/formations/TYPE`: restarts those of a process type.
pub(in crate::control) async fn restart_type(
    State(running): State<Arc<Running>>,
    Path((app, process_type)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (app, _) = find_app(&running, &app)?;
    match running.supervisor.restart(&app, Which::Type(process_type.clone())).await {
        true => Ok(accepted()),
        false => Err(Problem::not_found(format!("No {process_type} dynos on {app}."))),
    }
}

/// `DELETE /apps/APP/dynos/DYNO`: restarts one of the formation, or by the name of a process type all of that.
pub(in crate::control) async fn restart_one(
    State(running): State<Arc<Running>>,
    Path((app, dyno)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (app, _) = find_app(&running, &app)?;
    let which = match dyno.contains('.') {
        true => Which::One(dyno.clone()),
        false => Which::Type(dyno.clone()),
    };
    match running.supervisor.restart(&app, which).await {
        true => Ok(accepted()),
        false => Err(no_dyno(&app, &dyno)),
    }
}

/// `POST /apps/APP/dynos/DYNO/actions/stop`
pub(in crate::control) async fn stop(
    State(running): State<Arc<Running>>,
    Path((app, dyno)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (app, _) = find_app(&running, &app)?;
    match running.supervisor.stop_dyno(&app, &dyno).await {
        true => Ok(accepted()),
        false => Err(no_dyno(&app, &dyno)),
    }
}

fn accepted() -> Response {
    (StatusCode::ACCEPTED, Json(serde_json::json!({}))).into_response()
}

fn no_dyno(app: &AppName, dyno: &str) -> Problem {
    Problem::not_found(format!("Couldn't find the dyno {dyno} of {app}."))
}

/// The app of a request's path, by its name or its id.
pub(in crate::control) fn find_app(
    running: &Running,
    which: &str,
) -> Result<(AppName, AppConfig), Problem> {
    let config = running.config.load();
    let name = name_of(&running.stated.load(), which);
    let found = name.and_then(|name| config.apps.get_key_value(&name));
    let (name, app) = found.ok_or_else(|| Problem::no_app(which))?;
    Ok((name.clone(), app.clone()))
}

/// The name of the app that is meant by its name or its id; there may be none of that name.
pub(in crate::control) fn name_of(stated: &Stated, which: &str) -> Option<AppName> {
    let by_id = Id::parse(which).and_then(|id| {
        let found = stated.apps.iter().find(|(_, app)| app.id == id);
        found.map(|(name, _)| name.clone())
    });
    by_id.or_else(|| AppName::parse(which).ok())
}

fn object(dyno: &DynoStatus, app: &AppConfig) -> DynoObject {
    let process_type = dyno.dyno.split('.').next().unwrap_or_default();
    let managed = match &app.source {
        AppSource::Managed(managed) => Some(managed),
        _ => None,
    };
    let of_type = ProcessType::parse(process_type).ok().zip(managed);
    let command = of_type.as_ref().and_then(|(it, managed)| managed.commands.get(it).cloned());
    let size = of_type.as_ref().and_then(|(it, managed)| managed.sizes.get(it));
    let size = dyno.size.clone().or(size.map(|size| size.name.to_string()));
    DynoObject {
        app: AppObject { name: dyno.app.clone() },
        name: dyno.dyno.clone(),
        process_type: process_type.to_owned(),
        command: dyno.command.clone().or(command).unwrap_or_default(),
        size: size.as_deref().map_or(String::new(), titled),
        state: dyno.state.clone(),
        updated_at: Civil::of(dyno.since).rfc3339(),
        release: dyno.release.map(|version| ReleaseObject { version }),
        attach_url: None,
    }
}

/// `standard-1x` as Heroku prints it: `Standard-1X`.
pub(in crate::control) fn titled(size: &str) -> String {
    let part = |part: &str| match part.as_bytes() {
        [b'0'..=b'9', ..] => part.to_ascii_uppercase(),
        [_, ..] => part[..1].to_ascii_uppercase() + &part[1..],
        [] => String::new(),
    };
    size.split('-').map(part).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_printed_as_heroku_prints_them() {
        for (name, printed) in [
            ("eco", "Eco"),
            ("standard-2x", "Standard-2X"),
            ("performance-l", "Performance-L"),
            ("nap", "Nap"),
        ] {
            assert_eq!(titled(name), printed);
        }
    }
}
