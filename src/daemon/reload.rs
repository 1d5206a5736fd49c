//! One configuration swapped for another in one step, or refused as a whole.

use std::path::PathBuf;
use std::sync::Arc;

use metrics::counter;
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::certs::{self, Loaded};
use crate::config::{self, Config, ConfigError, Source, Summary, limits};
use crate::control::{
    Caller, Change, ChangeRequest, Changed, Phase, Problem, ReloadOutcome, ReloadRequest, Running,
    Step,
};
use crate::daemon::notify::Notifier;
use crate::daemon::prepare::{Preparation, prepare};
use crate::daemon::releases::{Begun, Told};
use crate::daemon::silence::Silence;
use crate::daemon::url::Url;
use crate::daemon::{access_log, releases, rollouts};
use crate::model::Stated;
use crate::router::Prepared;
use crate::shutdown::Shutdown;
use crate::store::AskError;
use crate::telemetry::{Lines, Target};

const RELOADS: &str = "dynomesh_reloads_total";

/// Puts other configurations in force, one at a time: when the file is to be read again, and when a command changes
/// what commands said.
pub(in crate::daemon) struct Reloader {
    path: PathBuf,
    /// The text that is in force.
    source: Source,
    running: Arc<Running>,
    access_log: Lines,
    notifier: Notifier,
    silence: Silence,
}

/// Where a reloader hears what it is to do.
pub(in crate::daemon) struct Wanted {
    pub(in crate::daemon) hangups: Signal,
    pub(in crate::daemon) reloads: mpsc::Receiver<ReloadRequest>,
    pub(in crate::daemon) changes: mpsc::Receiver<ChangeRequest>,
}

/// Reads a configuration, together with what commands said, and the certificates that it names.
pub(in crate::daemon) fn load(
    source: &Source,
    stated: &Stated,
) -> Result<(Config, Loaded), ConfigError> {
    let mut config = source.resolve(stated)?;
    let mut certs = certs::load(&config)?;
    config.notes.warnings.append(&mut certs.warnings);
    Ok((config, certs))
}

/// A configuration against which nothing stands, and what it needs, opened.
struct Checked {
    source: Source,
    config: Config,
    certs: Loaded,
    listeners: Prepared,
    access_log: Target,
}

impl Reloader {
    /// For the file at `path`.
    pub(in crate::daemon) fn new(
        path: PathBuf,
        source: Source,
        running: Arc<Running>,
        access_log: Lines,
        notifier: Notifier,
    ) -> Self {
        metrics::describe_counter!(RELOADS, "Reloads of the configuration, by what came of them.");
        for result in ["ok", "refused"] {
            counter!(RELOADS, "result" => result).absolute(0);
        }
        Self { path, source, running, access_log, notifier, silence: Silence::default() }
    }

    /// Runs until the shutdown begins. Whoever asks while a reload is under way gets another one after it, all of them
    /// one: the file may have changed since it was read.
    pub(in crate::daemon) async fn run(mut self, mut wanted: Wanted, shutdown: Shutdown) {
        let mut looks = interval(limits::CERTIFICATES_LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut waiting = Vec::new();
            tokio::select! {
                _ = looks.tick() => {
                    self.refresh_certificates().await;
                    continue;
                }
                _ = wanted.hangups.recv() => {}
                Some(asker) = wanted.reloads.recv() => waiting.push(asker),
                Some(request) = wanted.changes.recv() => {
                    self.change(request).await;
                    continue;
                }
                stated = self.silence.end() => {
                    self.catch_up(stated).await;
                    continue;
                }
                () = shutdown.begun() => return,
            }
            while let Ok(asker) = wanted.reloads.try_recv() {
                waiting.push(asker);
            }
            let outcome = tokio::select! {
                outcome = self.reload() => outcome,
                // Of a reload that is broken off nothing is in force yet: what puts it there does not await. All that can
                // be there is the numbers of its releases, which the next start finds as it would have made them.
                () = shutdown.forced() => return,
            };
            for asker in waiting {
                // Who asked may have left.
                let _ = asker.send(outcome.clone());
            }
        }
    }

    /// Serves certificates whose files have changed. Here, because a reload that overtook it would be undone.
    async fn refresh_certificates(&self) {
        let config = self.running.config.load_full();
        if config.certs.is_empty() {
            return;
        }
        let (certs, read) = (self.running.router.certs().clone(), config.clone());
        match spawn_blocking(move || certs.refresh(&read)).await {
            Ok(None) => {}
            Ok(Some(Ok(warnings))) => {
                // A name that has a certificate now needs no automatic one.
                self.running.acme.apply(&config);
                tracing::info!("certificates: read again, for their files have changed");
                warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            }
            Ok(Some(Err(error))) => {
                error.problems.iter().for_each(|problem| tracing::error!("{problem}"));
                tracing::error!("certificates: those read before stay in force");
            }
            Err(panic) => tracing::error!("certificates: {panic}"),
        }
    }

    async fn reload(&mut self) -> ReloadOutcome {
        self.notifier.reloading();
        // A disk that is stuck must not stop reloads.
        let _ = self.hear().await;
        let outcome = match self.check().await {
            Ok(mut checked) => {
                let begun = self.number(&mut checked.config, checked.source.file_name()).await;
                let outcome = self.apply(checked);
                rollouts::see_all_through(&self.running, begun);
                outcome
            }
            Err(reasons) => ReloadOutcome::Refused { reasons },
        };
        self.notifier.ready();
        say(&outcome);
        outcome
    }

    /// Gives each app the number of its release. Where that cannot be remembered it is said, and the numbers go on from those
    /// in force.
    async fn number(&mut self, config: &mut Config, file: String) -> Begun {
        match releases::number(&self.running, config, format!("Reload of {file}")).await {
            Ok(begun) => begun,
            Err(error) => {
                tracing::error!("releases are not remembered: {error}");
                self.note(&error);
                Begun::new()
            }
        }
    }

    /// Where the store was silent, what it was told may be remembered all the same.
    fn note(&mut self, error: &AskError) {
        if matches!(error, AskError::Silent) {
            self.silence.begin(&self.running.store);
        }
    }

    /// Has in force what a silent store says, before anything else is changed.
    async fn hear(&mut self) -> Result<(), AskError> {
        if self.silence.lasts() {
            let stated = timeout(limits::STORE_WAIT, self.silence.end()).await;
            self.catch_up(stated.map_err(|_| AskError::Silent)?).await;
        }
        Ok(())
    }

    /// The store speaks again, after somebody was told that a change had failed: if it has come to be remembered, it is put in
    /// force, for a repeated request is told that it is.
    async fn catch_up(&mut self, stated: Stated) {
        let (source, said) = (self.source.clone(), stated.clone());
        self.running.stated.store(Arc::new(stated));
        let resolved = spawn_blocking(move || source.resolve(&said)).await;
        let mut config = match resolved.map_err(|panic| vec![panic.to_string()]) {
            Ok(Ok(config)) => config,
            Ok(Err(error)) => return complain(reasons(&error)),
            Err(panic) => return complain(panic),
        };
        let before = self.running.config.load_full();
        self.number(&mut config, self.source.file_name()).await;
        let begun = releases::moved(&before, &config);
        for change in self.put_in_force(config) {
            tracing::info!("remembered after all: {change}");
        }
        rollouts::see_all_through(&self.running, begun);
    }

    /// Loads the file and everything that could fail about it; nothing has changed afterwards.
    async fn check(&self) -> Result<Checked, Vec<String>> {
        let (path, stated) = (self.path.clone(), self.running.stated.load_full());
        let load = move || {
            let source = Source::read(&path)?;
            load(&source, &stated).map(|(config, certs)| (source, config, certs))
        };
        // It reads the disk, and a large file takes a while: the control runtime has dynos to watch.
        let loaded = spawn_blocking(load).await;
        let loaded = loaded.map_err(|panic| vec![format!("{}: {panic}", self.path.display())])?;
        let (source, config, certs) = loaded.map_err(|error| reasons(&error))?;
        let refusals = self.running.config.load().reload_refusals(&config);
        if !refusals.is_empty() {
            return Err(refusals.iter().map(ToString::to_string).collect());
        }
        if self.running.phase() == Phase::Stopping {
            return Err(vec!["dynomesh is stopping".into()]);
        }
        let listeners = self.running.router.prepare(&config.router.endpoints, Vec::new());
        let listeners =
            listeners.map_err(|error| vec![format!("{error} ([router] http, https)")])?;
        let access_log =
            access_log::open(&config.router.access_log).map_err(|error| vec![error.to_string()])?;
        Ok(Checked { source, config, certs, listeners, access_log })
    }

    /// Puts a checked configuration in force, whose releases have their numbers. Nobody sees it half done.
    fn apply(&mut self, checked: Checked) -> ReloadOutcome {
        let Checked { source, config, certs, listeners, access_log } = checked;
        self.source = source;
        // Before the routes: a new name has its certificate when it leads somewhere.
        self.running.router.certs().swap(certs);
        let listening = self.running.router.listening();
        let changes = self.put_in_force(config);
        let running = &self.running;
        running.router.apply(listeners);
        let lines = self.access_log.clone();
        // It waits while the writer is stuck, and a stuck writer may be why there is a new target.
        drop(spawn_blocking(move || lines.retarget(access_log)));
        for endpoint in running.router.listening().iter().filter(|it| !listening.contains(it)) {
            tracing::info!("listening on {}", Url::of(endpoint));
        }
        for warning in &running.config.load().notes.warnings {
            tracing::warn!("{warning}");
        }
        ReloadOutcome::Ok { table_version: running.publisher.table().version(), changes }
    }

    /// Has routes and dynos follow a configuration, and says what is different now.
    fn put_in_force(&self, config: Config) -> Vec<String> {
        let running = &self.running;
        let config = Arc::new(config);
        let before = running.config.swap(config.clone());
        running.router.certs().follow(&config);
        running.acme.apply(&config);
        running.supervisor.apply(&config);
        if before.logs.files != config.logs.files {
            running.book.write_to(config.logs.files.clone());
        }
        running.book.keep_only(|app| config.apps.keys().any(|it| it.as_str() == app));
        running.drains.trust(config.logs.ca_file.clone());
        running.drains.apply(&config.drains());
        let diff = config::diff(&Summary::of(&before), &Summary::of(&config));
        diff.changes.iter().map(ToString::to_string).collect()
    }

    /// Does what a command wants, or says why not.
    async fn change(&mut self, request: ChangeRequest) {
        let ChangeRequest { change, caller, step, done } = request;
        // Who asked may have left.
        let _ = done.send(self.follow(change, caller, step).await);
    }

    async fn follow(&mut self, change: Change, caller: Caller, step: Step) -> Result<(), Problem> {
        let Caller { user, request } = caller;
        self.hear().await.map_err(releases::unremembered)?;
        let running = &self.running;
        if running.phase() == Phase::Stopping {
            return Err(Problem::unavailable("dynomesh is stopping"));
        }
        if let Some(request) = &request
            && running.store.was_done(request).await.map_err(releases::unremembered)?
        {
            return Ok(());
        }
        let (config, stated) = (running.config.load_full(), running.stated.load_full());
        let Changed { app, now, description } = change(&config, &stated)?;
        let (before, is_prepared) = (stated.apps.get(&app), matches!(step, Step::Prepared { .. }));
        // What comes of a prepared release is noted also where nothing is left to change.
        if before == now.as_ref() && !is_prepared {
            return Ok(());
        }
        let is_new = matches!(step, Step::New) && releases::is_release(before, now.as_ref());
        if is_new && running.deploys.runs_command(&app) {
            return Err(Problem::conflict(format!(
                "The release command of {app} is running. Wait for its end, and try again."
            )));
        }
        let mut wanted = Stated::clone(&stated);
        match now {
            Some(now) => drop(wanted.apps.insert(app.clone(), now)),
            None => drop(wanted.apps.remove(&app)),
        }
        let wanted = Arc::new(wanted);
        let (source, said) = (self.source.clone(), wanted.clone());
        let resolved = spawn_blocking(move || source.resolve(&said)).await;
        let resolved = resolved.map_err(|panic| Problem::internal(panic.to_string()))?;
        let mut config = resolved.map_err(|error| Problem::invalid(reasons(&error).join("\n")))?;
        let maker = releases::maker(description, &user);
        if is_new && let Some(prepared) = Preparation::of(running, &config, &wanted, &app, &maker) {
            return prepare(running, prepared, request).await;
        }
        if is_prepared && releases::runs_of(&config, &wanted, &app).is_none() {
            return Err(Problem::invalid(format!("Dynomesh runs no dynos of {app} any more.")));
        }
        let told = Told { maker, request, step };
        let committed = releases::commit(running, &mut config, &wanted, app, told).await;
        let begun = committed.map_err(|error| {
            self.note(&error);
            releases::unremembered(error)
        })?;
        for change in self.put_in_force(config) {
            tracing::info!("{user}: {change}");
        }
        rollouts::see_all_through(&self.running, begun);
        Ok(())
    }
}

fn complain(reasons: Vec<String>) {
    for reason in reasons {
        tracing::error!("what commands said is remembered, and cannot be in force: {reason}");
    }
}

fn reasons(error: &ConfigError) -> Vec<String> {
    error.problems.iter().map(ToString::to_string).collect()
}

fn say(outcome: &ReloadOutcome) {
    match outcome {
        ReloadOutcome::Ok { changes, .. } => {
            counter!(RELOADS, "result" => "ok").increment(1);
            for change in changes {
                tracing::info!("reload: {change}");
            }
            tracing::info!("{outcome}");
        }
        ReloadOutcome::Refused { reasons } => {
            counter!(RELOADS, "result" => "refused").increment(1);
            for reason in reasons {
                tracing::error!("{reason}");
            }
            tracing::error!("{outcome}");
        }
    }
}
