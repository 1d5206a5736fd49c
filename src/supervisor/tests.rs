//! Formations with scripted processes on a paused clock, and what tests of the supervisor are made from.

pub(in crate::supervisor) mod rollouts; // releases on their way
mod canaries; // those that begin with a part of the requests

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::time;

use crate::config::{
    AccessLog, AdminConfig, AppConfig, AppSource, Config, Deploy, DynosConfig, HealthCheck,
    IsolationWanted, LogsConfig, ManagedApp, NetworkWanted, Notes, RouterConfig, Said,
    SupervisorTimeouts,
};
use crate::model::{
    Affinity, AppName, AppPolicy, AppTimeouts, Balance, DynoAddr, Exit, Expect, ListenerPolicy,
    ProcessType, Size, Sizes, TrafficLimits,
};
use crate::shutdown::Shutdown;
use crate::supervisor::Supervisor;
use crate::supervisor::manager::Command;
use crate::supervisor::meter::Meter;
use crate::supervisor::place::{Orders, Replace, WatchOrders};
use crate::supervisor::program::{Program, Start};
use crate::supervisor::routes::Routes;
use crate::supervisor::scripted::{Script, Scripted, Scripts};
use crate::supervisor::survivors::{Left, Survivor};
use crate::table::{Lineup, Publisher, Standing};
use crate::telemetry::{AppLog, Lines, Target};

pub(crate) fn app_name(name: &str) -> AppName {
    AppName::parse(name).unwrap()
}

/// The size of every dyno here that says nothing else.
pub(crate) fn basic() -> Arc<Size> {
    Sizes::heroku().find(Sizes::DEFAULT).unwrap().clone()
}

/// An app with these process types, each with a command and a count.
pub(crate) fn managed(formation: &[(&str, u32)]) -> AppSource {
    let of_type = |name: &str| ProcessType::parse(name).unwrap();
    AppSource::Managed(ManagedApp {
        dir: "/".into(),
        commands: formation
            .iter()
            .map(|(name, _)| (of_type(name), format!("run {name}")))
            .collect(),
        formation: formation.iter().map(|(name, count)| (of_type(name), *count)).collect(),
        size: basic(),
        autoscale: BTreeMap::new(),
        sizes: formation.iter().map(|(name, _)| (of_type(name), basic())).collect(),
        deploy: Deploy::Rolling,
        guard: None,
        canary: None,
        keep_warm: None,
        release: None,
        recycle_on_r14: None,
        runtime_metrics: false,
        config_vars: BTreeMap::new(),
        timeouts: SupervisorTimeouts {
            boot: Duration::from_secs(60),
            exit: Duration::from_secs(30),
            cool_off_first: Duration::from_secs(1),
            cool_off_max: Duration::from_secs(300),
        },
        upkeep: Arc::default(),
    })
}

/// What a dyno that runs this is told.
pub(crate) fn orders(command: &str) -> Orders {
    let AppSource::Managed(app) = managed(&[]) else { unreachable!() };
    let program = Program {
        release: 1,
        command: command.into(),
        dir: app.dir,
        size: app.size,
        config_vars: Arc::new(app.config_vars),
    };
    let (timeouts, drain) = (app.timeouts, Duration::from_secs(300));
    let watch = WatchOrders::default();
    Orders {
        program: Arc::new(program),
        timeouts,
        drain,
        watch,
        upkeep: app.upkeep,
        slow_start: None,
        replace: Replace::Beside,
        keep_warm: None,
        restart: 0,
        asleep: false,
        stop: false,
    }
}

pub(crate) fn external(addresses: &[&str]) -> AppSource {
    AppSource::External(addresses.iter().map(|text| DynoAddr::parse(text).unwrap()).collect())
}

pub(crate) fn config(apps: &[(&str, AppSource)]) -> Config {
    let secs = Duration::from_secs;
    let timeouts = AppTimeouts {
        hold: secs(75),
        connect: secs(5),
        first_byte: secs(30),
        rolling: secs(55),
        linger: secs(600),
        drain: secs(300),
        ws_drain: secs(30),
        dyno_keepalive: secs(90),
    };
    let policy = AppPolicy {
        timeouts,
        balance: Balance::P2c,
        expect: Expect::Router,
        maintenance: false,
        backlog: 200,
        force_https: false,
        http2_to_dyno: false,
        affinity: Affinity::Off,
        slow_start: None,
        limits: TrafficLimits::default(),
        client_limits: TrafficLimits::default(),
        error_page: None,
        maintenance_page: None,
    };
    let app = |source: &AppSource| AppConfig {
        domains: vec![],
        acme: true,
        certificates: vec![],
        policy: policy.clone(),
        source: source.clone(),
        drains: vec![],
        jobs: vec![],
        said: Said::default(),
    };
    Config {
        file: "/dynomesh.toml".into(),
        router: RouterConfig {
            endpoints: vec![],
            domain: "localhost".into(),
            default_app: None,
            workers: 1,
            access_log: AccessLog::Off,
            listener: ListenerPolicy {
                handshake: secs(10),
                head: secs(60),
                keepalive: secs(60),
                trusted_proxies: vec![],
            },
            stop: secs(20),
        },
        admin: AdminConfig {
            http: None,
            api: None,
            api_names: vec![],
            socket: "/dynomesh.sock".into(),
        },
        state_dir: "/".into(),
        dynos: DynosConfig {
            isolation: IsolationWanted::None,
            uids: 70_000..=70_000,
            network: NetworkWanted::Host,
            addresses: "10.213.0.0/16".parse().unwrap(),
            expose: vec![],
        },
        logs: LogsConfig::default(),
        certs: vec![],
        acme: None,
        sizes: Sizes::heroku(),
        apps: apps.iter().map(|(name, source)| (app_name(name), app(source))).collect(),
        notes: Notes::default(),
    }
}

/// A supervisor over scripted processes.
pub(crate) struct Formation {
    pub(crate) supervisor: Supervisor,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) scripts: Scripts,
    pub(crate) shutdown: Shutdown,
}

impl Formation {
    pub(crate) fn start(scripts: &[Script], apps: &[(&str, AppSource)]) -> Self {
        Self::start_after(Vec::new(), Scripts::new(scripts), apps)
    }

    /// Where these dynos live already.
    pub(crate) fn start_after(
        survivors: Vec<Survivor<Scripted>>,
        scripts: Scripts,
        apps: &[(&str, AppSource)],
    ) -> Self {
        let shutdown = Shutdown::default();
        let log = AppLog::new(Lines::start(Target::Off).unwrap());
        let config = Arc::new(config(apps));
        let (routes, publisher) = Routes::new(&config);
        let (spawn, end) = (scripts.clone(), shutdown.clone());
        let left = Left { survivors, ports: Vec::new() };
        let supervisor = Supervisor::start_with(spawn, left, routes, log, end, Meter::default());
        supervisor.command(Command::Apply(config));
        Self { supervisor, publisher, scripts, shutdown }
    }

    pub(crate) async fn apply(&self, apps: &[(&str, AppSource)]) {
        self.supervisor.apply(&Arc::new(config(apps)));
        passes(1).await;
    }

    pub(crate) fn lineup(&self, app: &str) -> Arc<Lineup> {
        let table = self.publisher.table();
        let app = table.apps().iter().find(|it| it.name.as_str() == app).unwrap();
        app.roster.lineup().clone()
    }

    /// `web.1 up` …
    pub(crate) fn states(&self) -> Vec<String> {
        self.supervisor
            .status()
            .iter()
            .map(|it| format!("{} {} {}", it.app, it.dyno, it.state))
            .collect()
    }

    pub(crate) fn started(&self) -> usize {
        self.scripts.starts.lock().unwrap().len()
    }
}

/// Some simulated seconds, and a moment.
pub(crate) async fn passes(secs: u64) {
    time::sleep(Duration::from_millis(secs * 1000 + 10)).await;
}

#[tokio::test(start_paused = true)]
async fn a_formation_is_started_scaled_and_stopped() {
    let formation =
        Formation::start(&[Script::listens(2)], &[("shop", managed(&[("web", 2), ("worker", 1)]))]);
    assert_eq!(formation.lineup("shop").standing, Standing::Starting);
    passes(1).await;
    assert_eq!(
        formation.states(),
        ["shop web.1 starting", "shop web.2 starting", "shop worker.1 up"]
    );
    passes(1).await;
    assert_eq!(formation.lineup("shop").dynos.len(), 2);
    formation.apply(&[("shop", managed(&[("web", 3), ("worker", 0)]))]).await;
    passes(1).await;
    assert_eq!(formation.states(), ["shop web.1 up", "shop web.2 up", "shop web.3 up"]);
    assert_eq!(formation.started(), 4, "who stays is not touched");
    formation.apply(&[("shop", managed(&[("web", 1), ("worker", 0)]))]).await;
    assert_eq!(formation.states(), ["shop web.1 up"]);
    formation.supervisor.stop().await;
    assert_eq!(formation.states(), [""; 0]);
    formation.shutdown.now();
    formation.shutdown.finished().await;
}

#[tokio::test(start_paused = true)]
async fn a_dyno_whose_life_meets_a_defect_comes_back_without_a_reload() {
    let scripts = [Script::panics(), Script::panics(), Script::listens(0)];
    let formation = Formation::start(&scripts, &[("shop", managed(&[("web", 1)]))]);
    time::sleep(Duration::from_millis(500)).await;
    assert_eq!(formation.started(), 2, "at once the first time, and then it cools off");
    assert_eq!(formation.states(), [""; 0]);
    passes(2).await;
    assert_eq!((formation.started(), formation.states()), (3, vec!["shop web.1 up".to_owned()]));
    assert_eq!(formation.lineup("shop").dynos.len(), 1);
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn scaling_web_to_none_says_so_to_requests() {
    let formation = Formation::start(&[Script::listens(0)], &[("shop", managed(&[("web", 1)]))]);
    passes(1).await;
    let id = formation.publisher.table().apps()[0].id;
    formation.apply(&[("shop", managed(&[("web", 0)]))]).await;
    assert_eq!(formation.lineup("shop").standing, Standing::NoWeb);
    formation.apply(&[("shop", managed(&[("web", 1)]))]).await;
    assert_eq!(formation.lineup("shop").dynos.len(), 1);
    assert_eq!(formation.publisher.table().apps()[0].id, id);
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_changed_app_restarts_and_its_neighbour_does_not() {
    let apps = |command: &str| {
        let AppSource::Managed(mut shop) = managed(&[("web", 1)]) else { unreachable!() };
        shop.commands.insert(ProcessType::web(), command.into());
        [("blog", managed(&[("web", 1)])), ("shop", AppSource::Managed(shop))]
    };
    let formation = Formation::start(&[Script::listens(1)], &apps("old"));
    passes(2).await;
    let (blog, shop) =
        (formation.lineup("blog").dynos[0].id(), formation.lineup("shop").dynos[0].id());
    formation.apply(&apps("new")).await;
    passes(2).await;
    assert_eq!(formation.lineup("blog").dynos[0].id(), blog);
    assert_ne!(formation.lineup("shop").dynos[0].id(), shop);
    let starts = formation.scripts.starts.lock().unwrap().clone();
    let last = &starts.last().unwrap().program;
    assert_eq!((starts.len(), last.release, last.command.as_str()), (3, 2, "new"));
    formation.supervisor.stop().await;
}

/// Another price or another time of falling asleep concerns nobody who runs.
#[tokio::test(start_paused = true)]
async fn a_changed_size_restarts_but_not_for_its_price() {
    let apps = |change: fn(&mut Size)| {
        let AppSource::Managed(mut shop) = managed(&[("worker", 1)]) else { unreachable!() };
        let mut size = Size::clone(&basic());
        change(&mut size);
        shop.sizes.insert(ProcessType::parse("worker").unwrap(), Arc::new(size));
        [("shop", AppSource::Managed(shop))]
    };
    let formation = Formation::start(&[Script::listens(0)], &apps(|_| {}));
    passes(1).await;
    let cheaper = |size: &mut Size| (size.price, size.sleep_after) = (100, Some(Duration::MAX));
    formation.apply(&apps(cheaper)).await;
    assert_eq!(formation.started(), 1);
    formation.apply(&apps(|size| size.limits.processes = 10)).await;
    passes(1).await;
    let starts = formation.scripts.starts.lock().unwrap().clone();
    let program = |it: &Start| (it.program.size.limits.processes, it.program.release);
    let programs = starts.iter().map(program).collect::<Vec<_>>();
    assert_eq!(programs, [(256, 1), (10, 1)], "another size is no other release");
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn changed_timeouts_restart_nothing_and_hold_at_once() {
    let apps = |exit: u64| {
        let AppSource::Managed(mut shop) = managed(&[("worker", 1)]) else { unreachable!() };
        shop.timeouts.exit = Duration::from_secs(exit);
        [("shop", AppSource::Managed(shop))]
    };
    let formation = Formation::start(&[Script::listens(0).ignores_sigterm()], &apps(30));
    passes(1).await;
    formation.apply(&apps(2)).await;
    let began = time::Instant::now();
    formation.supervisor.stop().await;
    assert_eq!((formation.started(), began.elapsed().as_secs()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_removed_app_finishes_what_it_holds() {
    let formation = Formation::start(&[Script::listens(0)], &[("shop", managed(&[("web", 1)]))]);
    passes(1).await;
    let lease = formation.lineup("shop").dynos[0].lease().unwrap();
    formation.apply(&[]).await;
    assert!(formation.publisher.table().apps().is_empty());
    assert_eq!(formation.states(), ["shop web.1 down"]);
    assert!(lease.dyno().is_closed());
    drop(lease);
    passes(1).await;
    assert_eq!(formation.states(), [""; 0]);
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_takes_as_long_as_the_slowest_dyno_and_no_drain_outlasts_the_daemons_own_bound() {
    let slow = Script::listens(0).ignores_sigterm();
    let formation = Formation::start(&[slow], &[("shop", managed(&[("web", 3), ("worker", 3)]))]);
    passes(1).await;
    let _lease = formation.lineup("shop").dynos[0].lease().unwrap();
    let began = time::Instant::now();
    formation.supervisor.stop().await;
    assert_eq!(began.elapsed().as_secs(), 50);
}

#[tokio::test(start_paused = true)]
async fn external_dynos_keep_their_records_by_address() {
    let [one, two, three] = ["127.0.0.1:5001", "127.0.0.1:5002", "127.0.0.1:5003"];
    let formation = Formation::start(&[Script::listens(0)], &[("legacy", external(&[one, two]))]);
    let before = formation.lineup("legacy");
    assert_eq!(before.standing, Standing::Up);
    let lease = before.dynos[0].lease().unwrap();
    formation.supervisor.apply(&Arc::new(config(&[("legacy", external(&[two, three]))])));
    let after = formation.lineup("legacy");
    let names = after
        .dynos
        .iter()
        .map(|dyno| format!("{} {}", dyno.name(), dyno.addr()))
        .collect::<Vec<_>>();
    assert_eq!(names, ["web.1 127.0.0.1:5003", "web.2 127.0.0.1:5002"]);
    assert_eq!(after.dynos[1].id(), before.dynos[1].id());
    assert!(lease.dyno().is_closed());
    assert_eq!(formation.states(), ["legacy web.1 external", "legacy web.2 external"]);
    formation.apply(&[("legacy", AppSource::Blank)]).await;
    assert_eq!(formation.lineup("legacy").standing, Standing::Blank);
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_app_moves_from_somebody_elses_dynos_to_our_own() {
    let formation =
        Formation::start(&[Script::listens(3)], &[("shop", external(&["127.0.0.1:5001"]))]);
    formation.apply(&[("shop", managed(&[("web", 1)]))]).await;
    assert_eq!(formation.lineup("shop").standing, Standing::Starting);
    passes(3).await;
    assert!(formation.lineup("shop").dynos[0].is_managed());
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_crashed_dyno_is_counted_and_comes_back() {
    let crash = Script::listens(1).exits(2, Exit::Status(3));
    let formation =
        Formation::start(&[crash, Script::listens(1)], &[("shop", managed(&[("web", 1)]))]);
    passes(4).await;
    let status = formation.supervisor.status().remove(0);
    assert_eq!((status.state.as_str(), status.restarts, status.pid), ("up", 1, Some(1)));
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_stopped_by_its_name_never_runs_twice() {
    let slow = Script { heeds_sigterm: Some(Duration::from_secs(5)), ..Script::listens(0) };
    let formation = Formation::start(&[slow], &[("shop", managed(&[("worker", 1)]))]);
    passes(1).await;
    assert!(formation.supervisor.stop_dyno(&app_name("shop"), "worker.1").await);
    for _ in 0..4 {
        passes(1).await;
        assert_eq!((formation.started(), formation.scripts.living()), (1, 1));
    }
    passes(2).await;
    assert_eq!((formation.started(), formation.scripts.living()), (2, 1));
    assert_eq!(formation.states(), ["shop worker.1 up"]);
    formation.supervisor.stop().await;
}

/// Waiting helps as long as one of the dynos boots: the app is crashed only when all of them cool off.
#[tokio::test(start_paused = true)]
async fn an_app_is_crashed_while_all_of_its_dynos_cool_off() {
    let boots = Script::never_listens().exits(20, Exit::Status(1));
    let crashes = Script::never_listens().exits(1, Exit::Status(1));
    let formation = Formation::start(&[boots, crashes], &[("shop", managed(&[("web", 2)]))]);
    let mut seen = BTreeMap::new();
    for _ in 0..120 {
        passes(1).await;
        let states = formation.states();
        let cooling = states.iter().filter(|state| state.ends_with(" crashed")).count();
        let standing = formation.lineup("shop").standing;
        let expected = if cooling == 2 { Standing::Crashed } else { Standing::Starting };
        assert_eq!(standing, expected, "{states:?}");
        *seen.entry(cooling).or_insert(0) += 1;
    }
    assert!(seen.contains_key(&1) && seen.contains_key(&2), "{seen:?}");
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_forced_shutdown_ends_everything_without_a_command() {
    let slow = Script::listens(0).ignores_sigterm();
    let formation = Formation::start(&[slow], &[("shop", managed(&[("web", 2)]))]);
    passes(1).await;
    let began = time::Instant::now();
    formation.shutdown.now();
    formation.shutdown.finished().await;
    assert_eq!(began.elapsed().as_secs(), 0);
}

// ---- many dynos --------------------------------------------------------------------------------------------

/// An app whose web dynos run this command.
fn running(command: &str, formation: &[(&str, u32)]) -> AppSource {
    let AppSource::Managed(mut app) = managed(formation) else { unreachable!() };
    app.commands.values_mut().for_each(|it| *it = command.to_owned());
    AppSource::Managed(app)
}

/// How many dynos are up and how many processes there are, in each second until it is quiet: the fewest up, the
/// most processes, and when the last process was started.
async fn replace_all(formation: &Formation, source: AppSource) -> (usize, usize, u64) {
    formation.supervisor.apply(&Arc::new(config(&[("shop", source)])));
    let (mut fewest, mut most, mut last) = (usize::MAX, 0, (0, 0));
    for second in 0..200 {
        let up = formation.states().iter().filter(|state| state.ends_with(" up")).count();
        fewest = fewest.min(up);
        most = most.max(formation.scripts.living());
        if formation.started() != last.0 {
            last = (formation.started(), second);
        }
        time::sleep(Duration::from_secs(1)).await;
    }
    (fewest, most, last.1)
}

#[tokio::test(start_paused = true)]
async fn a_new_release_takes_web_dynos_a_quarter_at_a_time_and_none_is_missing() {
    let formation =
        Formation::start(&[Script::listens(5)], &[("shop", running("old", &[("web", 10)]))]);
    passes(6).await;
    let (fewest, most, last) = replace_all(&formation, running("new", &[("web", 10)])).await;
    assert_eq!((fewest, most), (10, 13));
    // Ten in threes, five seconds each.
    assert!((15..=17).contains(&last), "{last}");
    let starts = formation.scripts.starts.lock().unwrap().clone();
    assert!(starts[10..].iter().all(|start| start.program.command == "new"));
    assert_eq!(starts.len(), 20);
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_release_takes_workers_a_quarter_at_a_time() {
    let slow = Script { heeds_sigterm: Some(Duration::from_secs(3)), ..Script::listens(0) };
    let formation = Formation::start(&[slow], &[("shop", running("old", &[("worker", 8)]))]);
    passes(1).await;
    let (fewest, most, _) = replace_all(&formation, running("new", &[("worker", 8)])).await;
    assert_eq!((fewest, most), (6, 8));
    assert_eq!(formation.started(), 16);
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn dynos_that_are_old_are_replaced_one_at_a_time() {
    let source = |cycle| {
        let AppSource::Managed(mut app) = managed(&[("web", 8)]) else { unreachable!() };
        Arc::make_mut(&mut app.upkeep).cycle = cycle;
        AppSource::Managed(app)
    };
    let formation = Formation::start(&[Script::listens(5)], &[("shop", source(None))]);
    passes(6).await;
    let (fewest, most, last) =
        replace_all(&formation, source(Some(Duration::from_secs(100)))).await;
    // All of them are due by the hundredth second, and again from the hundred and ninetieth on.
    assert_eq!((fewest, most), (8, 9));
    assert!(last > 100, "{last}");
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn scaling_to_none_and_back_forgets_the_crashes() {
    let crash = Script::listens(0).exits(1, Exit::Status(1));
    let formation = Formation::start(&[crash], &[("shop", managed(&[("web", 1)]))]);
    passes(4).await;
    // It cools off for two seconds after its third crash; anew, it restarts at once after the first.
    formation.apply(&[("shop", managed(&[("web", 0)]))]).await;
    let before = formation.started();
    formation.apply(&[("shop", managed(&[("web", 1)]))]).await;
    assert_eq!(formation.started() - before, 2);
    formation.supervisor.stop().await;
}

fn frail(web: u32) -> AppSource {
    let AppSource::Managed(mut app) = managed(&[("web", web)]) else { unreachable!() };
    Arc::make_mut(&mut app.upkeep).health = Some(HealthCheck {
        path: "/up".into(),
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(5),
        unhealthy_after: NonZeroU32::new(2).unwrap(),
        restart_after: None,
    });
    AppSource::Managed(app)
}

#[tokio::test(start_paused = true)]
async fn an_unhealthy_dyno_is_passed_over_but_never_all_of_them() {
    let scripts = [
        Script::listens(0).unwell(50, 150),
        Script::listens(0).unwell(100, 150),
        Script::listens(0),
    ];
    let formation = Formation::start(&scripts, &[("shop", frail(2))]);
    passes(49).await;
    let both = formation.lineup("shop");
    assert_eq!(both.dynos.len(), 2);
    passes(30).await;
    assert_eq!(formation.lineup("shop").dynos.len(), 1);
    assert!(both.dynos.iter().all(|dyno| !dyno.is_closed()), "it may come back");
    passes(60).await;
    assert_eq!(formation.lineup("shop").dynos.len(), 2, "all are unwell: all get requests");
    passes(40).await;
    let ids = |lineup: &Lineup| lineup.dynos.iter().map(|dyno| dyno.id()).collect::<Vec<_>>();
    assert_eq!(ids(&formation.lineup("shop")), ids(&both));
    assert_eq!(formation.started(), 2);
    formation.supervisor.stop().await;
}

// ---- sleep -------------------------------------------------------------------------------------------------

/// Of a size that sleeps after a minute, the worker's too where it `naps`.
fn sleepy(formation: &[(&str, u32)], worker_naps: bool) -> AppSource {
    let AppSource::Managed(mut app) = managed(formation) else { unreachable!() };
    let eco = Size { sleep_after: Some(Duration::from_secs(60)), ..Size::clone(&basic()) };
    for (process_type, size) in &mut app.sizes {
        if process_type.is_web() || worker_naps {
            *size = Arc::new(eco.clone());
        }
    }
    AppSource::Managed(app)
}

#[tokio::test(start_paused = true)]
async fn an_idle_app_sleeps_with_its_workers_and_one_boot_answers_many_requests() {
    let source = sleepy(&[("web", 2), ("worker", 1)], true);
    let formation = Formation::start(&[Script::listens(3)], &[("shop", source)]);
    passes(3).await;
    for _ in 0..4 {
        // In use: each request starts the minute anew, and one that lasts keeps the app awake.
        passes(50).await;
        drop(formation.lineup("shop").dynos[1].lease().unwrap());
    }
    let lease = formation.lineup("shop").dynos[0].lease().unwrap();
    passes(300).await;
    assert_eq!(formation.lineup("shop").standing, Standing::Up);
    drop(lease);
    passes(55).await;
    assert_eq!(formation.lineup("shop").standing, Standing::Up);
    passes(15).await;
    assert_eq!(formation.lineup("shop").standing, Standing::Asleep);
    assert_eq!(formation.states(), ["shop web.1 idle", "shop web.2 idle", "shop worker.1 idle"]);
    passes(10_000).await;
    assert_eq!((formation.started(), formation.scripts.living()), (3, 0));

    let roster = formation.publisher.table().apps()[0].roster.clone();
    for _ in 0..100 {
        roster.bell().ring();
    }
    passes(0).await;
    assert_eq!(formation.lineup("shop").standing, Standing::Starting);
    passes(3).await;
    assert_eq!(formation.states(), ["shop web.1 up", "shop web.2 up", "shop worker.1 up"]);
    assert_eq!(formation.started(), 6);
    passes(70).await;
    assert_eq!(formation.lineup("shop").standing, Standing::Asleep, "and again");
    formation.supervisor.stop().await;
    assert_eq!(formation.states(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_sleeps_only_with_a_web_dyno_and_only_in_a_size_that_sleeps() {
    let alone = sleepy(&[("worker", 1)], true);
    let beside = sleepy(&[("web", 1), ("worker", 1)], false);
    let formation =
        Formation::start(&[Script::listens(0)], &[("alone", alone), ("beside", beside)]);
    passes(1000).await;
    assert_eq!(
        formation.states(),
        ["alone worker.1 up", "beside web.1 idle", "beside worker.1 up"]
    );
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_reload_changes_holds_for_those_that_sleep() {
    let formation =
        Formation::start(&[Script::listens(0)], &[("shop", sleepy(&[("web", 1)], true))]);
    passes(100).await;
    // More of them: they sleep too.
    formation.apply(&[("shop", sleepy(&[("web", 2)], true))]).await;
    assert_eq!(formation.states(), ["shop web.1 idle", "shop web.2 idle"]);
    assert_eq!(formation.started(), 1);
    // Another release: it is what wakes.
    let AppSource::Managed(mut app) = sleepy(&[("web", 2)], true) else { unreachable!() };
    app.commands.insert(ProcessType::web(), "new".into());
    let new = AppSource::Managed(app);
    formation.apply(&[("shop", new)]).await;
    assert_eq!(formation.started(), 1);
    formation.publisher.table().apps()[0].roster.bell().ring();
    passes(1).await;
    let starts = formation.scripts.starts.lock().unwrap().clone();
    assert_eq!(starts.len(), 3);
    assert!(starts[1..].iter().all(|start| start.program.command == "new"));
    // A size that does not sleep: it is up, and stays so.
    passes(100).await;
    assert_eq!(formation.lineup("shop").standing, Standing::Asleep);
    formation.apply(&[("shop", managed(&[("web", 2)]))]).await;
    passes(1000).await;
    assert_eq!(formation.states(), ["shop web.1 up", "shop web.2 up"]);
    formation.supervisor.stop().await;
}

/// A ring that is heard before the dynos have left the line-up, and one that comes when nobody sleeps.
#[tokio::test(start_paused = true)]
async fn a_ring_at_any_moment_leaves_no_app_asleep() {
    for millis in (60_000..64_000).step_by(50) {
        let formation =
            Formation::start(&[Script::listens(0)], &[("shop", sleepy(&[("web", 1)], true))]);
        let roster = formation.publisher.table().apps()[0].roster.clone();
        time::sleep(Duration::from_millis(millis)).await;
        // What a request does.
        if roster.lineup().standing == Standing::Asleep {
            roster.bell().ring();
            passes(1).await;
        }
        assert_eq!(roster.lineup().standing, Standing::Up, "at {millis}");
        formation.supervisor.stop().await;
    }
}
