//! What is being built: sources that are to be uploaded or were, and builds with what they said.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::config::limits;
use crate::control::{Caller, Problem};
use crate::hexadecimal;
use crate::model::{AppName, Id};
use crate::random;
use crate::store::new_id;
use crate::wall_clock;

/// All of it. Nothing here outlives the daemon: who was at it begins anew.
#[derive(Default)]
pub struct Builds {
    known: Mutex<Known>,
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct Known {
    /// By secret.
    sources: BTreeMap<String, Expected>,
    /// Whether somebody waits for the time at which they are to be forgotten.
    is_swept: bool,
    /// The newest last.
    builds: VecDeque<Build>,
}

struct Expected {
    until: Instant,
    stage: Stage,
}

/// How far a source is.
enum Stage {
    /// It is to be uploaded.
    Announced,
    /// It waits to be built.
    Uploaded(Source),
    /// It may be built again, while nobody else needs its place.
    Built(Source),
}

/// A file that goes when nobody has it any more. Read by one at a time, since all begin where the last has stopped.
pub(in crate::control) type Archive = Arc<Mutex<File>>;

/// An archive that was uploaded.
#[derive(Clone)]
pub(in crate::control) struct Source {
    pub(in crate::control) archive: Archive,
    /// In hexadecimal digits.
    pub(in crate::control) sha256: String,
}

/// A build of an app.
#[derive(Clone, Debug)]
pub(in crate::control) struct Build {
    pub(in crate::control) id: Id,
    pub(in crate::control) app: AppName,
    pub(in crate::control) user: String,
    /// By which a repetition of the request is known.
    request: Option<String>,
    /// Of its source.
    pub(in crate::control) url: String,
    pub(in crate::control) version: Option<String>,
    pub(in crate::control) sha256: String,
    /// The name of its slug, once there is one.
    pub(in crate::control) slug: Option<String>,
    pub(in crate::control) status: BuildStatus,
    /// By which its output is found.
    pub(in crate::control) secret: String,
    /// What it said, in whole lines.
    pub(in crate::control) output: String,
    /// Unix seconds.
    pub(in crate::control) created_at: u64,
    pub(in crate::control) updated_at: u64,
}

/// What came of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::control) enum BuildStatus {
    /// It is under way.
    Pending,
    /// There is a slug, and it is being released; what comes of that the release says.
    Succeeded(Option<Id>),
    /// Its output says why.
    Failed,
}

impl BuildStatus {
    /// As Heroku's Platform API has it.
    pub(in crate::control) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Succeeded(_) => "succeeded",
            Self::Failed => "failed",
        }
    }
}

impl Build {
    /// It has just begun.
    pub(in crate::control) fn new(
        app: AppName,
        caller: &Caller,
        url: String,
        version: Option<String>,
        source: &Source,
    ) -> Self {
        let now = wall_clock::unix();
        Self {
            id: new_id(),
            app,
            user: caller.user.clone(),
            request: caller.request.clone(),
            url,
            version,
            sha256: source.sha256.clone(),
            slug: None,
            status: BuildStatus::Pending,
            secret: hexadecimal::of(&random::secret::<32>()),
            output: String::new(),
            created_at: now,
            updated_at: now,
        }
    }
}

impl Builds {
    /// Expects the upload of a source; returns by what it is found.
    pub(in crate::control) fn expect(&self) -> Result<String, Problem> {
        let mut known = self.known();
        let now = Instant::now();
        known.sources.retain(|_, expected| expected.until > now);
        if known.sources.len() >= limits::SOURCES_WAITING && !known.forget_a_built_source() {
            let max = limits::SOURCES_WAITING;
            let message = format!("{max} sources wait to be built already.");
            return Err(Problem::too_many("too_many_sources", message));
        }
        let secret = hexadecimal::of(&random::secret::<32>());
        let expected = Expected { until: now + limits::SLUG_WAIT, stage: Stage::Announced };
        known.sources.insert(secret.clone(), expected);
        Ok(secret)
    }

    /// Forgets each source, and with it its archive, when its time is over; returns once there is none, and at once where
    /// that goes on already.
    pub(in crate::control) async fn sweep(&self) {
        if std::mem::replace(&mut self.known().is_swept, true) {
            return;
        }
        while let Some(next) = self.forget_expired() {
            sleep_until(next).await;
        }
    }

    /// Returns when the next one is to be forgotten.
    fn forget_expired(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut known = self.known();
        known.sources.retain(|_, expected| expected.until > now);
        let next = known.sources.values().map(|expected| expected.until).min();
        known.is_swept = next.is_some();
        next
    }

    /// Whether a source is known that is found by this.
    pub(in crate::control) fn expects(&self, secret: &str) -> bool {
        let now = Instant::now();
        self.known().sources.get(secret).is_some_and(|it| it.until > now)
    }

    /// Refuses where nothing is to be uploaded, or not any more.
    pub(in crate::control) fn check_upload(&self, secret: &str) -> Result<(), Problem> {
        self.known().for_upload(secret).map(drop)
    }

    /// The source has come. Refused like an upload that begins: a build may have begun meanwhile.
    pub(in crate::control) fn uploaded(&self, secret: &str, source: Source) -> Result<(), Problem> {
        self.known().for_upload(secret)?.stage = Stage::Uploaded(source);
        Ok(())
    }

    /// What was uploaded of it, if anything was.
    pub(in crate::control) fn source(&self, secret: &str) -> Option<Source> {
        match &self.known().sources.get(secret)?.stage {
            Stage::Announced => None,
            Stage::Uploaded(source) | Stage::Built(source) => Some(source.clone()),
        }
    }

    /// A build of the source has begun, which has its archive from now on.
    pub(in crate::control) fn built(&self, secret: &str, source: Source) {
        if let Some(expected) = self.known().sources.get_mut(secret) {
            expected.stage = Stage::Built(source);
        }
    }

    /// A build has begun. The oldest is forgotten for it.
    pub(in crate::control) fn begin(&self, build: Build) {
        let builds = &mut self.known().builds;
        if builds.len() >= limits::BUILDS_KNOWN {
            builds.pop_front();
        }
        builds.push_back(build);
    }

    /// A build says a line.
    pub(in crate::control) fn say(&self, id: Id, line: &str) {
        self.with(id, |build| build.output.extend([line, "\n"]));
    }

    /// A build has made a slug of this name.
    pub(in crate::control) fn unpacked(&self, id: Id, slug: &str) {
        self.with(id, |build| build.slug = Some(slug.to_owned()));
    }

    /// A build is over.
    pub(in crate::control) fn end(&self, id: Id, status: BuildStatus) {
        self.with(id, |build| build.status = status);
    }

    fn with(&self, id: Id, change: impl FnOnce(&mut Build)) {
        if let Some(build) = self.known().builds.iter_mut().find(|it| it.id == id) {
            build.updated_at = wall_clock::unix();
            change(build);
        }
        self.changes.send_modify(|count| *count += 1);
    }

    /// The build of this id.
    pub(in crate::control) fn find(&self, id: Id) -> Option<Build> {
        self.one(|it| it.id == id)
    }

    /// The build that this request began.
    pub(in crate::control) fn of_request(&self, request: &str) -> Option<Build> {
        self.one(|it| it.request.as_deref() == Some(request))
    }

    /// The build whose output is found by this.
    pub(in crate::control) fn of_output(&self, secret: &str) -> Option<Build> {
        self.one(|it| it.secret == secret)
    }

    fn one(&self, is_meant: impl Fn(&Build) -> bool) -> Option<Build> {
        self.known().builds.iter().find(|it| is_meant(it)).cloned()
    }

    /// The builds of an app, the newest first.
    pub(in crate::control) fn of_app(&self, app: &AppName) -> Vec<Build> {
        self.known().builds.iter().rev().filter(|it| it.app == *app).cloned().collect()
    }

    /// Hears of whatever a build says, and of its end.
    pub(in crate::control) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing panics while this lock is held, so poison says nothing.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Once a source is built, everybody who may read builds is told where it was uploaded: nobody may upload there then.
    fn for_upload(&mut self, secret: &str) -> Result<&mut Expected, Problem> {
        let now = Instant::now();
        let expected = self.sources.get_mut(secret).filter(|it| it.until > now);
        let gone = || Problem::not_found("No source is expected here (any more).");
        let expected = expected.ok_or_else(gone)?;
        match expected.stage {
            Stage::Announced | Stage::Uploaded(_) => Ok(expected),
            Stage::Built(_) => Err(Problem::conflict(
                "This source is built: it stays what it is. Ask for another one by POST /sources.",
            )),
        }
    }

    /// Forgets the oldest source that was built. `false`: all of them wait.
    fn forget_a_built_source(&mut self) -> bool {
        let built = self.sources.iter().filter(|(_, it)| matches!(it.stage, Stage::Built(_)));
        let oldest = built.min_by_key(|(_, it)| it.until).map(|(secret, _)| secret.clone());
        oldest.is_some_and(|secret| self.sources.remove(&secret).is_some())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;
    use crate::shutdown::Shutdown;

    fn source() -> Source {
        let file = tempfile::tempfile().unwrap();
        Source { archive: Arc::new(Mutex::new(file)), sha256: String::new() }
    }

    fn build(builds: &Builds) -> Result<String, Problem> {
        let secret = builds.expect()?;
        builds.uploaded(&secret, source()).unwrap();
        builds.built(&secret, builds.source(&secret).unwrap());
        Ok(secret)
    }

    #[tokio::test(start_paused = true)]
    async fn sources_that_were_built_are_in_the_way_of_none() {
        let builds = Builds::default();
        let mut built = Vec::new();
        for _ in 0..3 * limits::SOURCES_WAITING {
            built.push(build(&builds).unwrap());
            advance(Duration::from_secs(1)).await;
        }
        let known: Vec<_> = built.iter().filter(|it| builds.source(it).is_some()).collect();
        let newest = &built[2 * limits::SOURCES_WAITING..];
        assert!(known.into_iter().eq(newest), "they may be built again");
    }

    #[test]
    fn sources_that_wait_are_bounded() {
        let builds = Builds::default();
        let waiting: Vec<_> =
            (0..limits::SOURCES_WAITING).map(|_| builds.expect().unwrap()).collect();
        builds.uploaded(&waiting[0], source()).unwrap();
        assert_eq!(builds.expect().unwrap_err().id, "too_many_sources");
        builds.built(&waiting[0], source());
        assert!(builds.expect().is_ok());
        assert!(builds.expect().is_err());
    }

    #[test]
    fn what_is_built_is_not_uploaded_any_more() {
        let builds = Builds::default();
        let secret = builds.expect().unwrap();
        let again = Source { sha256: "again".into(), ..source() };
        for uploaded in [source(), again.clone()] {
            builds.check_upload(&secret).unwrap();
            builds.uploaded(&secret, uploaded).unwrap();
        }
        // From now on its URL is to be seen; and another upload may be under way.
        builds.built(&secret, again);
        let late = Source { sha256: "late".into(), ..source() };
        assert_eq!(builds.check_upload(&secret).unwrap_err().status, 409);
        assert_eq!(builds.uploaded(&secret, late).unwrap_err().status, 409);
        assert_eq!(builds.source(&secret).unwrap().sha256, "again");
        assert_eq!(builds.uploaded("another", source()).unwrap_err().status, 404);
    }

    #[tokio::test(start_paused = true)]
    async fn archives_are_gone_after_their_time_though_nobody_asks() {
        let (builds, tasks) = (Arc::new(Builds::default()), Shutdown::default());
        let sweep = || {
            let builds = builds.clone();
            tasks.spawn(async move { builds.sweep().await })
        };
        let secret = build(&builds).unwrap();
        let first = sweep();
        let archive = Arc::downgrade(&builds.source(&secret).unwrap().archive);
        advance(limits::SLUG_WAIT / 2).await;
        builds.expect().unwrap();
        sweep().await.expect("there is one already");
        assert!(archive.upgrade().is_some());
        tokio::time::sleep(limits::SLUG_WAIT / 2 + Duration::from_secs(1)).await;
        assert!(archive.upgrade().is_none(), "the archive is on the disk still");
        assert!(!first.is_finished(), "another one waits");
        first.await.unwrap();
        assert!(builds.known().sources.is_empty());
        builds.expect().unwrap();
        let again = sweep();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!again.is_finished(), "a sweep that has ended is in the way of the next one");
    }
}
