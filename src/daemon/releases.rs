//! The numbers of releases: what each app runs is compared with what it ran last, and a release made where it differs.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{AppConfig, AppSource, Config};
use crate::control::{Problem, Running};
use crate::model::{AppName, Runs, Stated, StatedApp};
use crate::store::{AskError, Commit, Committed, Maker, Store};
use crate::wall_clock;

/// Who makes the releases that nobody asked for by name.
const DAEMON: &str = "dynomesh";

/// Gives each app of the first configuration, which was made with what commands `stated`, the number of its release, and
/// returns what is remembered then.
pub(in crate::daemon) async fn number_first(
    store: &Store,
    config: &mut Config,
    stated: &Stated,
) -> Result<Stated, AskError> {
    write(store, config, stated, None, maker("Start of dynomesh".into(), DAEMON), None).await
}

/// The same for a configuration that was read again. Where that cannot be remembered it is said, and the numbers go on from
/// those in force.
pub(in crate::daemon) async fn number(running: &Running, config: &mut Config, description: String) {
    let stated = running.stated.load_full();
    match write(&running.store, config, &stated, None, maker(description, DAEMON), None).await {
        Ok(stated) => running.stated.store(Arc::new(stated)),
        Err(error) => tracing::error!("releases are not remembered: {error}"),
    }
}

/// The same for what a command changed, which is remembered with it: from now on commands say what is `wanted`.
pub(in crate::daemon) async fn commit(
    running: &Running,
    config: &mut Config,
    wanted: &Stated,
    changed: AppName,
    maker: Maker,
    request: Option<String>,
) -> Result<(), Problem> {
    let now = wanted.apps.get(&changed).cloned();
    let changed = Some((changed, now));
    let written = write(&running.store, config, wanted, changed, maker, request).await;
    let stated = written.map_err(unremembered)?;
    running.stated.store(Arc::new(stated));
    Ok(())
}

/// What a command is told where the database does not follow.
pub(in crate::daemon) fn unremembered(error: AskError) -> Problem {
    Problem::internal(format!("It cannot be remembered: {error}"))
}

/// Of a release that is made now.
pub(in crate::daemon) fn maker(description: String, user: &str) -> Maker {
    Maker { description, user: user.to_owned(), at: wall_clock::unix() }
}

async fn write(
    store: &Store,
    config: &mut Config,
    stated: &Stated,
    changed: Option<(AppName, Option<StatedApp>)>,
    maker: Maker,
    request: Option<String>,
) -> Result<Stated, AskError> {
    let commit = Commit { changed, runs: runs(config, stated), maker, request };
    let Committed { stated, versions } = store.commit(commit).await?;
    for (name, version) in versions {
        if let Some(AppConfig { source: AppSource::Managed(app), .. }) = config.apps.get_mut(&name)
        {
            app.release = Some(version);
        }
    }
    Ok(stated)
}

/// What each app runs whose dynos dynomesh runs, or will run once something is deployed.
fn runs(config: &Config, stated: &Stated) -> BTreeMap<AppName, Runs> {
    let of_app = |(name, app): (&AppName, &AppConfig)| {
        let stated = stated.apps.get(name);
        let runs = match &app.source {
            AppSource::Managed(managed) => {
                let slug = stated
                    .and_then(|it| it.slug.clone())
                    .filter(|_| app.said.line("dir").is_none());
                let dir = slug.is_none().then(|| managed.dir.display().to_string());
                let (commands, config_vars) =
                    (managed.commands.clone(), managed.config_vars.clone());
                Runs { slug, dir, commands, config_vars }
            }
            AppSource::Blank => {
                let config_vars = stated.filter(|it| it.made)?.config_vars.clone();
                Runs { config_vars, ..Runs::default() }
            }
            AppSource::External(_) => return None,
        };
        Some((name.clone(), runs))
    };
    config.apps.iter().filter_map(of_app).collect()
}
