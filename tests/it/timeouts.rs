//! The timers of exchange states: what ends when, what the client is told, and what the dyno is left to do.
//!
//! Limits are short and their ends are checked from below exactly, from above loosely: a timer must never be
//! early, and how late a busy machine makes it is not the point.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::{App, Client, Mesh, Setup, file_appears, percent_encoded, request};

/// An answer that is read from the dyno as a whole, and is too much for a client that does not read.
const BIG_HEAD: &str = "/fields?name=Padding&line=100000&n=4";

const SHORT: &str = "first_byte = \"500ms\"\nrolling = \"500ms\"";

/// Asserts that about this long has passed.
#[track_caller]
fn took(start: Instant, expected: Duration) {
    let took = start.elapsed();
    assert!(
        took >= expected && took < expected * 2 + Duration::from_secs(2),
        "{took:?}, expected {expected:?}"
    );
}

fn half_a_second() -> Duration {
    Duration::from_millis(500)
}

// ---- wait: first byte, and what comes after ---------------------------------------------------------------

/// The promise about H12 in one piece: 503 at its deadline, the connection lives, the slot is kept until the
/// answer is whole, the app's work is done, and its end is logged.
#[tokio::test]
async fn a_late_answer_is_h12_and_the_app_is_left_to_finish() {
    let app = App::start().await;
    let mesh = Setup::new().timeouts(SHORT).shop(&[&app]).start().await;
    let touched = mesh.path("touched");
    let target = format!("/late?ms=1500&touch={}", touched.display());
    let mut client = mesh.client().await;
    let start = Instant::now();
    let answer = client.get(&target).await;
    took(start, half_a_second());
    answer.is_refusal(503, "H12");
    assert!(!answer.says_close(), "{answer:?}");
    assert!(!touched.exists());

    let line = mesh.request(&target).await;
    line.has(&["at=error", "code=H12", "desc=Request timeout", "dyno=web.1", "status=503"]);
    assert!((500..1200).contains(&line.millis("service")), "{}", line.line.text);
    let slot = [("app", "shop"), ("dyno", "web.1")];
    assert_eq!(mesh.metrics().await.get("dynomesh_in_flight", &slot), 1.0);
    assert_eq!(client.get("/").await.status, 200, "the client's connection lives on");

    file_appears(&touched).await;
    let late = mesh.late(&line).await;
    assert!(late.millis("late") >= 1500, "{}", late.line.text);
    late.has(&["status=200", "bytes=4", "dyno=web.1"]);
    for key in ["at", "method", "code"] {
        assert_eq!(late.find(key), None, "nobody may take it for a request: {}", late.line.text);
    }
    mesh.metric_becomes("dynomesh_in_flight", &slot, 0.0).await;
    let metrics = mesh.metrics().await;
    assert_eq!(metrics.get("dynomesh_requests_total", &[("app", "shop"), ("status", "503")]), 1.0);
    assert_eq!(metrics.get("dynomesh_requests_total", &[("app", "shop"), ("status", "200")]), 1.0);
    assert_eq!(metrics.get("dynomesh_errors_total", &[("app", "shop"), ("code", "H12")]), 1.0);
}

#[tokio::test]
async fn the_first_byte_is_waited_for_from_the_last_byte_of_the_request_on() {
    let app = App::start().await;
    let mesh = Setup::new().timeouts("first_byte = \"500ms\"").shop(&[&app]).start().await;
    let mut client = mesh.client().await;
    client.send("POST /echo HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 6\r\n\r\n").await;
    for byte in ["s", "l", "o", "w", "l", "y"] {
        tokio::time::sleep(Duration::from_millis(150)).await;
        client.send(byte).await;
    }
    assert_eq!(client.answer().await.text(), "slowly");
}

/// A whole 1xx re-arms the timer in full.
#[tokio::test]
async fn an_interim_answer_starts_the_wait_anew() {
    let app = App::start().await;
    let mesh = Setup::new().timeouts("first_byte = \"500ms\"").shop(&[&app]).start().await;
    let mut client = mesh.client().await;
    client.send(request("GET", "/interim?n=4&ms=300", "", "")).await;
    for _ in 0..4 {
        assert_eq!(client.answer().await.status, 103);
    }
    assert_eq!(client.answer().await.text(), "final");
    // And it does end.
    let start = Instant::now();
    client.send(request("GET", "/interim?n=1&ms=60000", "", "")).await;
    assert_eq!(client.answer().await.status, 103);
    client.answer().await.is_refusal(503, "H12");
    took(start, half_a_second());
}

#[tokio::test]
async fn a_lingering_answer_without_end_is_given_up() {
    let app = App::start().await;
    let mesh = Setup::new()
        .timeouts("first_byte = \"300ms\"\nlinger = \"700ms\"")
        .shop(&[&app])
        .start()
        .await;
    mesh.get("/sleep?ms=60000").await.is_refusal(503, "H12");
    let line = mesh.request("/sleep?ms=60000").await;
    mesh.late(&line).await.has(&["late=timeout"]);
    mesh.metric_becomes("dynomesh_in_flight", &[("dyno", "web.1")], 0.0).await;
}

#[tokio::test]
async fn a_dyno_that_ends_while_it_lingers_gives_its_slot_back() {
    let app = App::start().await;
    let mesh = Setup::new().timeouts("first_byte = \"300ms\"").shop(&[&app]).start().await;
    let nothing = "/raw?bytes=&pause=900&more=&then=close";
    mesh.get(nothing).await.is_refusal(503, "H12");
    let late = mesh.late(&mesh.request(nothing).await).await;
    assert!(late.millis("late") >= 900);
    late.has(&["status="]);
    mesh.metric_becomes("dynomesh_in_flight", &[("dyno", "web.1")], 0.0).await;
}

#[tokio::test]
async fn a_lingering_answer_that_is_no_http_gives_its_slot_back() {
    let app = App::start().await;
    let mesh = Setup::new().timeouts("first_byte = \"300ms\"").shop(&[&app]).start().await;
    let rubbish = percent_encoded("rubbish\r\n\r\n");
    let target = format!("/raw?bytes=&pause=900&more={rubbish}&then=silent");
    mesh.get(&target).await.is_refusal(503, "H12");
    mesh.late(&mesh.request(&target).await).await.has(&["status="]);
    mesh.metric_becomes("dynomesh_in_flight", &[("dyno", "web.1")], 0.0).await;
}

/// Whoever gave a request up cannot know that its connection is in order.
#[tokio::test]
async fn a_connection_that_has_lingered_is_not_used_again() {
    let app = App::start().await;
    let mesh = Setup::new().timeouts("first_byte = \"300ms\"").shop(&[&app]).start().await;
    let mut client = mesh.client().await;
    client.get("/sleep?ms=900").await.is_refusal(503, "H12");
    mesh.late(&mesh.request("/sleep?ms=900").await).await.has(&["status=200"]);
    // Both the connections' workers have a pool, and the client only one of them.
    for _ in 0..3 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(app.connections().await, 2);
}

// ---- send -------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_client_that_stops_sending_its_body_is_h28() {
    let app = App::start().await;
    let mesh = Setup::new().timeouts(SHORT).shop(&[&app]).start().await;
    let mut client = mesh.client().await;
    let start = Instant::now();
    client
        .send("POST /stops HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 10\r\n\r\nhalf")
        .await;
    client.is_closed().await;
    took(start, half_a_second());
    let line = mesh.request("/stops").await;
    line.has(&["at=warning", "code=H28", "desc=Client Connection Idle", "status=499", "bytes=0"]);
    mesh.metric_becomes("dynomesh_in_flight", &[("dyno", "web.1")], 0.0).await;
}

/// What has begun to arrive cannot become a 503, whoever it is that has stopped.
#[tokio::test]
async fn an_upload_that_stops_behind_an_early_answer_cuts_it() {
    let app = App::start().await;
    let mesh = Setup::new().timeouts(SHORT).shop(&[&app]).start().await;
    let mut client = mesh.client().await;
    let start = Instant::now();
    let head =
        "POST /early-part HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 10\r\n\r\nhalf";
    client.send(head).await;
    assert_eq!(client.head().await.status, 200);
    assert_eq!(client.rest_and_end().await.0, b"half");
    took(start, half_a_second());
    mesh.request("/early-part").await.has(&["at=error", "code=H15", "status=200", "bytes=4"]);
    mesh.metric_becomes("dynomesh_in_flight", &[("dyno", "web.1")], 0.0).await;
}

#[tokio::test]
async fn a_dyno_that_does_not_take_the_body_is_h12() {
    let app = App::start().await;
    let mesh = Setup::new().timeouts(SHORT).shop(&[&app]).start().await;
    let mut client = mesh.client().await;
    let body = vec![b'x'; 32 << 20];
    client
        .send(format!(
            "POST /never-read HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: {}\r\n\r\n",
            body.len()
        ))
        .await;
    // The router stops reading, so this does not end before the answer.
    let _ = tokio::time::timeout(Duration::from_secs(2), client.try_send(&body)).await;
    client.head().await.is_refusal(503, "H12");
    mesh.request("/never-read").await.has(&["code=H12", "status=503"]);
    mesh.metric_becomes("dynomesh_in_flight", &[("dyno", "web.1")], 0.0).await;
}

// ---- answer -----------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_dyno_that_falls_silent_in_its_head_is_h15() {
    let app = App::start().await;
    let mesh = Setup::new().timeouts(SHORT).shop(&[&app]).start().await;
    let target =
        format!("/raw?bytes={}&then=silent", percent_encoded("HTTP/1.1 200 OK\r\nA: b\r\n"));
    let start = Instant::now();
    mesh.get(&target).await.is_refusal(503, "H15");
    took(start, half_a_second());
    mesh.request(&target).await.has(&[
        "at=error",
        "code=H15",
        "desc=Idle connection",
        "status=503",
    ]);
}

#[tokio::test]
async fn a_dyno_that_falls_silent_in_its_body_is_h15_and_the_answer_is_cut() {
    let app = App::start().await;
    let mesh = Setup::new().timeouts(SHORT).shop(&[&app]).start().await;
    let mut client = mesh.client().await;
    client.send(request("GET", "/stall", "", "")).await;
    assert_eq!(client.head().await.status, 200);
    let (body, _) = client.rest_and_end().await;
    assert_eq!(body, b"half");
    mesh.request("/stall").await.has(&["code=H15", "status=200", "bytes=4"]);
    mesh.metric_becomes("dynomesh_in_flight", &[("dyno", "web.1")], 0.0).await;
}

#[tokio::test]
async fn any_byte_keeps_an_answer_alive() {
    let app = App::start().await;
    let mesh = Setup::new().timeouts(SHORT).shop(&[&app]).start().await;
    let answer = mesh.get("/drip?n=8&ms=200").await;
    assert_eq!(answer.text(), "........");
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_h28() {
    let app = App::start().await;
    let mesh = Setup::new().timeouts(SHORT).shop(&[&app]).start().await;
    let mut client = Client::connect_small(mesh.http()).await;
    client.send(request("GET", "/big?bytes=50000000", "", "")).await;
    let line = mesh.request("/big?bytes=50000000").await;
    line.has(&["at=warning", "code=H28", "status=200"]);
    mesh.metric_becomes("dynomesh_in_flight", &[("dyno", "web.1")], 0.0).await;
    // Cut: not the whole of it is there.
    assert_eq!(client.head().await.status, 200);
    assert!(client.rest_and_end().await.0.len() < 50_000_000);
}

/// State `deliver`: the slot is free when the last byte was read from the dyno, not when the client has it.
#[tokio::test]
async fn a_slow_reader_does_not_hold_the_dynos_slot() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = Client::connect_small(mesh.http()).await;
    let told = mesh.path("told");
    // Little enough for the router's own buffers and the kernel's; more than the client's window.
    client.send(request("GET", &format!("/big?bytes=60000&told={}", told.display()), "", "")).await;
    file_appears(&told).await;
    mesh.metric_becomes("dynomesh_in_flight", &[("dyno", "web.1")], 0.0).await;
    assert_eq!(client.answer().await.body.len(), 60_000);
}

/// The same state without an end of its own: the dyno has long been free when the client's time is up.
#[tokio::test]
async fn an_answer_that_is_read_and_never_taken_is_h28() {
    let app = App::start().await;
    let mesh = Setup::new().timeouts(SHORT).shop(&[&app]).start().await;
    let mut client = Client::connect_narrow(mesh.http()).await;
    client.send(request("GET", BIG_HEAD, "", "")).await;
    app.counts(1).await;
    mesh.metric_becomes("dynomesh_in_flight", &[("dyno", "web.1")], 0.0).await;
    assert!(mesh.requests(BIG_HEAD).is_empty(), "it is not over");
    mesh.request(BIG_HEAD).await.has(&["at=warning", "code=H28", "status=200"]);
    let (rest, _) = client.rest_and_end().await;
    assert!(rest.starts_with(b"HTTP/1.1 200 ") && !rest.ends_with(b"\r\n\r\n"), "{}", rest.len());
}

// ---- head and keepalive -----------------------------------------------------------------------------------

#[tokio::test]
async fn a_head_that_takes_too_long_is_408_however_it_drips() {
    let app = App::start().await;
    let mesh = Setup::new().timeouts("head = \"700ms\"").shop(&[&app]).start().await;
    let mut client = mesh.client().await;
    let start = Instant::now();
    client.send("GET /slow HTTP/1.1\r\nHost: shop.localhost\r\n").await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        client.send("A: b\r\n").await;
    }
    let answer = client.answer().await;
    took(start, Duration::from_millis(700));
    answer.is_refusal(408, "H26");
    assert!(answer.says_close());
    client.is_closed().await;
    assert_eq!(app.count().await, 0);
    let cause =
        |line: &crate::support::Line| line.request().filter(|it| it.find("status") == Some("408"));
    let line = mesh.line("status=408", cause).await;
    line.has(&[
        "at=error",
        "code=H26",
        "desc=Request Error",
        "cause=head timeout",
        "dyno=",
        "service=",
    ]);
    assert_eq!(line.line.app, "-");
}

#[tokio::test]
async fn the_time_of_a_head_starts_with_its_first_byte() {
    let app = App::start().await;
    let mesh = Setup::new().timeouts("head = \"500ms\"").shop(&[&app]).start().await;
    let mut client = mesh.client().await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(client.get("/").await.status, 200);
}

/// Bytes that are left over from the request before are the first of a head, too.
#[tokio::test]
async fn half_a_head_behind_a_request_is_408_in_its_time() {
    let app = App::start().await;
    let mesh = Setup::new().timeouts("head = \"500ms\"").shop(&[&app]).start().await;
    let mut client = mesh.client().await;
    let start = Instant::now();
    client.send(request("GET", "/", "", "") + "GET /half HTTP/1.1\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    client.answer().await.is_refusal(408, "H26");
    took(start, half_a_second());
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let app = App::start().await;
    let mesh = Setup::new().timeouts("keepalive = \"500ms\"").shop(&[&app]).start().await;
    // Never used, and used before.
    let start = Instant::now();
    mesh.client().await.is_closed().await;
    took(start, half_a_second());
    let mut client = mesh.client().await;
    assert_eq!(client.get("/used").await.status, 200);
    let start = Instant::now();
    client.is_closed().await;
    took(start, half_a_second());
    mesh.request("/used").await;
    let requests = mesh.lines().iter().filter(|line| line.request().is_some()).count();
    assert_eq!(requests, 1, "an idle end is no request");
}

// ---- hold -------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_request_is_held_while_the_only_dyno_starts() {
    let mesh = Setup::new().procfile("shop", "web: BIND_AFTER_MS=1000 TESTAPP\n", "").start().await;
    let answer = mesh.get("/held").await;
    assert_eq!((answer.status, answer.text()), (200, "web.1"));
    let connect = mesh.request("/held").await.millis("connect");
    assert!(connect >= 300, "holding is part of connect=: {connect}");
}

#[tokio::test]
async fn a_request_that_was_held_too_long_is_h20() {
    let mesh = Setup::new()
        .timeouts("hold = \"500ms\"")
        .procfile("shop", "web: NEVER_BIND=1 TESTAPP\n", "")
        .start()
        .await;
    let start = Instant::now();
    let mut client = mesh.client().await;
    client.get("/held").await.is_refusal(503, "H20");
    took(start, half_a_second());
    let line = mesh.request("/held").await;
    line.has(&[
        "at=error",
        "code=H20",
        "desc=App boot timeout",
        "dyno=",
        "connect=",
        "service=",
        "status=503",
    ]);
    let held = mesh.metrics().await.get("dynomesh_held_requests", &[("app", "shop")]);
    assert_eq!(held, 0.0);
    // No body, so the connection is kept.
    client.get("/again").await.is_refusal(503, "H20");
}

// ---- slow and steady --------------------------------------------------------------------------------------

const STEADY: &str = "first_byte = \"10s\"\nrolling = \"1500ms\"";

/// What one read brought is written in several pieces here: each piece that is taken counts.
#[tokio::test]
async fn a_client_that_takes_its_answer_slowly_but_steadily_gets_all_of_it() {
    let app = App::start().await;
    let mesh = Setup::new().timeouts(STEADY).shop(&[&app]).start().await;
    let mut client = Client::connect_narrow(mesh.http()).await;
    client.send(request("GET", BIG_HEAD, "", "")).await;
    client.take_slowly(300_000).await;
    let answer = client.answer().await;
    assert_eq!(answer.fields.iter().filter(|(name, _)| name == "Padding").count(), 4);
    mesh.request(BIG_HEAD).await.has(&["at=info", "status=200"]);
}

#[tokio::test]
async fn a_dyno_that_takes_an_upload_slowly_but_steadily_gets_all_of_it() {
    let app = App::start_with(&[("NARROW", "1")]).await;
    let mesh = Setup::new().timeouts(STEADY).shop(&[&app]).start().await;
    let mut client = mesh.client().await;
    let body = "u".repeat(300_000);
    let answer = client.request("POST", "/take?slowly=120000", "", &body).await;
    assert_eq!((answer.status, answer.text()), (200, "300000"));
}

#[tokio::test]
async fn a_pipe_in_which_one_side_only_takes_is_not_silent() {
    let app = App::start().await;
    let mesh = Setup::new().timeouts(STEADY).shop(&[&app]).start().await;
    let mut client = Client::connect_narrow(mesh.http()).await;
    let fields = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    client.send(request("GET", "/ws?bytes=400000", fields, "")).await;
    // Not to the end: what is last is with the kernel by then, and the pipe itself silent.
    client.take_slowly(180_000).await;
    assert_eq!(client.head().await.status, 101);
    client.send("still here").await;
    assert_eq!(client.exactly(10).await, b"still here");
}

// ---- lingering --------------------------------------------------------------------------------------------

/// A dyno may have this many requests linger; the oldest goes when there is one more.
#[tokio::test]
async fn too_many_lingering_requests_end_the_oldest() {
    let app = App::start().await;
    let mesh = Setup::new().timeouts("first_byte = \"500ms\"").shop(&[&app]).start().await;
    let give_up = async |count: usize, target: &str| {
        let mut clients = Vec::new();
        for _ in 0..count {
            let mut client = mesh.client().await;
            client.send(request("GET", target, "", "")).await;
            clients.push(client);
        }
        for client in &mut clients {
            client.answer().await.is_refusal(503, "H12");
        }
        clients
    };
    // One for each worker, since each ends its own oldest.
    let _oldest = give_up(2, "/sleep?ms=60000").await;
    let _others = give_up(255, "/sleep?ms=60001").await;
    let ended =
        |line: &crate::support::Line| line.request().filter(|it| it.find("late") == Some("limit"));
    let late = mesh.line("late=limit", ended).await;
    let oldest = mesh.requests("/sleep?ms=60000");
    assert!(
        oldest.iter().any(|it| it.get("request_id") == late.get("request_id")),
        "{}",
        late.line.text
    );
    mesh.metric_becomes("dynomesh_in_flight", &[("dyno", "web.1")], 256.0).await;
    assert_eq!(mesh.lines().iter().filter_map(ended).count(), 1);
}

// ---- answers that cannot be used --------------------------------------------------------------------------

#[tokio::test]
async fn a_head_that_falls_silent_closes_the_clients_connection_too() {
    let app = App::start().await;
    let mesh = Setup::new().timeouts(SHORT).shop(&[&app]).start().await;
    let target =
        format!("/raw?bytes={}&then=silent", percent_encoded("HTTP/1.1 200 OK\r\nA: b\r\n"));
    let mut client = mesh.client().await;
    let answer = client.get(&target).await;
    answer.is_refusal(503, "H15");
    assert!(answer.says_close(), "{answer:?}");
    client.is_closed().await;
}

/// Old clients send a line end after a body: that is no beginning of a head.
#[tokio::test]
async fn a_line_end_after_a_body_begins_no_head() {
    let app = App::start().await;
    let mesh = Setup::new().timeouts("head = \"300ms\"").shop(&[&app]).start().await;
    // With the body, and after the answer.
    for (with, after) in [("\r\n", ""), ("", "\r\n"), ("\r", "\n")] {
        let mut client = mesh.client().await;
        client.send(request("POST", "/echo", "", "body") + with).await;
        assert_eq!(client.answer().await.text(), "body");
        client.send(after).await;
        tokio::time::sleep(Duration::from_millis(900)).await;
        assert_eq!(client.get("/next").await.status, 200, "{with:?} {after:?}");
    }
    assert!(mesh.lines().iter().all(|line| !line.text.contains("status=408")));
}
