//! Domains: shown, added and removed.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::control::api::given::Given;
use crate::control::api::scene::{AppScene, change_app, show_app};
use crate::control::{Caller, Problem, Running};
use crate::model::{Civil, Domain, StatedApp, StatedDomain};
use crate::store::new_id;
use crate::wall_clock;

/// `POST /apps/APP/domains`
#[derive(Deserialize)]
pub(in crate::control) struct Add {
    hostname: String,
}

/// `GET /apps/APP/domains`
pub(in crate::control) async fn list(
    State(running): State<Arc<Running>>,
    Path(app): Path<String>,
) -> Result<Response, Problem> {
    Ok(Json(show_app(&running, &app, objects)?).into_response())
}

/// `POST /apps/APP/domains`
pub(in crate::control) async fn add(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Path(app): Path<String>,
    Given(Add { hostname }): Given<Add>,
) -> Result<Response, Problem> {
    let domain = Domain::parse(&hostname)
        .map_err(|wrong| Problem::invalid(format!("{hostname}: {wrong}.")))?;
    let wanted = domain.clone();
    let name =
        change_app(&running, caller, &app, move |scene, now| with(scene, now, wanted)).await?;
    let shown = show_app(&running, name.as_str(), objects)?;
    let shown = shown.into_iter().find(|it| it["hostname"] == domain.to_string());
    Ok((StatusCode::CREATED, Json(shown)).into_response())
}

fn with(scene: &AppScene<'_>, now: &mut StatedApp, domain: Domain) -> Result<String, Problem> {
    if scene.app.domains.contains(&domain) {
        return Err(Problem::invalid(format!("{domain} is already added to {}.", scene.name)));
    }
    // Whether it is another app's is seen when the whole is read.
    now.domains.push(StatedDomain { id: new_id(), domain, created_at: wall_clock::unix() });
    Ok("Domain added".into())
}

/// `DELETE /apps/APP/domains/DOMAIN`, by its name or its id.
pub(in crate::control) async fn remove(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Path((app, domain)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let shown = show_app(&running, &app, objects)?;
    let shown = shown
        .into_iter()
        .find(|it| it["hostname"] == domain.as_str() || it["id"] == domain.as_str());
    change_app(&running, caller, &app, move |scene, now| without(scene, now, &domain)).await?;
    Ok(Json(shown).into_response())
}

fn without(scene: &AppScene<'_>, now: &mut StatedApp, which: &str) -> Result<String, Problem> {
    let which = which.to_ascii_lowercase();
    let before = now.domains.len();
    now.domains.retain(|it| it.domain.to_string() != which && it.id.to_string() != which);
    if now.domains.len() == before {
        scene.refuse_said(&format!("domains.{which}"), &format!("The domain {which}"))?;
        return Err(Problem::not_found(format!(
            "Couldn't find that domain name ({which}) of {}.",
            scene.name
        )));
    }
    Ok("Domain removed".into())
}

/// Its own name first, then the others.
fn objects(scene: &AppScene<'_>) -> Vec<Value> {
    let AppScene { config, name, app, .. } = *scene;
    let known = scene.known();
    let own = format!("{name}.{}", config.router.domain);
    let object = |hostname: &str, kind: &str, of: Option<&StatedDomain>| {
        let since = of.map(|it| Civil::of(it.created_at).rfc3339());
        json!({
            "id": of.map_or_else(|| hostname.to_owned(), |it| it.id.to_string()),
            "hostname": hostname,
            "kind": kind,
            "cname": (kind == "custom").then_some(&own),
            "status": "none",
            "acm_status": null,
            "acm_status_reason": null,
            "sni_endpoint": null,
            "app": scene.named(),
            "created_at": since,
            "updated_at": since,
        })
    };
    let custom = app.domains.iter().map(|domain| {
        let of = known.and_then(|it| it.domains.iter().find(|it| it.domain == *domain));
        object(&domain.to_string(), "custom", of)
    });
    std::iter::once(object(&own, "heroku", None)).chain(custom).collect()
}
