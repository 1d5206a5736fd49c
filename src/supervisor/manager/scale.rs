//! More and fewer dynos, by what they are asked: looks at the load, and does what `autoscale` makes of it.

use std::sync::Arc;

use tokio::time::Instant;

use crate::model::{AppName, DynoName, Formation, ProcessType};
use crate::supervisor::autoscale::{Autoscaler, Judged, Observed, Shortfall, Verdict, observe};
use crate::supervisor::manager::{Formed, Manager, Scale};
use crate::supervisor::metrics;
use crate::supervisor::spawn::Spawn;
use crate::table::Dyno;

impl<S: Spawn> Manager<S> {
    /// Whether there is any load to look at.
    pub(super) fn is_scaling(&self) -> bool {
        self.apps.values().any(|formed| !formed.scales.is_empty())
    }

    /// Looks at the load of all that is autoscaled.
    pub(super) fn look(&mut self) {
        self.looked = Instant::now();
        let scaled = self.apps.iter().flat_map(|(name, formed)| {
            formed.scales.keys().map(|process_type| (name.clone(), process_type.clone()))
        });
        for (app, process_type) in scaled.collect::<Vec<_>>() {
            match self.look_at(&app, &process_type) {
                Some(Verdict::Scale { to, judged }) => {
                    self.scale(&app, &process_type, to, &judged);
                }
                Some(Verdict::Missed { why, judged }) => {
                    self.say_missed(&app, &process_type, why, &judged);
                }
                None => {}
            }
        }
    }

    fn look_at(&mut self, app: &AppName, process_type: &ProcessType) -> Option<Verdict> {
        let at = self.looked.duration_since(self.began);
        let formed = self.apps.get_mut(app)?;
        let is_quiet = formed.maintenance || formed.is_asleep(process_type);
        let of_type = formed.dynos.iter().filter(|(name, _)| name.process_type == *process_type);
        let up = of_type.filter_map(|(_, living)| self.means.board.record_if_up(living.id));
        let up: Vec<Arc<Dyno>> = up.collect();
        let (roster, load) = (self.means.routes.roster(app)?, self.means.routes.load(app)?);
        let Scale { count, scaler } = formed.scales.get_mut(process_type)?;
        if is_quiet {
            scaler.rest();
            return None;
        }
        let target = scaler.rules().target;
        let observed = Observed { count: *count, up: &up, roster: &roster, load: &load, target };
        scaler.look(&observe(&observed, &mut self.accept_queues, at))
    }

    /// Has an app have so many dynos of a type.
    fn scale(&mut self, name: &AppName, process_type: &ProcessType, to: u32, judged: &Judged) {
        let Some(mut formed) = self.apps.remove(name) else { return };
        if let Some(scale) = formed.scales.get_mut(process_type) {
            let direction = if to > scale.count { "up" } else { "down" };
            scale.count = to;
            metrics::autoscaled(name, process_type, direction);
            let line = format!("Scaled to {process_type}@{to}:{}", formed.size_of(process_type));
            let line = format_args!("{line} by autoscale, {direction}: {judged}");
            self.means.log.platform(name, &"autoscale", &line);
            formed.turns(process_type).set_dynos(to);
        }
        self.bring_about(name, &mut formed);
        self.apps.insert(name.clone(), formed);
    }

    fn say_missed(
        &self,
        app: &AppName,
        process_type: &ProcessType,
        why: Shortfall,
        judged: &Judged,
    ) {
        let why = match why {
            Shortfall::AtMax => "there may be no more dynos",
            Shortfall::NoUse => "the last dynos were of no use",
        };
        let line = format_args!("Target of {process_type} is missed, and {why}: {judged}");
        self.means.log.platform(app, &"autoscale", &line);
    }
}

impl Formed {
    /// How many dynos of each type there are to be now.
    pub(super) fn formation(&self) -> Formation {
        let mut formation = self.app.formation.clone();
        formation.extend(self.scales.iter().map(|(it, scale)| (it.clone(), scale.count)));
        formation
    }

    /// Takes over what the configuration says now of what follows the requests. What there is stays, within the
    /// bounds that hold now.
    pub(super) fn follow_scales(&mut self) {
        let Self { app, scales, .. } = self;
        scales.retain(|process_type, _| app.autoscale.contains_key(process_type));
        for (process_type, rules) in &app.autoscale {
            let begins = app.formation.get(process_type).copied().unwrap_or(rules.min);
            let scale = scales
                .entry(process_type.clone())
                .or_insert_with(|| Scale { count: begins, scaler: Autoscaler::new(*rules) });
            scale.scaler.set_rules(*rules);
            scale.count = scale.count.clamp(rules.min, rules.max);
        }
    }

    /// Whether there may be a dyno of this name.
    pub(super) fn may_have(&self, dyno: &DynoName) -> bool {
        let process_type = &dyno.process_type;
        let scaled = self.app.autoscale.get(process_type).map(|rules| rules.max);
        let most = scaled.or(self.app.formation.get(process_type).copied());
        (1..=most.unwrap_or(0)).contains(&dyno.number)
    }

    /// There are to be as many as have been found, where that follows the requests and any have.
    pub(super) fn count_found(&mut self) {
        for (process_type, scale) in &mut self.scales {
            let of_type = self.dynos.keys().filter(|name| name.process_type == *process_type);
            let found = of_type.map(|name| name.number).max();
            let rules = scale.scaler.rules();
            scale.count = found.map_or(scale.count, |found| found.clamp(rules.min, rules.max));
        }
    }

    /// What a line calls the size of a process type.
    fn size_of(&self, process_type: &ProcessType) -> &str {
        self.app.sizes.get(process_type).map_or("", |size| size.name.as_str())
    }
}
