//! The daemon's life: built in order, run until told to stop, stopped in reverse.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io, thread};

use arc_swap::ArcSwap;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::runtime;
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::certs::{Acme, Certs, CertsError, Loaded};
use crate::config::{Config, ConfigError, Source};
use crate::control::{
    self, ApiTls, Builds, ControlError, Deploys, Doors, LogSessions, Notes, Phase, Rendezvous,
    Repeats, Running,
};
use crate::daemon::access_log::AccessLogError;
use crate::daemon::books::{eco_hours, keep_books};
use crate::daemon::jobs::keep_jobs;
use crate::daemon::notify::Notifier;
use crate::daemon::reload::{Reloader, Wanted, load};
use crate::daemon::signals::{self, Ends};
use crate::daemon::url::Url;
use crate::daemon::watch::watch;
use crate::daemon::{access_log, descriptors, inherited, keys, releases, rollouts};
use crate::drains::Drains;
use crate::init;
use crate::model::{EcoHours, Stated};
use crate::router::{self, BindError, Router};
use crate::shutdown::Shutdown;
use crate::slugs::Shelf;
use crate::store::{AskError, OpenError, Store};
use crate::supervisor::{PrepareError, SWIFT_METRICS, Supervisor};
use crate::telemetry::{self, AppLog, Lines, LogBook, Target};

/// Commands that may wait for a reload at one time, and as many for a change.
const REQUESTS_WAITING: usize = 16;
/// Turns of tasks before the control runtime looks for timers and for what has become readable. A start of a dyno
/// takes a turn of milliseconds: by tokio's own number, 61, sixty of them would come before a signal or a probe.
const TURNS_PER_LOOK: u32 = 1;
/// How long the answers of the control plane may take to finish at the end.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// How long the last lines may take to be written.
const LAST_LINES: Duration = Duration::from_secs(2);
/// Seconds, for the histograms of the metrics crate. The slow thing that is measured there is a dyno's boot:
/// from what a shell script needs to R10.
const BUCKETS: [f64; 9] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// The same of what is over in less than a boot.
const SWIFT_BUCKETS: [f64; 12] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];

/// Why `serve` could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address of the router.
    #[error("{0} ([router] http, https)")]
    Bind(#[from] BindError),
    /// The local CA, or the keys of TLS sessions.
    #[error(transparent)]
    Certs(#[from] CertsError),
    /// The admin listener or the control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The access log.
    #[error(transparent)]
    AccessLog(#[from] AccessLogError),
    /// The dynos of an earlier daemon, or what keeps dynos apart.
    #[error(transparent)]
    Dynos(#[from] PrepareError),
    /// What is remembered.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// What commands said.
    #[error("read what commands said: {0}")]
    Stated(#[from] AskError),
    /// The socket of the service manager.
    #[error("use $NOTIFY_SOCKET: {0}")]
    Notify(io::Error),
    /// Threads, signals, the runtime.
    #[error("start: {0}")]
    System(#[from] io::Error),
}

/// Runs the daemon until it is told to stop. Blocks the thread, which becomes the control runtime: the
/// supervisor, the control plane and signals live on it, requests never do.
///
/// Call it once in a process, before anything else was opened or started.
pub fn serve(path: &Path) -> Result<(), ServeError> {
    // Before anything is started, which must inherit none of them.
    let inherited = inherited::take();
    init::close_on_exec()?;
    let source = Source::read(path)?;
    let stated = Store::peek(&source.state_dir()?)?;
    let (config, loaded) = load(&source, &stated)?;
    let book = LogBook::start()?;
    book.write_to(config.logs.files.clone());
    let log = AppLog::new(Lines::start(Target::Stdout)?.entered_into(&book));
    telemetry::install(log.clone());
    let access_log =
        Lines::start(access_log::open(&config.router.access_log)?)?.entered_into(&book);
    for warning in &config.notes.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(TURNS_PER_LOOK)
        .build()?;
    let (to_log, to_access_log, to_book) = (log.clone(), access_log.clone(), book.clone());
    let start = Start {
        path,
        source,
        inherited,
        stated,
        config,
        loaded,
        log: to_log,
        access_log: to_access_log,
        book: to_book,
    };
    let ended = runtime.block_on(live(start));
    // Nothing is left to run but a log writer that is stuck.
    runtime.shutdown_background();
    flush(log, access_log, book);
    ended
}

/// What is there before the runtime is.
struct Start<'a> {
    path: &'a Path,
    source: Source,
    inherited: Vec<OwnedFd>,
    stated: Stated,
    config: Config,
    loaded: Loaded,
    log: AppLog,
    access_log: Lines,
    book: LogBook,
}

async fn live(start: Start<'_>) -> Result<(), ServeError> {
    let mut ends = Ends::new()?;
    let hangups = signals::hangups()?;
    let notifier = Notifier::new(std::env::var_os("NOTIFY_SOCKET")).map_err(ServeError::Notify)?;
    let (dynos, control) = (Shutdown::default(), Shutdown::default());
    let running = build(start, &dynos, &control, hangups, &notifier).await?;
    notifier.ready();

    let signal = ends.next().await;
    tracing::info!("{signal}: stopping");
    notifier.stopping();
    let impatience = async {
        let signal = ends.next().await;
        tracing::warn!("{signal} again: stopping now");
        dynos.now();
        // The stop itself goes on, without waiting for anybody.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = impatience => {}
        () = stop(running, &dynos, &control) => {}
    }
    Ok(())
}

/// Builds all, bottom to top. What was started is stopped again if a later part cannot be.
async fn build(
    start: Start<'_>,
    dynos: &Shutdown,
    control: &Shutdown,
    hangups: Signal,
    notifier: &Notifier,
) -> Result<Arc<Running>, ServeError> {
    let Start { path, source, inherited, stated, mut config, loaded, log, access_log, book } =
        start;
    let app_log = log.clone();
    let connections_max = descriptors::raise();
    tracing::info!(
        "dynomesh {}: {}, apps: {}, workers: {}, connections at most: {connections_max}",
        env!("CARGO_PKG_VERSION"),
        config.file.display(),
        config.apps.len(),
        config.router.workers,
    );
    // The control socket comes first: where another dynomesh runs, no dyno is started.
    let doors = Doors::bind(&config.admin)?;
    let store = Store::open(&config.state_dir)?;
    let stated = releases::number_first(&store, &mut config, &stated).await?;
    let (pending, state_dir) = (store.take_up_releases().await?, config.state_dir.clone());
    let config = Arc::new(config);
    let certs = Certs::open(&config.state_dir, loaded)?;
    let api_tls = ApiTls::new(&certs, &config.admin)?;
    // Before the router, so that its first handshake has what is kept; what is missing is ordered as soon as
    // this task waits, when the router accepts.
    let acme = Acme::start(certs.clone(), &config, control).await;
    let recorded = install_recorder();
    let (supervisor, publisher) = Supervisor::prepare(&config, log, dynos.clone()).await?;
    let options = router::Options {
        workers: config.router.workers,
        connections_max,
        publisher: publisher.clone(),
        access_log: access_log.clone(),
        certs,
        affinity_key: keys::load_or_make(&config.state_dir, &keys::AFFINITY),
    };
    let router = Router::start(options)?;
    // Dynos come after all that can fail: those that an earlier daemon has left must not suffer from it.
    let prepared = match router.prepare(&config.router.endpoints, inherited) {
        Ok(prepared) => prepared,
        Err(error) => {
            router.stop();
            return Err(error.into());
        }
    };
    // Before the first line of an app: a drain begins with what comes.
    let drains = Drains::new(&book);
    drains.trust(config.logs.ca_file.clone());
    drains.apply(&config.drains());
    let log_sessions =
        LogSessions::new(&keys::load_or_make(&config.state_dir, &keys::LOG_SESSIONS));
    let eco_used_up = eco_hours(&store).await.is_some_and(|(_, hours)| hours == EcoHours::UsedUp);
    let supervisor = supervisor.begin(booked_until(&store).await, eco_used_up).await;
    router.apply(prepared);
    for endpoint in router.listening() {
        tracing::info!("listening on {}", Url::of(&endpoint));
    }
    if let Some(addr) = doors.admin_addr() {
        tracing::info!("metrics and health on {}", Url::plain(&addr));
    }
    if let Some(addr) = doors.api_addr() {
        tracing::info!("Heroku's Platform API on http://{addr}");
    }
    let (reloads, wanted_reloads) = mpsc::channel(REQUESTS_WAITING);
    let (changes, wanted_changes) = mpsc::channel(REQUESTS_WAITING);
    let running = Arc::new(Running {
        router,
        supervisor,
        store,
        publisher,
        acme,
        recorded,
        book,
        log_sessions,
        drains,
        shelf: Shelf::new(&state_dir),
        deploys: Deploys::default(),
        builds: Builds::default(),
        rendezvous: Rendezvous::default(),
        repeats: Repeats::default(),
        config: ArcSwap::new(config),
        stated: ArcSwap::from_pointee(stated),
        reloads,
        changes,
        shutdown: control.clone(),
        notes: Notes::default(),
    });
    running.enter(Phase::Serving);
    doors.serve(&running, api_tls, control);
    control.spawn(watch(running.clone(), control.clone()));
    control.spawn(keep_books(running.clone(), control.clone()));
    control.spawn(keep_jobs(running.clone(), app_log));
    rollouts::take_up(&running, pending);
    let path = path.to_owned();
    let reloader = Reloader::new(path, source, running.clone(), access_log, notifier.clone());
    let wanted = Wanted { hangups, reloads: wanted_reloads, changes: wanted_changes };
    control.spawn(reloader.run(wanted, control.clone()));
    Ok(running)
}

/// The Unix millisecond up to which what dynos used is booked.
async fn booked_until(store: &Store) -> u64 {
    store.booked_until().await.unwrap_or_else(|error| {
        tracing::error!("what adopted dynos have used until now is not booked: {error}");
        u64::MAX
    })
}

fn install_recorder() -> PrometheusHandle {
    let builder = PrometheusBuilder::new().set_buckets(&BUCKETS);
    let swift = |builder: PrometheusBuilder, name: &str| {
        builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), &SWIFT_BUCKETS)
    };
    let builder = SWIFT_METRICS
        .into_iter()
        .fold(builder, |builder, name| builder.and_then(|it| swift(it, name)));
    let recorder = builder.expect("no list of buckets is empty").build_recorder();
    let handle = recorder.handle();
    // It fails where there is a recorder, that is where a test has served before in the same process.
    let _ = metrics::set_global_recorder(recorder);
    handle
}

/// Stops all, top to bottom: the dynos live until no request can reach them any more.
async fn stop(running: Arc<Running>, dynos: &Shutdown, control: &Shutdown) {
    running.enter(Phase::Stopping);
    let bound = running.config.load().router.stop;
    running.router.drain(bound);
    tokio::select! {
        () = running.router.drained() => tracing::info!("router: every connection is closed"),
        () = sleep(bound) => tracing::warn!("router: after {bound:?}, {}", Left(&running)),
        () = dynos.forced() => tracing::warn!("router: at once, {}", Left(&running)),
    }

    // Until here /metrics and /readyz told how the stop goes; what they read ends now.
    control.begin();
    if timeout(LAST_ANSWERS, control.finished()).await.is_err() {
        control.now();
        control.finished().await;
    }
    let running = Arc::into_inner(running).expect("every task of the control plane has ended");
    let Running { router, supervisor, store, drains, .. } = running;
    // It joins threads; meanwhile dynos that end are still seen to.
    let stopped = tokio::task::spawn_blocking(move || router.stop()).await;
    match stopped {
        Ok(()) => tracing::info!("router: stopped"),
        Err(panic) => tracing::error!("router: {panic}"),
    }

    let left = supervisor.status().iter().filter(|dyno| dyno.pid.is_some()).count();
    tracing::info!("dynos: {left} to stop");
    dynos.begin();
    supervisor.stop().await;
    control::book(&supervisor, &store).await;
    let left = supervisor.status().iter().filter(|dyno| dyno.pid.is_some()).count();
    tracing::info!("dynos: stopped, {left} left");
    // They have said their last.
    drains.finish().await;
}

/// What the end of the router cuts.
struct Left<'a>(&'a Running);

impl fmt::Display for Left<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (connections, requests) = (self.0.router.connections(), self.0.in_flight());
        write!(f, "cutting {connections} connections with {requests} requests in flight")
    }
}

/// Waits until what was logged is written, but not for a disk or a reader that is stuck.
fn flush(log: AppLog, access_log: Lines, book: LogBook) {
    let (done, flushed) = std::sync::mpsc::sync_channel(1);
    let flush = move || {
        access_log.flush();
        log.flush();
        book.flush();
        // The receiver may have given up.
        let _ = done.send(());
    };
    if thread::Builder::new().name("flush".into()).spawn(flush).is_ok() {
        let _ = flushed.recv_timeout(LAST_LINES);
    }
}
