//! Upgrades: a byte pipe after 101, and nothing of the kind before.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use crate::support::{
    App, Client, End, GOODBYE, HELLO, Mesh, RESTART, Setup, becomes_true, request, within,
};

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";

async fn upgraded(mesh: &Mesh) -> Client {
    let mut client = mesh.client().await;
    client.send(request("GET", "/ws", UPGRADE, "")).await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 101);
    assert_eq!(answer.field("Upgrade"), Some("websocket"));
    assert_eq!(answer.field("Connection").map(str::to_ascii_lowercase).as_deref(), Some("upgrade"));
    assert_eq!((answer.field("Content-Length"), answer.field("Transfer-Encoding")), (None, None));
    client
}

#[tokio::test]
async fn an_upgraded_connection_is_a_pipe_of_bytes() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = upgraded(&mesh).await;
    for bytes in [&b"\x81\x05hello"[..], b"\0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", &[0xff; 70_000]]
    {
        client.send(bytes).await;
        assert!(client.exactly(bytes.len()).await == bytes);
    }
    assert_eq!(
        mesh.metrics().await.get("dynomesh_in_flight", &[("app", "shop")]),
        1.0,
        "a pipe is a lease"
    );
}

/// FIN is passed on as such: what the other side still has to say arrives.
#[tokio::test]
async fn a_half_closed_pipe_still_carries_the_other_way() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = upgraded(&mesh).await;
    client.send("last words").await;
    client.finish().await;
    assert_eq!(client.rest().await, b"last wordsbye");
    let line = mesh.request("/ws").await;
    line.has(&["at=info", "status=101", "dyno=web.1"]);
    assert_eq!(mesh.requests("/ws").len(), 1);
    mesh.metric_becomes("dynomesh_in_flight", &[("app", "shop")], 0.0).await;
}

#[tokio::test]
async fn a_pipe_that_the_client_resets_is_over() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    upgraded(&mesh).await.reset();
    mesh.request("/ws").await.has(&["at=info", "status=101"]);
    mesh.metric_becomes("dynomesh_in_flight", &[("app", "shop")], 0.0).await;
}

#[tokio::test]
async fn a_pipe_whose_dyno_dies_is_over() {
    let mut app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = upgraded(&mesh).await;
    app.kill().await;
    let _ = client.rest_and_end().await;
    mesh.request("/ws").await.has(&["at=info", "status=101"]);
}

#[tokio::test]
async fn a_silent_pipe_is_h15_and_a_busy_one_lives() {
    let app = App::start().await;
    let mesh = Setup::new().timeouts("rolling = \"500ms\"").shop(&[&app]).start().await;
    let mut client = upgraded(&mesh).await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        client.send("x").await;
        assert_eq!(client.exactly(1).await, b"x");
    }
    let _ = client.rest_and_end().await;
    let line = mesh.request("/ws").await;
    line.has(&["at=error", "code=H15", "status=101"]);
    assert!(line.millis("service") >= 1700, "the pipe's whole life");
}

/// Nobody here stops the process of an external dyno: what it holds beyond its drain is cut by the router,
/// however busy it is.
#[tokio::test]
async fn a_pipe_to_a_dyno_that_a_reload_removes_is_cut_at_the_drain_bound() {
    let [goes, stays] = [App::start().await, App::start().await];
    // Before that, a WebSocket is closed at some moment within ws_drain.
    let timeouts = "drain = \"1s\"\nws_drain = \"24h\"";
    let mut mesh = Setup::new().timeouts(timeouts).shop(&[&goes]).start().await;
    let mut silent = upgraded(&mesh).await;
    let mut busy = upgraded(&mesh).await;
    let removed = Instant::now();
    mesh.reload(|mut setup| {
        setup.clear_apps();
        setup.shop(&[&stays])
    })
    .await;
    busy.send("still here").await;
    assert_eq!(busy.exactly(10).await, b"still here");
    within("the pipe to be cut", async {
        // Refused once the router has closed.
        while busy.try_send("x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(removed.elapsed() >= Duration::from_secs(1), "{:?}", removed.elapsed());
    let _ = silent.rest_and_end().await;
    becomes_true("both lines to be there", async || mesh.requests("/ws").len() == 2).await;
    for line in mesh.requests("/ws") {
        line.has(&["at=error", "code=H24", "desc=Forced close", "dyno=web.1", "status=101"]);
    }
    mesh.metric_becomes("dynomesh_in_flight", &[("app", "shop")], 0.0).await;
}

// ---- a daemon that stops ---------------------------------------------------------------------------------

/// Reads the close frame, says goodbye, and sees the connection end as it should.
async fn is_restarted(client: &mut Client) {
    assert_eq!(client.exactly(RESTART.len()).await, RESTART);
    client.send(GOODBYE).await;
    client.finish().await;
    assert_eq!(client.rest_and_end().await, (Vec::new(), End::Closed));
}

#[tokio::test]
async fn a_daemon_that_stops_closes_websockets_with_1012_between_two_frames() {
    let app = App::start().await;
    let timeouts = "stop = \"10m\"\nws_drain = \"500ms\"";
    let mut mesh = Setup::new().timeouts(timeouts).shop(&[&app]).start().await;
    let mut silent = upgraded(&mesh).await;
    let mut cut = upgraded(&mesh).await;
    cut.send(&HELLO[..8]).await;
    assert_eq!(cut.exactly(8).await, HELLO[..8]);
    mesh.signal(Signal::TERM);
    is_restarted(&mut silent).await;
    // What it began goes on until that is whole.
    cut.send(&HELLO[8..]).await;
    assert_eq!(cut.exactly(HELLO.len() - 8).await, HELLO[8..]);
    is_restarted(&mut cut).await;
    assert!(mesh.ended().await.success());
    assert_eq!(mesh.requests("/ws").len(), 2);
    for line in mesh.requests("/ws") {
        line.has(&["at=info", "status=101"]);
    }
}

/// Also those that had a day, because their dyno alone was to go.
#[tokio::test]
async fn websockets_are_closed_before_the_bound_of_a_stop_cuts_them() {
    let [goes, stays] = [App::start().await, App::start().await];
    let timeouts = "stop = \"4s\"\nws_drain = \"24h\"";
    let mut mesh = Setup::new().timeouts(timeouts).shop(&[&goes]).start().await;
    let mut old = upgraded(&mesh).await;
    mesh.reload(|mut setup| {
        setup.clear_apps();
        setup.shop(&[&stays])
    })
    .await;
    let mut new = upgraded(&mesh).await;
    mesh.signal(Signal::TERM);
    tokio::join!(is_restarted(&mut old), is_restarted(&mut new));
    assert!(mesh.ended().await.success());
    assert_eq!(mesh.requests("/ws").len(), 2);
    for line in mesh.requests("/ws") {
        line.has(&["at=info", "status=101"]);
    }
}

#[tokio::test]
async fn a_second_signal_is_a_close_frame_too() {
    let app = App::start().await;
    let timeouts = "stop = \"10m\"\nws_drain = \"24h\"";
    let mut mesh = Setup::new().timeouts(timeouts).shop(&[&app]).start().await;
    let mut client = upgraded(&mesh).await;
    mesh.signal(Signal::TERM);
    mesh.line("it to stop", |line| line.message.contains("SIGTERM: stopping").then_some(())).await;
    mesh.signal(Signal::TERM);
    assert_eq!(client.exactly(RESTART.len()).await, RESTART);
    assert_eq!(client.rest_and_end().await.0, b"");
    assert!(mesh.ended().await.success());
    mesh.request("/ws").await.has(&["at=error", "code=H24", "status=101"]);
}

// ---- what comes with the request -------------------------------------------------------------------------

/// Bytes that come with the request wait for the 101, and go first then.
#[tokio::test]
async fn bytes_sent_ahead_of_the_101_go_first() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    client.send([request("GET", "/ws", UPGRADE, "").as_bytes(), b"early"].concat()).await;
    assert_eq!(client.answer().await.status, 101);
    client.send("late").await;
    assert_eq!(client.exactly(9).await, b"earlylate");
}

/// If the answer is not 101, they are the next request: not the dyno's to see as its own.
#[tokio::test]
async fn bytes_sent_ahead_are_a_request_when_nothing_was_upgraded() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    let second = "GET /second HTTP/1.1\r\nHost: nobody.localhost\r\n\r\n";
    client.send([request("GET", "/", UPGRADE, "").as_str(), second].concat()).await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(client.answer().await.status, 404, "looked up by its own host");
    assert_eq!(app.count().await, 1);
}

#[tokio::test]
async fn a_request_with_a_body_may_ask_for_an_upgrade() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    client.send(request("POST", "/ws", UPGRADE, "body")).await;
    assert_eq!(client.answer().await.status, 101);
    client.send("pipe").await;
    assert_eq!(client.exactly(4).await, b"pipe", "the body was the request's");
}

#[tokio::test]
async fn the_dyno_is_asked_for_the_upgrade() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let fields =
        "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: x\r\n";
    let head = mesh.client().await.request("GET", "/head", fields, "").await;
    let head = head.text().to_ascii_lowercase();
    assert!(
        head.contains("\r\nupgrade: websocket\r\n")
            && head.contains("\r\nsec-websocket-key: x\r\n"),
        "{head}"
    );
    let connection = head.lines().find(|line| line.starts_with("connection:"));
    assert!(connection.is_some_and(|it| it.contains("upgrade")), "{head}");
}

/// h2c would tunnel requests past the router; so would an upgrade that nobody asked for by Connection.
#[tokio::test]
async fn upgrades_that_would_lead_past_the_router_are_not_passed_on() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    for fields in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Connection: Upgrade\r\nUpgrade: H2C\r\n",
        "Connection: Upgrade\r\nUpgrade: HTTP/2.0\r\n",
        "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
        "Upgrade: websocket\r\n",
        "HTTP2-Settings: AAMAAABkAAQAAP__\r\n",
    ] {
        let answer = mesh.client().await.request("GET", "/head", fields, "").await;
        assert_eq!(answer.status, 200, "{fields}");
        let head = answer.text().to_ascii_lowercase();
        assert!(
            !head.contains("upgrade") && !head.contains("http2-settings"),
            "{fields} gave {head}"
        );
    }
    let mut client = mesh.client().await;
    client.send(format!("GET /head HTTP/1.0\r\nHost: shop.localhost\r\n{UPGRADE}\r\n")).await;
    let head = client.answer().await.text().to_ascii_lowercase();
    assert!(!head.contains("upgrade"), "there was none in 1.0: {head}");
}

/// As on Heroku, a Connection that promises an upgrade without naming one.
#[tokio::test]
async fn a_connection_upgrade_without_upgrade_is_400() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let answer = mesh.client().await.request("GET", "/", "Connection: upgrade\r\n", "").await;
    assert_eq!(answer.status, 400);
    assert_eq!(app.count().await, 0);
}

/// The dyno says goodbye and ends; the client, in the middle of sending, still gets to read it.
#[tokio::test]
async fn the_last_words_of_a_dyno_reach_a_client_that_is_sending() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let now = mesh.path("now");
    let target = format!("/ws-last?bytes=12000&file={}", now.display());
    let mut client = Client::connect_narrow(mesh.http()).await;
    client.send(request("GET", &target, UPGRADE, "")).await;
    assert_eq!(client.answer().await.status, 101);
    std::fs::write(now, "").unwrap();
    mesh.request(&target).await.has(&["at=info", "status=101"]);
    // Most of it is still with the router's kernel, which throws it away if this meets a closed socket.
    client.send("a frame").await;
    let (last, _) = client.rest_and_end().await;
    assert_eq!(last.len(), 12_000);
}

/// What the dyno switched to is of no use when it does not take the request: said at once.
#[tokio::test]
async fn a_switch_by_a_dyno_that_takes_no_more_is_h18() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    let fields = format!("{UPGRADE}Content-Length: 1000000\r\n");
    client.send(request("POST", "/switch-and-close", &fields, "")).await;
    app.counts(1).await;
    // The first write that reaches the closed socket is answered with a reset, the next one fails.
    within("the line", async {
        while mesh.requests("/switch-and-close").is_empty() {
            // Refused once the router has closed.
            let _ = client.try_send([b'x'; 100]).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let line = mesh.request("/switch-and-close").await;
    line.has(&["at=error", "code=H18", "status=503"]);
}
