//! More and fewer dynos, by what they are asked: looks at the load, and does what `autoscale` makes of it.

use std::sync::Arc;

use tokio::time::Instant;

use crate::model::{AppName, DynoName, Formation, ProcessType};
use crate::supervisor::autoscale::{Autoscaler, Judged, Observed, Shortfall, Verdict, observe};
use crate::supervisor::manager::{Formed, Manager, Scale};
use crate::supervisor::metrics;
use crate::supervisor::program::ProcessId;
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
        let up: Vec<(Arc<Dyno>, ProcessId)> = up.collect();
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
        self.carry_on(name, &mut formed);
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

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use crate::config::{AppSource, Config};
    use crate::model::{AppName, Autoscale, ProcessType, Target};
    use crate::supervisor::scripted::Script;
    use crate::supervisor::tests::{Formation, config, managed, passes};
    use crate::table::Lease;

    fn rules(min: u32, max: u32) -> Autoscale {
        let target = Target::InFlight(NonZeroU32::new(2).unwrap());
        let secs = Duration::from_secs;
        Autoscale { min, max, target, up_after: secs(10), down_after: secs(60) }
    }

    /// A shop that begins with so many web dynos.
    fn shop(begins_with: u32, rules: Option<Autoscale>) -> [(&'static str, AppSource); 1] {
        let AppSource::Managed(mut app) = managed(&[("web", begins_with)]) else { unreachable!() };
        app.autoscale.extend(rules.map(|rules| (ProcessType::web(), rules)));
        [("shop", AppSource::Managed(app))]
    }

    fn in_maintenance(begins_with: u32, rules: Autoscale) -> Config {
        let mut config = config(&shop(begins_with, Some(rules)));
        config.apps.values_mut().for_each(|app| app.policy.maintenance = true);
        config
    }

    /// So many requests, each with the dyno that has the fewest.
    fn leases(formation: &Formation, requests: usize) -> Vec<Lease> {
        let lineup = formation.lineup("shop");
        let fewest = || lineup.dynos.iter().min_by_key(|dyno| dyno.in_flight()).unwrap();
        (0..requests).map(|_| fewest().lease().unwrap()).collect()
    }

    fn web(formation: &Formation) -> usize {
        formation.lineup("shop").dynos.len()
    }

    #[tokio::test(start_paused = true)]
    async fn more_come_one_by_one_and_the_highest_number_goes_first() {
        let formation = Formation::start(&[Script::listens(5)], &shop(1, Some(rules(1, 3))));
        passes(6).await;
        let held = leases(&formation, 9);
        passes(20).await;
        assert_eq!(formation.states(), ["shop web.1 up", "shop web.2 up"]);
        drop(held);
        let held = leases(&formation, 9);
        passes(20).await;
        assert_eq!(web(&formation), 3);
        let wanted = formation.supervisor.formation(&AppName::parse("shop").unwrap()).await;
        assert_eq!(wanted, Some([(ProcessType::web(), 3)].into()));
        passes(100).await;
        assert_eq!(web(&formation), 3, "there may be no more");
        drop(held);
        passes(75).await;
        assert_eq!(formation.states(), ["shop web.1 up", "shop web.2 up"]);
        passes(75).await;
        assert_eq!(formation.states(), ["shop web.1 up"]);
        passes(500).await;
        assert_eq!(web(&formation), 1, "there may be no fewer");
        assert_eq!(formation.started(), 3);
        formation.supervisor.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_finishes_what_it_holds() {
        let formation = Formation::start(&[Script::listens(0)], &shop(2, Some(rules(1, 3))));
        passes(1).await;
        let lease = formation.lineup("shop").dynos[1].lease().unwrap();
        passes(75).await;
        assert_eq!(web(&formation), 1);
        assert_eq!(formation.states(), ["shop web.1 up", "shop web.2 down"]);
        assert_eq!(formation.scripts.living(), 2);
        drop(lease);
        passes(1).await;
        assert_eq!(formation.states(), ["shop web.1 up"]);
        formation.supervisor.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_dyno_that_does_not_come_up_is_not_joined_by_others() {
        let scripts = [Script::listens(0), Script::never_listens()];
        let formation = Formation::start(&scripts, &shop(1, Some(rules(1, 9))));
        passes(1).await;
        let _held = leases(&formation, 50);
        passes(300).await;
        assert_eq!(formation.supervisor.status().len(), 2, "{:?}", formation.states());
        formation.supervisor.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_keeps_the_number_within_the_bounds_of_now() {
        let formation = Formation::start(&[Script::listens(0)], &shop(1, Some(rules(1, 9))));
        passes(1).await;
        for count in 2..=4 {
            let held = leases(&formation, 20);
            passes(12).await;
            assert_eq!(web(&formation), count);
            drop(held);
        }
        let count = 4;
        formation.apply(&shop(1, Some(rules(1, 9)))).await;
        assert_eq!(web(&formation), count);
        formation.apply(&shop(1, Some(rules(1, 2)))).await;
        assert_eq!(web(&formation), 2);
        formation.apply(&shop(7, Some(rules(6, 9)))).await;
        assert_eq!(web(&formation), 6);
        // From here on it is what formation says.
        formation.apply(&shop(3, None)).await;
        passes(500).await;
        assert_eq!(web(&formation), 3);
        formation.supervisor.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_decided_while_requests_are_refused() {
        let formation = Formation::start(&[Script::listens(0)], &shop(3, Some(rules(1, 9))));
        passes(1).await;
        formation.supervisor.apply(&in_maintenance(3, rules(1, 9)).into());
        passes(1000).await;
        assert_eq!(web(&formation), 3);
        formation.apply(&shop(3, Some(rules(1, 9)))).await;
        passes(70).await;
        assert_eq!(web(&formation), 2);
        formation.supervisor.stop().await;
    }
}
