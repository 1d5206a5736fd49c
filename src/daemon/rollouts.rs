//! What comes of releases: heard from the supervisor, and remembered. An app whose release fails goes back to what it ran
//! before, where a command released it; what the file says stays what the file says.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use crate::config::{Config, limits};
use crate::control::{Caller, Changed, Problem, Running, Step, config_vars_of};
use crate::daemon::releases::{Begun, managed};
use crate::model::{AppName, Release, ReleaseFailure, ReleaseStatus, Stated};
use crate::store::WentBack;
use crate::supervisor::{Failure, Outcome};

/// In whose name is gone back.
pub(in crate::daemon) const DAEMON: &str = "dynomesh";

/// For the start: goes on with what an earlier daemon had on its way, and clears away what it had begun.
pub(in crate::daemon) fn take_up(running: &Arc<Running>, pending: Begun) {
    see_all_through(running, pending);
    // Before anybody can upload to this one.
    let abandoned = running.shelf.abandoned();
    let here = running.clone();
    running.shutdown.spawn(async move {
        // Nobody waits for the end of such a release any more.
        for dyno in here.supervisor.status() {
            if dyno.dyno.starts_with("release.")
                && let Ok(app) = AppName::parse(&dyno.app)
            {
                here.supervisor.stop_dyno(&app, &dyno.dyno).await;
            }
        }
        let shelf = here.shelf.clone();
        let sweep = move || shelf.remove(&abandoned?);
        if let Ok(Err(error)) = spawn_blocking(sweep).await {
            tracing::warn!("uploads of an earlier daemon are left: {error}");
        }
    });
}

/// Notes what comes of these releases.
pub(in crate::daemon) fn see_all_through(running: &Arc<Running>, begun: Begun) {
    for (app, version) in begun {
        let here = running.clone();
        running.shutdown.spawn(async move {
            tokio::select! {
                () = see_through(&here, &app, version) => {}
                // The next daemon goes on with it.
                () = here.shutdown.begun() => {}
            }
        });
    }
}

async fn see_through(running: &Arc<Running>, app: &AppName, version: u64) {
    while let Some(mut rollout) = running.supervisor.follow_rollout(app).await {
        if rollout.borrow().release != version {
            break;
        }
        let ended = rollout.wait_for(|it| it.outcome.is_some()).await;
        let outcome = ended.ok().and_then(|it| it.outcome.clone());
        match outcome {
            Some(Outcome::Done) => {
                end(running, app, version, ReleaseStatus::Succeeded, None).await;
                return collect(running).await;
            }
            Some(Outcome::Superseded { .. }) => break,
            Some(Outcome::Failed(failure)) => {
                if fail(running, app, version, failure).await {
                    return;
                }
                // Its dynos may come up after all, or somebody has it tried again.
                if rollout.wait_for(|it| it.stands).await.is_ok() {
                    return end(running, app, version, ReleaseStatus::Succeeded, None).await;
                }
            }
            // It is tried again.
            None => {}
        }
    }
    let releases = running.store.releases(app).await.unwrap_or_default();
    let is_pending = |it: &Release| it.version == version && it.status == ReleaseStatus::Pending;
    if releases.iter().any(is_pending) {
        end(running, app, version, ReleaseStatus::Expired, None).await;
    }
    running.deploys.note_end();
}

/// Remembers what came of a release.
pub(in crate::daemon) async fn end(
    running: &Running,
    app: &AppName,
    version: u64,
    status: ReleaseStatus,
    failure: Option<ReleaseFailure>,
) {
    if let Err(error) = running.store.end_release(app, version, status, failure).await {
        tracing::error!("what came of release v{version} of {app} is not remembered: {error}");
    }
    running.deploys.note_end();
}

/// A release has failed. `true`: the app is at another one again.
async fn fail(running: &Arc<Running>, app: &AppName, version: u64, failure: Failure) -> bool {
    let Failure { dyno, reason, last_lines } = failure;
    let failure = ReleaseFailure { dyno, reason: reason.to_string(), last_lines };
    let releases = running.store.releases(app).await.unwrap_or_default();
    let is_good = |it: &&Release| it.version < version && it.status == ReleaseStatus::Succeeded;
    let went_back = match releases.iter().find(is_good) {
        Some(to) => go_back(running, app, version, to.clone(), failure.clone()).await,
        None => false,
    };
    match went_back {
        true => running.deploys.note_end(),
        false => end(running, app, version, ReleaseStatus::Failed, Some(failure)).await,
    }
    went_back
}

async fn go_back(
    running: &Arc<Running>,
    app: &AppName,
    failed: u64,
    to: Release,
    failure: ReleaseFailure,
) -> bool {
    let step = Step::Back(WentBack { failed, failure, to: to.version });
    let caller = Caller { user: DAEMON.into(), request: None };
    let of = app.clone();
    let change = move |config: &Config, stated: &Stated| back(config, stated, of, failed, &to);
    match running.step(caller, step, change).await {
        Ok(()) => true,
        Err(Problem { id: STAYS, .. }) => false,
        Err(problem) => {
            tracing::error!("{app} does not go back from v{failed}: {}", problem.message);
            false
        }
    }
}

/// There is nothing to go back to, or no reason any more.
const STAYS: &str = "stays";

fn back(
    config: &Config,
    stated: &Stated,
    app: AppName,
    failed: u64,
    to: &Release,
) -> Result<Changed, Problem> {
    let stays = || Problem { id: STAYS, ..Problem::invalid("It stays as it is.") };
    let known = config.apps.get(&app).ok_or_else(stays)?;
    let is_at = managed(config, &app).is_some_and(|it| it.release == Some(failed));
    let mut now = stated.apps.get(&app).filter(|_| is_at).cloned().ok_or_else(stays)?;
    let said = known.said.line("dir").is_some();
    if !said {
        now.slug.clone_from(&to.runs.slug);
    }
    now.config_vars = config_vars_of(to, known, &stated.attached(&app));
    match stated.apps.get(&app) == Some(&now) {
        true => Err(stays()),
        false => {
            Ok(Changed { app, now: Some(now), description: format!("Back to v{}", to.version) })
        }
    }
}

/// Removes slugs that nobody can go back to. A slug is put on the shelf, waits, and is released: looked for in this order, none
/// goes by unseen.
async fn collect(running: &Running) {
    let shelf = running.shelf.clone();
    let Ok(Ok(mut unused)) = spawn_blocking(move || shelf.names()).await else { return };
    // What was put there may not wait yet: the next collection sees to the rest.
    if running.deploys.is_unpacking() {
        return;
    }
    let mut used = running.deploys.waiting();
    let Ok(mut released) = running.store.slugs_in_use(limits::RELEASES_KEPT).await else { return };
    used.append(&mut released);
    used.extend(slugs_that_run(running).await);
    unused.retain(|name| !used.contains(name));
    let shelf = running.shelf.clone();
    if let Ok(Err(error)) = spawn_blocking(move || shelf.remove(&unused)).await {
        tracing::warn!("slugs that nobody needs are left: {error}");
    }
}

/// Those that dynos run, of earlier releases too.
async fn slugs_that_run(running: &Running) -> Vec<String> {
    let (config, mut slugs) = (running.config.load_full(), Vec::new());
    for app in config.apps.keys().filter(|name| managed(&config, name).is_some()) {
        let releases = running.store.releases(app).await.unwrap_or_default();
        let dynos = running.supervisor.status();
        let of_app = dynos.iter().filter(|dyno| dyno.app == app.as_str());
        let versions: Vec<u64> = of_app.filter_map(|dyno| dyno.release).collect();
        let run = releases.into_iter().filter(|it| versions.contains(&it.version));
        slugs.extend(run.filter_map(|it| it.runs.slug));
    }
    slugs
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{self, AppSource};
    use crate::model::{Id, Runs, StatedAddon, StatedApp, StatedAttachment};

    #[test]
    fn what_an_addon_says_is_no_config_var_of_the_apps_own_when_it_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("Procfile"), "web: serve\n").unwrap();
        let file = dir.path().join("dynomesh.toml");
        let text = "[apps.shop]\ndir = \".\"\nconfig = { FIXED = \"1\" }\n";
        std::fs::write(&file, text).unwrap();
        let mut config = config::load(&file).unwrap();
        let shop = AppName::parse("shop").unwrap();
        let AppSource::Managed(managed) = &mut config.apps.get_mut(&shop).unwrap().source else {
            panic!("its dynos are ours")
        };
        managed.release = Some(2);

        let vars = |vars: &[(&str, &str)]| -> BTreeMap<String, String> {
            vars.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
        };
        let (id, url) = (Id::of_random([1; 16]), "redis://:secret@localhost");
        let (name, plan, addon) = ("redis-1".into(), "redis".into(), id);
        let mut app = StatedApp::new(id, 7, false);
        app.config_vars = vars(&[("A", "2")]);
        app.addons.push(StatedAddon { id, name, plan, url: url.into(), created_at: 7 });
        app.attachments.push(StatedAttachment { id, name: "REDIS".into(), addon, created_at: 7 });
        let stated = Stated { apps: BTreeMap::from([(shop.clone(), app)]) };
        let ran = vars(&[("A", "1"), ("FIXED", "0"), ("REDIS_URL", url)]);
        let to = Release {
            id,
            version: 1,
            description: "Initial release".into(),
            user: "me".into(),
            status: ReleaseStatus::Succeeded,
            current: false,
            runs: Runs { config_vars: ran, ..Runs::default() },
            failure: None,
            created_at: 7,
        };
        let changed = back(&config, &stated, shop, 2, &to).unwrap();
        assert_eq!(changed.now.unwrap().config_vars, vars(&[("A", "1")]));
    }
}
