//! What is being deployed: slugs that are to be uploaded or were, and apps whose deploy is under way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::config::limits;
use crate::control::Problem;
use crate::hexadecimal;
use crate::model::{AppName, Id};
use crate::random;
use crate::slugs::Slug;
use crate::store::new_id;

/// All of it. Nothing here outlives the daemon: who was at it begins anew.
pub struct Deploys {
    known: Mutex<Known>,
    /// How many may be uploaded at one time.
    pub(in crate::control) slots: Arc<Semaphore>,
    ends: watch::Sender<u64>,
}

#[derive(Default)]
struct Known {
    slugs: BTreeMap<Id, Waiting>,
    under_way: BTreeSet<AppName>,
    /// Release commands, the newest last.
    commands: VecDeque<Command>,
    /// The newest last.
    promotions: VecDeque<Promotion>,
}

/// A release command that is to run, runs or ran.
#[derive(Clone, Debug)]
pub(in crate::control) struct Command {
    pub(in crate::control) app: AppName,
    /// Of the release.
    version: u64,
    /// By which its output is found.
    secret: String,
    /// What it runs in, once it does.
    pub(in crate::control) dyno: Option<String>,
    pub(in crate::control) has_ended: bool,
}

/// What one app of a pipeline ran, released to others.
#[derive(Clone, Debug)]
pub(in crate::control) struct Promotion {
    pub(in crate::control) id: Id,
    pub(in crate::control) pipeline: Id,
    /// The app and its release.
    pub(in crate::control) source: (Id, Id),
    pub(in crate::control) targets: Vec<Promoted>,
}

/// An app that was promoted to.
#[derive(Clone, Debug)]
pub(in crate::control) struct Promoted {
    pub(in crate::control) id: Id,
    pub(in crate::control) app: Id,
    pub(in crate::control) name: AppName,
    /// The release that began; absent: the app was gone by then. Or why none did.
    pub(in crate::control) begun: Result<Option<Id>, String>,
}

/// A slug that is to be uploaded, or was and is to be released; or was released, and is remembered by its id for those
/// who release it again.
#[derive(Clone, Debug)]
pub(in crate::control) struct Waiting {
    pub(in crate::control) id: Id,
    pub(in crate::control) app: AppName,
    /// By which its place for the upload is found.
    pub(in crate::control) secret: String,
    /// What its Procfile says, if not its own.
    pub(in crate::control) commands: BTreeMap<String, String>,
    /// `SHA256:` and the digits of the archive's.
    pub(in crate::control) checksum: Option<String>,
    /// Absent: it has not come yet.
    pub(in crate::control) slug: Option<Slug>,
    is_released: bool,
    until: Instant,
}

impl Default for Deploys {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            slots: Arc::new(Semaphore::new(limits::SLUG_UPLOADS)),
            ends: watch::Sender::default(),
        }
    }
}

impl Deploys {
    /// Expects the upload of a slug.
    pub(in crate::control) fn expect(
        &self,
        app: AppName,
        commands: BTreeMap<String, String>,
        checksum: Option<String>,
    ) -> Result<Waiting, Problem> {
        let mut known = self.known();
        let now = Instant::now();
        known.slugs.retain(|_, waiting| waiting.until > now);
        if known.slugs.len() >= limits::SLUGS_WAITING && !known.forget_a_released_slug() {
            let max = limits::SLUGS_WAITING;
            let message = format!("{max} slugs wait to be released already.");
            return Err(Problem::too_many("too_many_slugs", message));
        }
        let (id, secret) = (new_id(), hexadecimal::of(&random::secret::<32>()));
        let until = now + limits::SLUG_WAIT;
        let waiting =
            Waiting { id, app, secret, commands, checksum, slug: None, is_released: false, until };
        known.slugs.insert(id, waiting.clone());
        Ok(waiting)
    }

    /// The slug whose upload this secret is for.
    pub(in crate::control) fn for_upload(&self, secret: &str) -> Option<Waiting> {
        let now = Instant::now();
        let known = self.known();
        known.slugs.values().find(|it| it.secret == secret && it.until > now).cloned()
    }

    /// The slug has come.
    pub(in crate::control) fn uploaded(&self, id: Id, slug: Slug) {
        if let Some(waiting) = self.known().slugs.get_mut(&id) {
            waiting.slug = Some(slug);
        }
    }

    /// An app's release is of the slug of this id: the release keeps it from now on.
    pub(in crate::control) fn released(&self, id: Id) {
        if let Some(waiting) = self.known().slugs.get_mut(&id) {
            waiting.is_released = true;
        }
    }

    /// The slug that was expected under this id.
    pub(in crate::control) fn find(&self, app: &AppName, id: Id) -> Option<Waiting> {
        self.known().slugs.get(&id).filter(|it| it.app == *app).cloned()
    }

    /// The names of slugs that may be released yet.
    pub fn waiting(&self) -> BTreeSet<String> {
        let now = Instant::now();
        let known = self.known();
        let waiting = known.slugs.values().filter(|it| it.until > now && !it.is_released);
        waiting.filter_map(|it| Some(it.slug.as_ref()?.name.clone())).collect()
    }

    /// Whether archives come, or are made slugs of that may not wait yet.
    pub fn is_unpacking(&self) -> bool {
        self.slots.available_permits() < limits::SLUG_UPLOADS
    }

    /// Begins the deploy of an app, until [`end`](Self::end). `false`: there is one under way.
    pub(in crate::control) fn begin(&self, app: &AppName) -> bool {
        self.known().under_way.insert(app.clone())
    }

    /// The deploy of an app is over.
    pub(in crate::control) fn end(&self, app: &AppName) {
        self.known().under_way.remove(app);
    }

    /// The command of an app's release begins, until [`command_ended`](Self::command_ended).
    pub fn begin_command(&self, app: AppName, version: u64) {
        let secret = hexadecimal::of(&random::secret::<32>());
        let commands = &mut self.known().commands;
        if commands.len() >= limits::RELEASE_COMMANDS_KNOWN {
            commands.pop_front();
        }
        commands.push_back(Command { app, version, secret, dyno: None, has_ended: false });
    }

    /// It runs in this dyno.
    pub fn command_runs(&self, app: &AppName, dyno: &str) {
        self.with_command(app, |command| command.dyno = Some(dyno.to_owned()));
    }

    /// Whether an app's release command is under way.
    pub fn runs_command(&self, app: &AppName) -> bool {
        self.known().commands.iter().any(|it| it.app == *app && !it.has_ended)
    }

    /// An app's release command is over, and what it was for is decided.
    pub fn command_ended(&self, app: &AppName) {
        self.with_command(app, |command| command.has_ended = true);
    }

    fn with_command(&self, app: &AppName, change: impl FnOnce(&mut Command)) {
        let mut known = self.known();
        if let Some(command) = known.commands.iter_mut().find(|it| it.app == *app && !it.has_ended)
        {
            change(command);
        }
        drop(known);
        self.note_end();
    }

    /// Where the output of a release's command is read; absent where there is none, or it is forgotten.
    pub(in crate::control) fn output_of(&self, app: &AppName, version: u64) -> Option<String> {
        let known = self.known();
        let command = known.commands.iter().find(|it| it.app == *app && it.version == version)?;
        Some(format!("/release-output/{}", command.secret))
    }

    /// The command whose output is found by this.
    pub(in crate::control) fn command(&self, secret: &str) -> Option<Command> {
        self.known().commands.iter().find(|it| it.secret == secret).cloned()
    }

    /// A promotion has begun. The oldest is forgotten for it.
    pub(in crate::control) fn promoted(&self, promotion: Promotion) {
        let promotions = &mut self.known().promotions;
        if promotions.len() >= limits::PROMOTIONS_KNOWN {
            promotions.pop_front();
        }
        promotions.push_back(promotion);
    }

    /// The promotion of this id.
    pub(in crate::control) fn promotion(&self, id: Id) -> Option<Promotion> {
        self.known().promotions.iter().find(|it| it.id == id).cloned()
    }

    /// Something is known now of a release: what came of it, or how far its command is.
    pub fn note_end(&self) {
        self.ends.send_modify(|count| *count += 1);
    }

    /// Hears of each [`note_end`](Self::note_end).
    pub(in crate::control) fn ends(&self) -> watch::Receiver<u64> {
        self.ends.subscribe()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing panics while this lock is held, so poison says nothing.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Forgets the oldest slug that was released. `false`: all of them wait.
    fn forget_a_released_slug(&mut self) -> bool {
        let released = self.slugs.values().filter(|it| it.is_released);
        let oldest = released.min_by_key(|it| it.until).map(|it| it.id);
        oldest.is_some_and(|id| self.slugs.remove(&id).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expect(deploys: &Deploys) -> Result<Id, Problem> {
        let app = AppName::parse("shop").unwrap();
        let waiting = deploys.expect(app, BTreeMap::new(), None)?;
        deploys.uploaded(waiting.id, Slug { name: waiting.id.to_string(), size: 1 });
        Ok(waiting.id)
    }

    #[test]
    fn slugs_that_were_released_are_in_the_way_of_none() {
        let deploys = Deploys::default();
        let released: Vec<Id> = std::iter::repeat_with(|| expect(&deploys).unwrap())
            .inspect(|id| deploys.released(*id))
            .take(3 * limits::SLUGS_WAITING)
            .collect();
        assert_eq!(deploys.waiting(), BTreeSet::new(), "what is released, the release keeps");
        let app = AppName::parse("shop").unwrap();
        let known = released.iter().filter(|id| deploys.find(&app, **id).is_some());
        assert_eq!(known.count(), limits::SLUGS_WAITING);
        assert!(deploys.find(&app, *released.last().unwrap()).is_some(), "the newest");
    }

    #[test]
    fn slugs_that_wait_are_bounded() {
        let deploys = Deploys::default();
        let waiting: Vec<Id> =
            (0..limits::SLUGS_WAITING).map(|_| expect(&deploys).unwrap()).collect();
        assert_eq!(expect(&deploys).unwrap_err().id, "too_many_slugs");
        assert_eq!(deploys.waiting().len(), waiting.len());
        deploys.released(waiting[0]);
        assert!(expect(&deploys).is_ok());
        assert!(expect(&deploys).is_err());
    }
}
