//! Certificates of apps: what Heroku calls SNI endpoints. Shown, added, exchanged and removed.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::certs::{Details, Judged, details, judge};
use crate::control::api::scene::{AppScene, change_app, show_app};
use crate::control::given::{Given, Path};
use crate::control::{Caller, Problem, Running};
use crate::model::{Civil, Id, StatedApp, StatedCertificate, certificate_of};
use crate::store::new_id;
use crate::wall_clock;

/// `POST /apps/APP/sni-endpoints`, and the same for one that is there.
#[derive(Deserialize)]
pub(in crate::control) struct Pair {
    certificate_chain: String,
    private_key: String,
}

/// `GET /apps/APP/sni-endpoints`
pub(in crate::control) async fn list(
    State(running): State<Arc<Running>>,
    Path(app): Path<String>,
) -> Result<Response, Problem> {
    let shown = show_app(&running, &app, |scene| {
        scene.app.certificates.iter().map(|it| object(scene, it)).collect::<Vec<_>>()
    })?;
    Ok(Json(shown).into_response())
}

/// `GET /apps/APP/sni-endpoints/ENDPOINT`, by its name or its id.
pub(in crate::control) async fn show(
    State(running): State<Arc<Running>>,
    Path((app, which)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let shown = show_app(&running, &app, |scene| {
        find(&scene.app.certificates, &which).map(|it| object(scene, it))
    })??;
    Ok(Json(shown).into_response())
}

/// `POST /apps/APP/sni-endpoints`
pub(in crate::control) async fn add(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Path(app): Path<String>,
    Given(pair): Given<Pair>,
) -> Result<Response, Problem> {
    let (pair, judged) = judged(pair).await?;
    let id = new_id();
    let change = move |_: &AppScene<'_>, now: &mut StatedApp| {
        now.certificates.push(certificate(id, pair, judged));
        Ok("Certificate added".to_owned())
    };
    let name = change_app(&running, caller, &app, change).await?;
    let shown = show_app(&running, name.as_str(), |scene| {
        // Of a request that is repeated the first one's effect is there.
        let made = scene.app.certificates.iter().find(|it| it.id == id);
        made.or_else(|| scene.app.certificates.last()).map(|it| object(scene, it))
    })?;
    Ok((StatusCode::CREATED, Json(shown)).into_response())
}

fn certificate(id: Id, pair: Pair, judged: Judged) -> StatedCertificate {
    let now = wall_clock::unix();
    StatedCertificate {
        id,
        name: format!("cert-{}", &id.to_string()[..8]),
        chain: pair.certificate_chain,
        key: pair.private_key,
        names: judged.names,
        chosen_for: Vec::new(),
        is_trusted: judged.is_trusted,
        created_at: now,
        updated_at: now,
    }
}

/// `PATCH /apps/APP/sni-endpoints/ENDPOINT`: another chain and key in place of what it has.
pub(in crate::control) async fn update(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Path((app, which)): Path<(String, String)>,
    Given(pair): Given<Pair>,
) -> Result<Response, Problem> {
    let (pair, judged) = judged(pair).await?;
    let of = which.clone();
    let change = move |_: &AppScene<'_>, now: &mut StatedApp| {
        let it = find_mut(&mut now.certificates, &of)?;
        (it.chain, it.key) = (pair.certificate_chain, pair.private_key);
        (it.names, it.is_trusted) = (judged.names, judged.is_trusted);
        it.updated_at = wall_clock::unix();
        Ok("Certificate updated".to_owned())
    };
    let name = change_app(&running, caller, &app, change).await?;
    let shown = show_app(&running, name.as_str(), |scene| {
        find(&scene.app.certificates, &which).map(|it| object(scene, it))
    })??;
    Ok(Json(shown).into_response())
}

/// `DELETE /apps/APP/sni-endpoints/ENDPOINT`
pub(in crate::control) async fn remove(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Path((app, which)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let shown = show_app(&running, &app, |scene| {
        find(&scene.app.certificates, &which).map(|it| object(scene, it))
    })??;
    let change = move |_: &AppScene<'_>, now: &mut StatedApp| {
        let id = find_mut(&mut now.certificates, &which)?.id;
        now.certificates.retain(|it| it.id != id);
        Ok("Certificate removed".to_owned())
    };
    change_app(&running, caller, &app, change).await?;
    Ok(Json(shown).into_response())
}

/// A pair against which nothing stands.
async fn judged(pair: Pair) -> Result<(Pair, Judged), Problem> {
    // The system's roots are files.
    let judging = spawn_blocking(move || {
        let judged = judge(&pair.certificate_chain, &pair.private_key);
        judged.map(|judged| (pair, judged))
    });
    let judged = judging.await.map_err(|panic| Problem::internal(panic.to_string()))?;
    judged.map_err(|flaw| {
        let what = if flaw.is_of_key() { "The private key" } else { "The certificate chain" };
        Problem::invalid(format!("{what} {flaw}."))
    })
}

fn find<'a>(
    certificates: &'a [StatedCertificate],
    which: &str,
) -> Result<&'a StatedCertificate, Problem> {
    certificates.iter().find(|it| is_meant(it, which)).ok_or_else(|| unknown(which))
}

/// The certificate that is meant by its name or its id.
pub(in crate::control::api) fn find_mut<'a>(
    certificates: &'a mut [StatedCertificate],
    which: &str,
) -> Result<&'a mut StatedCertificate, Problem> {
    certificates.iter_mut().find(|it| is_meant(it, which)).ok_or_else(|| unknown(which))
}

fn is_meant(certificate: &StatedCertificate, which: &str) -> bool {
    certificate.name == which || certificate.id.to_string() == which
}

fn unknown(which: &str) -> Problem {
    Problem::not_found(format!("Couldn't find that SNI endpoint ({which})."))
}

fn object(scene: &AppScene<'_>, certificate: &StatedCertificate) -> Value {
    let StatedCertificate { id, name, chain, names, is_trusted, .. } = certificate;
    let Details { subject, issuer, starts_at, expires_at } = details(chain).unwrap_or(Details {
        subject: String::new(),
        issuer: String::new(),
        starts_at: 0,
        expires_at: 0,
    });
    let is_shown =
        |domain: &_| certificate_of(&scene.app.certificates, domain).is_some_and(|it| it.id == *id);
    let domains = scene.domains().into_iter().filter(is_shown).map(|it| scene.domain_id(&it));
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let time = |seconds| Civil::of(seconds).rfc3339();
    json!({
        "id": id.to_string(),
        "name": name,
        "display_name": null,
        "cname": null,
        "certificate_chain": chain,
        "domains": domains.collect::<Vec<_>>(),
        "ssl_cert": {
            "id": id.to_string(),
            "cert_domains": names,
            "starts_at": time(starts_at),
            "expires_at": time(expires_at),
            "self_signed?": issuer == subject,
            "ca_signed?": is_trusted,
            "issuer": issuer,
            "subject": subject,
            "acm": false,
        },
        "app": scene.named(),
        "created_at": time(certificate.created_at),
        "updated_at": time(certificate.updated_at),
    })
}
