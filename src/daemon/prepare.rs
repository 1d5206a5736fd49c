//! The release phase: before an app runs a release, the command `release` of its Procfile does, once, as it will be then.
//! Until that has ended well, nothing of the app is changed; the release is pending.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::timeout;

use crate::config::{Config, ManagedApp, limits};
use crate::control::{Caller, Changed, Problem, Running, Step};
use crate::daemon::releases::{adopt_release, managed, runs_of, unremembered};
use crate::daemon::rollouts::end;
use crate::model::{
    AppName, Exit, ProcessType, ReleaseFailure, ReleaseStatus, Runs, Stated, StatedApp,
};
use crate::store::Maker;
use crate::supervisor::{Begun, RunOrder, Streams};
use crate::telemetry::From;

/// What an app is to be once its release command has run.
pub(in crate::daemon) struct Preparation {
    app: AppName,
    now: StatedApp,
    runs: Runs,
    managed: ManagedApp,
    maker: Maker,
}

impl Preparation {
    /// Of an app that would run something else than it does now, and whose release command goes before that.
    pub(in crate::daemon) fn of(
        running: &Running,
        config: &Config,
        wanted: &Stated,
        app: &AppName,
        maker: &Maker,
    ) -> Option<Self> {
        let runs = runs_of(config, wanted, app)?;
        let before = runs_of(&running.config.load(), &running.stated.load(), app);
        let managed =
            managed(config, app).filter(|it| it.commands.contains_key(&release_type()))?;
        let now = wanted.apps.get(app)?.clone();
        let (managed, maker) = (managed.clone(), maker.clone());
        (before.as_ref() != Some(&runs)).then(|| Self {
            app: app.clone(),
            now,
            runs,
            managed,
            maker,
        })
    }
}

/// The process type whose command that is.
fn release_type() -> ProcessType {
    ProcessType::parse("release").expect("release is a well-formed name")
}

/// Begins the release, and has its command run.
pub(in crate::daemon) async fn prepare(
    running: &Arc<Running>,
    prepared: Preparation,
    request: Option<String>,
) -> Result<(), Problem> {
    let Preparation { app, now, runs, maker, .. } = &prepared;
    let (runs, maker) = (runs.clone(), maker.clone());
    let version = running.store.begin_release(app, now, runs, maker, request).await;
    let version = version.map_err(unremembered)?;
    // The app may have been unknown before.
    running.stated.store(Arc::new(running.store.stated().await.map_err(unremembered)?));
    running.deploys.begin_command(app.clone(), version);
    let here = running.clone();
    running.shutdown.spawn(async move {
        tokio::select! {
            () = go_on(&here, prepared, version) => {}
            // It counts as failed for the next daemon, which has not changed anything for it.
            () = here.shutdown.begun() => {}
        }
    });
    Ok(())
}

async fn go_on(running: &Arc<Running>, prepared: Preparation, version: u64) {
    let Preparation { app, now, mut managed, maker, .. } = prepared;
    managed.release = Some(version);
    let id = now.id;
    let failed = match run(running, &app, managed).await {
        Some(failure) => Some(failure),
        None => {
            let caller = Caller { user: maker.user.clone(), request: None };
            let of = app.clone();
            let change =
                move |config: &Config, stated: &Stated| adopt(config, stated, of, now, maker);
            let stepped = running.step(caller, Step::Prepared { version }, change).await;
            stepped.err().map(|problem| ReleaseFailure {
                dyno: "release".into(),
                reason: format!("ended well, but what it was for cannot be: {}", problem.message),
                last_lines: Vec::new(),
            })
        }
    };
    if let Some(failure) = failed {
        tracing::info!("{app}: release v{version} failed: {} {}", failure.dyno, failure.reason);
        // Another app of the name may have a release of the number.
        if running.stated.load().apps.get(&app).is_some_and(|it| it.id == id) {
            end(running, &app, version, ReleaseStatus::Failed, Some(failure)).await;
        }
    }
    running.deploys.command_ended(&app);
}

/// What of the app a release is made of; all else may have changed meanwhile.
fn adopt(
    config: &Config,
    stated: &Stated,
    app: AppName,
    wanted: StatedApp,
    maker: Maker,
) -> Result<Changed, Problem> {
    if !config.apps.contains_key(&app) {
        return Err(Problem::no_app(app.as_str()));
    }
    let now = stated.apps.get(&app).filter(|it| it.id == wanted.id).cloned();
    let mut now = now.ok_or_else(|| Problem::conflict(format!("{app} is another app now.")))?;
    adopt_release(&mut now, wanted, stated);
    Ok(Changed { app, now: Some(now), description: maker.description })
}

/// Runs the command to its end. `None`: it ended well.
async fn run(running: &Running, app: &AppName, managed: ManagedApp) -> Option<ReleaseFailure> {
    let order = RunOrder {
        app: app.clone(),
        process_type: release_type(),
        command: "release".into(),
        env: BTreeMap::new(),
        size: None,
        streams: Streams::Log,
    };
    let failure = |dyno: String, reason: String, last_lines| {
        Some(ReleaseFailure { dyno, reason, last_lines })
    };
    let Begun { dyno, ended, .. } = match running.supervisor.run_ahead(order, managed).await {
        Ok(begun) => begun,
        Err(error) => {
            return failure("release".into(), format!("could not be started: {error}"), Vec::new());
        }
    };
    let dyno = dyno.to_string();
    running.deploys.command_runs(app, &dyno);
    let reason = match timeout(limits::RELEASE_COMMAND, ended).await {
        Ok(Ok(Exit::Status(0))) => return None,
        Ok(Ok(Exit::Status(status))) => format!("exited with status {status}"),
        Ok(Ok(Exit::Signal(signal))) => format!("was killed by signal {signal}"),
        Ok(Err(_)) => "could not be started".into(),
        Err(_) => {
            running.supervisor.stop_dyno(app, &dyno).await;
            format!("was not through within {} minutes", limits::RELEASE_COMMAND.as_secs() / 60)
        }
    };
    let last_lines = last_lines(running, app, &dyno).await;
    failure(dyno, reason, last_lines)
}

/// The last that a dyno printed.
async fn last_lines(running: &Running, app: &AppName, dyno: &str) -> Vec<String> {
    running.book.settled().await;
    let lines = running.book.follow(app, From::Begin).take(usize::MAX, usize::MAX).lines;
    let of_dyno = lines.iter().filter(|line| line.origin() == ("app", dyno));
    let text = |line| String::from_utf8_lossy(crate::telemetry::Line::parts(line).1).into_owned();
    let of_dyno: Vec<String> = of_dyno.map(text).collect();
    of_dyno[of_dyno.len().saturating_sub(limits::FAILURE_LINES)..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::model::{Id, StatedAddon, StatedAttachment};

    fn maker() -> Maker {
        Maker { description: "a test".into(), user: "me".into(), at: 7 }
    }

    fn addon(id: u8) -> StatedAddon {
        let (name, url) = (format!("redis-{id}"), format!("redis://{id}"));
        StatedAddon { id: Id::of_random([id; 16]), name, plan: "redis".into(), url, created_at: 7 }
    }

    fn attached(addon: &StatedAddon) -> StatedAttachment {
        let name = addon.name.to_ascii_uppercase().replace('-', "_");
        StatedAttachment { id: addon.id, name, addon: addon.id, created_at: 7 }
    }

    #[test]
    fn a_release_is_adopted_by_the_app_that_it_was_begun_for() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("dynomesh.toml");
        std::fs::write(&file, "[apps.shop]\n").unwrap();
        let config = config::load(&file).unwrap();
        let [shop, blog] = ["shop", "blog"].map(|it| AppName::parse(it).unwrap());

        let before = StatedApp::new(Id::of_random([1; 16]), 7, true);
        let [own, others, gone] = [5, 6, 7].map(addon);
        let mut wanted = before.clone();
        wanted.slug = Some("abc".into());
        wanted.config_vars.insert("A".into(), "1".into());
        wanted.addons = vec![own.clone()];
        wanted.attachments = [&own, &others, &gone].map(attached).into();
        let mut now = before.clone();
        now.maintenance = Some(true);
        let mut blogs = StatedApp::new(Id::of_random([2; 16]), 7, true);
        blogs.addons = vec![others.clone()];
        let apps = BTreeMap::from([(shop.clone(), now), (blog, blogs)]);
        let stated = Stated { apps };

        let adopted = adopt(&config, &stated, shop.clone(), wanted.clone(), maker());
        let mut expected = wanted.clone();
        expected.maintenance = Some(true);
        expected.attachments = [&own, &others].map(attached).into();
        assert_eq!(adopted.unwrap().now, Some(expected));

        wanted.id = Id::of_random([3; 16]);
        let refused = adopt(&config, &stated, shop, wanted, maker());
        assert_eq!(refused.unwrap_err().id, "conflict");
    }
}
