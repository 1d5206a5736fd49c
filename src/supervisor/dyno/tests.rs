//! Lives of single dynos with scripted processes on a paused clock.

mod tended; // health, age, share, frost and sleep
mod memory; // R14, R15, and what is done about them

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{self, Instant};

use crate::config::SupervisorTimeouts;
use crate::model::{DynoName, Exit, ProcessType};
use crate::shutdown::Shutdown;
use crate::supervisor::dyno::{Adopted, Dyno};
use crate::supervisor::place::{Event, Orders, Place, Replace, State, WatchOrders};
use crate::supervisor::ports::Ports;
use crate::supervisor::program::Program;
use crate::supervisor::routes::Routes;
use crate::supervisor::scripted::{Script, Scripts};
use crate::supervisor::tests::{app_name, basic, config, managed};
use crate::table::{Lease, Publisher, Standing};
use crate::telemetry::{AppLog, Lines, Target};

/// One dyno with scripted processes on a paused clock.
struct Stage {
    began: Instant,
    orders: watch::Sender<Orders>,
    shutdown: Shutdown,
    publisher: Arc<Publisher>,
    scripts: Scripts,
    events: mpsc::UnboundedReceiver<(u64, Event)>,
    life: JoinHandle<()>,
    log: AppLog,
    _dir: tempfile::TempDir,
    log_file: std::path::PathBuf,
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn orders(release: u64) -> Orders {
    Orders {
        program: Arc::new(Program {
            release,
            command: format!("run v{release}"),
            dir: "/".into(),
            size: basic(),
            config_vars: Arc::new(BTreeMap::new()),
        }),
        timeouts: SupervisorTimeouts {
            boot: secs(60),
            exit: secs(30),
            cool_off_first: secs(10),
            cool_off_max: secs(10),
        },
        drain: secs(300),
        watch: WatchOrders::default(),
        upkeep: Arc::default(),
        slow_start: None,
        replace: Replace::Beside,
        keep_warm: None,
        restart: 0,
        asleep: false,
        stop: false,
    }
}

impl Stage {
    fn new(process_type: &str, scripts: &[Script]) -> Self {
        Self::with(process_type, scripts, |dyno| Box::pin(dyno.live()))
    }

    /// A life that begins with a process that is there already: the first of the scripts.
    fn adopting(scripts: &[Script], is_up: bool) -> Self {
        Self::with("web", scripts, |mut dyno| {
            let running = dyno.start().unwrap();
            Box::pin(dyno.go_on(Adopted { running, release: 1, is_up }))
        })
    }

    fn with(
        process_type: &str,
        scripts: &[Script],
        begin: impl FnOnce(Dyno<Scripts>) -> Pin<Box<dyn Future<Output = ()> + Send>>,
    ) -> Self {
        let config = config(&[("shop", managed(&[(process_type, 1)]))]);
        let (routes, publisher) = Routes::new(&config);
        let dir = tempfile::tempdir().unwrap();
        let log_file = dir.path().join("log");
        let log = AppLog::new(Lines::start(Target::file(&log_file).unwrap()).unwrap());
        let (orders, receiver) = watch::channel(orders(1));
        let (sender, events) = mpsc::unbounded_channel();
        let shutdown = Shutdown::default();
        let place = Place {
            id: 1,
            app: app_name("shop"),
            dyno: DynoName { process_type: ProcessType::parse(process_type).unwrap(), number: 1 },
            orders: receiver,
            turns: Arc::default(),
            log: log.clone(),
            shutdown: shutdown.clone(),
            events: sender,
            jitter: || 0.5,
        };
        // No real port is asked for where the clock is paused: these are only numbers.
        let scripts = Scripts::new(scripts);
        let dyno = Dyno::new(place, scripts.clone(), Ports::new(29_000..29_100), routes);
        let life = shutdown.spawn(begin(dyno));
        Self {
            began: Instant::now(),
            orders,
            shutdown,
            publisher,
            scripts,
            events,
            life,
            log,
            _dir: dir,
            log_file,
        }
    }

    async fn at(&self, second: u64) {
        // A moment later than the round second, after everything that happens on it.
        time::sleep_until(self.began + secs(second) + Duration::from_millis(1)).await;
    }

    fn stop(&self) {
        self.orders.send_modify(|orders| orders.stop = true);
    }

    fn restart(&self, release: u64) {
        self.orders.send_replace(orders(release));
    }

    fn order(&self, change: impl FnOnce(&mut Orders)) {
        self.orders.send_modify(change);
    }

    fn standing(&self) -> (usize, Standing) {
        let table = self.publisher.table();
        let lineup = table.apps()[0].roster.lineup();
        (lineup.dynos.len(), lineup.standing)
    }

    fn lease(&self) -> Lease {
        self.publisher.table().apps()[0].roster.lineup().dynos[0].lease().unwrap()
    }

    /// Ends when the life does; what the platform said, without the source.
    async fn end(self) -> Vec<String> {
        self.life.await.unwrap();
        said(&self.log, &self.log_file)
    }
}

fn said(log: &AppLog, file: &Path) -> Vec<String> {
    log.flush();
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().map(|line| line.split_once("]: ").unwrap().1.to_owned()).collect()
}

/// Runs a dyno until it is told to stop, and checks its states with their times.
async fn check(
    process_type: &str,
    scripts: &[Script],
    stop_at: u64,
    expected: &[(u64, State)],
) -> Vec<String> {
    let mut stage = Stage::new(process_type, scripts);
    let began = stage.began;
    let mut states = Vec::new();
    let mut stopping = std::pin::pin!(time::sleep(secs(stop_at)));
    let mut stopped = false;
    loop {
        tokio::select! {
            biased;
            event = stage.events.recv() => match event.unwrap().1 {
                Event::Entered(state) => states.push((began.elapsed().as_secs(), state)),
                Event::Ended => break,
                _ => {}
            },
            () = &mut stopping, if !stopped => {
                stage.stop();
                stopped = true;
            }
        }
    }
    assert_eq!(states, expected);
    stage.end().await
}

#[tokio::test(start_paused = true)]
async fn the_first_crash_restarts_at_once_and_the_second_cools_off() {
    use State::*;
    let crash = Script::listens(3).exits(5, Exit::Status(1));
    let said = check(
        "web",
        &[crash, crash, Script::listens(3)],
        30,
        &[
            (0, Starting),
            (3, Up),
            (5, Crashed),
            (5, Starting),
            (8, Up),
            (10, Crashed),
            (20, Starting),
            (23, Up),
            (30, Draining),
            (30, Stopping),
        ],
    )
    .await;
    assert_eq!(
        said[..7],
        [
            "Starting process with command `run v1`",
            "State changed from starting to up",
            "Process exited with status 1",
            "State changed from up to crashed",
            "State changed from crashed to starting",
            "Starting process with command `run v1`",
            "State changed from starting to up",
        ]
    );
    assert_eq!(
        said[said.len() - 3..],
        [
            "State changed from up to down",
            "Stopping all processes with SIGTERM",
            "Process exited with status 143"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_dyno_that_never_binds_is_killed_and_crashes() {
    use State::*;
    let said = check(
        "web",
        &[Script::never_listens(), Script::listens(1)],
        70,
        &[(0, Starting), (60, Crashed), (60, Starting), (61, Up), (70, Draining), (70, Stopping)],
    )
    .await;
    assert_eq!(
        said[..5],
        [
            "Starting process with command `run v1`",
            "Error R10 (Boot timeout) -> Web process failed to bind to $PORT within 60 seconds of launch",
            "Stopping process with SIGKILL",
            "Process exited with status 137",
            "State changed from starting to crashed",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn the_boot_timeout_is_exact() {
    use State::*;
    let late = Script { listens: Some(Duration::from_millis(59_999)), ..Script::listens(0) };
    check("web", &[late], 61, &[(0, Starting), (59, Up), (61, Draining), (61, Stopping)]).await;
}

#[tokio::test(start_paused = true)]
async fn an_exit_during_boot_is_a_crash_with_status_0_too() {
    use State::*;
    let said = check(
        "web",
        &[Script::never_listens().exits(2, Exit::Status(0)), Script::listens(1)],
        10,
        &[(0, Starting), (2, Crashed), (2, Starting), (3, Up), (10, Draining), (10, Stopping)],
    )
    .await;
    assert_eq!(
        said[1..3],
        ["Process exited with status 0", "State changed from starting to crashed"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_failed_start_is_a_crash_with_a_reason() {
    use State::*;
    let said = check(
        "web",
        &[Script::fails(), Script::fails(), Script::listens(0)],
        12,
        &[
            (0, Starting),
            (0, Crashed),
            (0, Starting),
            (0, Crashed),
            (10, Starting),
            (10, Up),
            (12, Draining),
            (12, Stopping),
        ],
    )
    .await;
    assert_eq!(said[1], "Failed to start: the app's directory / is not there");
}

#[tokio::test(start_paused = true)]
async fn a_stop_during_boot_does_not_wait_for_the_boot() {
    use State::*;
    let said =
        check("web", &[Script::listens(50)], 5, &[(0, Starting), (5, Draining), (5, Stopping)])
            .await;
    assert_eq!(
        said[1..],
        [
            "State changed from starting to down",
            "Stopping all processes with SIGTERM",
            "Process exited with status 143"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_stop_during_the_cool_off_ends_it() {
    use State::*;
    let said = check(
        "worker",
        &[Script::never_listens().exits(1, Exit::Status(1))],
        7,
        &[
            (0, Starting),
            (0, Up),
            (1, Crashed),
            (1, Starting),
            (1, Up),
            (2, Crashed),
            (7, Stopping),
        ],
    )
    .await;
    assert_eq!(said.last().unwrap(), "State changed from crashed to down");
}

#[tokio::test(start_paused = true)]
async fn whoever_ignores_sigterm_is_killed() {
    let stage = Stage::new("worker", &[Script::listens(0).ignores_sigterm()]);
    stage.at(5).await;
    stage.stop();
    let began = stage.began;
    let said = stage.end().await;
    assert_eq!(began.elapsed().as_secs(), 35);
    assert_eq!(
        said[2..],
        [
            "State changed from up to down",
            "Stopping all processes with SIGTERM",
            "Error R12 (Exit timeout) -> At least one process failed to exit within 30 seconds of SIGTERM",
            "Stopping remaining processes with SIGKILL",
            "Process exited with status 137",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_forced_shutdown_waits_for_nobody() {
    let stage = Stage::new("web", &[Script::listens(0).ignores_sigterm()]);
    stage.at(1).await;
    let _lease = stage.lease();
    stage.stop();
    stage.at(2).await;
    stage.shutdown.now();
    let began = stage.began;
    let said = stage.end().await;
    assert_eq!(began.elapsed().as_secs(), 2);
    assert!(!said.iter().any(|line| line.contains("R12")), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stop_leaves_the_table_first_and_waits_for_what_is_in_flight() {
    let stage = Stage::new("web", &[Script::listens(0)]);
    stage.at(1).await;
    assert_eq!(stage.standing(), (1, Standing::Up));
    let lease = stage.lease();
    let record = lease.dyno().clone();
    stage.stop();
    stage.at(100).await;
    assert_eq!(stage.standing().0, 0);
    assert!(record.lease().is_none());
    assert!(!stage.life.is_finished());
    drop(lease);
    let began = stage.began;
    stage.end().await;
    assert_eq!(began.elapsed().as_secs(), 100);
    assert_eq!(record.exit(), Some(Exit::Signal(15)));
}

#[tokio::test(start_paused = true)]
async fn a_drain_is_bounded_and_the_bound_may_shrink() {
    for (shrink_at, ends_at) in [(None, 301), (Some(50), 50), (Some(10), 21)] {
        let stage = Stage::new("web", &[Script::listens(0)]);
        stage.at(1).await;
        let lease = stage.lease();
        stage.stop();
        if let Some(at) = shrink_at {
            stage.at(at).await;
            stage.orders.send_modify(|orders| orders.drain = secs(20));
        }
        let began = stage.began;
        stage.end().await;
        assert_eq!(began.elapsed().as_secs(), ends_at, "{shrink_at:?}");
        drop(lease);
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_is_out_of_the_table_and_known_before_anything_else() {
    let stage =
        Stage::new("web", &[Script::listens(0).exits(9, Exit::Signal(11)), Script::listens(4)]);
    stage.at(1).await;
    let record = stage.lease().dyno().clone();
    stage.at(9).await;
    assert_eq!(stage.standing(), (0, Standing::Starting));
    assert_eq!(record.exit(), Some(Exit::Signal(11)));
    assert!(record.is_closed());
    stage.at(13).await;
    assert_eq!(stage.standing(), (1, Standing::Up));
    assert_ne!(stage.lease().dyno().id(), record.id());
    stage.stop();
    stage.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_app_whose_only_dyno_cools_off_is_crashed() {
    let crash = Script::listens(0).exits(1, Exit::Status(1));
    let stage = Stage::new("web", &[crash]);
    stage.at(0).await;
    assert_eq!(stage.standing(), (1, Standing::Up));
    stage.at(2).await;
    assert_eq!(stage.standing(), (0, Standing::Crashed));
    stage.at(12).await;
    assert_eq!(stage.standing(), (1, Standing::Up));
    stage.stop();
    stage.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_app_is_crashed_only_while_its_only_dyno_cools_off() {
    let crash = Script::never_listens().exits(2, Exit::Status(1));
    let stage = Stage::new("web", &[crash, crash, Script::fails(), Script::listens(3)]);
    let expected = [
        (0, Standing::Starting),
        (1, Standing::Starting),
        (2, Standing::Starting), // restarted at once
        (3, Standing::Starting),
        (4, Standing::Crashed), // cools off
        (13, Standing::Crashed),
        (14, Standing::Crashed), // did not even start
        (24, Standing::Starting),
        (26, Standing::Starting),
        (27, Standing::Up),
    ];
    for (at, standing) in expected {
        stage.at(at).await;
        assert_eq!(stage.standing().1, standing, "at {at}");
    }
    stage.stop();
    stage.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_boot_timeout_leaves_an_app_starting_once() {
    let stage = Stage::new("web", &[Script::never_listens()]);
    for (at, standing) in
        [(59, Standing::Starting), (60, Standing::Starting), (120, Standing::Crashed)]
    {
        stage.at(at).await;
        assert_eq!(stage.standing().1, standing, "at {at}");
    }
    stage.stop();
    stage.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_boots_the_new_process_before_the_old_one_leaves() {
    let stage = Stage::new("web", &[Script::listens(0), Script::listens(5)]);
    stage.at(10).await;
    let lease = stage.lease();
    let old = lease.dyno().id();
    stage.restart(2);
    stage.at(14).await;
    assert_eq!(stage.lease().dyno().id(), old);
    stage.at(16).await;
    assert_ne!(stage.lease().dyno().id(), old);
    assert_eq!(stage.standing(), (1, Standing::Up));
    assert!(lease.dyno().is_closed());
    stage.at(40).await;
    assert_eq!(lease.dyno().exit(), None, "it finishes what it holds");
    drop(lease);
    stage.at(41).await;
    stage.stop();
    let said = stage.end().await;
    assert_eq!(
        said[2..6],
        [
            "Restarting",
            "Starting process with command `run v2`",
            "Stopping all processes with SIGTERM",
            "Process exited with status 143",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_new_process_that_does_not_come_up_changes_nothing() {
    for failing in [
        Script::never_listens(),
        Script::never_listens().exits(1, Exit::Status(1)),
        Script::fails(),
    ] {
        let stage = Stage::new("web", &[Script::listens(0), failing, Script::listens(1)]);
        stage.at(10).await;
        let old = stage.lease().dyno().id();
        stage.restart(2);
        stage.at(100).await;
        assert_eq!(stage.lease().dyno().id(), old);
        stage.restart(3);
        stage.at(102).await;
        assert_ne!(stage.lease().dyno().id(), old);
        stage.stop();
        let said = stage.end().await;
        let kept = "Restart failed: v2 did not come up, the earlier process goes on";
        assert!(said.iter().any(|line| line == kept), "{said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_while_the_successor_boots_leaves_it_to_the_successor() {
    let stage =
        Stage::new("web", &[Script::listens(0).exits(12, Exit::Status(1)), Script::listens(5)]);
    stage.at(10).await;
    stage.restart(2);
    stage.at(12).await;
    assert_eq!(stage.standing(), (0, Standing::Starting));
    stage.at(16).await;
    assert_eq!(stage.standing(), (1, Standing::Up));
    stage.stop();
    let said = stage.end().await;
    assert_eq!(
        said.iter().filter(|line| line.starts_with("Starting process")).count(),
        2,
        "{said:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_the_successor_boots_ends_both() {
    let stage = Stage::new("web", &[Script::listens(0), Script::listens(50)]);
    stage.at(10).await;
    stage.restart(2);
    stage.at(12).await;
    stage.stop();
    let began = stage.began;
    let said = stage.end().await;
    assert_eq!(began.elapsed().as_secs(), 12);
    assert_eq!(
        said.iter().filter(|line| *line == "Process exited with status 143").count(),
        2,
        "{said:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_worker_stops_before_it_starts_again() {
    let slow = Script { heeds_sigterm: Some(secs(3)), ..Script::listens(0) };
    let stage = Stage::new("worker", &[slow]);
    stage.at(10).await;
    stage.restart(2);
    stage.at(14).await;
    stage.stop();
    let said = stage.end().await;
    assert_eq!(
        said[1..],
        [
            "State changed from starting to up",
            "Restarting",
            "State changed from up to starting",
            "Stopping all processes with SIGTERM",
            "Process exited with status 143",
            "Starting process with command `run v2`",
            "State changed from starting to up",
            "State changed from up to down",
            "Stopping all processes with SIGTERM",
            "Process exited with status 143",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_stop_or_a_sleep_while_a_worker_restarts_starts_nothing() {
    for asleep in [false, true] {
        let slow = Script { heeds_sigterm: Some(secs(5)), ..Script::listens(0) };
        let stage = Stage::new("worker", &[slow]);
        stage.at(1).await;
        stage.restart(2);
        stage.at(3).await;
        stage.order(|orders| (orders.stop, orders.asleep) = (!asleep, asleep));
        stage.at(20).await;
        assert_eq!(stage.scripts.living(), 0);
        stage.stop();
        let (began, scripts) = (stage.began, stage.scripts.clone());
        stage.end().await;
        assert_eq!((scripts.starts.lock().unwrap().len(), began.elapsed().as_secs()), (1, 20));
    }
}

#[tokio::test(start_paused = true)]
async fn an_adopted_process_goes_on_in_its_state() {
    let stage = Stage::adopting(&[Script::listens(0), Script::listens(5)], true);
    stage.at(0).await;
    assert_eq!(stage.standing(), (1, Standing::Up), "at once");
    stage.restart(2);
    stage.at(6).await;
    stage.stop();
    let said = stage.end().await;
    assert_eq!(said[1..3], ["Restarting", "Starting process with command `run v2`"]);

    let stage = Stage::adopting(&[Script::listens(5), Script::listens(0)], false);
    stage.at(4).await;
    assert_eq!(stage.standing(), (0, Standing::Starting));
    stage.at(6).await;
    assert_eq!(stage.standing(), (1, Standing::Up));
    stage.stop();
    let said = stage.end().await;
    assert_eq!(said[1], "State changed from starting to up");
}

// ---- cool-offs are forgotten -------------------------------------------------------------------------------

/// How often a dyno starts that crashes after a second each time; `change` comes while it cools off.
async fn starts(change: impl FnOnce(&Stage)) -> usize {
    let stage = Stage::new("worker", &[Script::listens(0).exits(1, Exit::Status(1))]);
    stage.at(5).await;
    change(&stage);
    stage.at(7).await;
    stage.stop();
    let said = stage.end().await;
    said.iter().filter(|line| line.starts_with("Starting process")).count()
}

#[tokio::test(start_paused = true)]
async fn a_new_release_and_a_restart_forget_the_crashes() {
    assert_eq!(starts(|_| {}).await, 2, "the second crash cools off for ten seconds");
    assert_eq!(starts(|stage| stage.restart(2)).await, 4, "and the next is a first one");
    assert_eq!(starts(|stage| stage.order(|orders| orders.restart += 1)).await, 4);
}

/// Up for a minute is stable.
#[tokio::test(start_paused = true)]
async fn a_dyno_that_was_up_for_long_restarts_at_once() {
    use State::*;
    let crash = Script::listens(0).exits(1, Exit::Status(1));
    let stable = Script::listens(0).exits(61, Exit::Status(1));
    check(
        "worker",
        &[crash, stable, Script::listens(0)],
        63,
        &[
            (0, Starting),
            (0, Up),
            (1, Crashed),
            (1, Starting),
            (1, Up),
            (62, Crashed),
            (62, Starting),
            (62, Up),
            (63, Draining),
            (63, Stopping),
        ],
    )
    .await;
}
