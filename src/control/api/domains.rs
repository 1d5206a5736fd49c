//! Domains: shown, added and removed.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::control::api::certificates;
use crate::control::api::scene::{AppScene, change_app, show_app};
use crate::control::given::{Given, Path};
use crate::control::{Caller, Problem, Running};
use crate::model::{Civil, Domain, StatedApp, StatedDomain, certificate_of};
use crate::store::new_id;
use crate::wall_clock;

/// `POST /apps/APP/domains`
#[derive(Deserialize)]
pub(in crate::control) struct Add {
    hostname: String,
    #[serde(default)]
    sni_endpoint: Option<String>,
}

/// `PATCH /apps/APP/domains/DOMAIN`: the certificate that is shown for it; `null` leaves the choice to dynomesh.
#[derive(Deserialize)]
pub(in crate::control) struct Update {
    sni_endpoint: Option<String>,
}

/// `GET /apps/APP/domains`
pub(in crate::control) async fn list(
    State(running): State<Arc<Running>>,
    Path(app): Path<String>,
) -> Result<Response, Problem> {
    Ok(Json(show_app(&running, &app, objects)?).into_response())
}

/// `GET /apps/APP/domains/DOMAIN`, by its name or its id.
pub(in crate::control) async fn show(
    State(running): State<Arc<Running>>,
    Path((app, which)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let shown = show_app(&running, &app, |scene| {
        find(scene, &which).map(|domain| object(scene, &domain))
    })??;
    Ok(Json(shown).into_response())
}

/// `POST /apps/APP/domains`
pub(in crate::control) async fn add(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Path(app): Path<String>,
    Given(Add { hostname, sni_endpoint }): Given<Add>,
) -> Result<Response, Problem> {
    let domain = Domain::parse(&hostname)
        .map_err(|wrong| Problem::invalid(format!("{hostname}: {wrong}.")))?;
    let wanted = domain.clone();
    let change = move |scene: &AppScene<'_>, now: &mut StatedApp| {
        if let Some(endpoint) = &sni_endpoint {
            choose(now, &wanted, Some(endpoint))?;
        }
        with(scene, now, wanted)
    };
    let name = change_app(&running, caller, &app, change).await?;
    let shown = show_app(&running, name.as_str(), |scene| object(scene, &domain))?;
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

/// `PATCH /apps/APP/domains/DOMAIN`
pub(in crate::control) async fn update(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Path((app, which)): Path<(String, String)>,
    Given(Update { sni_endpoint }): Given<Update>,
) -> Result<Response, Problem> {
    let of = which.clone();
    let change = move |scene: &AppScene<'_>, now: &mut StatedApp| {
        choose(now, &find(scene, &of)?, sni_endpoint.as_deref())?;
        Ok("Domain updated".to_owned())
    };
    let name = change_app(&running, caller, &app, change).await?;
    let shown = show_app(&running, name.as_str(), |scene| {
        find(scene, &which).map(|domain| object(scene, &domain))
    })??;
    Ok(Json(shown).into_response())
}

/// Has this certificate shown for a domain of the app, whatever others are for it.
fn choose(now: &mut StatedApp, domain: &Domain, endpoint: Option<&str>) -> Result<(), Problem> {
    for certificate in &mut now.certificates {
        certificate.chosen_for.retain(|it| it != domain);
    }
    let Some(endpoint) = endpoint else { return Ok(()) };
    let certificate = certificates::find_mut(&mut now.certificates, endpoint)?;
    if !certificate.is_for(domain) {
        return Err(Problem::invalid(format!(
            "The certificate {} is not for {domain}: no client would accept it.",
            certificate.name
        )));
    }
    certificate.chosen_for.push(domain.clone());
    Ok(())
}

/// `DELETE /apps/APP/domains/DOMAIN`, by its name or its id.
pub(in crate::control) async fn remove(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Path((app, domain)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (domain, shown) = show_app(&running, &app, |scene| {
        find(scene, &domain).map(|domain| (domain.clone(), object(scene, &domain)))
    })??;
    change_app(&running, caller, &app, move |scene, now| without(scene, now, &domain)).await?;
    Ok(Json(shown).into_response())
}

fn without(scene: &AppScene<'_>, now: &mut StatedApp, domain: &Domain) -> Result<String, Problem> {
    scene.refuse_said(&format!("domains.{domain}"), &format!("The domain {domain}"))?;
    let before = now.domains.len();
    now.domains.retain(|it| it.domain != *domain);
    if now.domains.len() == before {
        return Err(Problem::invalid(format!("{domain} is the own name of {}.", scene.name)));
    }
    for certificate in &mut now.certificates {
        certificate.chosen_for.retain(|it| it != domain);
    }
    Ok("Domain removed".into())
}

/// The domain of the app that is meant by its name or its id.
fn find(scene: &AppScene<'_>, which: &str) -> Result<Domain, Problem> {
    let by_name = Domain::parse(which).ok();
    let is_meant = |it: &Domain| Some(it) == by_name.as_ref() || scene.domain_id(it) == which;
    scene.domains().into_iter().find(is_meant).ok_or_else(|| {
        Problem::not_found(format!("Couldn't find that domain name ({which}) of {}.", scene.name))
    })
}

fn objects(scene: &AppScene<'_>) -> Vec<Value> {
    scene.domains().iter().map(|domain| object(scene, domain)).collect()
}

fn object(scene: &AppScene<'_>, domain: &Domain) -> Value {
    let own = format!("{}.{}", scene.name, scene.config.router.domain);
    let hostname = domain.to_string();
    let is_own = hostname == own;
    let stated = scene.known().and_then(|it| it.domains.iter().find(|it| it.domain == *domain));
    let since = stated.map(|it| Civil::of(it.created_at).rfc3339());
    let certificate = certificate_of(&scene.app.certificates, domain);
    json!({
        "id": scene.domain_id(domain),
        "hostname": hostname,
        "kind": if is_own { "heroku" } else { "custom" },
        "cname": (!is_own).then_some(own),
        "status": "none",
        "acm_status": null,
        "acm_status_reason": null,
        "sni_endpoint": certificate.map(|it| json!({ "id": it.id.to_string(), "name": it.name })),
        "app": scene.named(),
        "created_at": since,
        "updated_at": since,
    })
}
