//! The difference between the dynos that are wanted and those that are, as data. Pure: `manager` does it.

use std::collections::BTreeMap;

use crate::model::{DynoName, Formation};

/// One thing to do for a formation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// There is no such dyno yet.
    Start(DynoName),
    /// It runs what an earlier release says.
    Restart(DynoName),
    /// It is not wanted any more.
    Stop(DynoName),
}

/// What turns the actual dynos (each with the release that it was told to run) into the wanted formation of
/// a release: starts first, lowest numbers first; then restarts; stops last, highest numbers first.
pub(crate) fn plan(
    formation: &Formation,
    release: u64,
    actual: &BTreeMap<DynoName, u64>,
) -> Vec<Step> {
    let wanted = |name: &DynoName| {
        (1..=formation.get(&name.process_type).copied().unwrap_or(0)).contains(&name.number)
    };
    let places = formation.iter().flat_map(|(process_type, count)| {
        (1..=*count).map(|number| DynoName { process_type: process_type.clone(), number })
    });
    let starts = places.filter(|name| !actual.contains_key(name)).map(Step::Start);
    let outdated = actual.iter().filter(|(name, runs)| wanted(name) && **runs != release);
    let restarts = outdated.map(|(name, _)| Step::Restart(name.clone()));
    let stops = actual.keys().rev().filter(|name| !wanted(name)).cloned().map(Step::Stop);
    starts.chain(restarts).chain(stops).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::ProcessType;

    fn name(text: &str) -> DynoName {
        DynoName::parse(text).unwrap()
    }

    fn formation(counts: &[(&str, u32)]) -> Formation {
        counts.iter().map(|(name, count)| (ProcessType::parse(name).unwrap(), *count)).collect()
    }

    fn check(wanted: &[(&str, u32)], actual: &[(&str, u64)], expected: &[&str]) {
        let actual = actual.iter().map(|(text, release)| (name(text), *release)).collect();
        let steps = plan(&formation(wanted), 2, &actual).into_iter().map(|step| match step {
            Step::Start(name) => format!("start {name}"),
            Step::Restart(name) => format!("restart {name}"),
            Step::Stop(name) => format!("stop {name}"),
        });
        assert_eq!(steps.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn plans() {
        check(&[("web", 2)], &[], &["start web.1", "start web.2"]);
        check(
            &[("web", 1)],
            &[("web.1", 2), ("web.2", 2), ("web.3", 2)],
            &["stop web.3", "stop web.2"],
        );
        check(
            &[("web", 2), ("job", 1)],
            &[("web.1", 1)],
            &["start job.1", "start web.2", "restart web.1"],
        );
        check(&[("web", 0)], &[("job.1", 2), ("web.1", 1)], &["stop web.1", "stop job.1"]);
        check(&[("web", 1)], &[("web.1", 2)], &[]);
    }

    fn apply(
        steps: Vec<Step>,
        release: u64,
        mut actual: BTreeMap<DynoName, u64>,
    ) -> BTreeMap<DynoName, u64> {
        for step in steps {
            match step {
                Step::Start(name) | Step::Restart(name) => actual.insert(name, release),
                Step::Stop(name) => actual.remove(&name),
            };
        }
        actual
    }

    proptest! {
        #[test]
        fn an_applied_plan_reaches_what_is_wanted_and_a_second_one_is_empty(
            wanted in prop::collection::btree_map("[abc]", 0u32..5, 0..4),
            actual in prop::collection::btree_map(("[abc]", 1u32..6), 1u64..4, 0..9),
        ) {
            let wanted = formation(&wanted.iter().map(|(name, count)| (name.as_str(), *count)).collect::<Vec<_>>());
            let place = |(of, number): (String, u32)| name(&format!("{of}.{number}"));
            let actual = actual.into_iter().map(|(of, release)| (place(of), release)).collect();
            let reached = apply(plan(&wanted, 3, &actual), 3, actual);
            for (process_type, count) in &wanted {
                let of_type = reached.keys().filter(|name| name.process_type == *process_type);
                let numbers = of_type.map(|name| name.number).collect::<Vec<_>>();
                prop_assert_eq!(numbers, (1..=*count).collect::<Vec<_>>());
            }
            prop_assert_eq!(reached.len() as u32, wanted.values().sum::<u32>());
            prop_assert!(reached.values().all(|release| *release == 3));
            prop_assert_eq!(plan(&wanted, 3, &reached), vec![]);
        }
    }
}
