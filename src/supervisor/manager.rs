//! The dyno manager: one loop that owns which dynos are wanted, and starts, restarts and stops their lives.

mod adopt; // what an earlier daemon has left

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::config::{AppConfig, AppSource, Config, ManagedApp};
use crate::model::{AppName, DynoName, ProcessType};
use crate::shutdown::Shutdown;
use crate::supervisor::dyno::Dyno;
use crate::supervisor::place::{Event, Orders, Place};
use crate::supervisor::plan::{Step, plan};
use crate::supervisor::ports::Ports;
use crate::supervisor::program::Program;
use crate::supervisor::routes::Routes;
use crate::supervisor::spawn::{Spawn, random};
use crate::supervisor::status::Board;
use crate::supervisor::survivors::Survivor;
use crate::telemetry::AppLog;

/// What the manager is asked to do.
pub(crate) enum Command {
    /// Bring the dynos to what this configuration wants.
    Apply(Arc<Config>),
    /// Stop every dyno, then end.
    Stop,
}

/// What the manager needs of the world.
pub(crate) struct Means<S> {
    pub(crate) spawn: S,
    pub(crate) ports: Ports,
    pub(crate) routes: Arc<Routes>,
    pub(crate) board: Board,
    pub(crate) log: AppLog,
    pub(crate) shutdown: Shutdown,
}

/// The loop's own state.
pub(crate) struct Manager<S> {
    means: Means<S>,
    apps: BTreeMap<AppName, Formed>,
    /// Dynos that were told to stop and have not ended, with the line to change their orders.
    leaving: BTreeMap<u64, watch::Sender<Orders>>,
    next_id: u64,
    /// How long dynos may drain when the daemon itself ends.
    stop: Duration,
    events: mpsc::UnboundedSender<(u64, Event)>,
}

/// An app whose dynos dynomesh runs.
struct Formed {
    release: u64,
    app: ManagedApp,
    config_vars: Arc<BTreeMap<String, String>>,
    drain: Duration,
    dynos: BTreeMap<DynoName, Living>,
}

/// A dyno that is wanted.
struct Living {
    id: u64,
    release: u64,
    orders: watch::Sender<Orders>,
}

impl<S: Spawn> Manager<S> {
    /// Runs until it was told to stop and every dyno has ended. A forced shutdown, or the end of whoever gives
    /// commands, is a stop. The survivors are adopted with the first configuration.
    pub(crate) async fn run(
        means: Means<S>,
        mut survivors: Vec<Survivor<S::Process>>,
        mut commands: mpsc::UnboundedReceiver<Command>,
    ) {
        let (events, mut heard) = mpsc::unbounded_channel();
        let shutdown = means.shutdown.clone();
        let mut manager = Self {
            means,
            apps: BTreeMap::new(),
            leaving: BTreeMap::new(),
            next_id: 1,
            stop: Duration::ZERO,
            events,
        };
        let mut stopping = false;
        while !stopping || !manager.leaving.is_empty() {
            // Each of these may be dropped and asked again without loss.
            tokio::select! {
                biased;
                Some((id, event)) = heard.recv() => manager.hear(id, &event),
                () = shutdown.forced(), if !stopping => stopping = manager.stop_all(),
                command = commands.recv(), if !stopping => match command {
                    Some(Command::Apply(config)) => {
                        manager.adopt(std::mem::take(&mut survivors), &config);
                        manager.apply(&config);
                    }
                    Some(Command::Stop) | None => stopping = manager.stop_all(),
                },
            }
        }
        manager.means.spawn.cleared().await;
    }

    fn apply(&mut self, config: &Config) {
        self.stop = config.router.stop;
        let apps = self.apps.keys();
        let gone = apps.filter(|name| managed(config, name).is_none()).cloned().collect::<Vec<_>>();
        for name in gone {
            self.stop_app(&name);
        }
        for name in config.apps.keys() {
            if let Some((app, drain)) = managed(config, name) {
                self.form(name, app, drain);
            }
        }
    }

    /// Brings one app's dynos to what is wanted; those that are right already are not touched.
    fn form(&mut self, name: &AppName, app: &ManagedApp, drain: Duration) {
        let mut formed = self.apps.remove(name).unwrap_or_else(|| Formed::new(app.clone()));
        formed.follow(app, drain);
        let actual =
            formed.dynos.iter().map(|(name, living)| (name.clone(), living.release)).collect();
        for step in plan(&app.formation, formed.release, &actual) {
            match step {
                Step::Start(dyno) => {
                    if let Some(orders) = formed.orders(&dyno.process_type) {
                        let living = self.start(name, &dyno, orders);
                        formed.dynos.insert(dyno, living);
                    }
                }
                Step::Restart(dyno) => formed.restart(&dyno),
                Step::Stop(dyno) => {
                    if let Some(living) = formed.dynos.remove(&dyno) {
                        self.stop(living);
                    }
                }
            }
        }
        self.apps.insert(name.clone(), formed);
    }

    fn start(&mut self, app: &AppName, dyno: &DynoName, orders: Orders) -> Living {
        let (place, living) = self.begin(app, dyno, orders);
        let Means { spawn, ports, routes, .. } = &self.means;
        let dyno = Dyno::new(place, spawn.clone(), ports.clone(), routes.clone());
        self.means.shutdown.spawn(dyno.live());
        living
    }

    /// The place of a dyno that is about to live here.
    fn begin(&mut self, app: &AppName, dyno: &DynoName, orders: Orders) -> (Place, Living) {
        let id = self.next_id;
        self.next_id += 1;
        let release = orders.program.release;
        let (sender, receiver) = watch::channel(orders);
        let place = Place {
            id,
            app: app.clone(),
            dyno: dyno.clone(),
            orders: receiver,
            log: self.means.log.clone(),
            shutdown: self.means.shutdown.clone(),
            events: self.events.clone(),
            jitter: || random() as f64 / u64::MAX as f64,
        };
        self.means.board.list(id, app.clone(), dyno.clone());
        (place, Living { id, release, orders: sender })
    }

    fn stop(&mut self, living: Living) {
        living.orders.send_modify(|orders| orders.stop = true);
        self.leaving.insert(living.id, living.orders);
    }

    fn stop_app(&mut self, name: &AppName) {
        let dynos = self.apps.remove(name).map(|formed| formed.dynos).unwrap_or_default();
        for living in dynos.into_values().rev() {
            self.stop(living);
        }
    }

    /// All at once. Those that drain already get the daemon's own bound, if it is the shorter one.
    fn stop_all(&mut self) -> bool {
        for name in self.apps.keys().cloned().collect::<Vec<_>>() {
            self.stop_app(&name);
        }
        for orders in self.leaving.values() {
            orders.send_modify(|orders| orders.drain = orders.drain.min(self.stop));
        }
        true
    }

    fn hear(&mut self, id: u64, event: &Event) {
        self.means.board.note(id, event);
        if matches!(event, Event::Ended) && self.leaving.remove(&id).is_none() {
            // It ended without being told to: a defect, which has said so as a panic. Forget it.
            for formed in self.apps.values_mut() {
                formed.dynos.retain(|_, living| living.id != id);
            }
        }
    }
}

/// An app whose dynos dynomesh runs, and how long these may drain.
fn managed<'a>(config: &'a Config, name: &AppName) -> Option<(&'a ManagedApp, Duration)> {
    match config.apps.get(name) {
        Some(AppConfig { source: AppSource::Managed(app), policy, .. }) => {
            Some((app, policy.timeouts.drain))
        }
        _ => None,
    }
}

impl Formed {
    fn new(app: ManagedApp) -> Self {
        let config_vars = Arc::new(app.config_vars.clone());
        Self { release: 1, app, config_vars, drain: Duration::ZERO, dynos: BTreeMap::new() }
    }

    /// Takes over what the configuration says now. What the app runs has changed: that is a new release.
    fn follow(&mut self, app: &ManagedApp, drain: Duration) {
        let ManagedApp { dir, commands, config_vars, timeouts, formation: _ } = &self.app;
        if (dir, commands, config_vars) != (&app.dir, &app.commands, &app.config_vars) {
            self.release += 1;
            self.config_vars = Arc::new(app.config_vars.clone());
        }
        if (*timeouts, self.drain) != (app.timeouts, drain) {
            for living in self.dynos.values() {
                living
                    .orders
                    .send_modify(|orders| (orders.timeouts, orders.drain) = (app.timeouts, drain));
            }
        }
        self.app = app.clone();
        self.drain = drain;
    }

    /// What dynos of this type are told. `None`: the Procfile has no such type, so none is wanted.
    fn orders(&self, process_type: &ProcessType) -> Option<Orders> {
        let program = Program {
            release: self.release,
            command: self.app.commands.get(process_type)?.clone(),
            dir: self.app.dir.clone(),
            config_vars: self.config_vars.clone(),
        };
        let timeouts = self.app.timeouts;
        Some(Orders { program: Arc::new(program), timeouts, drain: self.drain, stop: false })
    }

    fn restart(&mut self, dyno: &DynoName) {
        let orders = self.orders(&dyno.process_type);
        if let (Some(orders), Some(living)) = (orders, self.dynos.get_mut(dyno)) {
            living.release = self.release;
            living.orders.send_replace(orders);
        }
    }
}
