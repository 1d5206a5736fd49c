//! Apps: made, shown and ended.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::{AppConfig, AppSource, Config};
use crate::control::api::account;
use crate::control::api::fixed::{app_of, refuse_said};
use crate::control::api::given::Given;
use crate::control::dynos::find_app;
use crate::control::{Changed, Problem, Running};
use crate::model::{AppName, Civil, Endpoint, ListenAddr, Stated, StatedApp};
use crate::store::new_id;
use crate::wall_clock;

/// `POST /apps`. What else the CLI sends (`region`, `stack`) has one value here, and is not looked at.
#[derive(Deserialize)]
pub(in crate::control) struct Create {
    name: Option<String>,
}

/// `PATCH /apps/APP`
#[derive(Deserialize)]
pub(in crate::control) struct Update {
    maintenance: Option<bool>,
}

/// `GET /apps`
pub(in crate::control) async fn list(State(running): State<Arc<Running>>) -> Response {
    let (config, stated) = (running.config.load(), running.stated.load());
    let apps = config.apps.iter().map(|(name, app)| object(&config, &stated, name, app));
    Json(apps.collect::<Vec<_>>()).into_response()
}

/// `GET /apps/APP`
pub(in crate::control) async fn show(
    State(running): State<Arc<Running>>,
    Path(app): Path<String>,
) -> Result<Response, Problem> {
    let (name, app) = find_app(&running, &app)?;
    let (config, stated) = (running.config.load(), running.stated.load());
    Ok(Json(object(&config, &stated, &name, &app)).into_response())
}

/// `POST /apps`
pub(in crate::control) async fn create(
    State(running): State<Arc<Running>>,
    Given(create): Given<Create>,
) -> Result<Response, Problem> {
    let name = match create.name {
        Some(name) => name,
        None => format!("app-{}", &new_id().to_string()[..8]),
    };
    let name =
        AppName::parse(&name).map_err(|wrong| Problem::invalid(format!("Name: {wrong}.")))?;
    let made = name.clone();
    running.change(account::EMAIL, move |config, _| make(config, made)).await?;
    let (config, stated) = (running.config.load(), running.stated.load());
    let app = config.apps.get(&name).ok_or_else(|| Problem::no_app(name.as_str()))?;
    Ok((StatusCode::CREATED, Json(object(&config, &stated, &name, app))).into_response())
}

fn make(config: &Config, name: AppName) -> Result<Changed, Problem> {
    if let Some(app) = config.apps.get(&name) {
        refuse_said(config, app, "app", &format!("The app {name}"))?;
        return Err(Problem::invalid(format!("Name {name} is already taken.")));
    }
    let now = StatedApp::new(new_id(), wall_clock::unix(), true);
    Ok(Changed { app: name, now: Some(now), description: "Initial release".into() })
}

/// `PATCH /apps/APP`
pub(in crate::control) async fn update(
    State(running): State<Arc<Running>>,
    Path(app): Path<String>,
    Given(update): Given<Update>,
) -> Result<Response, Problem> {
    let (name, _) = find_app(&running, &app)?;
    if let Some(on) = update.maintenance {
        let of = name.clone();
        let change = move |config: &Config, stated: &Stated| maintain(config, stated, of, on);
        running.change(account::EMAIL, change).await?;
    }
    let (name, app) = find_app(&running, name.as_str())?;
    let (config, stated) = (running.config.load(), running.stated.load());
    Ok(Json(object(&config, &stated, &name, &app)).into_response())
}

fn maintain(config: &Config, stated: &Stated, name: AppName, on: bool) -> Result<Changed, Problem> {
    let (app, mut now) = app_of(config, stated, &name)?;
    refuse_said(config, app, "maintenance", &format!("Whether {name} is under maintenance"))?;
    now.maintenance = Some(on);
    Ok(Changed { app: name, now: Some(now), description: "Maintenance".into() })
}

/// `DELETE /apps/APP`
pub(in crate::control) async fn destroy(
    State(running): State<Arc<Running>>,
    Path(app): Path<String>,
) -> Result<Response, Problem> {
    let (name, app) = find_app(&running, &app)?;
    let shown = object(&running.config.load(), &running.stated.load(), &name, &app);
    running.change(account::EMAIL, move |config, _| end(config, name)).await?;
    Ok(Json(shown).into_response())
}

fn end(config: &Config, name: AppName) -> Result<Changed, Problem> {
    let app = config.apps.get(&name).ok_or_else(|| Problem::no_app(name.as_str()))?;
    refuse_said(config, app, "app", &format!("The app {name}"))?;
    Ok(Changed { app: name, now: None, description: "Destroyed".into() })
}

/// An app as the API shows it (reference: Heroku's Platform API, App).
fn object(config: &Config, stated: &Stated, name: &AppName, app: &AppConfig) -> Value {
    let known = stated.apps.get(name);
    let since = known.map(|it| Civil::of(it.created_at).rfc3339());
    let stack = json!({ "id": null, "name": "host" });
    json!({
        "id": known.map(|it| it.id.to_string()),
        "name": name.as_str(),
        "owner": account::named(),
        "region": { "id": null, "name": "us" },
        "stack": stack,
        "build_stack": stack,
        "web_url": web_url(config, name),
        "git_url": null,
        "repo_size": null,
        "slug_size": null,
        "maintenance": app.policy.maintenance,
        "acm": app.acme && config.acme.is_some(),
        "team": null,
        "space": null,
        "internal_routing": null,
        "locked": false,
        "archived_at": null,
        "create_status": "complete",
        "generation": { "name": "cedar" },
        "process_tier": "production",
        "buildpack_provided_description": null,
        "created_at": since,
        "released_at": since,
        "updated_at": since,
        "decided_by": decided_by(app),
    })
}

/// Who says that there is the app, and what it runs: our own addition.
fn decided_by(app: &AppConfig) -> &'static str {
    let runs = match &app.source {
        AppSource::Managed(_) => app.said.line("dir"),
        AppSource::External(_) => app.said.line("dynos"),
        AppSource::Blank => None,
    };
    match (app.said.line("app"), runs) {
        (None, _) => "commands",
        (Some(_), None) => "file and commands",
        (Some(_), Some(_)) => "file",
    }
}

/// Where its own name leads, by the first listener.
fn web_url(config: &Config, name: &AppName) -> Option<String> {
    let port = |endpoint: &Endpoint| match &endpoint.addr {
        ListenAddr::Tcp(addr) => Some((endpoint.tls, addr.port())),
        ListenAddr::Unix(_) => None,
    };
    let (tls, port) = config.router.endpoints.iter().find_map(port)?;
    let (scheme, usual) = if tls { ("https", 443) } else { ("http", 80) };
    let host = format!("{name}.{}", config.router.domain);
    Some(match port == usual {
        true => format!("{scheme}://{host}/"),
        false => format!("{scheme}://{host}:{port}/"),
    })
}
