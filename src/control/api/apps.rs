//! Apps: made, shown and ended.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::{AppConfig, AppSource, Config};
use crate::control::api::absent::STACK;
use crate::control::api::account;
use crate::control::api::scene::{AppScene, change_app, show_app};
use crate::control::dynos::find_app;
use crate::control::given::{Given, Path};
use crate::control::{Caller, Changed, Problem, Running};
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
    build_stack: Option<String>,
}

/// `GET /apps`
pub(in crate::control) async fn list(State(running): State<Arc<Running>>) -> Response {
    let (config, stated) = (running.config.load(), running.stated.load());
    let scene = |(name, app)| AppScene { config: &config, stated: &stated, name, app };
    let apps = config.apps.iter().map(|it| object(&scene(it)));
    Json(apps.collect::<Vec<_>>()).into_response()
}

/// `POST /filters/apps`: those with these ids.
#[derive(Deserialize)]
pub(in crate::control) struct Filter {
    #[serde(rename = "in")]
    within: Ids,
}

#[derive(Deserialize)]
struct Ids {
    id: Vec<String>,
}

/// `POST /filters/apps`
pub(in crate::control) async fn filter(
    State(running): State<Arc<Running>>,
    Given(Filter { within }): Given<Filter>,
) -> Response {
    let (config, stated) = (running.config.load(), running.stated.load());
    let scene = |(name, app)| AppScene { config: &config, stated: &stated, name, app };
    let is_wanted = |scene: &AppScene<'_>| {
        scene.known().is_some_and(|it| within.id.contains(&it.id.to_string()))
    };
    let apps = config.apps.iter().map(scene).filter(is_wanted).map(|it| object(&it));
    Json(apps.collect::<Vec<_>>()).into_response()
}

/// `GET /apps/APP`
pub(in crate::control) async fn show(
    State(running): State<Arc<Running>>,
    Path(app): Path<String>,
) -> Result<Response, Problem> {
    Ok(Json(show_app(&running, &app, object)?).into_response())
}

/// `POST /apps`
pub(in crate::control) async fn create(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Given(create): Given<Create>,
) -> Result<Response, Problem> {
    let name = match create.name {
        Some(name) => name,
        // A repetition of the request must not make a second one.
        None => match &caller.request {
            Some(request) => format!("app-{}", &request[..8]),
            None => format!("app-{}", &new_id().to_string()[..8]),
        },
    };
    let name =
        AppName::parse(&name).map_err(|wrong| Problem::invalid(format!("Name: {wrong}.")))?;
    let made = name.clone();
    running.change(caller, move |config, stated| make(config, stated, made)).await?;
    Ok((StatusCode::CREATED, Json(show_app(&running, name.as_str(), object)?)).into_response())
}

fn make(config: &Config, stated: &Stated, name: AppName) -> Result<Changed, Problem> {
    if let Ok(scene) = AppScene::of(config, stated, &name) {
        scene.refuse_said("app", &format!("The app {name}"))?;
        return Err(Problem::invalid(format!("Name {name} is already taken.")));
    }
    let now = StatedApp::new(new_id(), wall_clock::unix(), true);
    Ok(Changed { app: name, now: Some(now), description: "Initial release".into() })
}

/// `PATCH /apps/APP`
pub(in crate::control) async fn update(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Path(app): Path<String>,
    Given(update): Given<Update>,
) -> Result<Response, Problem> {
    let (mut name, _) = find_app(&running, &app)?;
    if update.build_stack.is_some_and(|stack| stack != STACK) {
        return Err(Problem::invalid(format!("Stack: there is one here, {STACK}.")));
    }
    if let Some(on) = update.maintenance {
        name =
            change_app(&running, caller, &app, move |scene, now| maintain(scene, now, on)).await?;
    }
    Ok(Json(show_app(&running, name.as_str(), object)?).into_response())
}

fn maintain(scene: &AppScene<'_>, now: &mut StatedApp, on: bool) -> Result<String, Problem> {
    scene.refuse_said("maintenance", &format!("Whether {} is under maintenance", scene.name))?;
    now.maintenance = Some(on);
    Ok("Maintenance".into())
}

/// `DELETE /apps/APP`
pub(in crate::control) async fn destroy(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Path(app): Path<String>,
) -> Result<Response, Problem> {
    let (name, shown) = show_app(&running, &app, |scene| (scene.name.clone(), object(scene)))?;
    running.change(caller, move |config, stated| end(config, stated, name)).await?;
    Ok(Json(shown).into_response())
}

fn end(config: &Config, stated: &Stated, name: AppName) -> Result<Changed, Problem> {
    AppScene::of(config, stated, &name)?.refuse_said("app", &format!("The app {name}"))?;
    Ok(Changed { app: name, now: None, description: "Destroyed".into() })
}

/// An app as the API shows it (reference: Heroku's Platform API, App).
fn object(scene: &AppScene<'_>) -> Value {
    let AppScene { config, name, app, .. } = *scene;
    let known = scene.known();
    let since = known.map(|it| Civil::of(it.created_at).rfc3339());
    let stack = json!({ "id": null, "name": STACK });
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
