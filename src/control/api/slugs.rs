//! Slugs: announced, uploaded, released.

use std::collections::BTreeMap;
use std::io::{Seek, Write};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::config::limits;
use crate::control::api::scene::{AppScene, change_app, show_app};
use crate::control::builds::Archive;
use crate::control::dynos::find_app;
use crate::control::given::{Given, Path};
use crate::control::logs::Origin;
use crate::control::{Caller, Problem, Running};
use crate::hexadecimal;
use crate::model::{AppName, Id, ProcessType, ReleaseStatus};
use crate::slugs::{ShelfError, Slug};

/// Pieces of an upload that wait for the disk.
const PIECES: usize = 16;

/// `POST /apps/APP/slugs`
#[derive(Deserialize)]
pub(in crate::control) struct Create {
    #[serde(default)]
    process_types: BTreeMap<String, String>,
    #[serde(default)]
    checksum: Option<String>,
}

/// `POST /apps/APP/slugs`: where the archive is to be sent.
pub(in crate::control) async fn create(
    State(running): State<Arc<Running>>,
    Path(app): Path<String>,
    origin: Option<Extension<Origin>>,
    Given(create): Given<Create>,
) -> Result<Response, Problem> {
    let (name, _) = find_app(&running, &app)?;
    // Who could not release it need not upload it.
    show_app(&running, name.as_str(), deployable)??;
    for (process_type, command) in &create.process_types {
        if ProcessType::parse(process_type).is_err()
            || command.trim().is_empty()
            || command.contains(['\n', '\0'])
        {
            return Err(Problem::invalid(format!(
                "process_types: {process_type}: {command:?} is no process type with its command."
            )));
        }
    }
    if create.checksum.as_deref().is_some_and(|it| digits(it).is_none()) {
        return Err(Problem::invalid("checksum: expected SHA256: and 64 hexadecimal digits."));
    }
    let waiting = running.deploys.expect(name.clone(), create.process_types, create.checksum)?;
    let origin = origin.map_or(String::new(), |Extension(Origin(origin))| origin);
    let url = format!("{origin}/slug-uploads/{}", waiting.secret);
    let mut shown = object(waiting.id, None, &waiting.commands);
    shown["blob"] = json!({ "method": "put", "url": url });
    Ok((StatusCode::CREATED, Json(shown)).into_response())
}

/// `GET /apps/APP/slugs/SLUG`
pub(in crate::control) async fn show(
    State(running): State<Arc<Running>>,
    Path((app, slug)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (name, _) = find_app(&running, &app)?;
    let id = Id::parse(&slug).ok_or_else(|| unknown(&slug))?;
    if let Some(waiting) = running.deploys.find(&name, id) {
        let shown = object(waiting.id, waiting.slug.as_ref(), &waiting.commands);
        return Ok(Json(shown).into_response());
    }
    let releases = running.store.releases(&name).await;
    let releases = releases.map_err(|error| Problem::internal(error.to_string()))?;
    let of_app = releases
        .iter()
        .find(|it| it.runs.slug.as_ref().is_some_and(|name| crate::slugs::id_of(name) == id));
    let runs = &of_app.ok_or_else(|| unknown(&slug))?.runs;
    let commands = runs.commands.iter().map(|(name, command)| (name.to_string(), command.clone()));
    let found = on_shelf(&running, id).await;
    Ok(Json(object(id, found.as_ref(), &commands.collect())).into_response())
}

/// `PUT /slug-uploads/SECRET`: the archive.
pub(in crate::control) async fn upload(
    State(running): State<Arc<Running>>,
    Path(secret): Path<String>,
    body: Body,
) -> Result<Response, Problem> {
    let gone = || Problem::not_found("No slug is expected here (any more).");
    let waiting = running.deploys.for_upload(&secret).ok_or_else(gone)?;
    let (archive, sha256, slot) = receive(&running, body).await?;
    check_sum(waiting.checksum.as_deref(), &sha256)?;
    let slug = unpack(&running, archive, waiting.commands).await?;
    let shown = object(waiting.id, Some(&slug), &BTreeMap::new());
    running.deploys.uploaded(waiting.id, slug);
    // What is neither being unpacked nor waits may be collected.
    drop(slot);
    Ok(Json(shown).into_response())
}

/// Refuses an archive that is not what was announced by `SHA256:` and its digits, if anything was.
pub(in crate::control::api) fn check_sum(
    announced: Option<&str>,
    sha256: &str,
) -> Result<(), Problem> {
    let Some(checksum) = announced else { return Ok(()) };
    match digits(checksum).is_some_and(|digits| digits.to_ascii_lowercase() == sha256) {
        true => Ok(()),
        false => Err(Problem::invalid(format!(
            "Error R17 (Checksum error) -> the archive is not what was announced. Expected: {checksum} Actual: SHA256:{sha256}"
        ))),
    }
}

/// Makes a slug of an archive. `commands`: its Procfile, if not its own.
pub(in crate::control::api) async fn unpack(
    running: &Running,
    archive: Archive,
    commands: BTreeMap<String, String>,
) -> Result<Slug, Problem> {
    let shelf = running.shelf.clone();
    let put = spawn_blocking(move || {
        let mut archive = archive.lock().unwrap_or_else(PoisonError::into_inner);
        archive.rewind()?;
        shelf.put(&archive, &commands)
    });
    let slug = put.await.map_err(|panic| Problem::internal(panic.to_string()))?;
    slug.map_err(|error| match error {
        ShelfError::Disk(_) => Problem::internal(error.to_string()),
        _ => Problem::invalid(format!("The slug is refused: {error}.")),
    })
}

/// Writes what comes to the disk; returns it with its SHA-256, and the right to have so much work done.
pub(in crate::control::api) async fn receive(
    running: &Running,
    mut body: Body,
) -> Result<(Archive, String, OwnedSemaphorePermit), Problem> {
    let slot = running.deploys.slots.clone().try_acquire_owned().map_err(|_| {
        let max = limits::SLUG_UPLOADS;
        let message = format!("{max} slugs are being uploaded already: try again.");
        Problem::too_many("too_many_uploads", message)
    })?;
    let (pieces, mut received) = mpsc::channel::<Bytes>(PIECES);
    let shelf = running.shelf.clone();
    let written = spawn_blocking(move || {
        let (mut file, mut context) = (shelf.archive()?, Context::new(&SHA256));
        while let Some(piece) = received.blocking_recv() {
            context.update(&piece);
            file.write_all(&piece)?;
        }
        std::io::Result::Ok((file, hexadecimal::of(context.finish().as_ref())))
    });
    let mut length = 0;
    loop {
        let frame = timeout(limits::SLUG_UPLOAD_IDLE, body.frame()).await;
        let frame = frame.map_err(|_| {
            let secs = limits::SLUG_UPLOAD_IDLE.as_secs();
            let status = StatusCode::REQUEST_TIMEOUT;
            Problem { status, id: "timeout", message: format!("Nothing came for {secs} s.") }
        })?;
        let Some(frame) = frame else { break };
        let frame =
            frame.map_err(|error| Problem::invalid(format!("The archive ends early: {error}.")))?;
        let Ok(piece) = frame.into_data() else { continue };
        length += piece.len() as u64;
        if length > limits::SLUG_ARCHIVE_MAX {
            let max = limits::SLUG_ARCHIVE_MAX >> 20;
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            let message = format!("An archive has at most {max} MB.");
            return Err(Problem { status, id: "too_large", message });
        }
        // Where the disk fails, what was written says so.
        if pieces.send(piece).await.is_err() {
            break;
        }
    }
    drop(pieces);
    let written = written.await.map_err(|panic| Problem::internal(panic.to_string()))?;
    let (file, sha256) =
        written.map_err(|error| Problem::internal(format!("Keep the archive: {error}")))?;
    Ok((Arc::new(Mutex::new(file)), sha256, slot))
}

/// Has an app run a slug. One deploy of an app at a time: until what comes of it is known, the next one is refused.
pub(in crate::control) async fn release(
    running: &Arc<Running>,
    caller: Caller,
    app: &AppName,
    slug: &str,
    description: Option<String>,
) -> Result<(), Problem> {
    let id = Id::parse(slug).ok_or_else(|| unknown(slug))?;
    // Before anything is in the way of it that the first request has brought.
    if running.was_done(&caller).await? {
        return Ok(());
    }
    let found = match running.deploys.find(app, id) {
        Some(waiting) => Some(waiting.slug.ok_or_else(|| {
            Problem::invalid(format!("The slug {slug} has not been uploaded yet."))
        })?),
        None => on_shelf(running, id).await,
    };
    let slug = found.ok_or_else(|| unknown(slug))?;
    verify(running, &slug.name).await?;
    if !running.deploys.begin(app) {
        return Err(Problem::conflict(format!(
            "A deploy of {app} is under way. Wait for its end, and deploy again."
        )));
    }
    let short = &slug.name[..8];
    let description = description.unwrap_or_else(|| format!("Deploy {short}"));
    let (of, here) = (app.clone(), running.clone());
    // To its end, also where its client leaves meanwhile: the app's next deploy waits for that.
    let deployed = running.shutdown.spawn(async move {
        let name = slug.name;
        let changed = change_app(&here, caller, of.as_str(), move |scene, now| {
            deployable(scene)?;
            now.slug = Some(name);
            Ok(description)
        });
        if let Err(problem) = changed.await {
            here.deploys.end(&of);
            return Err(problem);
        }
        here.deploys.released(id);
        here.shutdown.clone().spawn(end_when_decided(here, of));
        Ok(())
    });
    deployed.await.map_err(|panic| Problem::internal(panic.to_string()))?
}

/// Ends the deploy of an app once it is known what came of it.
async fn end_when_decided(running: Arc<Running>, app: AppName) {
    tokio::select! {
        () = decided(&running, &app) => {}
        () = running.shutdown.begun() => {}
    }
    running.deploys.end(&app);
}

/// Returns once no release of the app is on its way.
async fn decided(running: &Running, app: &AppName) {
    let mut ends = running.deploys.ends();
    loop {
        ends.mark_unchanged();
        let releases = running.store.releases(app).await.unwrap_or_default();
        if releases.first().is_none_or(|newest| newest.status != ReleaseStatus::Pending) {
            return;
        }
        // It cannot fail: the sender is borrowed for as long.
        let _ = ends.changed().await;
    }
}

/// Refuses where commands may not say what the app runs.
pub(in crate::control) fn deployable(scene: &AppScene<'_>) -> Result<(), Problem> {
    scene.refuse_external()?;
    scene.refuse_said("dir", &format!("What {} runs", scene.name))
}

/// Refuses a slug that is not what was deployed.
pub(in crate::control) async fn verify(running: &Running, slug: &str) -> Result<(), Problem> {
    let (shelf, slug) = (running.shelf.clone(), slug.to_owned());
    let verified = spawn_blocking(move || shelf.verify(&slug)).await;
    let verified = verified.map_err(|panic| Problem::internal(panic.to_string()))?;
    verified.map_err(|damage| Problem::invalid(damage.to_string()))
}

async fn on_shelf(running: &Running, id: Id) -> Option<Slug> {
    let shelf = running.shelf.clone();
    spawn_blocking(move || shelf.find(id)).await.ok().flatten()
}

/// The digits of `SHA256:…`.
fn digits(checksum: &str) -> Option<&str> {
    let digits = checksum.strip_prefix("SHA256:")?;
    let all = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    all.then_some(digits)
}

fn unknown(slug: &str) -> Problem {
    Problem::not_found(format!("Couldn't find that slug ({slug})."))
}

/// A slug as the API shows it (reference: Heroku's Platform API, Slug).
fn object(id: Id, slug: Option<&Slug>, commands: &BTreeMap<String, String>) -> Value {
    json!({
        "id": id.to_string(),
        "checksum": slug.map(|slug| format!("SHA256:{}", slug.name)),
        "size": slug.map(|slug| slug.size),
        "process_types": commands,
        "commit": null,
        "commit_description": null,
        "buildpack_provided_description": null,
        "stack": { "id": null, "name": "host" },
        "blob": null,
        "created_at": null,
        "updated_at": null,
    })
}
