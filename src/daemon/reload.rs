//! One configuration swapped for another in one step, or refused as a whole.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use metrics::counter;
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use crate::certs::{self, Loaded};
use crate::config::{self, Config, ConfigError, Summary, limits};
use crate::control::{Phase, ReloadOutcome, ReloadRequest, Running};
use crate::daemon::access_log;
use crate::daemon::notify::Notifier;
use crate::daemon::url::Url;
use crate::router::Prepared;
use crate::shutdown::Shutdown;
use crate::telemetry::{Lines, Target};

const RELOADS: &str = "dynomesh_reloads_total";

/// Reloads the file when asked, one reload at a time.
pub(in crate::daemon) struct Reloader {
    path: PathBuf,
    running: Arc<Running>,
    access_log: Lines,
    notifier: Notifier,
}

/// Reads a configuration and the certificates that it names.
pub(in crate::daemon) fn load(path: &Path) -> Result<(Arc<Config>, Loaded), ConfigError> {
    let mut config = config::load(path)?;
    let mut certs = certs::load(&config)?;
    config.notes.warnings.append(&mut certs.warnings);
    Ok((Arc::new(config), certs))
}

/// A configuration against which nothing stands, and what it needs, opened.
struct Checked {
    config: Arc<Config>,
    certs: Loaded,
    listeners: Prepared,
    access_log: Target,
}

impl Reloader {
    /// For the file at `path`.
    pub(in crate::daemon) fn new(
        path: PathBuf,
        running: Arc<Running>,
        access_log: Lines,
        notifier: Notifier,
    ) -> Self {
        metrics::describe_counter!(RELOADS, "Reloads of the configuration, by what came of them.");
        for result in ["ok", "refused"] {
            counter!(RELOADS, "result" => result).absolute(0);
        }
        Self { path, running, access_log, notifier }
    }

    /// Runs until the shutdown begins. Whoever asks while a reload is under way gets another one after it:
    /// the file may have changed since it was read.
    pub(in crate::daemon) async fn run(
        self,
        mut hangups: Signal,
        mut requests: mpsc::Receiver<ReloadRequest>,
        shutdown: Shutdown,
    ) {
        let mut looks = interval(limits::CERTIFICATES_LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut waiting = Vec::new();
            tokio::select! {
                _ = looks.tick() => {
                    self.refresh_certificates().await;
                    continue;
                }
                _ = hangups.recv() => {}
                Some(request) = requests.recv() => waiting.push(request),
                () = shutdown.begun() => return,
            }
            while let Ok(request) = requests.try_recv() {
                waiting.push(request);
            }
            let outcome = tokio::select! {
                outcome = self.reload() => outcome,
                // Of a reload that is broken off nothing is done yet: its last step does not await.
                () = shutdown.forced() => return,
            };
            for request in waiting {
                // Who asked may have left.
                let _ = request.send(outcome.clone());
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

    async fn reload(&self) -> ReloadOutcome {
        self.notifier.reloading();
        let outcome = match self.check().await {
            Ok(checked) => self.apply(checked),
            Err(reasons) => ReloadOutcome::Refused { reasons },
        };
        self.notifier.ready();
        say(&outcome);
        outcome
    }

    /// Loads the file and everything that could fail about it; nothing has changed afterwards.
    async fn check(&self) -> Result<Checked, Vec<String>> {
        let path = self.path.clone();
        // It reads the disk, and a large file takes a while: the control runtime has dynos to watch.
        let loaded = spawn_blocking(move || load(&path)).await;
        let loaded = loaded.map_err(|panic| vec![format!("{}: {panic}", self.path.display())])?;
        let (config, certs) = loaded
            .map_err(|error| error.problems.iter().map(ToString::to_string).collect::<Vec<_>>())?;
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
        Ok(Checked { config, certs, listeners, access_log })
    }

    /// Puts a checked configuration in force. Nothing here awaits, so nobody sees it half done.
    fn apply(&self, checked: Checked) -> ReloadOutcome {
        let Checked { config, certs, listeners, access_log } = checked;
        let running = &self.running;
        let before = running.config.swap(config.clone());
        // Before the routes: a new name has its certificate when it leads somewhere.
        running.router.certs().swap(certs);
        running.acme.apply(&config);
        running.supervisor.apply(&config);
        if before.logs.files != config.logs.files {
            running.book.write_to(config.logs.files.clone());
        }
        running.book.keep_only(|app| config.apps.keys().any(|it| it.as_str() == app));
        running.drains.trust(config.logs.ca_file.clone());
        running.drains.apply(&config.drains());
        let listening = running.router.listening();
        running.router.apply(listeners);
        let lines = self.access_log.clone();
        // It waits while the writer is stuck, and a stuck writer may be why there is a new target.
        drop(spawn_blocking(move || lines.retarget(access_log)));
        for endpoint in running.router.listening().iter().filter(|it| !listening.contains(it)) {
            tracing::info!("listening on {}", Url::of(endpoint));
        }
        for warning in &config.notes.warnings {
            tracing::warn!("{warning}");
        }
        let diff = config::diff(&Summary::of(&before), &Summary::of(&config));
        let changes = diff.changes.iter().map(ToString::to_string).collect();
        ReloadOutcome::Ok { table_version: running.publisher.table().version(), changes }
    }
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
