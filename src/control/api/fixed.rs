//! What the file says, the file decides: a command that would change it is refused, naming file and line.

use crate::config::{AppConfig, AppSource, Config};
use crate::control::Problem;
use crate::model::{AppName, Stated, StatedApp};
use crate::store::new_id;
use crate::wall_clock;

/// The app, and what commands say of it so far.
pub(in crate::control) fn app_of<'a>(
    config: &'a Config,
    stated: &Stated,
    name: &AppName,
) -> Result<(&'a AppConfig, StatedApp), Problem> {
    let app = config.apps.get(name).ok_or_else(|| Problem::no_app(name.as_str()))?;
    let fresh = || StatedApp::new(new_id(), wall_clock::unix(), false);
    Ok((app, stated.apps.get(name).cloned().unwrap_or_else(fresh)))
}

/// Refuses to change what the file says of an app under this key.
pub(in crate::control) fn refuse_said(
    config: &Config,
    app: &AppConfig,
    key: &str,
    what: &str,
) -> Result<(), Problem> {
    match app.said.line(key) {
        None => Ok(()),
        Some(line) => Err(Problem {
            id: "fixed_by_file",
            ..Problem::invalid(format!(
                "{what} is fixed by {}:{line}. Change it there, and run dynomesh reload.",
                config.file.display()
            ))
        }),
    }
}

/// Refuses what only an app can have whose dynos dynomesh runs.
pub(in crate::control) fn refuse_external(name: &AppName, app: &AppConfig) -> Result<(), Problem> {
    match app.source {
        AppSource::External(_) => Err(Problem::invalid(format!(
            "Somebody else runs the dynos of {name}: they have no config vars, no formation and no releases here."
        ))),
        AppSource::Managed(_) | AppSource::Blank => Ok(()),
    }
}
