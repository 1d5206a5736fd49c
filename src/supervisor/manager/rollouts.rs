//! How the newest release of an app gets to its dynos, and how those that have not changed are left alone when it
//! fails.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{AppName, DynoName};
use crate::supervisor::guard::Watch;
use crate::supervisor::manager::{Formed, Living, Manager};
use crate::supervisor::place::{Event, Orders, Replace, State};
use crate::supervisor::plan::{self, Stand, Step};
use crate::supervisor::releases::{Phase, Release};
use crate::supervisor::rollout::{Failure, Outcome, Reason};
use crate::supervisor::spawn::Spawn;

impl Formed {
    /// Where the dynos that are wanted stand.
    fn stands(&self) -> BTreeMap<DynoName, Stand> {
        let formation = self.formation();
        let wanted = self.dynos.iter().filter(|(name, _)| plan::is_wanted(&formation, name));
        wanted.map(|(name, living)| (name.clone(), self.stand(living))).collect()
    }

    fn stand(&self, living: &Living) -> Stand {
        let number = self.releases.wanted.number;
        let runs = living.runs.as_ref().is_some_and(|runs| runs.number == number);
        let sleeps_on = living.state == Some(State::Asleep) && living.orders.borrow().asleep;
        if living.told.number != number {
            Stand::Outdated { is_up: living.state == Some(State::Up) }
        } else if runs || sleeps_on {
            Stand::Changed
        } else {
            Stand::Changing
        }
    }

    /// Tells a dyno to run this, and whether to keep what it ran.
    fn tell(
        &mut self,
        dyno: &DynoName,
        release: &Arc<Release>,
        replace: Replace,
        keep_warm: Option<Duration>,
    ) {
        let orders = self.orders_of(release, &dyno.process_type, replace);
        if let (Some(orders), Some(living)) = (orders, self.dynos.get_mut(dyno)) {
            (living.told, living.is_ready) = (release.clone(), false);
            living
                .orders
                .send_modify(|now| *now = Orders { restart: now.restart, keep_warm, ..orders });
        }
    }

    /// How many successors wait for each other, if no other is to come.
    fn ready(&self, stands: &BTreeMap<DynoName, Stand>) -> Option<usize> {
        let mut ready = 0;
        for (name, _) in stands
            .iter()
            .filter(|(name, stand)| name.process_type.is_web() && **stand != Stand::Changed)
        {
            if !self.dynos.get(name)?.is_ready {
                return None;
            }
            ready += 1;
        }
        Some(ready)
    }

    /// The line-up has the successors: each goes on by itself.
    fn switch(&mut self) {
        self.releases.phase = Phase::Switched;
        let wanted = &self.releases.wanted;
        for living in self.dynos.values_mut() {
            if std::mem::take(&mut living.is_ready) {
                living.runs = Some(wanted.clone());
            }
        }
        self.await_nobody();
    }

    /// Has each dyno change by itself, those that still sleep included.
    fn await_nobody(&self) {
        for living in self.dynos.values() {
            living.orders.send_if_modified(|orders| {
                let waits = orders.replace == Replace::Together;
                if waits {
                    orders.replace = Replace::Beside;
                }
                waits
            });
        }
    }

    /// Leaves those that have not changed with what they ran, and has the others run what came before, if `all` are to.
    fn turn_back(&mut self, all: bool) {
        let Some(earlier) = self.releases.earlier.clone() else { return };
        self.take_back(self.releases.wanted.number, &earlier, all);
    }

    /// The same of the release of this number. `earlier`: what those ran of which that is not known.
    pub(super) fn take_back(&mut self, number: u64, earlier: &Arc<Release>, all: bool) {
        let told = self.dynos.iter().filter(|(_, living)| living.told.number == number);
        let back = told.filter_map(|(name, living)| {
            let runs = living.runs.as_ref().unwrap_or(earlier);
            let has_changed = runs.number == number;
            let to = if has_changed { earlier } else { runs };
            (all || !has_changed).then(|| (name.clone(), to.clone()))
        });
        for (name, release) in back.collect::<Vec<_>>() {
            // What has failed is nothing to go back to.
            self.tell(&name, &release, Replace::Beside, None);
        }
    }
}

impl<S: Spawn> Manager<S> {
    /// Brings one app's dynos closer to what is wanted, by what can be done now.
    pub(super) fn advance(&mut self, app: &AppName) {
        if let Some(mut formed) = self.apps.remove(app) {
            self.carry_on(app, &mut formed);
            self.apps.insert(app.clone(), formed);
        }
    }

    /// The same. Those that are right already are not touched.
    pub(super) fn carry_on(&mut self, name: &AppName, formed: &mut Formed) {
        let steps = plan::plan(&formed.formation(), &formed.dynos);
        let (starts, stops): (Vec<_>, Vec<_>) =
            steps.into_iter().partition(|step| matches!(step, Step::Start(_)));
        for step in starts {
            let Step::Start(dyno) = step else { continue };
            if let Some(orders) = formed.orders(&dyno.process_type) {
                let turns = formed.turns(&dyno.process_type);
                let living = self.start(name, &dyno, orders, turns);
                formed.dynos.insert(dyno, living);
            }
        }
        formed.follow_guard(name, &self.means.routes, self.age());
        self.replace_due(name, formed);
        for step in stops {
            let Step::Stop(dyno) = step else { continue };
            // One whose type the release does not have goes when the release has proven itself.
            let is_awaited = formed.releases.phase != Phase::Proven
                && formed.releases.earlier.is_some()
                && !formed.app.commands.contains_key(&dyno.process_type);
            if !is_awaited && let Some(living) = formed.dynos.remove(&dyno) {
                self.stop(living);
            }
        }
    }

    /// Tells those dynos of the wanted release whose time has come, and notes when all have changed.
    fn replace_due(&mut self, name: &AppName, formed: &mut Formed) {
        loop {
            let stands = formed.stands();
            formed.follow_canary(name, &stands, &self.means.log, self.age());
            let wanted = formed.releases.wanted.clone();
            for dyno in formed.releases.due(&stands, formed.holds(self.age())) {
                let replace = formed.releases.replace(&dyno.process_type);
                formed.tell(&dyno, &wanted, replace, formed.app.keep_warm);
                self.meter_size(formed, &dyno);
            }
            let stands = formed.stands();
            formed.releases.tell(&formed.formation(), &stands);
            // Of one that failed nothing is proven by a formation without dynos.
            let has_failed =
                formed.releases.phase == Phase::Failed && formed.releases.earlier.is_some();
            if !has_failed && stands.values().all(|stand| *stand == Stand::Changed) {
                self.note_up(name, formed);
                return;
            }
            let waits = formed.releases.waits_to_switch();
            // One of them may have died in this moment: then it is heard of soon.
            match formed.ready(&stands).filter(|_| waits) {
                Some(ready) if self.means.routes.switch(name, ready) => formed.switch(),
                _ => return,
            }
        }
    }

    /// All dynos have come up with the wanted release.
    fn note_up(&self, app: &AppName, formed: &mut Formed) {
        let Formed { releases, watch, .. } = formed;
        if releases.phase == Phase::Proven {
            return;
        }
        let was_guarded = releases.phase == Phase::Guarded;
        let left = watch.as_mut().and_then(|watch| watch.arrive(self.age()));
        if let Some(left) = left
            && !releases.guard(left)
        {
            return;
        }
        if let (Some(earlier), false) = (&releases.earlier, was_guarded) {
            let (number, earlier) = (releases.wanted.number, earlier.number);
            let line = format_args!("Release v{number} is up in place of v{earlier}");
            self.means.log.platform(app, &"rollout", &line);
        }
        if left.is_none() {
            let figures = watch.as_ref().and_then(Watch::figures).filter(|_| was_guarded);
            if let Some(figures) = figures {
                let line = format_args!("Release v{} stands: {figures}", releases.wanted.number);
                self.means.log.platform(app, &"rollout", &line);
            }
            releases.prove();
        }
        formed.await_nobody();
    }

    /// Takes note of what a dyno of a formation says.
    pub(super) fn follow_event(&mut self, id: u64, event: &Event) {
        let Some((app, dyno)) = self.homes.get(&id).cloned() else { return };
        let Some(formed) = self.apps.get_mut(&app) else { return };
        let Some(living) = formed.dynos.get_mut(&dyno).filter(|living| living.id == id) else {
            return;
        };
        let told = living.told.number;
        let is_told = |release: &u64| *release == told;
        match event {
            Event::Entered(state) => living.state = Some(*state),
            Event::Ready { release } if is_told(release) => living.is_ready = true,
            Event::CameUp { release } if is_told(release) => {
                (living.runs, living.is_ready) = (Some(living.told.clone()), false);
            }
            Event::Failed { release, failure } if is_told(release) => {
                let (reason, last_lines) = &**failure;
                let (reason, last_lines) = (reason.clone(), last_lines.clone());
                return self.fail(&app, &dyno, reason, last_lines);
            }
            _ => return,
        }
        if formed.releases.phase != Phase::Proven {
            self.advance(&app);
        }
    }

    /// A dyno has not come up with what it was told to run.
    fn fail(&mut self, app: &AppName, dyno: &DynoName, reason: Reason, last_lines: Vec<String>) {
        let Some(formed) = self.apps.get_mut(app) else { return };
        let Some(living) = formed.dynos.get_mut(dyno) else { return };
        living.is_ready = false;
        if living.told.number == formed.releases.wanted.number {
            self.give_up(app, Failure { dyno: dyno.to_string(), reason, last_lines });
        }
    }

    /// The wanted release has failed.
    pub(super) fn give_up(&mut self, app: &AppName, failure: Failure) {
        let Some(formed) = self.apps.get_mut(app) else { return };
        let releases = &mut formed.releases;
        let all_go_back = match releases.phase {
            // Nobody comes up with it any more, or those that have are worse than what they took the places of.
            Phase::Guarded => true,
            Phase::Canary(_) => false,
            Phase::Going | Phase::Switched => matches!(failure.reason, Reason::Worse(_)),
            Phase::Failed | Phase::Proven => return,
        };
        releases.phase = Phase::Failed;
        if let Some(earlier) = &releases.earlier {
            let (number, earlier) = (releases.wanted.number, earlier.number);
            let Failure { dyno, reason, .. } = &failure;
            let rest = match all_go_back {
                true => "All go back to",
                false => "What has not changed goes on with",
            };
            let line = format_args!("Release v{number} failed: {dyno} {reason}. {rest} v{earlier}");
            self.means.log.platform(app, &"rollout", &line);
        }
        releases.end(Outcome::Failed(failure));
        formed.turn_back(all_go_back);
        self.advance(app);
    }
}
