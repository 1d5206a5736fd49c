//! The timers of streams, which are those of any exchange, and of the connection that carries them.

use std::net::SocketAddr;
use std::time::Duration;

use h2::Reason;
use h2::client::Builder;
use rustix::process::Signal;
use tokio::time::Instant;

use crate::support::{
    App, Client, Frame, Frames, Http2, Mesh, PREFACE, Setup, becomes_true, get, get_fields, post,
    read_body,
};

const SLOT: [(&str, &str); 2] = [("app", "shop"), ("dyno", "web.1")];

async fn mesh_with(app: &App, timeouts: &str) -> Mesh {
    Setup::new().timeouts(timeouts).shop(&[app]).start().await
}

// ---- of streams -------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_late_answer_is_h12_and_the_other_streams_go_on() {
    let app = App::start().await;
    let mesh = mesh_with(&app, "first_byte = \"500ms\"").await;
    let mut client = Http2::connect(&mesh).await;
    let drip = client.begin(get("/drip?n=10&ms=200"), true).await;
    let start = Instant::now();
    client.get("/sleep?ms=1500").await.is_refusal(503, "H12");
    assert!(start.elapsed() >= Duration::from_millis(500));
    let line = mesh.request("/sleep?ms=1500").await;
    line.has(&["at=error", "code=H12", "status=503", "protocol=http2.0"]);
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(drip.answer().await.text(), "..........");
    mesh.late(&line).await.has(&["status=200"]);
}

#[tokio::test]
async fn a_stream_whose_upload_stops_is_h28() {
    let app = App::start().await;
    let mesh = mesh_with(&app, "rolling = \"500ms\"").await;
    let mut client = Http2::connect(&mesh).await;
    let start = Instant::now();
    let mut exchange = client.begin(post("/stops"), false).await;
    exchange.send(b"half", false).await;
    exchange.was_reset().await;
    assert!(start.elapsed() >= Duration::from_millis(500));
    let line = mesh.request("/stops").await;
    line.has(&["at=warning", "code=H28", "status=499", "bytes=0"]);
    mesh.metric_becomes("dynomesh_in_flight", &SLOT, 0.0).await;
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test]
async fn a_stream_that_opens_no_window_is_h28() {
    let app = App::start().await;
    let mesh = mesh_with(&app, "rolling = \"500ms\"").await;
    let mut settings = Builder::new();
    settings.initial_window_size(1000);
    let mut client = Http2::connect_with(mesh.http(), &settings).await;
    let target = "/big?bytes=32000000";
    let mut exchange = client.begin(get(target), true).await;
    let mut head = exchange.head().await;
    assert_eq!(head.status(), 200);
    // Seen, and not read.
    assert_eq!(exchange.was_reset().await, Reason::INTERNAL_ERROR);
    mesh.request(target).await.has(&["at=warning", "code=H28", "status=200"]);
    mesh.metric_becomes("dynomesh_in_flight", &SLOT, 0.0).await;
    assert!(read_body(head.body_mut(), usize::MAX).await.is_err());
    assert_eq!(client.get("/").await.status, 200);
}

/// Windows are open wide, and nobody reads from the socket.
#[tokio::test]
async fn a_connection_that_nobody_reads_has_h28_for_its_streams() {
    let app = App::start().await;
    let mesh = mesh_with(&app, "rolling = \"500ms\"").await;
    let mut frames = Frames::connect_narrow(mesh.http()).await;
    let windows = [Frame::initial_window(1 << 30), Frame::window(0, 1 << 30)];
    let target = "/big?bytes=32000000";
    frames.send(windows.into_iter().chain([Frame::get(1, target)])).await;
    mesh.request(target).await.has(&["at=warning", "code=H28", "status=200"]);
    mesh.metric_becomes("dynomesh_in_flight", &SLOT, 0.0).await;
    drop(frames);
    mesh.metric_becomes("dynomesh_connections", &[], 0.0).await;
}

#[tokio::test]
async fn a_stream_whose_dyno_falls_silent_is_h15() {
    let app = App::start().await;
    let mesh = mesh_with(&app, "rolling = \"500ms\"").await;
    let mut client = Http2::connect(&mesh).await;
    let mut exchange = client.begin(get("/stall"), true).await;
    let error = exchange.rest_of_answer().await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
    mesh.request("/stall").await.has(&["code=H15", "status=200", "bytes=4"]);
    assert_eq!(client.get("/").await.status, 200);
}

// ---- keepalive --------------------------------------------------------------------------------------------

#[tokio::test]
async fn an_idle_connection_is_closed_and_told_so() {
    let app = App::start().await;
    let mesh = mesh_with(&app, "keepalive = \"1s\"").await;
    for asks in [true, false] {
        let start = Instant::now();
        let mut frames = Frames::connect(&mesh).await;
        if asks {
            frames.send([Frame::get(1, "/")]).await;
        }
        let goaway = frames.until(Frame::GOAWAY).await;
        assert_eq!(goaway.payload[4..8], [0; 4], "NO_ERROR");
        assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
        frames.ended().await;
    }
    mesh.metric_becomes("dynomesh_connections", &[], 0.0).await;
}

/// Keepalive counts from the end of the last stream, and a stream that takes longer than it is none of it.
#[tokio::test]
async fn a_busy_connection_is_not_idle() {
    let app = App::start().await;
    let mesh = mesh_with(&app, "keepalive = \"1s\"").await;
    let mut client = Http2::connect(&mesh).await;
    assert_eq!(client.get("/sleep?ms=2500").await.text(), "slept");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(client.get("/").await.status, 200, "half a second after it");
    let start = Instant::now();
    client.ended().await.expect("a graceful end");
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
}

// ---- what is never finished -------------------------------------------------------------------------------

#[tokio::test]
async fn a_preface_that_stalls_is_closed() {
    let app = App::start().await;
    let mesh = mesh_with(&app, "handshake = \"500ms\"\nhead = \"500ms\"").await;
    for length in [5, 18, 20] {
        let start = Instant::now();
        let mut client = mesh.client().await;
        client.send(&PREFACE[..length]).await;
        let _ = client.rest_and_end().await;
        assert!(start.elapsed() >= Duration::from_millis(500), "{length} bytes");
    }
    mesh.metric_becomes("dynomesh_connections", &[], 0.0).await;
}

/// A header list has the time of a head, also beside streams that run.
#[tokio::test]
async fn a_header_list_that_never_ends_is_cut_off() {
    let app = App::start().await;
    let mesh = mesh_with(&app, "head = \"500ms\"").await;
    for busy in [false, true] {
        let mut frames = Frames::connect(&mesh).await;
        // So long that no timer of the connection's beginning can be the one that is seen.
        frames.send([Frame::get(1, "/sleep?ms=1000")]).await;
        while !frames.next().await.ends_stream() {}
        if busy {
            frames.send([Frame::get(3, "/sleep?ms=60000")]).await;
            app.counts(3).await;
        }
        let start = Instant::now();
        let fields = get_fields("/never");
        frames.send([Frame::new(Frame::HEADERS, Frame::END_STREAM, 5, &fields)]).await;
        assert_eq!(frames.goaway().await, 11, "ENHANCE_YOUR_CALM");
        assert!(start.elapsed() >= Duration::from_millis(500));
        frames.ended().await;
    }
    assert_eq!(app.count().await, 3);
}

// ---- stop and reload --------------------------------------------------------------------------------------

#[tokio::test]
async fn a_stop_lets_streams_finish_and_begins_no_others() {
    let app = App::start().await;
    let mut mesh = Mesh::of(&[&app]).await;
    let released = mesh.path("released");
    let mut client = Http2::connect(&mesh).await;
    let busy = client.begin(get(&format!("/until?file={}", released.display())), true).await;
    app.counts(1).await;
    mesh.signal(Signal::TERM);
    // Once the client has read GOAWAY, it begins nothing more.
    let mut begun = Vec::new();
    while let Ok(exchange) = client.try_begin(get("/sleep?ms=50"), true).await {
        begun.push(exchange.answer().await.status);
        assert!(begun.len() < 100, "no GOAWAY");
    }
    assert!(begun.iter().all(|status| *status == 200), "{begun:?}");
    // Longer than an idle connection would be given.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    std::fs::write(released, "").unwrap();
    assert_eq!(busy.answer().await.text(), "released");
    client.ended().await.expect("a graceful end");
    assert!(mesh.ended().await.success());
}

/// Its stream has ended for the router long before: what waits in the connection is the answer's, too.
#[tokio::test]
async fn a_stop_lets_a_slow_client_take_all_of_its_answer() {
    let app = App::start().await;
    let mut mesh = Mesh::of(&[&app]).await;
    let length = 300_000;
    let mut frames = Frames::connect_narrow(mesh.http()).await;
    let windows = [Frame::initial_window(1 << 30), Frame::window(0, 1 << 30)];
    let request = Frame::get(1, &format!("/big?bytes={length}"));
    frames.send(windows.into_iter().chain([request])).await;
    app.counts(1).await;
    mesh.signal(Signal::TERM);
    becomes_true("the listener to be closed", async || is_closed(mesh.http()).await).await;
    // It takes five seconds, and says how far it is all the while.
    let mut received = 0;
    while received < length {
        let frame = frames.next_slowly().await;
        match (frame.kind, frame.flags) {
            (Frame::DATA, _) => {
                received += frame.payload.len();
                frames.send([Frame::window(0, frame.payload.len() as u32)]).await;
            }
            (Frame::PING, 0) => {
                frames.send([Frame { flags: Frame::ACK, ..frame }]).await;
            }
            _ => {}
        }
    }
    drop(frames);
    assert!(mesh.ended().await.success());
}

async fn is_closed(addr: SocketAddr) -> bool {
    tokio::net::TcpStream::connect(addr).await.is_err()
}

#[tokio::test]
async fn what_runs_at_the_bound_of_a_stop_is_h24() {
    let app = App::start().await;
    let mut mesh = mesh_with(&app, "stop = \"1s\"").await;
    let mut client = Http2::connect(&mesh).await;
    let waiting = client.begin(get("/sleep?ms=60000"), true).await;
    let mut dripping = client.begin(get("/drip?n=600&ms=100"), true).await;
    let mut head = dripping.head().await;
    assert!(!read_body(head.body_mut(), 1).await.unwrap().is_empty());
    app.counts(2).await;
    let start = Instant::now();
    mesh.signal(Signal::TERM);
    waiting.answer().await.is_refusal(503, "H24");
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(read_body(head.body_mut(), usize::MAX).await.is_err(), "it must not look whole");
    assert!(mesh.ended().await.success());
    mesh.request("/sleep?ms=60000").await.has(&["at=error", "code=H24", "status=503"]);
    mesh.request("/drip?n=600&ms=100").await.has(&["at=error", "code=H24", "status=200"]);
}

/// As with HTTP/1.1 it takes one more exchange until a connection hears of it.
#[tokio::test]
async fn connections_of_a_listener_that_goes_are_told_to_go() {
    let app = App::start().await;
    let mut mesh = Mesh::of(&[&app]).await;
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let second = probe.local_addr().unwrap();
    drop(probe);
    mesh.reload(|setup| setup.listen(&second.to_string())).await;
    let mut client = Http2::connect_with(second, &Builder::new()).await;
    assert_eq!(client.get("/").await.status, 200);
    let text = mesh.setup().text().replace(&format!(", \"{second}\""), "");
    mesh.reload_text(&text, "ok").await;
    assert_eq!(client.get("/").await.status, 200, "this one is served");
    client.ended().await.expect("a graceful end");
    let mut stays = Client::connect(mesh.http()).await;
    assert_eq!(stays.get("/").await.status, 200);
}
