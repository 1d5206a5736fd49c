//! Apps that sleep while nobody asks, and dynos that are stopped where they are.

use std::fs;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::support::{Client, Mesh, Setup, becomes_true};

/// Apps of size `nap` sleep after so long.
fn sleeps_after(idle: &str, procfile: &str, lines: &str) -> Setup {
    let size = format!("memory = \"64MB\"\nprocesses = 64\nsleep_after = \"{idle}\"");
    Setup::new()
        .procfile("shop", procfile, &format!("size = \"nap\"\n{lines}"))
        .table("sizes.nap", &size)
}

fn count(mesh: &Mesh, source: &str, message: &str) -> usize {
    mesh.lines().iter().filter(|line| line.says(source, message)).count()
}

async fn sleeps(mesh: &Mesh) {
    let labels = [("app", "shop"), ("type", "web"), ("state", "idle")];
    mesh.metric_becomes("dynomesh_dynos", &labels, 1.0).await;
}

#[tokio::test]
async fn an_idle_app_sleeps_with_its_worker_and_one_boot_answers_all_who_come() {
    let mesh = sleeps_after(
        "1s",
        "web: BIND_AFTER_MS=300 TESTAPP\nworker: exec sleep 60\n",
        "formation = { worker = 1 }",
    )
    .start()
    .await;
    assert_eq!(mesh.get("/").await.text(), "web.1");
    for dyno in ["web.1", "worker.1"] {
        let dyno = format!("heroku[{dyno}]");
        mesh.says(&dyno, "Idling").await;
        mesh.says(&dyno, "State changed from up to down").await;
        mesh.says(&dyno, "Process exited with status 143").await;
    }
    sleeps(&mesh).await;

    let mut requests = JoinSet::new();
    for _ in 0..30 {
        let addr = mesh.http();
        requests.spawn(async move { Client::connect(addr).await.get("/").await.status });
    }
    assert!(requests.join_all().await.iter().all(|status| *status == 200));
    for dyno in ["heroku[web.1]", "heroku[worker.1]"] {
        mesh.says(dyno, "Unidling").await;
        mesh.says_times(dyno, "State changed from starting to up", 2).await;
        assert_eq!(count(&mesh, dyno, "Starting process"), 2);
        assert_eq!(count(&mesh, dyno, "State changed from down to starting"), 1);
    }
}

/// A request that is refused before a dyno is looked for wakes nobody, nor do those who ask the daemon.
#[tokio::test]
async fn who_is_refused_does_not_wake_an_app() {
    let mut mesh = sleeps_after("1s", "web: TESTAPP\n", "").start().await;
    sleeps(&mesh).await;
    let mut client = mesh.client().await;
    client.send("GET / HTTP/1.1\r\nHost: shop.localhost\r\nHost: shop.localhost\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 400);
    for target in ["/healthz", "/readyz", "/metrics", "/debug/dynos"] {
        // Ready, too: a balancer that sent nothing here would leave the app asleep.
        assert_eq!(mesh.ask_admin(target).await.status, 200, "{target}");
    }
    let text = mesh.setup().text();
    let size = "size = \"nap\"";
    mesh.reload_text(&text.replace(size, &format!("{size}\nmaintenance = true")), "ok").await;
    assert_eq!(mesh.get("/").await.status, 503);
    mesh.reload_text(&text, "ok").await;
    // Had any of these rung, there would be two by now.
    assert_eq!(mesh.get("/").await.status, 200);
    assert_eq!(count(&mesh, "heroku[web.1]", "Unidling"), 1);
}

/// Refused for its number: the app has asked for quiet, and gets it.
#[tokio::test]
async fn a_request_beyond_the_apps_limit_does_not_wake_it() {
    let lines = "limits = { requests_per_second = 1 }";
    let mesh = sleeps_after("200ms", "web: TESTAPP\n", lines).start().await;
    let (mut wakes, mut refused) = (0, 0);
    // A second may be over before the app sleeps: then the request is one that wakes it.
    while refused < 2 {
        assert!(wakes < TRIES, "no request was refused while the app slept");
        sleeps(&mesh).await;
        match mesh.get("/").await.status {
            429 => refused += 1,
            status => {
                assert_eq!(status, 200);
                wakes += 1;
                continue;
            }
        }
        // Had it rung, the app would be up in a moment.
        sleep(Duration::from_millis(200)).await;
        sleeps(&mesh).await;
        assert_eq!(count(&mesh, "heroku[web.1]", "Unidling"), wakes);
    }
}

/// Whenever a request comes: before the app falls asleep, after it, or in between.
#[tokio::test]
async fn no_request_is_lost_to_an_app_that_is_falling_asleep() {
    let mesh = sleeps_after("200ms", "web: TESTAPP\n", "").start().await;
    for step in 0..40 {
        let answer = mesh.get("/").await;
        assert_eq!((answer.status, answer.text()), (200, "web.1"), "in step {step}");
        sleep(Duration::from_millis(190 + 3 * step)).await;
    }
    assert!(count(&mesh, "heroku[web.1]", "Unidling") > 3);
}

/// Microseconds of the hour.
fn stamp(line: &crate::support::Line) -> u64 {
    // 2026-11-21T01:44:50.123456+00:00
    let number = |at: std::ops::Range<usize>| line.stamp[at].parse::<u64>().unwrap();
    (number(14..16) * 60 + number(17..19)) * 1_000_000 + number(20..26)
}

/// How often something that may be late on a busy machine is tried: other tests run beside this one, and what is
/// late each time is too late.
const TRIES: usize = 20;

/// What a request waits beyond the time between the start of the process and the line in which the app says that it
/// listens.
#[tokio::test]
async fn a_wake_costs_ten_milliseconds_over_the_boot_at_most() {
    let mesh = sleeps_after("200ms", "web: BIND_AFTER_MS=150 TESTAPP\n", "").start().await;
    let mut best = Duration::MAX;
    for wake in 0..TRIES {
        mesh.says_times("heroku[web.1]", "Process exited", wake + 1).await;
        let began = Instant::now();
        assert_eq!(mesh.get("/").await.status, 200);
        let waited = began.elapsed();
        mesh.says_times("app[web.1]", "listening on", wake + 2).await;
        let lines = mesh.lines();
        let last = |message: &str| {
            stamp(lines.iter().rfind(|line| line.message.starts_with(message)).unwrap())
        };
        let hour = 3_600_000_000;
        let boot = (last("listening on") + hour - last("Starting process")) % hour;
        best = best.min(waited.saturating_sub(Duration::from_micros(boot)));
        if best <= Duration::from_millis(10) {
            return;
        }
    }
    panic!("a wake cost {best:?} over the boot at best");
}

// ---- frozen ------------------------------------------------------------------------------------------------

/// A request past the router, which sets nobody going.
async fn asked_directly(mesh: &Mesh) -> Client {
    let page = mesh.ask_admin("/debug/dynos").await;
    let dynos: Value = serde_json::from_str(page.text()).unwrap();
    let dynos = dynos.as_array().unwrap();
    let web = dynos.iter().find(|dyno| dyno["dyno"] == "web.1").unwrap();
    let mut client = Client::connect(web["addr"].as_str().unwrap().parse().unwrap()).await;
    client.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    client
}

#[tokio::test]
async fn an_idle_dyno_is_frozen_and_goes_on_with_the_next_request() {
    let mesh =
        Setup::new().procfile("shop", "web: TESTAPP\n", "freeze_after = \"200ms\"").start().await;
    let mut best = Duration::MAX;
    let mut client = mesh.client().await;
    for time in 1..=TRIES {
        mesh.says_times("heroku[web.1]", "Freezing", time).await;
        let mut direct = asked_directly(&mesh).await;
        // As long as nobody is late by: an app that ran would have answered.
        sleep(Duration::from_millis(100)).await;
        assert!(direct.is_quiet(), "the app answers: it is not frozen");
        let began = Instant::now();
        if time == 2 {
            client = mesh.client().await;
        }
        assert_eq!(client.get("/").await.text(), "web.1");
        best = best.min(began.elapsed());
        assert_eq!(
            direct.answer().await.text(),
            "web.1",
            "and nothing that came meanwhile is lost"
        );
        // Over a connection that was there, and over one that is new to the process.
        if time >= 3 && best <= Duration::from_millis(5) {
            return;
        }
    }
    panic!("a request to a frozen dyno took {best:?} at best");
}

#[tokio::test]
async fn a_dyno_with_a_request_in_hand_is_not_frozen() {
    let mesh =
        Setup::new().procfile("shop", "web: TESTAPP\n", "freeze_after = \"100ms\"").start().await;
    let until = mesh.path("done");
    let target = format!("/until?file={}", until.display());
    let mut client = mesh.client().await;
    client.send(format!("GET {target} HTTP/1.1\r\nHost: shop.localhost\r\n\r\n")).await;
    becomes_true("the request to be there", async || {
        let metrics = mesh.metrics().await;
        metrics.get("dynomesh_in_flight", &[("app", "shop"), ("dyno", "web.1")]) == 1.0
    })
    .await;
    let frozen_before = count(&mesh, "heroku[web.1]", "Freezing");
    sleep(Duration::from_millis(500)).await;
    assert_eq!(count(&mesh, "heroku[web.1]", "Freezing"), frozen_before);
    fs::write(&until, "").unwrap();
    assert_eq!(client.answer().await.status, 200);
    mesh.says_times("heroku[web.1]", "Freezing", frozen_before + 1).await;
    drop(client);
    // And it ends like any other.
    mesh.signal(rustix::process::Signal::TERM);
    mesh.says("heroku[web.1]", "Process exited with status 143").await;
}
