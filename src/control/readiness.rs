//! Whether requests would be served.

use crate::config::{AppSource, Config};
use crate::control::Phase;
use crate::model::{AppName, ProcessType};
use crate::table::Table;

/// What is missing before requests are served; empty: ready.
///
/// Each app whose web dynos dynomesh runs needs one that is routable. Dynos that somebody else runs count
/// as ready: that they are not there is that somebody's to say.
pub(in crate::control) fn missing(phase: Phase, config: &Config, table: &Table) -> Vec<String> {
    match phase {
        Phase::Starting => return vec!["not listening yet".into()],
        Phase::Stopping => return vec!["stopping".into()],
        Phase::Serving => {}
    }
    let without = config.apps.iter().filter(|(_, app)| wants_web(&app.source));
    let without = without.map(|(name, _)| name).filter(|name| !is_routable(table, name));
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

fn is_routable(table: &Table, name: &AppName) -> bool {
    let app = table.apps().iter().find(|app| app.name == *name);
    app.is_some_and(|app| !app.roster.lineup().dynos.is_empty())
}
