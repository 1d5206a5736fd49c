//! What is being built: sources that are to be uploaded or were, and builds with what they said.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

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
    /// The newest last.
    builds: VecDeque<Build>,
}

struct Expected {
    until: Instant,
    source: Option<Source>,
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
        if known.sources.len() >= limits::SOURCES_WAITING {
            let max = limits::SOURCES_WAITING;
            let message = format!("{max} sources wait to be built already.");
            return Err(Problem::too_many("too_many_sources", message));
        }
        let secret = hexadecimal::of(&random::secret::<32>());
        let expected = Expected { until: now + limits::SLUG_WAIT, source: None };
        known.sources.insert(secret.clone(), expected);
        Ok(secret)
    }

    /// Whether a source is expected that is found by this.
    pub(in crate::control) fn expects(&self, secret: &str) -> bool {
        let now = Instant::now();
        self.known().sources.get(secret).is_some_and(|it| it.until > now)
    }

    /// The source has come.
    pub(in crate::control) fn uploaded(&self, secret: &str, source: Source) {
        if let Some(expected) = self.known().sources.get_mut(secret) {
            expected.source = Some(source);
        }
    }

    /// What was uploaded of it, if anything was.
    pub(in crate::control) fn source(&self, secret: &str) -> Option<Source> {
        self.known().sources.get(secret)?.source.clone()
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
