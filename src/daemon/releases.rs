//! The numbers of releases: what each app runs is compared with what it ran last, and a release made where it differs.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{AppConfig, AppSource, Config, ManagedApp};
use crate::control::{Problem, Running, Step};
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
    let told = Told::by_nobody("Start of dynomesh".into());
    write(store, config, stated, None, told).await.map(|(stated, _)| stated)
}

/// The same for a configuration that was read again; returns the releases that are on their way then.
pub(in crate::daemon) async fn number(
    running: &Running,
    config: &mut Config,
    description: String,
) -> Result<Begun, AskError> {
    let stated = running.stated.load_full();
    let told = Told::by_nobody(description);
    let (stated, begun) = write(&running.store, config, &stated, None, told).await?;
    running.stated.store(Arc::new(stated));
    Ok(begun)
}

/// The same for what a command changed, which is remembered with it: from now on commands say what is `wanted`.
pub(in crate::daemon) async fn commit(
    running: &Running,
    config: &mut Config,
    wanted: &Stated,
    changed: AppName,
    told: Told,
) -> Result<Begun, AskError> {
    let now = wanted.apps.get(&changed).cloned();
    let changed = Some((changed, now));
    let (stated, begun) = write(&running.store, config, wanted, changed, told).await?;
    running.stated.store(Arc::new(stated));
    Ok(begun)
}

/// The releases of a configuration that are not those of the one before.
pub(in crate::daemon) fn moved(before: &Config, now: &Config) -> Begun {
    let release = |config: &Config, app: &AppName| managed(config, app)?.release;
    let moved = |app: &AppName| {
        let version = release(now, app)?;
        (release(before, app) != Some(version)).then(|| (app.clone(), version))
    };
    now.apps.keys().filter_map(moved).collect()
}

/// Releases that are on their way, by their apps and versions.
pub(in crate::daemon) type Begun = Vec<(AppName, u64)>;

/// What is remembered of a change beside itself.
pub(in crate::daemon) struct Told {
    pub(in crate::daemon) maker: Maker,
    /// By which the request is known that wants it.
    pub(in crate::daemon) request: Option<String>,
    /// Where it stands in the life of a release.
    pub(in crate::daemon) step: Step,
}

impl Told {
    fn by_nobody(description: String) -> Self {
        Self { maker: maker(description, DAEMON), request: None, step: Step::New }
    }
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
    told: Told,
) -> Result<(Stated, Begun), AskError> {
    let Told { maker, request, step } = told;
    let (begun, back) = match step {
        Step::New => (None, None),
        Step::Prepared { version } => (Some(version), None),
        Step::Back(back) => (None, Some(back)),
    };
    let commit = Commit { changed, runs: runs(config, stated), maker, begun, back, request };
    let Committed { stated, versions, begun } = store.commit(commit).await?;
    let begun = begun.into_iter().filter_map(|name| Some((name.clone(), *versions.get(&name)?)));
    let begun = begun.collect();
    for (name, version) in versions {
        if let Some(AppConfig { source: AppSource::Managed(app), .. }) = config.apps.get_mut(&name)
        {
            app.release = Some(version);
        }
    }
    Ok((stated, begun))
}

/// What each app runs whose dynos dynomesh runs, or will run once something is deployed.
fn runs(config: &Config, stated: &Stated) -> BTreeMap<AppName, Runs> {
    let of_app = |name: &AppName| Some((name.clone(), runs_of(config, stated, name)?));
    config.apps.keys().filter_map(of_app).collect()
}

/// What an app runs, if it is one whose dynos dynomesh runs, or will run once something is deployed.
pub(in crate::daemon) fn runs_of(config: &Config, stated: &Stated, name: &AppName) -> Option<Runs> {
    let (app, known) = (config.apps.get(name)?, stated.apps.get(name));
    match &app.source {
        AppSource::Managed(managed) => {
            let slug = known.and_then(|it| it.slug.clone());
            let slug = slug.filter(|_| app.said.line("dir").is_none());
            let dir = slug.is_none().then(|| managed.dir.display().to_string());
            let (commands, config_vars) = (managed.commands.clone(), managed.config_vars.clone());
            Some(Runs { slug, dir, commands, config_vars })
        }
        AppSource::Blank => {
            let mut config_vars = known.filter(|it| it.made)?.config_vars.clone();
            config_vars.append(&mut stated.attached(name));
            Some(Runs { config_vars, ..Runs::default() })
        }
        AppSource::External(_) => None,
    }
}

/// Whether what commands say of an app is another release: the rest of it only says how that is run.
pub(in crate::daemon) fn is_release(before: Option<&StatedApp>, now: Option<&StatedApp>) -> bool {
    fn released(app: &StatedApp) -> impl PartialEq + use<'_> {
        (&app.slug, &app.config_vars, &app.addons, &app.attachments)
    }
    before.map(released) != now.map(released)
}

/// Has an app be what it is to be `wanted` for a release; the rest of it stays as it is. What is attached of others' add-ons
/// is attached no more where those are gone.
pub(in crate::daemon) fn adopt_release(now: &mut StatedApp, wanted: StatedApp, stated: &Stated) {
    let StatedApp { slug, config_vars, addons, mut attachments, .. } = wanted;
    let own = |id| addons.iter().any(|it| it.id == id);
    attachments
        .retain(|it| own(it.addon) || stated.addons().any(|(_, addon)| addon.id == it.addon));
    (now.slug, now.config_vars) = (slug, config_vars);
    (now.addons, now.attachments) = (addons, attachments);
}

/// An app whose dynos dynomesh runs.
pub(in crate::daemon) fn managed<'a>(config: &'a Config, app: &AppName) -> Option<&'a ManagedApp> {
    match config.apps.get(app) {
        Some(AppConfig { source: AppSource::Managed(managed), .. }) => Some(managed),
        _ => None,
    }
}
