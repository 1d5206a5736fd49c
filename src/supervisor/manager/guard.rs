//! Looks at what releases answer, and sends back the one that is worse than what was before it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{AppName, ProcessType};
use crate::supervisor::guard::{Counted, Watch};
use crate::supervisor::manager::{Formed, Manager};
use crate::supervisor::releases::Phase;
use crate::supervisor::rollout::{Failure, Reason};
use crate::supervisor::routes::Routes;
use crate::supervisor::spawn::Spawn;

impl<S: Spawn> Manager<S> {
    /// Whether there is any release to look at.
    pub(super) fn is_guarding(&self) -> bool {
        self.apps.values().any(Formed::is_looked_at)
    }

    /// Looks at the releases of all apps that have a guard, or a canary.
    pub(super) fn look_at_releases(&mut self) {
        self.guarded = Instant::now();
        let guarded = self.apps.iter().filter(|(_, formed)| formed.is_looked_at());
        for app in guarded.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.look_at_release(&app);
        }
    }

    fn look_at_release(&mut self, app: &AppName) {
        let now = self.age();
        let Some(formed) = self.apps.get_mut(app) else { return };
        formed.follow_guard(app, &self.means.routes, now);
        let is_up = formed.has_web_of_wanted();
        let worse = formed.watch.as_mut().and_then(|watch| watch.look(is_up, now));
        match worse {
            Some(worse) => {
                let (dyno, reason) = (ProcessType::web().to_string(), Reason::Worse(worse));
                self.give_up(app, Failure { dyno, reason, last_lines: Vec::new() });
            }
            // The rest of its dynos may have waited for this, or its time is over.
            None if formed.is_on_trial() => self.advance(app),
            None => {}
        }
    }

    /// For how long this manager has been there.
    pub(super) fn age(&self) -> Duration {
        self.began.elapsed()
    }
}

impl Formed {
    fn is_looked_at(&self) -> bool {
        self.watch.is_some() || self.has_canary()
    }

    fn is_on_trial(&self) -> bool {
        self.watch.as_ref().is_some_and(Watch::is_trying) || self.has_canary()
    }

    fn has_web_of_wanted(&self) -> bool {
        if matches!(self.releases.phase, Phase::Canary(Some(_))) {
            return true;
        }
        let number = self.releases.wanted.number;
        let mut web = self.dynos.iter().filter(|(name, _)| name.process_type.is_web());
        web.any(|(_, it)| it.runs.as_ref().is_some_and(|runs| runs.number == number))
    }

    /// Has the guard know which release stands and which is on trial.
    pub(super) fn follow_guard(&mut self, name: &AppName, routes: &Arc<Routes>, now: Duration) {
        let Self { app, releases, watch, .. } = self;
        let counted = |release| Some(Counted { release, tally: routes.tally(name, release)? });
        let standing = releases.earlier.as_ref().unwrap_or(&releases.wanted).number;
        let Some((rules, standing)) = app.guard.zip(counted(standing)) else {
            *watch = None;
            return;
        };
        let has_web = app.formation.get(&ProcessType::web()).is_some_and(|count| *count > 0);
        let on_trial = releases.on_trial().filter(|_| has_web).and_then(counted);
        let watch = watch.get_or_insert_with(|| Watch::new(rules, standing.clone(), now));
        watch.follow(rules, standing, on_trial, now);
    }

    /// Whether web dynos wait to be told of a release until those that were are judged.
    pub(super) fn holds(&self, now: Duration) -> bool {
        !self.is_asleep(&ProcessType::web())
            && self.watch.as_ref().is_some_and(|watch| watch.holds(now))
    }
}
