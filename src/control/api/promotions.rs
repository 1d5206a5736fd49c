//! Promotions: what an app of a pipeline runs, released to those after it, as it was built.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::control::api::pipelines::find;
use crate::control::api::releases::made;
use crate::control::api::scene::show_app;
use crate::control::api::slugs;
use crate::control::deploys::{Promoted, Promotion};
use crate::control::dynos::find_app;
use crate::control::given::{Given, Path};
use crate::control::{Caller, Problem, Running};
use crate::model::{AppName, Coupling, Id, Release, ReleaseStatus};
use crate::slugs::id_of;
use crate::store::new_id;

/// `POST /pipeline-promotions`: the pipeline and the apps by id or name.
#[derive(Deserialize)]
pub(in crate::control) struct Promote {
    pipeline: Which,
    source: OfApp,
    #[serde(default)]
    targets: Vec<OfApp>,
}

#[derive(Deserialize)]
struct OfApp {
    app: Which,
}

#[derive(Deserialize)]
struct Which {
    id: String,
}

/// `POST /pipeline-promotions`. Refused as a whole where one target could not run the slug; whatever becomes of a release
/// that has begun is that target's alone.
pub(in crate::control) async fn make(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Given(promote): Given<Promote>,
) -> Result<Response, Problem> {
    let (pipeline, source, targets) = places(&running, &promote).await?;
    let releases = of_app(&running, &source.name).await?;
    let current = releases.iter().find(|it| it.current);
    let promoted = current.and_then(|it| Some((it, it.runs.slug.as_deref()?)));
    let (release, slug) = promoted.ok_or_else(|| {
        Problem::invalid(format!("{} has no slug to promote: deploy to it first.", source.name))
    })?;
    slugs::verify(&running, slug).await?;
    for target in &targets {
        show_app(&running, target.name.as_str(), slugs::deployable)??;
    }
    let description = format!("Promote {} v{} {}", source.name, release.version, &slug[..8]);
    let mut promotion =
        Promotion { id: new_id(), pipeline, source: (source.app, release.id), targets: Vec::new() };
    for Coupling { app, name, .. } in targets {
        // A request that is repeated is known for each of the releases that it makes.
        let request = caller.request.as_ref().map(|request| format!("{request} {app}"));
        let caller = Caller { request, user: caller.user.clone() };
        let (slug, description) = (id_of(slug).to_string(), Some(description.clone()));
        let begun = match slugs::release(&running, caller, &name, &slug, description).await {
            Ok(()) => Ok(made(&of_app(&running, &name).await?).map(|it| it.id)),
            Err(problem) => Err(problem.message),
        };
        promotion.targets.push(Promoted { id: new_id(), app, name, begun });
    }
    let shown = object(&running, &promotion).await?;
    running.deploys.promoted(promotion);
    Ok((StatusCode::CREATED, Json(shown)).into_response())
}

/// `GET /pipeline-promotions/PROMOTION`
pub(in crate::control) async fn show(
    State(running): State<Arc<Running>>,
    Path(which): Path<String>,
) -> Result<Response, Problem> {
    let promotion = known(&running, &which)?;
    Ok(Json(object(&running, &promotion).await?).into_response())
}

/// `GET /pipeline-promotions/PROMOTION/promotion-targets`: how far each is.
pub(in crate::control) async fn targets(
    State(running): State<Arc<Running>>,
    Path(which): Path<String>,
) -> Result<Response, Problem> {
    let promotion = known(&running, &which)?;
    let mut shown = Vec::new();
    for target in &promotion.targets {
        let Stand { status, release, error } = stand(&running, target).await?;
        shown.push(json!({
            "id": target.id.to_string(),
            "status": status,
            "app": { "id": target.app.to_string() },
            "pipeline_promotion": { "id": promotion.id.to_string() },
            "release": release.map(|id| json!({ "id": id.to_string() })),
            "error_message": error,
        }));
    }
    Ok(Json(shown).into_response())
}

/// The pipeline, and the places in it that are meant: the source's and those of the targets, which come after it.
async fn places(
    running: &Running,
    promote: &Promote,
) -> Result<(Id, Coupling, Vec<Coupling>), Problem> {
    let pipeline = find(running, &promote.pipeline.id).await?;
    let couplings = running.store.couplings().await;
    let couplings = couplings.map_err(|error| Problem::internal(error.to_string()))?;
    let place = |of: &OfApp| {
        let (name, _) = find_app(running, &of.app.id)?;
        let found = couplings.iter().find(|it| it.name == name && it.pipeline == pipeline.id);
        found.cloned().ok_or_else(|| {
            Problem::invalid(format!("{name} is not in the pipeline {}.", pipeline.name))
        })
    };
    let source = place(&promote.source)?;
    let targets = promote.targets.iter().map(place).collect::<Result<Vec<_>, _>>()?;
    if targets.is_empty() {
        return Err(Problem::invalid(format!("No app downstream of {} is said.", source.name)));
    }
    match targets.iter().find(|it| it.stage <= source.stage) {
        None => Ok((pipeline.id, source, targets)),
        Some(Coupling { name, stage, .. }) => Err(Problem::invalid(format!(
            "{name} ({}) is not downstream of {} ({}).",
            stage.as_str(),
            source.name,
            source.stage.as_str()
        ))),
    }
}

/// How far a target is.
struct Stand {
    status: &'static str,
    release: Option<Id>,
    error: Option<String>,
}

async fn stand(running: &Running, target: &Promoted) -> Result<Stand, Problem> {
    let id = match &target.begun {
        Ok(id) => *id,
        Err(why) => {
            return Ok(Stand { status: "failed", release: None, error: Some(why.clone()) });
        }
    };
    let releases = of_app(running, &target.name).await?;
    let release = releases.iter().find(|it| Some(it.id) == id);
    let (status, error) = match release.map(|it| (it.status, &it.failure)) {
        Some((ReleaseStatus::Pending, _)) => ("pending", None),
        Some((ReleaseStatus::Succeeded, _)) => ("succeeded", None),
        Some((_, Some(failure))) => {
            ("failed", Some(format!("{} {}", failure.dyno, failure.reason)))
        }
        Some((_, None)) => ("failed", Some("Another release came before it was up.".to_owned())),
        None => ("failed", Some("The app is gone.".to_owned())),
    };
    Ok(Stand { status, release: id, error })
}

async fn object(running: &Running, promotion: &Promotion) -> Result<Value, Problem> {
    let mut status = "completed";
    for target in &promotion.targets {
        if stand(running, target).await?.status == "pending" {
            status = "pending";
        }
    }
    let (app, release) = promotion.source;
    Ok(json!({
        "id": promotion.id.to_string(),
        "status": status,
        "pipeline": { "id": promotion.pipeline.to_string() },
        "source": {
            "app": { "id": app.to_string() },
            "release": { "id": release.to_string() },
        },
    }))
}

fn known(running: &Running, which: &str) -> Result<Promotion, Problem> {
    let found = Id::parse(which).and_then(|id| running.deploys.promotion(id));
    found.ok_or_else(|| Problem::not_found(format!("Couldn't find that promotion ({which}).")))
}

async fn of_app(running: &Running, app: &AppName) -> Result<Vec<Release>, Problem> {
    let releases = running.store.releases(app).await;
    releases.map_err(|error| Problem::internal(format!("Read the releases: {error}")))
}
