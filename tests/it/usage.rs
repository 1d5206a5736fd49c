//! How long dynos ran: booked across restarts, and told.

use std::time::{SystemTime, UNIX_EPOCH};

use dynomesh::model::{AppName, Month, Payer, ProcessType, SizeName, Usage};
use dynomesh::store::Store;
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::Instant;

use crate::support::{Answer, Mesh, Setup, becomes_true};

const PROCFILE: &str = "web: TESTAPP\nworker: sleep 1000\n";

async fn shop() -> Mesh {
    Setup::new().procfile("shop", PROCFILE, "formation = { web = 2, worker = 1 }").start().await
}

/// Seconds of this month by process type.
async fn used(mesh: &Mesh, process_type: &str) -> u64 {
    let usage = mesh.command(&["ps:usage", "--json", "-a", "shop"]).await;
    assert_eq!(usage.code, Some(0), "{usage:?}");
    let rows: Vec<Value> = serde_json::from_str(&usage.out).unwrap();
    let of_type = rows.iter().filter(|row| row["type"] == process_type);
    of_type.map(|row| row["dyno_seconds"].as_u64().unwrap()).sum()
}

#[tokio::test]
async fn each_dyno_counts_by_the_second() {
    let mesh = shop().await;
    mesh.says_times("heroku[worker.1]", "State changed from starting to up", 1).await;
    mesh.says_times("heroku[web.2]", "State changed from starting to up", 1).await;
    becomes_true("a second of the worker", async || used(&mesh, "worker").await >= 1).await;
    // Two dynos that began in the same moment as the one.
    let (web, worker) = (used(&mesh, "web").await, used(&mesh, "worker").await);
    assert!(web.abs_diff(2 * worker) <= 3, "web {web} s, worker {worker} s");
    let printed = mesh.command(&["ps:usage"]).await;
    assert_eq!(printed.code, Some(0), "{printed:?}");
    for text in ["=== Usage of 20", "\nshop  web     basic", "\nshop  worker  basic", "\nall"] {
        assert!(printed.out.contains(text), "{printed:?}");
    }
}

#[tokio::test]
async fn what_was_used_is_remembered_after_a_stop() {
    let mut mesh = shop().await;
    becomes_true("a second of the worker", async || used(&mesh, "worker").await >= 1).await;
    let before = used(&mesh, "worker").await;
    mesh.signal(Signal::TERM);
    assert!(mesh.ended().await.success());
    let mesh = mesh.start_again().await;
    let after = used(&mesh, "worker").await;
    assert!(after >= before, "{before} s before, {after} s after");
}

#[tokio::test]
async fn an_app_that_used_nothing_has_no_rows() {
    let mesh = Setup::new().app("idle", "dynos = [\"127.0.0.1:1\"]").start().await;
    let usage = mesh.command(&["ps:usage"]).await;
    assert_eq!((usage.code, &*usage.out), (Some(0), "No dyno has run this month\n"));
}

/// What eco dynos used this month, at a time before now.
async fn eco_hours_used(setup: &Setup, hours: u64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let payer = Payer {
        app: AppName::parse("gone").unwrap(),
        process_type: ProcessType::web(),
        size: SizeName::parse("eco").unwrap(),
    };
    let month = Month::of(now.as_secs());
    let usage = Usage::from([((month, payer), hours * 3_600_000)]);
    let store = Store::open(&setup.dir().join("state")).unwrap();
    store.book(usage, now.as_millis() as u64).await.unwrap();
}

async fn ask(mesh: &Mesh, app: &str) -> Answer {
    let mut client = mesh.client().await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {app}.localhost\r\n\r\n")).await;
    client.answer().await
}

#[tokio::test]
async fn eco_dynos_sleep_once_their_hours_are_used_up_and_others_do_not() {
    let setup = Setup::new().procfile("nap", "web: TESTAPP\n", "size = \"eco\"").procfile(
        "shop",
        "web: TESTAPP\n",
        "",
    );
    eco_hours_used(&setup, 1000).await;
    let mesh = setup.start().await;
    mesh.says("dynomesh[daemon]", "this month's 1000 hours are used up").await;
    becomes_true("H82", async || ask(&mesh, "nap").await.status == 503).await;
    ask(&mesh, "nap").await.is_refusal(503, "H82");
    assert_eq!(ask(&mesh, "shop").await.status, 200);
    let lines = mesh.lines();
    let started = lines.iter().find(|it| it.app == "nap" && it.message.starts_with("Starting"));
    assert!(started.is_none(), "not even for a moment: {started:?}");
    let run = mesh.command(&["run:detached", "-a", "nap", "true"]).await;
    assert_eq!(run.err, "dynomesh: the eco dynos' hours of this month are used up\n");
}

#[tokio::test]
async fn that_most_eco_hours_are_used_is_said() {
    let setup = Setup::new().procfile("nap", "web: TESTAPP\n", "size = \"eco\"");
    eco_hours_used(&setup, 800).await;
    let mesh = setup.start().await;
    mesh.says("dynomesh[daemon]", "eco dynos: 800 of this month's 1000 hours are used").await;
    assert_eq!(ask(&mesh, "nap").await.status, 200);
}

#[tokio::test]
async fn a_dyno_that_outlives_its_daemon_counts_without_a_gap_and_once() {
    let mut mesh = shop().await;
    mesh.says("heroku[worker.1]", "State changed from starting to up").await;
    let began = Instant::now();
    becomes_true("two seconds of the worker", async || used(&mesh, "worker").await >= 2).await;
    mesh.signal(Signal::KILL);
    mesh.ended().await;
    let mesh = mesh.start_again().await;
    mesh.says("heroku[worker.1]", "Adopted, up").await;
    let after = used(&mesh, "worker").await;
    becomes_true("two seconds more", async || used(&mesh, "worker").await >= after + 2).await;
    // One dyno: as long as the clock on the wall says, give or take the ends.
    let (used, passed) = (used(&mesh, "worker").await, began.elapsed().as_secs());
    assert!(used.abs_diff(passed) <= 2, "{used} s used in {passed} s");
}
