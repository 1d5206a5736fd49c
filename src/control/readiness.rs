//! Whether requests would be served.

use crate::config::{AppSource, Config};
use crate::control::Phase;
use crate::model::{AppName, ProcessType};
use crate::table::{Standing, Table};

/// What is missing before requests are served; empty: ready.
///
/// Each app whose web dynos dynomesh runs needs one that is routable, or to be asleep: a request wakes it, and a
/// balancer that sent none would leave it asleep for good. One whose hours are used up is as it should be.
/// Dynos that somebody else runs count as ready: that they are not there is that somebody's to say.
pub(in crate::control) fn missing(phase: Phase, config: &Config, table: &Table) -> Vec<String> {
    match phase {
        Phase::Starting => return vec!["not listening yet".into()],
        Phase::Stopping => return vec!["stopping".into()],
        Phase::Serving => {}
    }
    let without = config.apps.iter().filter(|(_, app)| wants_web(&app.source));
    let without = without.map(|(name, _)| name).filter(|name| !is_as_it_should_be(table, name));
    without.map(|name| format!("{name}: no web dyno is up")).collect()
}

fn wants_web(source: &AppSource) -> bool {
    match source {
        AppSource::Managed(app) => {
            app.formation.get(&ProcessType::web()).is_some_and(|count| *count > 0)
        }
        AppSource::External(_) | AppSource::Blank => false,
    }
}

fn is_as_it_should_be(table: &Table, name: &AppName) -> bool {
    let app = table.apps().iter().find(|app| app.name == *name);
    app.is_some_and(|app| match app.roster.lineup().standing {
        Standing::Up | Standing::Asleep | Standing::OutOfHours => true,
        Standing::Starting | Standing::Crashed | Standing::NoWeb | Standing::Blank => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::scene::Scene;

    #[test]
    fn ready_is_who_listens_and_has_a_dyno_for_each_app_that_wants_one() {
        // `jobs` wants no web dyno, `legacy` has its own, `blank` none at all.
        let scene = Scene::new(
            r#"
            [apps.shop]
            dir = "app"
            [apps.jobs]
            dir = "app"
            formation = { web = 0, worker = 1 }
            [apps.legacy]
            dynos = ["127.0.0.1:1"]
            [apps.blank]
            "#,
        );
        let check = |phase, expected: &[&str]| {
            assert_eq!(missing(phase, &scene.config, &scene.publisher.table()), expected);
        };
        check(Phase::Serving, &["shop: no web dyno is up"]);
        scene.up("jobs");
        check(Phase::Serving, &["shop: no web dyno is up"]);
        scene.up("shop");
        check(Phase::Serving, &[]);
        scene.stands("shop", Standing::Asleep);
        check(Phase::Serving, &[]);
        scene.stands("shop", Standing::Crashed);
        check(Phase::Serving, &["shop: no web dyno is up"]);
        scene.stands("shop", Standing::Asleep);
        check(Phase::Starting, &["not listening yet"]);
        check(Phase::Stopping, &["stopping"]);
    }
}
