//! Releases: another one takes the place of the one that runs, and whoever is served does not notice; one that does
//! not work takes nobody's place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinSet;

use crate::support::{
    Client, GOODBYE, HELLO, Http2, Load, Mesh, RESTART, Setup, becomes_true, request, within,
};

const QUICK: &str = "timeouts = { cool_off = \"200ms\", cool_off_max = \"400ms\", boot = \"5s\", exit = \"5s\", ws_drain = \"500ms\" }";

fn app(setup: Setup, procfile: &str, deploy: &str, web: u32) -> Setup {
    let lines = format!("formation = {{ web = {web} }}\ndeploy = \"{deploy}\"\n{QUICK}");
    setup.procfile("shop", procfile, &lines)
}

async fn shop(deploy: &str, web: u32) -> Mesh {
    let mesh = app(Setup::new(), "web: TESTAPP\n", deploy, web).start().await;
    for number in 1..=web {
        let source = format!("heroku[web.{number}]");
        mesh.says(&source, "State changed from starting to up").await;
    }
    mesh
}

async fn release(mesh: &mut Mesh, procfile: &str, deploy: &str, web: u32) {
    mesh.reload(|mut setup| {
        setup.clear_apps();
        app(setup, procfile, deploy, web)
    })
    .await;
}

/// Which releases answer.
async fn releases(mesh: &Mesh) -> Vec<String> {
    seen(mesh, "HEROKU_RELEASE_VERSION").await
}

/// What the dynos have of a variable.
async fn seen(mesh: &Mesh, name: &str) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    let mut client = mesh.client().await;
    for _ in 0..40 {
        let answer = client.get(&format!("/env?name={name}")).await;
        assert_eq!(answer.status, 200);
        seen.insert(answer.text().to_string());
    }
    seen.into_iter().collect()
}

// ---- WebSockets ------------------------------------------------------------------------------------------

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
async fn websocket(mesh: &Mesh) -> Client {
    let mut client = mesh.client().await;
    client.send(request("GET", "/ws", UPGRADE, "")).await;
    assert_eq!(client.answer().await.status, 101);
    client
}

/// Talks until it is closed, says goodbye, and returns all that came after the last whole echo.
async fn talk(mut client: Client) -> Vec<u8> {
    loop {
        if client.try_send(HELLO).await.is_err() {
            return client.rest_and_end().await.0;
        }
        let first = client.exactly(2).await;
        if first != HELLO[..2] {
            let rest = client.exactly(2).await;
            let _ = client.try_send(GOODBYE).await;
            client.finish().await;
            let after = client.rest_and_end().await.0;
            return [first, rest, after].concat();
        }
        assert_eq!(client.exactly(HELLO.len() - 2).await, HELLO[2..]);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_release_closes_websockets_with_1012_between_two_frames() {
    let mut mesh = shop("rolling", 1).await;
    let mut silent = websocket(&mesh).await;
    let mut talking = JoinSet::new();
    talking.spawn(talk(websocket(&mesh).await));
    // In the middle of a frame: what it began goes on until that is whole.
    let mut cut = websocket(&mesh).await;
    cut.send(&HELLO[..8]).await;
    assert_eq!(cut.exactly(8).await, HELLO[..8]);
    release(&mut mesh, "web: V=2 TESTAPP\n", "rolling", 1).await;
    assert_eq!(silent.exactly(4).await, RESTART);
    silent.finish().await;
    assert_eq!(silent.rest_and_end().await.0, b"");
    assert_eq!(within("the close", talking.join_next()).await.unwrap().unwrap(), RESTART);
    cut.send(&HELLO[8..]).await;
    assert_eq!(cut.exactly(HELLO.len() - 8).await, HELLO[8..]);
    assert_eq!(cut.exactly(4).await, RESTART);
    drop(cut);
    becomes_true("the lines to be there", async || mesh.requests("/ws").len() == 3).await;
    for line in mesh.requests("/ws") {
        line.has(&["at=info", "status=101"]);
    }
}

// ---- under load ------------------------------------------------------------------------------------------

async fn a_release_fails_no_request(deploy: &'static str) {
    let mut mesh = shop(deploy, 3).await;
    let get = request("GET", "/", "", "");
    let post = request("POST", "/", "", "a body");
    let loads = [Load::start(mesh.http(), 4, &get), Load::start(mesh.http(), 4, &post)];
    let stop = Arc::new(AtomicBool::new(false));
    let mut http2 = Http2::connect(&mesh).await;
    let stopped = stop.clone();
    let mut over_http2 = JoinSet::new();
    over_http2.spawn(async move {
        let mut count = 0;
        while !stopped.load(Ordering::Relaxed) {
            assert_eq!(http2.get("/").await.status, 200);
            count += 1;
        }
        count
    });
    for number in 2..5 {
        let mut sockets = JoinSet::new();
        for _ in 0..2 {
            sockets.spawn(talk(websocket(&mesh).await));
        }
        release(&mut mesh, &format!("web: V={number} TESTAPP\n"), deploy, 3).await;
        let before = number - 1;
        let line = format!("Release v{number} is up in place of v{before}");
        mesh.says("heroku[rollout]", &line).await;
        while let Some(said) = within("the close", sockets.join_next()).await {
            assert_eq!(said.unwrap(), RESTART);
        }
        assert_eq!(releases(&mesh).await, [format!("v{number}")]);
    }
    for load in loads {
        load.carries(50).await;
        let tally = load.stop().await;
        assert_eq!((tally.refused, tally.broken), (0, 0), "{deploy}: {tally:?}");
    }
    stop.store(true, Ordering::Relaxed);
    assert!(within("the last answer", over_http2.join_next()).await.unwrap().unwrap() > 0);
}

#[tokio::test]
async fn rolling_releases_under_load_fail_no_request() {
    a_release_fails_no_request("rolling").await;
}

#[tokio::test]
async fn preboot_releases_under_load_fail_no_request() {
    a_release_fails_no_request("preboot").await;
}

#[tokio::test]
async fn restart_releases_under_load_fail_no_request() {
    a_release_fails_no_request("restart").await;
}

// ---- releases that do not work ---------------------------------------------------------------------------

async fn check_failure(deploy: &str, procfile: &str, expected: &str) {
    let mut mesh = shop(deploy, 4).await;
    let load = Load::start(mesh.http(), 4, &request("GET", "/", "", ""));
    release(&mut mesh, procfile, deploy, 4).await;
    let line = mesh.says("heroku[rollout]", "Release v2 failed").await;
    assert!(line.message.contains(expected), "{}", line.message);
    load.carries(100).await;
    let tally = load.stop().await;
    assert_eq!((tally.refused, tally.broken), (0, 0), "{tally:?}");
}

#[tokio::test]
async fn a_release_that_crashes_at_boot_leaves_the_old_one_serving() {
    let crash = "web: echo no such table: users; exit 3\n";
    for deploy in ["rolling", "preboot"] {
        check_failure(deploy, crash, "exited with status 3 before it was up").await;
    }
}

#[tokio::test]
async fn a_release_that_never_binds_leaves_the_old_one_serving() {
    let expected = "web.1 was not up within 5 seconds (R10, boot timeout)";
    check_failure("rolling", "web: NEVER_BIND=1 TESTAPP\n", expected).await;
}

/// The first quarter is up with it: it goes no further, and the file as it was brings it back.
#[tokio::test]
async fn a_release_that_fails_in_its_second_quarter_goes_no_further() {
    let mut mesh = shop("rolling", 4).await;
    let load = Load::start(mesh.http(), 4, &request("GET", "/", "", ""));
    let bad = "web: if [ $DYNO = web.2 ]; then exit 3; fi; V=2 exec TESTAPP\n";
    release(&mut mesh, bad, "rolling", 4).await;
    let line = mesh.says("heroku[rollout]", "Release v2 failed").await;
    assert!(line.message.contains("web.2 exited with status 3"), "{}", line.message);
    assert_eq!(releases(&mesh).await, ["v1", "v2"]);
    release(&mut mesh, "web: TESTAPP\n", "rolling", 4).await;
    // Under whichever number: who counts may call it another release.
    becomes_true("the old to be back", async || seen(&mesh, "V").await == ["(unset)"]).await;
    let tally = load.stop().await;
    assert_eq!((tally.refused, tally.broken), (0, 0), "{tally:?}");
}
