//! The dyno manager: one loop that owns which dynos are wanted, and starts, restarts and stops their lives.

mod adopt; // what an earlier daemon has left
mod rollouts; // how another release gets to dynos
mod one_offs; // those for one command
mod defects; // lives that a defect of ours has ended
mod canary; // the first dyno of a release
mod guard; // whether a release stands the test of its requests
mod scale; // more and fewer of them, by what they are asked

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{self, Instant};

use crate::config::{AppConfig, AppSource, Config, ManagedApp, limits};
use crate::model::{AppName, AppPolicy, DynoName, Formation, Payer, ProcessType};
use crate::random;
use crate::shutdown::Shutdown;
use crate::supervisor::autoscale::{AcceptQueues, Autoscaler};
use crate::supervisor::dyno::Dyno;
use crate::supervisor::guard::Watch;
use crate::supervisor::manager::defects::Defects;
use crate::supervisor::meter::Meter;
use crate::supervisor::one_off::Visitor;
use crate::supervisor::place::{Event, Orders, Place, Replace, State, WatchOrders};
use crate::supervisor::ports::Ports;
use crate::supervisor::program::Program;
use crate::supervisor::releases::{Release, Releases};
use crate::supervisor::rollout::Rollout;
use crate::supervisor::routes::Routes;
use crate::supervisor::run::{Begun, OneOffs, RunError, RunOrder};
use crate::supervisor::sleep::{Nap, Sleeper};
use crate::supervisor::spawn::Spawn;
use crate::supervisor::status::Board;
use crate::supervisor::survivors::Survivor;
use crate::supervisor::turns::Turns;
use crate::telemetry::AppLog;

/// What the manager is asked to do.
pub(crate) enum Command {
    /// Bring the dynos to what this configuration wants.
    Apply(Arc<Config>),
    /// Begin a one-off dyno.
    Run(RunOrder, oneshot::Sender<Result<Begun, RunError>>),
    /// Begin one of what the app is to run, which it does not yet.
    RunAhead(RunOrder, Box<ManagedApp>, oneshot::Sender<Result<Begun, RunError>>),
    /// A client has come for an attached one-off dyno; it is not heard of again where none waits for one.
    Attach(AppName, String, Visitor),
    /// The eco dynos' hours of this month are used up, or there are some again.
    EcoHours {
        /// They are.
        used_up: bool,
    },
    /// How many dynos of each type an app is to have now; not heard of where there is no such app.
    Formation(AppName, oneshot::Sender<Formation>),
    /// How far the newest release of an app is; not heard of where there is no such app.
    Follow(AppName, oneshot::Sender<watch::Receiver<Rollout>>),
    /// Restart these dynos of a formation. `false`: there are none.
    Restart(AppName, Which, oneshot::Sender<bool>),
    /// Stop this dyno; one of a formation is replaced, a worker once it has ended. `false`: there is none of the
    /// name.
    StopDyno(AppName, String, oneshot::Sender<bool>),
    /// Stop every dyno, then end.
    Stop,
}

/// Some dynos of an app's formation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// All of them.
    All,
    /// Those of a process type.
    Type(String),
    /// The one of this name.
    One(String),
}

impl Which {
    fn is(&self, dyno: &DynoName) -> bool {
        match self {
            Self::All => true,
            Self::Type(name) => dyno.process_type.as_str() == name,
            Self::One(name) => dyno.to_string() == *name,
        }
    }
}

/// What the manager needs of the world.
pub(crate) struct Means<S> {
    pub(crate) spawn: S,
    pub(crate) ports: Ports,
    pub(crate) routes: Arc<Routes>,
    pub(crate) board: Board,
    pub(crate) meter: Meter,
    pub(crate) log: AppLog,
    pub(crate) shutdown: Shutdown,
}

/// The loop's own state.
pub(crate) struct Manager<S> {
    means: Means<S>,
    apps: BTreeMap<AppName, Formed>,
    /// The dynos of formations by their ids, those that are leaving included.
    homes: BTreeMap<u64, (AppName, DynoName)>,
    /// Dynos that were told to stop and have not ended, with the line to change their orders.
    leaving: BTreeMap<u64, watch::Sender<Orders>>,
    one_offs: OneOffs,
    /// Eco dynos must not run until the next month.
    eco_used_up: bool,
    next_id: u64,
    began: Instant,
    /// When the load of those that are autoscaled was looked at last.
    looked: Instant,
    /// When releases that a guard is over were looked at last.
    guarded: Instant,
    accept_queues: AcceptQueues,
    /// How long dynos may drain when the daemon itself ends.
    stop: Duration,
    events: mpsc::UnboundedSender<(u64, Event)>,
    /// Unbounded: an app falls asleep and is woken a few times a second at most.
    naps: mpsc::UnboundedSender<(AppName, Nap)>,
    /// Apps that lack a dyno whose life has met a defect. Unbounded: each has cooled off.
    lacking: mpsc::UnboundedSender<AppName>,
}

/// An app whose dynos dynomesh runs.
struct Formed {
    app: ManagedApp,
    releases: Releases,
    /// Looks at what they answer, where there is to be a guard.
    watch: Option<Watch>,
    drain: Duration,
    slow_start: Option<Duration>,
    /// By process type: how many are replaced at a time.
    turns: BTreeMap<ProcessType, Arc<Turns>>,
    /// Where it sleeps when it is idle.
    sleeper: Option<Sleeper>,
    /// Whether it does now.
    asleep: bool,
    /// Whether eco dynos must not run.
    eco_used_up: bool,
    /// Whether its requests are refused.
    maintenance: bool,
    /// By process type: those whose number follows the requests.
    scales: BTreeMap<ProcessType, Scale>,
    dynos: BTreeMap<DynoName, Living>,
    /// How often the lives of these have met a defect.
    defects: BTreeMap<DynoName, Defects>,
}

/// How many dynos of a process type there are, where that follows the requests.
struct Scale {
    count: u32,
    scaler: Autoscaler,
}

/// A dyno that is wanted.
struct Living {
    id: u64,
    orders: watch::Sender<Orders>,
    /// What it was last told to run.
    told: Arc<Release>,
    /// What it last came up with.
    runs: Option<Arc<Release>>,
    state: Option<State>,
    /// Its successor waits for those of the others.
    is_ready: bool,
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
        let (naps, mut napped) = mpsc::unbounded_channel();
        let (lacking, mut lacks) = mpsc::unbounded_channel();
        let shutdown = means.shutdown.clone();
        let now = Instant::now();
        let mut manager = Self {
            means,
            apps: BTreeMap::new(),
            homes: BTreeMap::new(),
            leaving: BTreeMap::new(),
            one_offs: OneOffs::default(),
            eco_used_up: false,
            next_id: 1,
            began: now,
            looked: now,
            guarded: now,
            accept_queues: AcceptQueues::default(),
            stop: Duration::ZERO,
            events,
            naps,
            lacking,
        };
        let mut stopping = false;
        while !stopping || !manager.leaving.is_empty() || !manager.one_offs.is_empty() {
            // Each of these may be dropped and asked again without loss.
            tokio::select! {
                biased;
                Some((id, event)) = heard.recv() => manager.hear(id, &event),
                Some((app, nap)) = napped.recv() => manager.turn_over(&app, nap),
                Some(app) = lacks.recv() => manager.advance(&app),
                () = shutdown.forced(), if !stopping => stopping = manager.stop_all(),
                () = time::sleep_until(manager.looked + limits::AUTOSCALE_LOOK), if manager.is_scaling() => {
                    manager.look();
                }
                () = time::sleep_until(manager.guarded + limits::GUARD_LOOK), if manager.is_guarding() => {
                    manager.look_at_releases();
                }
                command = commands.recv(), if !stopping => {
                    if let Some(Command::Apply(config)) = &command {
                        manager.adopt(std::mem::take(&mut survivors), config);
                    }
                    stopping = manager.obey(command.unwrap_or(Command::Stop));
                }
            }
        }
        manager.means.spawn.cleared().await;
    }

    /// Does what it is asked; `true`: all is to end. Who asked may have left, and then hears no answer.
    fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Apply(config) => self.apply(&config),
            Command::Run(order, begun) => drop(begun.send(self.run_one_off(order, None))),
            Command::RunAhead(order, app, begun) => {
                let formed = Formed::new(*app);
                drop(begun.send(self.run_one_off(order, Some(&formed))));
            }
            Command::Attach(app, dyno, visitor) => self.attach(&app, &dyno, visitor),
            Command::EcoHours { used_up } => self.follow_eco_hours(used_up),
            Command::Formation(app, formation) => {
                if let Some(formed) = self.apps.get(&app) {
                    let _ = formation.send(formed.formation());
                }
            }
            Command::Follow(app, follower) => {
                if let Some(formed) = self.apps.get(&app) {
                    let _ = follower.send(formed.releases.follow());
                }
            }
            Command::Restart(app, which, restarted) => {
                let _ = restarted.send(self.restart(&app, &which));
            }
            Command::StopDyno(app, dyno, stopped) => {
                let _ = stopped.send(self.stop_dyno(&app, &dyno));
            }
            Command::Stop => return self.stop_all(),
        }
        false
    }

    fn apply(&mut self, config: &Config) {
        self.stop = config.router.stop;
        let apps = self.apps.keys();
        let gone = apps.filter(|name| managed(config, name).is_none()).cloned().collect::<Vec<_>>();
        for name in gone {
            self.stop_app(&name);
        }
        for name in config.apps.keys() {
            if let Some((app, policy)) = managed(config, name) {
                self.form(name, app, policy);
            }
        }
    }

    /// Brings one app's dynos to what is wanted; those that are right already are not touched.
    fn form(&mut self, name: &AppName, app: &ManagedApp, policy: &AppPolicy) {
        let mut formed = self.apps.remove(name).unwrap_or_else(|| Formed::new(app.clone()));
        formed.follow(app, policy);
        for dyno in formed.follow_sizes() {
            self.meter_size(&formed, &dyno);
        }
        self.follow_sleep(name, &mut formed);
        formed.follow_eco_hours(self.eco_used_up);
        self.means.routes.set_out_of_hours(name, formed.is_out_of_hours(&ProcessType::web()));
        self.carry_on(name, &mut formed);
        self.apps.insert(name.clone(), formed);
    }

    /// Has an app sleep when it is idle, or not any more. One without web dynos never does: nothing would wake it.
    fn follow_sleep(&self, name: &AppName, formed: &mut Formed) {
        let Means { routes, shutdown, .. } = &self.means;
        match (formed.sleep_after().zip(routes.roster(name)), &formed.sleeper) {
            (Some((after, _)), Some(sleeper)) => sleeper.set_after(after),
            (Some((after, roster)), None) => {
                let (name, naps) = (name.clone(), self.naps.clone());
                // Nobody hears it at the very end.
                let tell = move |nap| _ = naps.send((name.clone(), nap));
                formed.sleeper = Some(Sleeper::start(roster, after, shutdown, tell));
            }
            (None, _) => {
                formed.sleeper = None;
                formed.sleep(false);
            }
        }
    }

    /// An app has nothing to do, or has something to do again.
    fn turn_over(&mut self, app: &AppName, nap: Nap) {
        if let Some(formed) = self.apps.get_mut(app).filter(|formed| formed.sleeper.is_some()) {
            formed.sleep(nap == Nap::Idle);
        }
    }

    fn start(
        &mut self,
        app: &AppName,
        dyno: &DynoName,
        (release, orders): (Arc<Release>, Orders),
        turns: Arc<Turns>,
    ) -> Living {
        let (place, living) = self.begin(app, dyno, (release, orders), turns);
        let Means { spawn, ports, routes, .. } = &self.means;
        let dyno = Dyno::new(place, spawn.clone(), ports.clone(), routes.clone());
        self.means.shutdown.spawn(dyno.live());
        living
    }

    /// The place of a dyno of a formation that is about to live here.
    fn begin(
        &mut self,
        app: &AppName,
        dyno: &DynoName,
        (told, orders): (Arc<Release>, Orders),
        turns: Arc<Turns>,
    ) -> (Place, Living) {
        let (place, orders) = self.place(app, dyno, orders, turns);
        self.means.board.list(place.id, app.clone(), dyno.clone(), None);
        self.homes.insert(place.id, (app.clone(), dyno.clone()));
        let id = place.id;
        let living = Living { id, orders, told, runs: None, state: None, is_ready: false };
        (place, living)
    }

    /// A dyno was told of another size: what is used from now on is used of that.
    fn meter_size(&self, formed: &Formed, dyno: &DynoName) {
        if let Some(living) = formed.dynos.get(dyno) {
            self.means.meter.resize(living.id, &living.orders.borrow().program.size.name);
        }
    }

    /// What a new life has in hand, and the line to change its orders.
    fn place(
        &mut self,
        app: &AppName,
        dyno: &DynoName,
        orders: Orders,
        turns: Arc<Turns>,
    ) -> (Place, watch::Sender<Orders>) {
        let id = self.next_id;
        self.next_id += 1;
        let payer = Payer {
            app: app.clone(),
            process_type: dyno.process_type.clone(),
            size: orders.program.size.name.clone(),
        };
        self.means.meter.list(id, payer);
        let (sender, receiver) = watch::channel(orders);
        let place = Place {
            id,
            app: app.clone(),
            dyno: dyno.clone(),
            orders: receiver,
            turns,
            log: self.means.log.clone(),
            shutdown: self.means.shutdown.clone(),
            events: self.events.clone(),
            jitter: random::fraction,
        };
        (place, sender)
    }

    /// Eco dynos sleep while their hours are used up, and nothing wakes them.
    fn follow_eco_hours(&mut self, used_up: bool) {
        self.eco_used_up = used_up;
        for (name, formed) in &mut self.apps {
            formed.follow_eco_hours(used_up);
            let out_of_hours = formed.is_out_of_hours(&ProcessType::web());
            self.means.routes.set_out_of_hours(name, out_of_hours);
        }
        if used_up {
            self.one_offs.stop_where(|living| living.orders.borrow().program.size.name.is_eco());
        }
    }

    fn restart(&mut self, app: &AppName, which: &Which) -> bool {
        let Some(formed) = self.apps.get_mut(app) else { return false };
        // Whoever restarts all of an app whose newest release has failed has mended what it failed for.
        if *which == Which::All && formed.releases.try_again() {
            self.advance(app);
            return true;
        }
        let meant = formed.dynos.iter().filter(|(name, _)| which.is(name));
        meant.fold(false, |_, (_, living)| {
            living.orders.send_modify(|orders| orders.restart += 1);
            true
        })
    }

    fn stop_dyno(&mut self, app: &AppName, dyno: &str) -> bool {
        if let Some(one_off) = self.one_offs.find(app, dyno) {
            one_off.orders.send_modify(|orders| orders.stop = true);
            return true;
        }
        let Some(formed) = self.apps.get_mut(app) else { return false };
        let name = formed.dynos.keys().find(|name| name.to_string() == dyno).cloned();
        // Two workers of one name might do one job twice.
        if name.as_ref().is_some_and(|name| !name.process_type.is_web()) {
            return self.restart(app, &Which::One(dyno.to_owned()));
        }
        let Some((name, living)) = name.and_then(|name| formed.dynos.remove_entry(&name)) else {
            return false;
        };
        let (orders, turns) = (formed.orders(&name.process_type), formed.turns(&name.process_type));
        self.stop(living);
        if let Some(orders) = orders {
            let living = self.start(app, &name, orders, turns);
            if let Some(formed) = self.apps.get_mut(app) {
                formed.dynos.insert(name, living);
            }
        }
        true
    }

    fn stop(&mut self, living: Living) {
        living.orders.send_modify(|orders| orders.stop = true);
        self.leaving.insert(living.id, living.orders);
    }

    fn stop_app(&mut self, name: &AppName) {
        self.one_offs.stop_where(|living| living.app == *name);
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
        self.one_offs.stop_where(|_| true);
        for orders in self.leaving.values() {
            orders.send_modify(|orders| orders.drain = orders.drain.min(self.stop));
        }
        true
    }

    fn hear(&mut self, id: u64, event: &Event) {
        self.means.board.note(id, event);
        self.means.meter.note(id, event);
        self.follow_event(id, event);
        if !matches!(event, Event::Ended) || self.one_offs.remove(id) {
            return;
        }
        self.homes.remove(&id);
        if self.leaving.remove(&id).is_none() {
            // It ended without being told to: a defect, which has said so as a panic.
            self.replace_later(id);
        }
    }
}

/// An app whose dynos dynomesh runs.
fn managed<'a>(config: &'a Config, name: &AppName) -> Option<(&'a ManagedApp, &'a AppPolicy)> {
    match config.apps.get(name) {
        Some(AppConfig { source: AppSource::Managed(app), policy, .. }) => Some((app, policy)),
        _ => None,
    }
}

impl Formed {
    fn new(app: ManagedApp) -> Self {
        Self {
            releases: Releases::beginning_with(&app),
            watch: None,
            app,
            drain: Duration::ZERO,
            slow_start: None,
            turns: BTreeMap::new(),
            sleeper: None,
            asleep: false,
            eco_used_up: false,
            maintenance: false,
            scales: BTreeMap::new(),
            dynos: BTreeMap::new(),
            defects: BTreeMap::new(),
        }
    }

    /// Takes over what the configuration says now. What the app runs has changed: that is a new release.
    fn follow(&mut self, app: &ManagedApp, policy: &AppPolicy) {
        let tried = self.tried_by_canary();
        self.releases.follow_app(app);
        self.app = app.clone();
        self.drain = policy.timeouts.drain;
        self.slow_start = policy.slow_start;
        self.maintenance = policy.maintenance;
        self.follow_known();
        if let Some((number, earlier)) = tried.filter(|(it, _)| *it != self.releases.wanted.number)
        {
            // Who had it as a canary has nothing to wait for any more.
            self.take_back(number, &earlier, false);
        }
        self.follow_scales();
        for (process_type, count) in self.formation() {
            self.turns(&process_type).set_dynos(count);
        }
        for living in self.dynos.values() {
            living.orders.send_if_modified(|orders| {
                let before = orders.clone();
                orders.timeouts = app.timeouts;
                orders.drain = self.drain;
                orders.upkeep = app.upkeep.clone();
                orders.slow_start = self.slow_start;
                orders.watch = watch_orders(app);
                *orders != before
            });
        }
    }

    /// What an earlier daemon's release ran exactly is known once it is wanted again. Those that run it go on, and start
    /// as that from then on.
    fn follow_known(&mut self) {
        let wanted = &self.releases.wanted;
        for (name, living) in &mut self.dynos {
            if living.told.number != wanted.number || Arc::ptr_eq(&living.told, wanted) {
                continue;
            }
            let size = living.orders.borrow().program.size.clone();
            let Some(program) = wanted.program(&name.process_type, size) else { continue };
            living.orders.send_modify(|orders| orders.program = Arc::new(program));
            living.told = wanted.clone();
            living.runs = living.runs.take().map(|runs| match runs.number == wanted.number {
                true => wanted.clone(),
                false => runs,
            });
        }
    }

    /// Has those restart whose size is another one now, whatever release they run, and returns their names. Another price
    /// is no reason.
    fn follow_sizes(&mut self) -> Vec<DynoName> {
        let mut resized = Vec::new();
        for (name, living) in &mut self.dynos {
            let Some(size) = self.app.sizes.get(&name.process_type) else { continue };
            let is_other = living.orders.send_if_modified(|orders| {
                let is_other = !orders.program.size.runs_as(size);
                if is_other {
                    let program = Program { size: size.clone(), ..Program::clone(&orders.program) };
                    orders.program = Arc::new(program);
                    orders.restart += 1;
                }
                is_other
            });
            if is_other {
                // Its successor, if it has one, is of the wrong size.
                living.is_ready = false;
                resized.push(name.clone());
            }
        }
        resized
    }

    /// Those of one process type.
    fn turns(&mut self, process_type: &ProcessType) -> Arc<Turns> {
        self.turns.entry(process_type.clone()).or_default().clone()
    }

    fn sleep_after(&self) -> Option<Duration> {
        let web = ProcessType::web();
        let any = self.app.formation.get(&web).is_some_and(|count| *count > 0);
        self.app.sizes.get(&web).filter(|_| any)?.sleep_after
    }

    /// Sends its dynos to sleep, or wakes them.
    fn sleep(&mut self, asleep: bool) {
        self.asleep = asleep;
        for (name, living) in &self.dynos {
            let asleep = self.is_asleep(&name.process_type);
            living
                .orders
                .send_if_modified(|orders| std::mem::replace(&mut orders.asleep, asleep) != asleep);
        }
    }

    /// Whether those of this type sleep now: a worker sleeps with the app if its own size does.
    fn is_asleep(&self, process_type: &ProcessType) -> bool {
        let size = self.app.sizes.get(process_type);
        self.asleep && size.is_some_and(|size| size.sleep_after.is_some())
            || self.is_out_of_hours(process_type)
    }

    /// Whether those of this type must not run until the next month.
    fn is_out_of_hours(&self, process_type: &ProcessType) -> bool {
        let size = self.app.sizes.get(process_type);
        self.eco_used_up && size.is_some_and(|size| size.name.is_eco())
    }

    /// There are hours for eco dynos this month, or none any more.
    fn follow_eco_hours(&mut self, used_up: bool) {
        self.eco_used_up = used_up;
        self.sleep(self.asleep);
    }

    /// What a dyno of this type that begins to live is told. `None`: there is no such type, so none is wanted.
    fn orders(&self, process_type: &ProcessType) -> Option<(Arc<Release>, Orders)> {
        let release = self.releases.of_new_dynos(process_type);
        let replace = match release.number == self.releases.wanted.number {
            true => self.releases.replace(process_type),
            false => Replace::Beside,
        };
        Some((release.clone(), self.orders_of(release, process_type, replace)?))
    }

    /// The same of a release.
    fn orders_of(
        &self,
        release: &Release,
        process_type: &ProcessType,
        replace: Replace,
    ) -> Option<Orders> {
        let (slow_start, asleep) = (self.slow_start, self.is_asleep(process_type));
        let size = self.app.sizes.get(process_type)?.clone();
        let program = release.program(process_type, size)?;
        Some(Orders { slow_start, asleep, replace, ..self.orders_to_run(program) })
    }

    /// What is told to whatever runs this program.
    fn orders_to_run(&self, program: Program) -> Orders {
        Orders {
            program: Arc::new(program),
            timeouts: self.app.timeouts,
            drain: self.drain,
            watch: watch_orders(&self.app),
            upkeep: self.app.upkeep.clone(),
            slow_start: None,
            replace: Replace::Beside,
            keep_warm: None,
            restart: 0,
            asleep: false,
            stop: false,
        }
    }
}

fn watch_orders(app: &ManagedApp) -> WatchOrders {
    WatchOrders { recycle_on_r14: app.recycle_on_r14, say_metrics: app.runtime_metrics }
}
