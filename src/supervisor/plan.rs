//! The difference between the dynos that are wanted and those that are, as data. Pure: `manager` does it.

use std::collections::BTreeMap;

use crate::config::Deploy;
use crate::model::{DynoName, Formation, ProcessType};

/// One thing to do for a formation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// There is no such dyno yet.
    Start(DynoName),
    /// It is not wanted any more.
    Stop(DynoName),
}

/// What turns the actual dynos into the wanted formation: starts first, lowest numbers first; stops last, highest
/// numbers first.
pub(crate) fn plan<T>(formation: &Formation, actual: &BTreeMap<DynoName, T>) -> Vec<Step> {
    let places = formation.iter().flat_map(|(process_type, count)| {
        (1..=*count).map(|number| DynoName { process_type: process_type.clone(), number })
    });
    let starts = places.filter(|name| !actual.contains_key(name)).map(Step::Start);
    let unwanted = actual.keys().rev().filter(|name| !is_wanted(formation, name));
    starts.chain(unwanted.cloned().map(Step::Stop)).collect()
}

/// Whether a formation has a dyno of this name.
pub(crate) fn is_wanted(formation: &Formation, name: &DynoName) -> bool {
    (1..=formation.get(&name.process_type).copied().unwrap_or(0)).contains(&name.number)
}

/// Where a dyno stands while a release is on its way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stand {
    /// It runs another one.
    Outdated {
        /// And is up.
        is_up: bool,
    },
    /// It was told.
    Changing,
    /// It runs the release, or sleeps and will.
    Changed,
}

/// How many dynos of so many are replaced at a time.
pub(crate) fn quarter(dynos: u32) -> u32 {
    dynos.div_ceil(4).max(1)
}

/// Which dynos are to be told of a release now. Those that are not up lose nothing by it, and are told at once.
pub(crate) fn due(deploy: Deploy, dynos: &BTreeMap<DynoName, Stand>) -> Vec<DynoName> {
    let web_changed =
        dynos.iter().all(|(name, stand)| !name.process_type.is_web() || *stand == Stand::Changed);
    let mut room = room(dynos);
    let outdated = dynos.iter().filter_map(|(name, stand)| match stand {
        Stand::Outdated { is_up } => Some((name, *is_up)),
        Stand::Changing | Stand::Changed => None,
    });
    let is_due = |(name, is_up): &(&DynoName, bool)| match deploy {
        Deploy::Restart => true,
        Deploy::Preboot => name.process_type.is_web() || web_changed,
        Deploy::Rolling if !is_up => true,
        Deploy::Rolling => room
            .get_mut(&name.process_type)
            .and_then(|left| left.checked_sub(1).map(|now| *left = now))
            .is_some(),
    };
    outdated.filter(is_due).map(|(name, _)| name.clone()).collect()
}

/// Which web dyno is told of a release before all others: the first that is up, unless one was told.
pub(crate) fn canary(dynos: &BTreeMap<DynoName, Stand>) -> Option<DynoName> {
    let web = dynos.iter().filter(|(name, _)| name.process_type.is_web());
    let is_told = |(_, stand): (_, &Stand)| !matches!(stand, Stand::Outdated { .. });
    if web.clone().any(is_told) {
        return None;
    }
    let mut up = web.filter(|(_, stand)| **stand == Stand::Outdated { is_up: true });
    up.next().map(|(name, _)| name.clone())
}

/// How many more of each type may be replaced now, under `rolling`.
fn room(dynos: &BTreeMap<DynoName, Stand>) -> BTreeMap<ProcessType, u32> {
    let mut counts = BTreeMap::<_, (u32, u32)>::new();
    for (name, stand) in dynos {
        let (all, busy) = counts.entry(name.process_type.clone()).or_default();
        *all += 1;
        *busy += u32::from(matches!(stand, Stand::Changing | Stand::Outdated { is_up: false }));
    }
    let of_type = |(process_type, (all, busy))| (process_type, quarter(all).saturating_sub(busy));
    counts.into_iter().map(of_type).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> DynoName {
        DynoName::parse(text).unwrap()
    }

    fn formation(counts: &[(&str, u32)]) -> Formation {
        counts.iter().map(|(name, count)| (ProcessType::parse(name).unwrap(), *count)).collect()
    }

    fn check(wanted: &[(&str, u32)], actual: &[&str], expected: &[&str]) {
        let actual = actual.iter().map(|text| (name(text), ())).collect();
        let steps = plan(&formation(wanted), &actual).into_iter().map(|step| match step {
            Step::Start(name) => format!("start {name}"),
            Step::Stop(name) => format!("stop {name}"),
        });
        assert_eq!(steps.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn plans() {
        check(&[("web", 2)], &[], &["start web.1", "start web.2"]);
        check(&[("web", 1)], &["web.1", "web.2", "web.3"], &["stop web.3", "stop web.2"]);
        check(&[("web", 2), ("job", 1)], &["web.1"], &["start job.1", "start web.2"]);
        check(&[("web", 0)], &["job.1", "web.1"], &["stop web.1", "stop job.1"]);
        check(&[("web", 1)], &["web.1"], &[]);
    }

    const UP: Stand = Stand::Outdated { is_up: true };
    const NOT_UP: Stand = Stand::Outdated { is_up: false };

    fn check_due(deploy: Deploy, dynos: &[(&str, Stand)], expected: &[&str]) {
        let dynos = dynos.iter().map(|(text, stand)| (name(text), *stand)).collect();
        let due = due(deploy, &dynos).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(due, expected, "{deploy:?} of {dynos:?}");
    }

    #[test]
    fn who_is_told_of_a_release() {
        use Deploy::*;
        use Stand::{Changed, Changing};
        let five = ["web.1", "web.2", "web.3", "web.4", "web.5"].map(|name| (name, UP));
        check_due(Rolling, &five, &["web.1", "web.2"]);
        check_due(Rolling, &[("web.1", Changing), ("web.2", UP)], &[]);
        check_due(Rolling, &[("web.1", Changed), ("web.2", UP)], &["web.2"]);
        check_due(Rolling, &[("web.1", UP), ("web.2", NOT_UP)], &["web.2"]);
        check_due(Rolling, &[("job.1", UP), ("web.1", Changing)], &["job.1"]);
        check_due(Preboot, &[("job.1", UP), ("web.1", UP), ("web.2", UP)], &["web.1", "web.2"]);
        check_due(Preboot, &[("job.1", UP), ("web.1", Changed), ("web.2", Changing)], &[]);
        check_due(
            Preboot,
            &[("job.1", UP), ("job.2", UP), ("web.1", Changed)],
            &["job.1", "job.2"],
        );
        check_due(Restart, &[("job.1", UP), ("web.1", NOT_UP)], &["job.1", "web.1"]);
    }

    proptest! {
        #[test]
        fn an_applied_plan_reaches_what_is_wanted_and_a_second_one_is_empty(
            wanted in prop::collection::btree_map("[abc]", 0u32..5, 0..4),
            actual in prop::collection::btree_set(("[abc]", 1u32..6), 0..9),
        ) {
            let wanted = formation(&wanted.iter().map(|(name, count)| (name.as_str(), *count)).collect::<Vec<_>>());
            let mut actual = actual.into_iter().map(|(of, number)| (name(&format!("{of}.{number}")), ())).collect::<BTreeMap<_, _>>();
            for step in plan(&wanted, &actual) {
                match step {
                    Step::Start(name) => prop_assert!(actual.insert(name, ()).is_none()),
                    Step::Stop(name) => prop_assert!(actual.remove(&name).is_some()),
                }
            }
            for (process_type, count) in &wanted {
                let of_type = actual.keys().filter(|name| name.process_type == *process_type);
                let numbers = of_type.map(|name| name.number).collect::<Vec<_>>();
                prop_assert_eq!(numbers, (1..=*count).collect::<Vec<_>>());
            }
            prop_assert_eq!(actual.len() as u32, wanted.values().sum::<u32>());
            prop_assert_eq!(plan(&wanted, &actual), vec![]);
        }

        /// Whatever is told comes up in any order, and fewer than a quarter are ever on their way.
        #[test]
        fn every_dyno_is_told_once_and_rolling_takes_no_more_than_a_quarter(
            web in 0u32..13, job in 0u32..5, which in 0..3usize, picks in prop::collection::vec(any::<prop::sample::Index>(), 40),
        ) {
            let deploy = [Deploy::Rolling, Deploy::Preboot, Deploy::Restart][which];
            let names = |of: &'static str, count| (1..=count).map(move |number| name(&format!("{of}.{number}")));
            let mut dynos = names("web", web).chain(names("job", job)).map(|name| (name, UP)).collect::<BTreeMap<_, _>>();
            let mut told = BTreeSet::new();
            for pick in picks {
                for name in due(deploy, &dynos) {
                    dynos.insert(name.clone(), Stand::Changing);
                    prop_assert!(told.insert(name));
                }
                let changing = dynos.iter().filter(|(_, stand)| **stand == Stand::Changing).map(|(name, _)| name.clone()).collect::<Vec<_>>();
                for (of, count) in [("web", web), ("job", job)] {
                    let busy = changing.iter().filter(|name| name.process_type.as_str() == of).count() as u32;
                    prop_assert!(deploy != Deploy::Rolling || busy <= quarter(count));
                }
                if changing.is_empty() {
                    break;
                }
                dynos.insert(changing[pick.index(changing.len())].clone(), Stand::Changed);
            }
            prop_assert!(dynos.values().all(|stand| *stand == Stand::Changed));
            prop_assert_eq!(told.len() as u32, web + job);
        }
    }
}
