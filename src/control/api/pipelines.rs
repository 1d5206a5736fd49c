//! Pipelines and the apps in them: made, shown, ended.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::control::api::account;
use crate::control::api::scene::show_app;
use crate::control::given::{Given, Path, Query};
use crate::control::{Problem, Running};
use crate::model::{Civil, Coupling, Id, Pipeline, Stage};
use crate::store::AskError;
use crate::wall_clock;

/// `?eq[name]=NAME`: those of this name alone.
#[derive(Deserialize)]
pub(in crate::control) struct Wanted {
    #[serde(rename = "eq[name]")]
    name: Option<String>,
}

/// `POST /pipelines`, and `PATCH /pipelines/PIPELINE`
#[derive(Deserialize)]
pub(in crate::control) struct Name {
    name: String,
}

/// `POST /pipeline-couplings`: the app and the pipeline by name or id.
#[derive(Deserialize)]
pub(in crate::control) struct Couple {
    app: String,
    pipeline: String,
    stage: String,
}

/// `PATCH /pipeline-couplings/ID`
#[derive(Deserialize)]
pub(in crate::control) struct Restage {
    stage: String,
}

/// `GET /pipelines`
pub(in crate::control) async fn list(
    State(running): State<Arc<Running>>,
    Query(Wanted { name }): Query<Wanted>,
) -> Result<Response, Problem> {
    let pipelines = running.store.pipelines().await.map_err(unread)?;
    let wanted = pipelines.iter().filter(|it| name.as_ref().is_none_or(|name| it.name == *name));
    Ok(Json(wanted.map(object).collect::<Vec<_>>()).into_response())
}

/// `GET /pipelines/PIPELINE`
pub(in crate::control) async fn show(
    State(running): State<Arc<Running>>,
    Path(which): Path<String>,
) -> Result<Response, Problem> {
    Ok(Json(object(&find(&running, &which).await?)).into_response())
}

/// `POST /pipelines`
pub(in crate::control) async fn make(
    State(running): State<Arc<Running>>,
    Given(Name { name }): Given<Name>,
) -> Result<Response, Problem> {
    check_name(&name)?;
    let made = running.store.make_pipeline(name.clone(), wall_clock::unix()).await;
    let made = made.map_err(unread)?.ok_or_else(|| taken(&name))?;
    Ok((StatusCode::CREATED, Json(object(&made))).into_response())
}

/// `PATCH /pipelines/PIPELINE`
pub(in crate::control) async fn rename(
    State(running): State<Arc<Running>>,
    Path(which): Path<String>,
    Given(Name { name }): Given<Name>,
) -> Result<Response, Problem> {
    check_name(&name)?;
    let pipeline = find(&running, &which).await?;
    match running.store.rename_pipeline(pipeline.id, name.clone()).await.map_err(unread)? {
        true => Ok(Json(object(&Pipeline { name, ..pipeline })).into_response()),
        false => Err(taken(&name)),
    }
}

/// `DELETE /pipelines/PIPELINE`
pub(in crate::control) async fn remove(
    State(running): State<Arc<Running>>,
    Path(which): Path<String>,
) -> Result<Response, Problem> {
    let pipeline = find(&running, &which).await?;
    running.store.remove_pipeline(pipeline.id).await.map_err(unread)?;
    Ok(Json(object(&pipeline)).into_response())
}

/// `GET /pipelines/PIPELINE/pipeline-couplings`
pub(in crate::control) async fn couplings_of(
    State(running): State<Arc<Running>>,
    Path(which): Path<String>,
) -> Result<Response, Problem> {
    let pipeline = find(&running, &which).await?;
    let couplings = running.store.couplings().await.map_err(unread)?;
    let own = couplings.iter().filter(|it| it.pipeline == pipeline.id);
    Ok(Json(own.map(|it| coupling(it, &pipeline)).collect::<Vec<_>>()).into_response())
}

/// `GET /apps/APP/pipeline-couplings`: one, not a list.
pub(in crate::control) async fn coupling_of_app(
    State(running): State<Arc<Running>>,
    Path(app): Path<String>,
) -> Result<Response, Problem> {
    let name = show_app(&running, &app, |scene| scene.name.clone())?;
    let couplings = running.store.couplings().await.map_err(unread)?;
    let found = couplings.into_iter().find(|it| it.name == name);
    let found = found.ok_or_else(|| Problem::not_found(format!("{name} is in no pipeline.")))?;
    shown(&running, &found, StatusCode::OK).await
}

/// `POST /pipeline-couplings`
pub(in crate::control) async fn couple(
    State(running): State<Arc<Running>>,
    Given(Couple { app, pipeline, stage }): Given<Couple>,
) -> Result<Response, Problem> {
    let stage = parse_stage(&stage)?;
    let pipeline = find(&running, &pipeline).await?;
    let name =
        show_app(&running, &app, |scene| scene.refuse_external().map(|()| scene.name.clone()))??;
    let made = running.store.couple(pipeline.id, name.clone(), stage, wall_clock::unix()).await;
    let made = made.map_err(unread)?.ok_or_else(|| {
        Problem::invalid(format!("{name} is in a pipeline already, or has never run anything."))
    })?;
    Ok((StatusCode::CREATED, Json(coupling(&made, &pipeline))).into_response())
}

/// `PATCH /pipeline-couplings/ID`
pub(in crate::control) async fn restage(
    State(running): State<Arc<Running>>,
    Path(which): Path<String>,
    Given(Restage { stage }): Given<Restage>,
) -> Result<Response, Problem> {
    let (stage, unknown) = (parse_stage(&stage)?, || unknown_coupling(&which));
    let id = Id::parse(&which).ok_or_else(unknown)?;
    let changed = running.store.stage(id, stage).await.map_err(unread)?.ok_or_else(unknown)?;
    shown(&running, &changed, StatusCode::OK).await
}

/// `DELETE /pipeline-couplings/ID`
pub(in crate::control) async fn uncouple(
    State(running): State<Arc<Running>>,
    Path(which): Path<String>,
) -> Result<Response, Problem> {
    let couplings = running.store.couplings().await.map_err(unread)?;
    let found = couplings.into_iter().find(|it| it.id.to_string() == which);
    let found = found.ok_or_else(|| unknown_coupling(&which))?;
    let answer = shown(&running, &found, StatusCode::OK).await?;
    running.store.uncouple(found.id).await.map_err(unread)?;
    Ok(answer)
}

async fn shown(
    running: &Running,
    found: &Coupling,
    status: StatusCode,
) -> Result<Response, Problem> {
    let pipeline = find(running, &found.pipeline.to_string()).await?;
    Ok((status, Json(coupling(found, &pipeline))).into_response())
}

/// By name or by id.
pub(in crate::control) async fn find(running: &Running, which: &str) -> Result<Pipeline, Problem> {
    let pipelines = running.store.pipelines().await.map_err(unread)?;
    let is_meant = |it: &Pipeline| it.name == which || it.id.to_string() == which;
    let found = pipelines.into_iter().find(is_meant);
    found.ok_or_else(|| Problem::not_found(format!("Couldn't find that pipeline ({which}).")))
}

fn unread(error: AskError) -> Problem {
    Problem::internal(format!("The pipelines: {error}"))
}

fn taken(name: &str) -> Problem {
    Problem::invalid(format!("Name {name} is already taken."))
}

fn unknown_coupling(which: &str) -> Problem {
    Problem::not_found(format!("Couldn't find that pipeline coupling ({which})."))
}

/// As Heroku has them.
fn check_name(name: &str) -> Result<(), Problem> {
    let well_formed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    match (1..=30).contains(&name.len()) && name.bytes().all(well_formed) {
        true => Ok(()),
        false => Err(Problem::invalid(
            "Name: expected lower-case letters, digits and dashes, at most 30 of them.",
        )),
    }
}

fn parse_stage(name: &str) -> Result<Stage, Problem> {
    Stage::parse(name).ok_or_else(|| {
        let stages = Stage::ALL.map(Stage::as_str).join(", ");
        Problem::invalid(format!("There is no stage {name} (there is: {stages})."))
    })
}

fn object(pipeline: &Pipeline) -> Value {
    let Pipeline { id, name, created_at } = pipeline;
    let since = Civil::of(*created_at).rfc3339();
    json!({
        "id": id.to_string(),
        "name": name,
        "owner": { "id": account::named()["id"], "type": "user" },
        "generation": { "name": "cedar" },
        "created_at": since,
        "updated_at": since,
    })
}

fn coupling(coupling: &Coupling, pipeline: &Pipeline) -> Value {
    let since = Civil::of(coupling.created_at).rfc3339();
    json!({
        "id": coupling.id.to_string(),
        "stage": coupling.stage.as_str(),
        "app": { "id": coupling.app.to_string(), "name": coupling.name.as_str() },
        "pipeline": { "id": pipeline.id.to_string(), "name": pipeline.name },
        "created_at": since,
        "updated_at": since,
    })
}
