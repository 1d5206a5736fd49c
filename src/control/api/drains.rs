//! Log drains: shown, added and removed.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::drain_key;
use crate::control::api::scene::{AppScene, change_app, show_app};
use crate::control::given::{Given, Path};
use crate::control::{Caller, Problem, Running};
use crate::drains::token;
use crate::model::{Civil, DrainUrl, StatedApp, StatedDrain};
use crate::wall_clock;

/// `POST /apps/APP/log-drains`
#[derive(Deserialize)]
pub(in crate::control) struct Add {
    url: String,
}

/// `GET /apps/APP/log-drains`
pub(in crate::control) async fn list(
    State(running): State<Arc<Running>>,
    Path(app): Path<String>,
) -> Result<Response, Problem> {
    let drains = show_app(&running, &app, |scene| {
        scene.app.drains.iter().map(|url| object(scene, url)).collect::<Vec<_>>()
    })?;
    Ok(Json(drains).into_response())
}

/// `POST /apps/APP/log-drains`
pub(in crate::control) async fn add(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Path(app): Path<String>,
    Given(Add { url }): Given<Add>,
) -> Result<Response, Problem> {
    let url =
        DrainUrl::parse(&url).map_err(|expected| Problem::invalid(format!("Url: {expected}.")))?;
    let wanted = url.clone();
    let name =
        change_app(&running, caller, &app, move |scene, now| with(scene, now, wanted)).await?;
    let shown = show_app(&running, name.as_str(), |scene| object(scene, &url))?;
    Ok((StatusCode::CREATED, Json(shown)).into_response())
}

fn with(scene: &AppScene<'_>, now: &mut StatedApp, url: DrainUrl) -> Result<String, Problem> {
    if scene.app.drains.contains(&url) {
        return Err(Problem::invalid(format!("{url} is already a drain of {}.", scene.name)));
    }
    // Whether there are too many is seen when the whole is read.
    now.drains.push(StatedDrain { url, created_at: wall_clock::unix() });
    Ok("Drain added".into())
}

/// `DELETE /apps/APP/log-drains/DRAIN`, by its URL, its token or its id.
pub(in crate::control) async fn remove(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Path((app, drain)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (url, shown) = show_app(&running, &app, |scene| {
        let is_meant = |url: &&DrainUrl| {
            let token = token(scene.name, url);
            drain == url.as_str() || drain == token || drain == id(&token)
        };
        let found = scene.app.drains.iter().find(is_meant);
        found.map(|url| (url.clone(), object(scene, url)))
    })?
    .ok_or_else(|| Problem::not_found("Couldn't find that drain."))?;
    change_app(&running, caller, &app, move |scene, now| without(scene, now, &url)).await?;
    Ok(Json(shown).into_response())
}

fn without(scene: &AppScene<'_>, now: &mut StatedApp, url: &DrainUrl) -> Result<String, Problem> {
    scene.refuse_said(&drain_key(url.as_str()), &format!("The drain {url}"))?;
    now.drains.retain(|it| it.url != *url);
    Ok("Drain removed".into())
}

/// A drain as the API shows it: with its whole URL, which clients are to remove it by.
fn object(scene: &AppScene<'_>, url: &DrainUrl) -> Value {
    let token = token(scene.name, url);
    let stated = scene.known().and_then(|it| it.drains.iter().find(|it| it.url == *url));
    let since = stated.map(|it| Civil::of(it.created_at).rfc3339());
    json!({
        "id": id(&token),
        "url": url.as_str(),
        "token": token,
        "addon": null,
        "created_at": since,
        "updated_at": since,
    })
}

/// A token is its drain's id with a `d.` in front.
fn id(token: &str) -> &str {
    token.trim_start_matches("d.")
}
