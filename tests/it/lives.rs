//! The lives of dynos: replaced by the clock and by people, through a new binary, with an init that hangs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use crate::support::{
    Client, Known, Line, Load, Mesh, Setup, becomes_true, directories, init_of, is_gone, request,
    testapp,
};

/// What is known once every dyno is up.
async fn all_up(mesh: &Mesh, count: usize) -> Vec<Known> {
    let is_up = |dyno: &Known| dyno.state == "up" && dyno.pid.is_some();
    let all_up = |known: &[Known]| known.len() == count && known.iter().all(is_up);
    becomes_true("every dyno to be up", async || all_up(&mesh.known().await)).await;
    mesh.known().await
}

fn pids(known: &[Known]) -> BTreeSet<Option<i32>> {
    known.iter().map(|dyno| dyno.pid).collect()
}

// ---- a new binary ------------------------------------------------------------------------------------------

/// Another file under the name of the daemon's binary, as an upgrade has it.
fn upgrade(binary: &Path) {
    let new = binary.with_extension("new");
    fs::copy(env!("CARGO_BIN_EXE_dynomesh"), &new).unwrap();
    fs::rename(new, binary).unwrap();
}

/// The daemon's file is replaced while it runs, dynos and all: it goes on, and so does the next one.
async fn lives_through_an_upgrade(change: impl FnOnce(Setup) -> Setup) {
    let setup = Setup::new().procfile(
        "shop",
        "web: TESTAPP\n",
        "timeouts = { cool_off = \"200ms\", cool_off_max = \"400ms\" }",
    );
    let binary = setup.dir().join("dynomesh");
    upgrade(&binary);
    let run = format!("run() {{ shift; exec {} \"$@\"; }}; run", binary.display());
    let mut mesh = change(setup.before(&run)).start().await;
    all_up(&mesh, 1).await;
    // The first daemon has also started it, the second one has found it.
    for ups in [2, 1] {
        upgrade(&binary);
        // The daemon's own file is not there any more, and a crashed dyno comes back all the same.
        assert_eq!(mesh.get("/exit-idle?code=3").await.status, 200);
        mesh.says("heroku[web.1]", "State changed from up to crashed").await;
        mesh.says_times("heroku[web.1]", "State changed from starting to up", ups).await;
        let before = pids(&all_up(&mesh, 1).await);
        mesh = mesh.killed().await.start().await;
        mesh.says("heroku[web.1]", "Adopted, up since ").await;
        assert_eq!(pids(&all_up(&mesh, 1).await), before);
        assert_eq!(mesh.get("/").await.text(), "web.1");
    }
    mesh.signal(Signal::TERM);
    assert!(mesh.ended().await.success());
    assert_eq!(mesh.dynos(), []);
}

#[tokio::test]
async fn a_daemon_whose_binary_was_replaced_respawns_dynos_and_the_next_one_adopts_them() {
    lives_through_an_upgrade(|setup| setup).await;
}

#[tokio::test]
async fn a_daemon_whose_binary_was_replaced_respawns_isolated_dynos_too() {
    lives_through_an_upgrade(|setup| setup.isolated(&[&testapp()])).await;
}

// ---- an init that hangs ------------------------------------------------------------------------------------

async fn with_a_stopped_init(change: impl FnOnce(Setup) -> Setup) -> (Mesh, i32, PathBuf) {
    let setup = Setup::new().procfile(
        "shop",
        "web: TESTAPP\n",
        "timeouts = { exit = \"200ms\", cool_off = \"200ms\", cool_off_max = \"400ms\" }",
    );
    let mesh = change(setup).start().await;
    let pid = all_up(&mesh, 1).await[0].pid.unwrap();
    let home = directories(mesh.dir()).pop_first().unwrap();
    kill_process(init_of(&home), Signal::STOP).unwrap();
    (mesh, pid, home)
}

async fn stops(change: impl FnOnce(Setup) -> Setup) {
    let (mut mesh, pid, _) = with_a_stopped_init(change).await;
    mesh.signal(Signal::TERM);
    assert!(mesh.ended().await.success());
    assert!(is_gone(pid));
    assert_eq!(mesh.dynos(), []);
    assert_eq!(directories(mesh.dir()), BTreeSet::new());
}

#[tokio::test]
async fn an_init_that_is_stopped_does_not_hold_up_the_daemons_end() {
    stops(|setup| setup).await;
}

#[tokio::test]
async fn an_isolated_init_that_is_stopped_does_not_hold_up_the_daemons_end() {
    stops(|setup| setup.isolated(&[&testapp()])).await;
}

async fn starts(change: impl FnOnce(Setup) -> Setup) {
    let (mesh, pid, home) = with_a_stopped_init(change).await;
    let mesh = mesh.killed().await.start().await;
    assert_eq!(mesh.get("/").await.text(), "web.1");
    becomes_true("what cannot be taken over to be gone", async || is_gone(pid)).await;
    becomes_true("its directory to be removed", async || !home.exists()).await;
    assert_eq!(all_up(&mesh, 1).await.len(), 1);
}

#[tokio::test]
async fn an_init_that_is_stopped_does_not_hold_up_the_next_daemons_start() {
    starts(|setup| setup).await;
}

#[tokio::test]
async fn an_isolated_init_that_is_stopped_does_not_hold_up_the_next_daemons_start() {
    starts(|setup| setup.isolated(&[&testapp()])).await;
}

/// Its init cannot say that it has died: requests must not go to it until somebody has an idea.
#[tokio::test]
async fn a_dyno_that_dies_under_a_stopped_init_leaves_the_table_and_comes_back() {
    let (mesh, pid, home) = with_a_stopped_init(|setup| setup).await;
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    becomes_true("its successor", async || {
        let known = mesh.known().await;
        known[0].state == "up" && known[0].pid.is_some_and(|now| now != pid)
    })
    .await;
    assert_eq!(mesh.get("/").await.text(), "web.1");
    becomes_true("its directory to be removed", async || !home.exists()).await;
    let out = mesh.metrics().await;
    let labels = [("app", "shop"), ("type", "web")];
    assert_eq!(out.get("dynomesh_dyno_out_seconds_count", &labels), 1.0);
    // The init was two seconds late, and the table was not.
    assert!(out.get("dynomesh_dyno_out_seconds_sum", &labels) < 1.0);
}

#[tokio::test]
async fn whoever_is_up_has_a_number() {
    let mesh = Setup::new()
        .procfile("shop", "web: TESTAPP\nworker: exec sleep 1000\n", "formation = { worker = 10 }")
        .start()
        .await;
    becomes_true("every dyno to be up", async || {
        let known = mesh.known().await;
        let nameless = known.iter().find(|dyno| dyno.state == "up" && dyno.pid.is_none());
        assert_eq!(nameless, None);
        known.len() == 11 && known.iter().all(|dyno| dyno.state == "up")
    })
    .await;
}

// ---- replaced by the clock and by people -------------------------------------------------------------------

/// The shortest time after which dynos can be cycled is a minute.
#[tokio::test]
async fn dynos_are_cycled_one_after_the_other_and_no_request_notices() {
    let mesh = Setup::new()
        .procfile("shop", "web: TESTAPP\n", "cycle = \"1m\"\nformation = { web = 2 }")
        .start()
        .await;
    let first = pids(&all_up(&mesh, 2).await);
    let load = Load::start(mesh.http(), 4, &request("GET", "/", "", ""));
    sleep(Duration::from_secs(50)).await;
    assert!(!mesh.lines().iter().any(|line| line.message == "Cycling"), "not before its time");
    let others = async {
        loop {
            let now = mesh.known().await;
            if now.iter().all(|dyno| dyno.pid.is_some() && !first.contains(&dyno.pid)) {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), others).await.expect("two others");
    for dyno in ["heroku[web.1]", "heroku[web.2]"] {
        mesh.says(dyno, "Process exited with status 143").await;
    }
    let tally = load.stop().await;
    assert_eq!((tally.broken, tally.refused), (0, 0), "{tally:?}");
    assert!(tally.fine > 0);
    // One at a time: who cycles has its successor up before the next one begins.
    let lines = mesh.lines();
    let mut under_way = None;
    for line in lines.iter().filter(|line| line.source.starts_with("heroku[web.")) {
        if line.message == "Cycling" {
            assert_eq!(under_way.replace(&line.source), None, "{lines:?}");
        } else if line.message == "Stopping all processes with SIGTERM" {
            under_way = None;
        }
    }
}

#[tokio::test]
async fn a_rolling_restart_never_goes_below_the_dynos_that_are_wanted() {
    let mesh = Setup::new()
        .procfile("shop", "web: BIND_AFTER_MS=100 TESTAPP\n", "formation = { web = 5 }")
        .start()
        .await;
    let before = pids(&all_up(&mesh, 5).await);
    let load = Load::start(mesh.http(), 8, &request("GET", "/", "", ""));
    load.carries(50).await;
    assert_eq!(mesh.command(&["ps:restart"]).await.code, Some(0));
    let looks = std::cell::Cell::new(0);
    becomes_true("five others", async || {
        let now = mesh.known().await;
        let up = now.iter().filter(|dyno| dyno.state == "up").count();
        assert_eq!(up, 5, "{now:?}");
        looks.set(looks.get() + 1);
        now.iter().all(|dyno| dyno.pid.is_some() && !before.contains(&dyno.pid))
    })
    .await;
    assert!(looks.get() > 2, "nobody looked meanwhile");
    let tally = load.stop().await;
    assert_eq!((tally.broken, tally.refused), (0, 0), "{tally:?}");
}

/// What part of the requests goes to the second dyno: of so many in a row, or of as many as there is time for.
async fn share_of_the_second(mesh: &Mesh, requests: u32, until: Instant) -> f64 {
    let mut client = mesh.client().await;
    let (mut asked, mut second) = (0, 0);
    while asked < requests && Instant::now() < until {
        second += u32::from(client.get("/").await.text() == "web.2");
        asked += 1;
    }
    assert!(asked >= 50, "{asked} requests are too few to tell");
    f64::from(second) / f64::from(asked)
}

#[tokio::test]
async fn the_share_of_a_fresh_dyno_grows_until_it_is_an_equal_one() {
    let over = Duration::from_secs(12);
    let mesh = Setup::new()
        .procfile("shop", "web: TESTAPP\n", "formation = { web = 2 }\nslow_start = \"12s\"")
        .start()
        .await;
    all_up(&mesh, 2).await;
    // Both are warm when one of them is replaced.
    sleep(over).await;
    assert_eq!(mesh.command(&["ps:restart", "web.2"]).await.code, Some(0));
    mesh.says("heroku[web.2]", "Process exited with status 143").await;
    let began = Instant::now();
    // At the end of this third it has a third of an equal share, and less on the way there.
    let first = share_of_the_second(&mesh, 200, began + over / 3).await;
    assert!(first < 0.3, "{first} of the requests at first");
    sleep(over.saturating_sub(began.elapsed()) + Duration::from_millis(500)).await;
    let last = share_of_the_second(&mesh, 400, Instant::now() + over).await;
    assert!((0.3..0.7).contains(&last), "{last} of the requests at the end");
}

// ---- nothing begins while the daemon stops -----------------------------------------------------------------

#[tokio::test]
async fn no_job_begins_while_the_daemon_waits_for_its_last_requests() {
    let job = "[[apps.shop.jobs]]\ncommand = \"echo job\"\ncron = \"* * * * *\"\n";
    let mut mesh = Setup::new()
        .timeouts("stop = \"5m\"\nfirst_byte = \"5m\"")
        .procfile("shop", "web: TESTAPP\n", job)
        .start()
        .await;
    all_up(&mesh, 1).await;
    let until = mesh.path("done");
    let mut client: Client = mesh.client().await;
    let target = format!("/until?file={}", until.display());
    client.send(format!("GET {target} HTTP/1.1\r\nHost: shop.localhost\r\n\r\n")).await;
    let labels = [("app", "shop"), ("dyno", "web.1")];
    mesh.metric_becomes("dynomesh_in_flight", &labels, 1.0).await;
    let second = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() % 60;
    // What is due at this very minute may begin before the stop does.
    while second() > 50 {
        sleep(Duration::from_secs(1)).await;
    }
    mesh.signal(Signal::TERM);
    let is_stopping = |line: &Line| line.message.contains("stopping").then_some(());
    mesh.line("the stop", is_stopping).await;
    let runs = |lines: Vec<Line>| {
        lines.iter().filter(|line| line.source.starts_with("heroku[scheduler.")).count()
    };
    let before = runs(mesh.lines());
    while second() > 3 || second() < 2 {
        sleep(Duration::from_millis(200)).await;
    }
    assert!(mesh.runs(), "it waits for its last request");
    assert_eq!(runs(mesh.lines()), before);
    fs::write(until, "").unwrap();
    assert_eq!(client.answer().await.status, 200);
    assert!(mesh.ended().await.success());
}
