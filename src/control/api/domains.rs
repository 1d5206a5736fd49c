//! Domains: shown, added and removed.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::{AppConfig, Config};
use crate::control::api::account;
use crate::control::api::fixed::{app_of, refuse_said};
use crate::control::api::given::Given;
use crate::control::dynos::find_app;
use crate::control::{Changed, Problem, Running};
use crate::model::{AppName, Civil, Domain, Stated, StatedDomain};
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
    let (name, app) = find_app(&running, &app)?;
    Ok(Json(objects(&running.config.load(), &running.stated.load(), &name, &app)).into_response())
}

/// `POST /apps/APP/domains`
pub(in crate::control) async fn add(
    State(running): State<Arc<Running>>,
    Path(app): Path<String>,
    Given(Add { hostname }): Given<Add>,
) -> Result<Response, Problem> {
    let (name, _) = find_app(&running, &app)?;
    let domain = Domain::parse(&hostname)
        .map_err(|wrong| Problem::invalid(format!("{hostname}: {wrong}.")))?;
    let (of, wanted) = (name.clone(), domain.clone());
    running.change(account::EMAIL, move |config, stated| with(config, stated, of, wanted)).await?;
    let (name, app) = find_app(&running, name.as_str())?;
    let shown = objects(&running.config.load(), &running.stated.load(), &name, &app);
    let shown = shown.into_iter().find(|it| it["hostname"] == domain.to_string());
    Ok((StatusCode::CREATED, Json(shown)).into_response())
}

fn with(
    config: &Config,
    stated: &Stated,
    name: AppName,
    domain: Domain,
) -> Result<Changed, Problem> {
    let (app, mut now) = app_of(config, stated, &name)?;
    if app.domains.contains(&domain) {
        return Err(Problem::invalid(format!("{domain} is already added to {name}.")));
    }
    // Whether it is another app's is seen when the whole is read.
    now.domains.push(StatedDomain { id: new_id(), domain, created_at: wall_clock::unix() });
    Ok(Changed { app: name, now: Some(now), description: "Domain added".into() })
}

/// `DELETE /apps/APP/domains/DOMAIN`, by its name or its id.
pub(in crate::control) async fn remove(
    State(running): State<Arc<Running>>,
    Path((app, domain)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (name, app) = find_app(&running, &app)?;
    let shown = objects(&running.config.load(), &running.stated.load(), &name, &app);
    let shown = shown
        .into_iter()
        .find(|it| it["hostname"] == domain.as_str() || it["id"] == domain.as_str());
    running
        .change(account::EMAIL, move |config, stated| without(config, stated, name, &domain))
        .await?;
    Ok(Json(shown).into_response())
}

fn without(
    config: &Config,
    stated: &Stated,
    name: AppName,
    which: &str,
) -> Result<Changed, Problem> {
    let (app, mut now) = app_of(config, stated, &name)?;
    let which = which.to_ascii_lowercase();
    let before = now.domains.len();
    now.domains.retain(|it| it.domain.to_string() != which && it.id.to_string() != which);
    if now.domains.len() == before {
        refuse_said(config, app, &format!("domains.{which}"), &format!("The domain {which}"))?;
        return Err(Problem::not_found(format!(
            "Couldn't find that domain name ({which}) of {name}."
        )));
    }
    Ok(Changed { app: name, now: Some(now), description: "Domain removed".into() })
}

/// Its own name first, then the others.
fn objects(config: &Config, stated: &Stated, name: &AppName, app: &AppConfig) -> Vec<Value> {
    let known = stated.apps.get(name);
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
            "app": { "id": known.map(|it| it.id.to_string()), "name": name.as_str() },
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
