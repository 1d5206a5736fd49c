//! Builds: an archive that was uploaded becomes a slug, and that a release. Nothing is compiled, and nothing is fetched.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::control::api::absent::STACK;
use crate::control::api::releases::made;
use crate::control::api::scene::show_app;
use crate::control::api::{account, slugs};
use crate::control::builds::{Build, BuildStatus, Source};
use crate::control::given::{Given, Path};
use crate::control::logs::Origin;
use crate::control::output::streamed;
use crate::control::{Caller, Problem, Running};
use crate::model::{AppName, Civil, Id};
use crate::slugs::id_of;

/// Where sources are uploaded, and by which address builds name them.
const SOURCES: &str = "/source-uploads/";

/// `POST /apps/APP/builds`. What else clients send (`buildpacks`) has no meaning here, and is not looked at.
#[derive(Deserialize)]
pub(in crate::control) struct Create {
    source_blob: Blob,
}

#[derive(Deserialize)]
struct Blob {
    url: String,
    version: Option<String>,
    checksum: Option<String>,
}

/// `POST /sources`, and `POST /apps/APP/sources`: where an archive is to be sent, and by what it is named then.
pub(in crate::control) async fn make_source(
    State(running): State<Arc<Running>>,
    origin: Option<Extension<Origin>>,
) -> Result<Response, Problem> {
    let secret = running.builds.expect()?;
    let (here, shutdown) = (running.clone(), running.shutdown.clone());
    running.shutdown.spawn(async move {
        tokio::select! {
            () = here.builds.sweep() => {}
            () = shutdown.begun() => {}
        }
    });
    let url = format!("{}{SOURCES}{secret}", of(&origin));
    let blob = json!({ "get_url": url, "put_url": url });
    Ok((StatusCode::CREATED, Json(json!({ "source_blob": blob }))).into_response())
}

/// `POST /apps/APP/sources`
pub(in crate::control) async fn make_source_of(
    State(running): State<Arc<Running>>,
    Path(app): Path<String>,
    origin: Option<Extension<Origin>>,
) -> Result<Response, Problem> {
    show_app(&running, &app, slugs::deployable)??;
    make_source(State(running), origin).await
}

/// `PUT /source-uploads/SECRET`: the archive. What is in it is seen when it is built, after which it cannot be exchanged.
pub(in crate::control) async fn upload(
    State(running): State<Arc<Running>>,
    Path(secret): Path<String>,
    body: Body,
) -> Result<StatusCode, Problem> {
    running.builds.check_upload(&secret)?;
    let (archive, sha256, _slot) = slugs::receive(&running, body).await?;
    running.builds.uploaded(&secret, Source { archive, sha256 })?;
    Ok(StatusCode::OK)
}

/// `POST /apps/APP/builds`: answered at once; what comes of it is to be asked for.
pub(in crate::control) async fn create(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Path(app): Path<String>,
    origin: Option<Extension<Origin>>,
    Given(Create { source_blob }): Given<Create>,
) -> Result<Response, Problem> {
    let name =
        show_app(&running, &app, |scene| slugs::deployable(scene).map(|()| scene.name.clone()))??;
    let begun = caller.request.as_deref().and_then(|request| running.builds.of_request(request));
    let build = match begun {
        Some(begun) => begun,
        None => begin(&running, caller, name, source_blob)?,
    };
    Ok((StatusCode::CREATED, Json(object(&running, &origin, &build)?)).into_response())
}

fn begin(
    running: &Arc<Running>,
    caller: Caller,
    app: AppName,
    blob: Blob,
) -> Result<Build, Problem> {
    let secret = blob.url.rsplit_once(SOURCES).map_or("", |(_, secret)| secret);
    if !running.builds.expects(secret) {
        return Err(Problem::invalid(
            "source_blob.url: expected a get_url that POST /sources told within the last hour. Nothing is fetched from elsewhere: upload the archive to its put_url.",
        ));
    }
    let source = running.builds.source(secret).ok_or_else(|| {
        Problem::invalid("source_blob.url: nothing has been uploaded to its put_url yet.")
    })?;
    slugs::check_sum(blob.checksum.as_deref(), &source.sha256)?;
    running.builds.built(secret, source.clone());
    let build = Build::new(app, &caller, blob.url, blob.version, &source);
    running.builds.begin(build.clone());
    let (here, shutdown, begun) = (running.clone(), running.shutdown.clone(), build.clone());
    running.shutdown.spawn(async move {
        tokio::select! {
            () = run(&here, caller, begun, source) => {}
            () = shutdown.begun() => {}
        }
    });
    Ok(build)
}

/// Brings a build to its end.
async fn run(running: &Arc<Running>, caller: Caller, build: Build, source: Source) {
    let status = match released(running, caller, &build, source).await {
        Ok(release) => BuildStatus::Succeeded(release),
        Err(problem) => {
            running.builds.say(build.id, &format!(" !     {}", problem.message));
            BuildStatus::Failed
        }
    };
    running.builds.end(build.id, status);
}

/// The release that came of a build.
async fn released(
    running: &Arc<Running>,
    caller: Caller,
    build: &Build,
    source: Source,
) -> Result<Option<Id>, Problem> {
    // It waits for its turn, in which it cannot fail: the semaphore is never closed.
    let slot = running.deploys.slots.clone().acquire_owned().await;
    let slug = slugs::unpack(running, source.archive, BTreeMap::new()).await?;
    running.builds.say(build.id, &format!("-----> Slug {}, {} bytes", &slug.name[..8], slug.size));
    running.builds.unpacked(build.id, &slug.name);
    let expected = running.deploys.expect(build.app.clone(), BTreeMap::new(), None)?;
    running.deploys.uploaded(expected.id, slug);
    // What is neither being unpacked nor waits may be collected.
    drop(slot);
    let description = build.version.as_ref().map(|version| format!("Deploy {version}"));
    let slug = expected.id.to_string();
    slugs::release(running, caller, &build.app, &slug, description).await?;
    let releases = running.store.releases(&build.app).await;
    let releases = releases.map_err(|error| Problem::internal(error.to_string()))?;
    let release = made(&releases);
    if let Some(release) = release {
        running.builds.say(build.id, &format!("-----> Release v{}", release.version));
    }
    Ok(release.map(|it| it.id))
}

/// `GET /apps/APP/builds`, the newest first.
pub(in crate::control) async fn list(
    State(running): State<Arc<Running>>,
    Path(app): Path<String>,
    origin: Option<Extension<Origin>>,
) -> Result<Response, Problem> {
    let name = show_app(&running, &app, |scene| scene.name.clone())?;
    let builds = running.builds.of_app(&name);
    let shown = builds.iter().map(|build| object(&running, &origin, build));
    Ok(Json(shown.collect::<Result<Vec<_>, _>>()?).into_response())
}

/// `GET /apps/APP/builds/BUILD`
pub(in crate::control) async fn show(
    State(running): State<Arc<Running>>,
    Path((app, which)): Path<(String, String)>,
    origin: Option<Extension<Origin>>,
) -> Result<Response, Problem> {
    let name = show_app(&running, &app, |scene| scene.name.clone())?;
    let builds = running.builds.of_app(&name);
    let found = builds.iter().find(|it| it.id.to_string() == which);
    let found =
        found.ok_or_else(|| Problem::not_found(format!("Couldn't find that build ({which}).")))?;
    Ok(Json(object(&running, &origin, found)?).into_response())
}

/// `GET /build-output/SECRET`: it ends with the build.
pub(in crate::control) async fn output(
    State(running): State<Arc<Running>>,
    Path(secret): Path<String>,
) -> Result<Response, Problem> {
    let build = running.builds.of_output(&secret);
    let build = build.ok_or_else(|| Problem::not_found("This output is no more."))?;
    let here = running.clone();
    Ok(streamed(&running, move |texts| async move { send_all(&here, build.id, &texts).await }))
}

async fn send_all(running: &Running, id: Id, texts: &mpsc::Sender<Bytes>) {
    let (mut changes, mut sent) = (running.builds.changes(), 0);
    loop {
        changes.mark_unchanged();
        let Some(build) = running.builds.find(id) else { return };
        let new = build.output[sent..].to_owned();
        sent = build.output.len();
        if !new.is_empty() && texts.send(new.into()).await.is_err() {
            return;
        }
        // A sender that is gone has nothing more to say.
        if build.status != BuildStatus::Pending || changes.changed().await.is_err() {
            return;
        }
    }
}

fn of(origin: &Option<Extension<Origin>>) -> &str {
    origin.as_ref().map_or("", |Extension(Origin(origin))| origin)
}

/// A build as the API shows it (reference: Heroku's Platform API, Build).
fn object(
    running: &Running,
    origin: &Option<Extension<Origin>>,
    build: &Build,
) -> Result<Value, Problem> {
    let app = show_app(running, build.app.as_str(), |scene| scene.named())?;
    let release = match build.status {
        BuildStatus::Succeeded(release) => release,
        BuildStatus::Pending | BuildStatus::Failed => None,
    };
    let at = |unix| Civil::of(unix).rfc3339();
    Ok(json!({
        "id": build.id.to_string(),
        "app": app,
        "status": build.status.as_str(),
        "buildpacks": [],
        "stack": STACK,
        "source_blob": {
            "url": build.url,
            "version": build.version,
            "checksum": format!("SHA256:{}", build.sha256),
            "version_description": null,
        },
        "output_stream_url": format!("{}/build-output/{}", of(origin), build.secret),
        "slug": build.slug.as_ref().map(|name| json!({ "id": id_of(name).to_string() })),
        "release": release.map(|id| json!({ "id": id.to_string() })),
        "user": { "id": account::named()["id"], "email": build.user },
        "created_at": at(build.created_at),
        "updated_at": at(build.updated_at),
    }))
}
