//! What an app's dynos run: its releases, as data. `manager` brings them to the dynos.
//!
//! A release that was up with all of its dynos has proven itself, once its guard has no word against it, where it has
//! one. The next one must, too: one dyno that does not come up with it fails it, and those that have not changed yet go
//! on with what they run. The first release of an
//! app has nothing to go back to, and its dynos are started until they come up.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::config::{Deploy, ManagedApp};
use crate::model::{Canary, DynoName, Formation, ProcessType, Size};
use crate::supervisor::place::Replace;
use crate::supervisor::plan::{self, Stand};
use crate::supervisor::program::Program;
use crate::supervisor::rollout::{Outcome, Progress, Rollout};

/// What an app runs. Of what size its dynos are is no part of it, as on Heroku: another one restarts them, and that is all.
pub(crate) struct Release {
    pub(crate) number: u64,
    dir: PathBuf,
    commands: BTreeMap<ProcessType, String>,
    pub(crate) config_vars: Arc<BTreeMap<String, String>>,
}

/// The releases of one app that matter.
pub(crate) struct Releases {
    /// The one that dynos should run.
    pub(crate) wanted: Arc<Release>,
    /// The last one before it that had proven itself.
    pub(crate) earlier: Option<Arc<Release>>,
    /// Whether what exactly that ran is known: an earlier daemon has left no more than its number.
    is_earlier_known: bool,
    /// What had proven itself before the wanted one, once that has as well: who goes back to it knows it.
    before: Option<Arc<Release>>,
    /// The highest number so far.
    last: u64,
    deploy: Deploy,
    canary: Option<Canary>,
    pub(crate) phase: Phase,
    told: watch::Sender<Rollout>,
}

/// How far the wanted release is, in the order of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// One web dyno is told of it, and its successor gets a part of the requests; since when it does.
    Canary(Option<Duration>),
    /// Dynos are told of it.
    Going,
    /// The same, and under `preboot` its web dynos have the requests.
    Switched,
    /// All have come up with it, and what they answer is looked at.
    Guarded,
    /// One did not come up with it, or it was worse than what was before.
    Failed,
    /// All have come up with it, and no guard has a word against it.
    Proven,
}

impl Release {
    fn new(number: u64, app: &ManagedApp) -> Arc<Self> {
        Arc::new(Self {
            number,
            dir: app.dir.clone(),
            commands: app.commands.clone(),
            config_vars: Arc::new(app.config_vars.clone()),
        })
    }

    /// What a dyno of this type runs in this size; `None`: there is no such type.
    pub(crate) fn program(&self, process_type: &ProcessType, size: Arc<Size>) -> Option<Program> {
        Some(Program {
            release: self.number,
            command: self.commands.get(process_type)?.clone(),
            dir: self.dir.clone(),
            size,
            config_vars: self.config_vars.clone(),
        })
    }

    /// The same under another number.
    pub(crate) fn numbered(&self, number: u64) -> Arc<Self> {
        let Self { number: _, dir, commands, config_vars } = self;
        let (dir, commands) = (dir.clone(), commands.clone());
        Arc::new(Self { number, dir, commands, config_vars: config_vars.clone() })
    }

    /// Whether this is not what the app is to run.
    fn differs(&self, app: &ManagedApp) -> bool {
        (&self.dir, &self.commands, &*self.config_vars)
            != (&app.dir, &app.commands, &app.config_vars)
    }
}

impl Releases {
    pub(crate) fn beginning_with(app: &ManagedApp) -> Self {
        let number = app.release.unwrap_or(1);
        Self {
            wanted: Release::new(number, app),
            earlier: None,
            is_earlier_known: true,
            before: None,
            last: number,
            deploy: app.deploy,
            canary: app.canary,
            phase: Phase::Going,
            told: rollout(number),
        }
    }

    /// Goes on from what an earlier daemon has left: its `newest` release, which is what the file says now or is
    /// not (`unchanged`): then it is the next one, where nobody else numbers them. `up`: the releases with which dynos
    /// are up.
    pub(crate) fn go_on(&mut self, app: &ManagedApp, newest: u64, unchanged: bool, up: &[u64]) {
        let counted = if unchanged { newest } else { newest + 1 };
        let number = app.release.unwrap_or(counted);
        self.wanted = self.wanted.numbered(number);
        self.last = newest.max(number);
        self.told = rollout(number);
        let older = up.iter().filter(|older| **older != number).max();
        // What exactly that was is not known here; its processes go on whatever it was.
        self.earlier = older.map(|older| self.wanted.numbered(*older));
        self.is_earlier_known = false;
    }

    /// Takes over what the configuration says now. What the app runs has changed, or the number that it is known
    /// by: that is a new release; or the one before, if its successor is still on its way or has failed.
    pub(crate) fn follow_app(&mut self, app: &ManagedApp) {
        (self.deploy, self.canary) = (app.deploy, app.canary);
        let differs = self.wanted.differs(app);
        if !differs && app.release.is_none_or(|number| number == self.wanted.number) {
            return;
        }
        if self.phase == Phase::Guarded {
            // Whoever brings the next one takes it as it is.
            self.prove();
        }
        let is_proven = self.phase == Phase::Proven;
        let is_earlier_known = self.is_earlier_known;
        let is_back = |earlier: &Arc<Release>| match app.release {
            _ if is_proven => false,
            Some(number) if !is_earlier_known => number == earlier.number,
            number => !earlier.differs(app) && number.is_none_or(|number| number == earlier.number),
        };
        let back = self.earlier.take_if(|earlier| is_back(earlier));
        let earlier = self.earlier.as_ref().filter(|_| is_earlier_known);
        let mut known = self.before.iter().chain(earlier);
        let is_known = back.is_some() || known.any(|release| !release.differs(app));
        self.before = None;
        let next = match (back, app.release) {
            (Some(earlier), _) if earlier.differs(app) => Release::new(earlier.number, app),
            (Some(earlier), _) => earlier,
            // No number stands for two things.
            (None, Some(number)) if number != self.wanted.number => Release::new(number, app),
            (None, _) => Release::new(self.last + 1, app),
        };
        if matches!(self.phase, Phase::Canary(_) | Phase::Going | Phase::Switched) {
            self.end(Outcome::Superseded { by: next.number });
        }
        let before = std::mem::replace(&mut self.wanted, next);
        if is_proven {
            (self.earlier, self.is_earlier_known) = (Some(before), true);
        }
        self.last = self.last.max(self.wanted.number);
        self.phase = if is_known { Phase::Going } else { self.first_phase() };
        self.told = rollout(self.wanted.number);
    }

    /// Has a release that failed begin anew. `false`: none has, or it was the first.
    pub(crate) fn try_again(&mut self) -> bool {
        let again = self.phase == Phase::Failed && self.earlier.is_some();
        if again {
            self.phase = self.first_phase();
            self.told = rollout(self.wanted.number);
        }
        again
    }

    /// With what a release begins that nobody knows yet. Where it is not known what ran before, nobody could go on
    /// with that for long.
    fn first_phase(&self) -> Phase {
        match self.canary.is_some() && self.earlier.is_some() && self.is_earlier_known {
            true => Phase::Canary(None),
            false => Phase::Going,
        }
    }

    /// The canary gets its requests.
    pub(crate) fn begin_canary(&mut self, canary: Canary, now: Duration) {
        self.phase = Phase::Canary(Some(now));
        self.told.send_modify(|rollout| rollout.canary = Some(canary));
    }

    /// The number of the release that its guard has to judge. One that an earlier daemon began is judged by nothing but
    /// its dynos coming up.
    pub(crate) fn on_trial(&self) -> Option<u64> {
        let is_judged = !matches!(self.phase, Phase::Failed | Phase::Proven);
        let can_go_back = self.earlier.is_some() && self.is_earlier_known;
        (is_judged && can_go_back).then_some(self.wanted.number)
    }

    /// All dynos are up with it, and what they answer is looked at for so long. `false`: that was said before.
    pub(crate) fn guard(&mut self, within: Duration) -> bool {
        let is_new = self.phase != Phase::Guarded;
        self.phase = Phase::Guarded;
        if is_new {
            self.told.send_modify(|rollout| rollout.guarded_for = Some(within));
        }
        is_new
    }

    pub(crate) fn follow(&self) -> watch::Receiver<Rollout> {
        self.told.subscribe()
    }

    /// The release that the app is at: not one that failed, nor one that has no more than a canary.
    pub(crate) fn standing(&self) -> &Arc<Release> {
        match (&self.earlier, self.phase) {
            (Some(earlier), Phase::Canary(_) | Phase::Failed) => earlier,
            _ => &self.wanted,
        }
    }

    /// What a dyno of this type that begins to live runs. A type that only the newest release has is of that.
    pub(crate) fn of_new_dynos(&self, process_type: &ProcessType) -> &Arc<Release> {
        let standing = self.standing();
        if standing.commands.contains_key(process_type) { standing } else { &self.wanted }
    }

    /// How a dyno that is told of the wanted release now changes.
    pub(crate) fn replace(&self, process_type: &ProcessType) -> Replace {
        match (self.deploy, self.phase) {
            // There is nothing to go back to, or nothing to wait for.
            (_, Phase::Guarded | Phase::Failed | Phase::Proven) => Replace::Beside,
            (_, Phase::Canary(_)) if process_type.is_web() => {
                self.canary.map_or(Replace::Beside, |canary| Replace::Canary(canary.share))
            }
            (Deploy::Restart, _) => Replace::InPlace,
            (Deploy::Preboot, Phase::Going) if process_type.is_web() && self.earlier.is_some() => {
                Replace::Together
            }
            (Deploy::Preboot, _) if !process_type.is_web() => Replace::InPlace,
            _ => Replace::Beside,
        }
    }

    /// The dynos that are to be told of the wanted release now. `holds`: where some web dynos were, the others wait.
    pub(crate) fn due(&self, dynos: &BTreeMap<DynoName, Stand>, holds: bool) -> Vec<DynoName> {
        let deploy = match self.phase {
            Phase::Failed if self.earlier.is_some() => return Vec::new(),
            Phase::Canary(_) => return plan::canary(dynos).into_iter().collect(),
            // Nothing that runs is worth waiting for: they take their turns among themselves.
            _ if self.earlier.is_none() => Deploy::Restart,
            _ => self.deploy,
        };
        let is_told = |(name, stand): (&DynoName, &Stand)| {
            name.process_type.is_web() && !matches!(stand, Stand::Outdated { .. })
        };
        let web_waits = holds && dynos.iter().any(is_told);
        let mut due = plan::due(deploy, dynos);
        due.retain(|name| !(web_waits && name.process_type.is_web()));
        due
    }

    pub(crate) fn end(&mut self, outcome: Outcome) {
        // The first end counts: a dyno of a first release that comes up after all mends no report.
        self.told.send_if_modified(|rollout| {
            let is_first = rollout.outcome.is_none();
            rollout.outcome.get_or_insert(outcome);
            is_first
        });
    }

    /// All dynos are up with it, and what was before it is history.
    pub(crate) fn prove(&mut self) {
        self.phase = Phase::Proven;
        self.before = self.earlier.take().filter(|_| self.is_earlier_known);
        self.told.send_modify(|rollout| {
            rollout.outcome.get_or_insert(Outcome::Done);
            rollout.stands = true;
        });
    }

    /// Whether successors that are ready wait for each other now.
    pub(crate) fn waits_to_switch(&self) -> bool {
        let is_under_way = self.phase == Phase::Going && self.earlier.is_some();
        self.deploy == Deploy::Preboot && is_under_way
    }

    /// Says how far it is, to whoever follows.
    pub(crate) fn tell(&self, formation: &Formation, dynos: &BTreeMap<DynoName, Stand>) {
        let changed = || dynos.iter().filter(|(_, stand)| **stand == Stand::Changed);
        let progress = |(process_type, wanted): (&ProcessType, &u32)| {
            let up = changed().filter(|(name, _)| name.process_type == *process_type).count();
            (process_type.clone(), Progress { wanted: *wanted, up: up as u32 })
        };
        let types = formation.iter().map(progress).collect::<BTreeMap<_, _>>();
        self.told.send_if_modified(|rollout| {
            let fresh = changed().map(|(name, _)| name).filter(|name| !rollout.up.contains(name));
            let fresh = fresh.cloned().collect::<Vec<_>>();
            let is_other = rollout.types != types || !fresh.is_empty();
            rollout.up.extend(fresh);
            rollout.types = types;
            is_other && rollout.outcome.is_none()
        });
    }
}

fn rollout(release: u64) -> watch::Sender<Rollout> {
    watch::Sender::new(Rollout {
        release,
        types: BTreeMap::new(),
        up: Vec::new(),
        canary: None,
        guarded_for: None,
        outcome: None,
        stands: false,
    })
}
