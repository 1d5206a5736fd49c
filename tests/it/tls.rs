//! HTTPS: handshakes, and under them the same exchanges as ever.

use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, ProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::{App, Client, End, Http2, Mesh, Setup, Tls, becomes_true, request, within};

const NAME: &str = "shop.localhost";
/// As many open files as leave room for so many clients, each with a dyno, beside what is kept aside.
const ROOM_FOR_40: u32 = 256 + 2 * 40;
const HANDSHAKES: &str = "dynomesh_tls_handshakes_total";

async fn mesh_of(app: &App) -> Mesh {
    Setup::new().listen_tls().shop(&[app]).start().await
}

/// A connection with HTTP/1.1 on it.
async fn secured(mesh: &Mesh) -> Client {
    Tls::of(mesh).connect(mesh.https(), NAME).await
}

/// Bytes in which no two places look alike.
fn noise(length: usize) -> Vec<u8> {
    (0..length as u32 / 4 + 1)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes())
        .take(length)
        .collect()
}

// ---- handshakes -------------------------------------------------------------------------------------------

#[tokio::test]
async fn both_versions_are_spoken_with_every_alpn() {
    let app = App::start().await;
    let mesh = mesh_of(&app).await;
    for (version, said) in [(&TLS12, "tls1.2"), (&TLS13, "tls1.3")] {
        for (offered, agreed) in
            [(&[][..], None), (&["http/1.1"], Some("http/1.1")), (&["http/1.1", "h2"], Some("h2"))]
        {
            let tls = Tls::with(&mesh, &[version]).alpn(offered);
            let target = format!("/{said}-{}", agreed.unwrap_or("none").replace('/', ""));
            let mut client = tls.connect(mesh.https(), NAME).await;
            let session = client.tls();
            assert_eq!(session.protocol_version(), Some(version.version));
            assert_eq!(session.alpn_protocol(), agreed.map(str::as_bytes));
            if agreed == Some("h2") {
                continue;
            }
            assert_eq!(client.get(&target).await.status, 200);
            let line = mesh.request(&target).await;
            line.has(&["at=info", "protocol=http1.1", "tls=true"]);
            line.has(&[&format!("tls_version={said}")]);
        }
    }
    let mut client = Http2::connect_tls(&mesh, NAME).await;
    assert_eq!(client.get("/h2").await.status, 200);
    mesh.request("/h2").await.has(&["protocol=http2.0", "tls=true", "tls_version=tls1.3"]);
}

/// Who says an address says no name. The domain's certificate holds for loopback, and every app is there.
#[tokio::test]
async fn a_client_without_sni_is_served() {
    let app = App::start().await;
    let mesh = mesh_of(&app).await;
    let mut client = Tls::of(&mesh).connect(mesh.https(), "127.0.0.1").await;
    assert_eq!(client.get("/").await.status, 200, "its Host says which app is meant");
}

/// A name that nobody knows gets the domain's certificate, and whoever checks it goes away.
#[tokio::test]
async fn an_unknown_name_is_shown_the_domains_certificate() {
    let app = App::start().await;
    let mesh = mesh_of(&app).await;
    let error = Tls::of(&mesh).try_stream(mesh.https(), "nobody.example").await.unwrap_err();
    let error = error.get_ref().and_then(|it| it.downcast_ref::<rustls::Error>());
    assert!(
        matches!(error, Some(rustls::Error::InvalidCertificate(_))),
        "a certificate that is not this name's: {error:?}"
    );
    mesh.metric_becomes(HANDSHAKES, &[("result", "failed")], 1.0).await;
    assert_eq!(secured(&mesh).await.get("/").await.status, 200);
}

/// The keys of the tickets are the process's: a client that comes to another worker resumes there too.
#[tokio::test]
async fn sessions_are_resumed_on_every_worker() {
    let app = App::start().await;
    let mesh = mesh_of(&app).await;
    for version in [&TLS12, &TLS13] {
        let before = mesh.metrics().await.get(HANDSHAKES, &[("result", "resumed")]);
        let tls = Tls::with(&mesh, &[version]);
        // All stay open, so that no worker is the less loaded one for long.
        let mut clients = Vec::new();
        for number in 0..8 {
            let mut client = tls.connect(mesh.https(), NAME).await;
            let expected = if number == 0 { HandshakeKind::Full } else { HandshakeKind::Resumed };
            let kind = client.tls().handshake_kind();
            assert_eq!(kind, Some(expected), "connection {number}, {version:?}");
            assert_eq!(client.get("/").await.status, 200);
            clients.push(client);
        }
        let metrics = mesh.metrics().await;
        assert_eq!(metrics.get(HANDSHAKES, &[("result", "resumed")]) - before, 7.0);
    }
    assert_eq!(mesh.metrics().await.get(HANDSHAKES, &[("result", "full")]), 2.0);
}

/// What is no TLS ends at once, and is counted.
#[tokio::test]
async fn plain_http_at_the_https_port_is_closed() {
    let app = App::start().await;
    let mesh = mesh_of(&app).await;
    let mut client = Client::connect(mesh.https()).await;
    client.send(request("GET", "/plain", "", "")).await;
    let _ = client.rest_and_end().await;
    mesh.metric_becomes(HANDSHAKES, &[("result", "failed")], 1.0).await;
    assert_eq!(app.count().await, 0);
    assert!(mesh.requests("/plain").is_empty());
}

#[tokio::test]
async fn a_handshake_that_stalls_is_closed_and_counted() {
    let app = App::start().await;
    let mesh = Setup::new().listen_tls().timeouts("handshake = \"1s\"").shop(&[&app]).start().await;
    let hello = Tls::of(&mesh).hello();
    for (times, sent) in [&[][..], &hello[..hello.len() / 2], &hello[..3]].into_iter().enumerate() {
        let start = Instant::now();
        let mut client = Client::connect(mesh.https()).await;
        client.send(sent).await;
        let _ = client.rest_and_end().await;
        let took = start.elapsed();
        assert!(took.as_millis() >= 1000, "{} bytes: {took:?}", sent.len());
        let counted = times as f64 + 1.0;
        mesh.metric_becomes(HANDSHAKES, &[("result", "timeout")], counted).await;
    }
    assert_eq!(secured(&mesh).await.get("/").await.status, 200);
}

/// A connection that is opening needs no descriptor for a dyno, and most of very many never will.
#[tokio::test]
async fn halves_of_handshakes_keep_nobody_out() {
    let app = App::start().await;
    let mesh = Setup::new()
        .descriptors(ROOM_FOR_40)
        .listen_tls()
        .timeouts("handshake = \"60s\"")
        .shop(&[&app])
        .start()
        .await;
    let hello = Tls::of(&mesh).hello();
    let mut halves = Vec::new();
    for _ in 0..60 {
        let mut half = Client::connect(mesh.https()).await;
        half.send(&hello[..hello.len() / 2]).await;
        halves.push(half);
    }
    are_inside(&mesh, 60.0).await;
    for _ in 0..3 {
        assert_eq!(secured(&mesh).await.get("/").await.status, 200);
    }
}

/// So many connections have been accepted for HTTPS.
async fn are_inside(mesh: &Mesh, count: f64) {
    let listener = mesh.https().to_string();
    mesh.metric_becomes("dynomesh_connections", &[("listener", &listener)], count).await;
}

/// Where all of them finish after all, those for whose dynos there would be no descriptors are sent away.
#[tokio::test]
async fn whoever_gets_through_a_handshake_has_room_for_its_dyno() {
    let app = App::start().await;
    let mesh = Setup::new().descriptors(ROOM_FOR_40).listen_tls().shop(&[&app]).start().await;
    let mut waiting = Vec::new();
    for _ in 0..60 {
        waiting.push(TcpStream::connect(mesh.https()).await.unwrap());
    }
    are_inside(&mesh, 60.0).await;
    let mut inside = Vec::new();
    for stream in waiting {
        let Ok(mut stream) = Tls::of(&mesh).over(stream, NAME).await else { continue };
        // With TLS 1.3 its own part may be over before it is sent away.
        let request = request("GET", "/", "", "");
        let mut byte = [0];
        let asked = stream.write_all(request.as_bytes()).await;
        if asked.is_ok() && matches!(within("a byte", stream.read(&mut byte)).await, Ok(1)) {
            inside.push(stream);
        }
    }
    assert!((35..=40).contains(&inside.len()), "{} of 60 got in", inside.len());
    drop(inside);
    assert_eq!(secured(&mesh).await.get("/").await.status, 200);
}

/// What is here when a handshake is half done is neither lost nor waited for.
#[tokio::test]
async fn a_handshake_may_come_in_pieces() {
    let app = App::start().await;
    let mesh = mesh_of(&app).await;
    let hello = Tls::of(&mesh).hello();
    let mut client = Client::connect(mesh.https()).await;
    for byte in &hello {
        client.send([*byte]).await;
    }
    // The server's first record: a handshake message.
    assert_eq!(client.exactly(1).await, [22]);
}

// ---- what travels under it --------------------------------------------------------------------------------

#[tokio::test]
async fn a_secured_connection_is_kept_and_takes_pipelined_requests() {
    let app = App::start().await;
    let mesh = mesh_of(&app).await;
    let mut client = secured(&mesh).await;
    for _ in 0..50 {
        assert_eq!(client.get("/").await.status, 200);
    }
    let all = (0..100)
        .map(|number| request("POST", "/echo", "", &format!("number {number}")))
        .collect::<String>();
    client.send(&all).await;
    for number in 0..100 {
        assert_eq!(client.answer().await.text(), format!("number {number}"));
    }
    assert_eq!(mesh.metrics().await.get(HANDSHAKES, &[("result", "full")]), 1.0);
}

#[tokio::test]
async fn large_bodies_travel_byte_for_byte() {
    let app = App::start().await;
    let mesh = mesh_of(&app).await;
    let body = noise(5_000_003);
    for version in [&TLS12, &TLS13] {
        for framing in ["", "?framing=chunked", "?framing=close"] {
            let mut client = Tls::with(&mesh, &[version]).connect(mesh.https(), NAME).await;
            let length = body.len();
            let head = format!(
                "POST /echo{framing} HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {length}\r\n\r\n"
            );
            client.send(head).await;
            client.send(&body).await;
            assert!(client.answer().await.body == body, "{version:?} {framing}");
        }
    }
}

#[tokio::test]
async fn a_slow_reader_gets_all_of_its_answer() {
    let app = App::start().await;
    let mesh = mesh_of(&app).await;
    let told = mesh.path("told");
    let target = format!("/big?bytes=32000000&told={}", told.display());
    let mut client = Tls::of(&mesh).connect_small(mesh.https()).await;
    client.send(request("GET", &target, "", "")).await;
    assert_eq!(client.head().await.status, 200);
    client.take_slowly(30_000).await;
    assert!(!told.exists(), "the dyno waits with the client");
    assert!(client.exactly(32_000_000).await.iter().all(|byte| *byte == b'b'));
    mesh.request(&target).await.has(&["at=info", "status=200", "bytes=32000000"]);
}

#[tokio::test]
async fn a_half_closed_connection_gets_its_last_answer() {
    let app = App::start().await;
    let mesh = mesh_of(&app).await;
    let mut client = secured(&mesh).await;
    client.send(request("GET", "/sleep?ms=200", "Connection: close\r\n", "")).await;
    client.finish().await;
    assert_eq!(client.answer().await.text(), "slept");
    client.is_closed().await;
}

/// However it leaves: the dyno keeps its slot until it is done.
#[tokio::test]
async fn a_client_that_leaves_while_it_waits_is_h27_and_its_request_lingers() {
    for how in ["close_notify", "reset"] {
        let app = App::start().await;
        let mesh = mesh_of(&app).await;
        let released = mesh.path("released");
        let target = format!("/until?file={}", released.display());
        let mut client = secured(&mesh).await;
        client.send(request("GET", &target, "", "")).await;
        app.counts(1).await;
        match how {
            "reset" => client.reset(),
            _ => client.finish().await,
        }
        let line = mesh.request(&target).await;
        line.has(&["sock=client", "at=warning", "code=H27", "status=499", "tls=true"]);
        let slot = [("app", "shop"), ("dyno", "web.1")];
        assert_eq!(mesh.metrics().await.get("dynomesh_in_flight", &slot), 1.0, "{how}");
        std::fs::write(released, "").unwrap();
        mesh.metric_becomes("dynomesh_in_flight", &slot, 0.0).await;
        mesh.late(&line).await.has(&["status=200"]);
    }
}

#[tokio::test]
async fn a_late_answer_is_h12_and_the_connection_lives_on() {
    let app = App::start().await;
    let mesh =
        Setup::new().listen_tls().timeouts("first_byte = \"500ms\"").shop(&[&app]).start().await;
    let mut client = secured(&mesh).await;
    let answer = client.get("/sleep?ms=1500").await;
    answer.is_refusal(503, "H12");
    assert!(!answer.says_close());
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test]
async fn a_pipe_is_one_both_ways() {
    let app = App::start().await;
    let mesh = mesh_of(&app).await;
    let mut client = secured(&mesh).await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    client.send([request("GET", "/ws", upgrade, "").as_bytes(), b"early"].concat()).await;
    assert_eq!(client.answer().await.status, 101);
    assert_eq!(client.exactly(5).await, b"early");
    let bytes = noise(60_000);
    for _ in 0..20 {
        client.send(&bytes).await;
        assert!(client.exactly(bytes.len()).await == bytes);
    }
    client.finish().await;
    assert_eq!(client.rest().await, b"bye", "close_notify is passed on, and the last words come");
    mesh.request("/ws").await.has(&["at=info", "status=101", "tls=true"]);
}

/// Whoever cannot tell an end from a cut would take a cut answer for whole (RFC 8446 §6.1).
#[tokio::test]
async fn every_good_end_is_said_in_tls() {
    let app = App::start().await;
    let mesh =
        Setup::new().listen_tls().timeouts("keepalive = \"300ms\"").shop(&[&app]).start().await;
    for fields in ["Connection: close\r\n", ""] {
        for version in [&TLS12, &TLS13] {
            let mut client = Tls::with(&mesh, &[version]).connect(mesh.https(), NAME).await;
            assert_eq!(client.request("GET", "/", fields, "").await.status, 200);
            client.is_closed().await;
        }
    }
    let mut client = secured(&mesh).await;
    client.is_closed().await;
}

#[tokio::test]
async fn an_answer_that_ends_with_its_connection_says_goodbye_only_when_it_is_whole() {
    let app = App::start().await;
    let mesh = mesh_of(&app).await;
    let head = "HTTP%2F1.1%20200%20OK%0D%0A%0D%0Ahalf";
    for then in ["reset", "close"] {
        let mut client = secured(&mesh).await;
        let target = format!("/raw?bytes={head}&pause=100&more=&then={then}");
        client.send(format!("GET {target} HTTP/1.0\r\nHost: {NAME}\r\n\r\n")).await;
        let (bytes, end) = client.rest_and_end().await;
        assert!(bytes.ends_with(b"half"));
        assert_eq!(end, if then == "reset" { End::Reset } else { End::Closed }, "{then}");
    }
}

/// The dyno hears how its client came.
#[tokio::test]
async fn dynos_hear_of_https_and_its_port() {
    let app = App::start().await;
    let mesh = mesh_of(&app).await;
    let expected = format!("X-Forwarded-Port: {}\r\n", mesh.https().port());
    let over_http1 = secured(&mesh).await.get("/head").await;
    let over_http2 = Http2::connect_tls(&mesh, NAME).await.get("/head").await;
    for head in [over_http1.text(), over_http2.text()] {
        assert!(head.contains("X-Forwarded-Proto: https\r\n"), "{head}");
        assert!(head.contains(&expected), "{head}");
    }
}

#[tokio::test]
async fn a_stop_lets_requests_under_tls_finish() {
    let app = App::start().await;
    let mut mesh = mesh_of(&app).await;
    let released = mesh.path("released");
    let mut busy = secured(&mesh).await;
    busy.send(request("GET", &format!("/until?file={}", released.display()), "", "")).await;
    app.counts(1).await;
    mesh.signal(rustix::process::Signal::TERM);
    // Nobody is let in any more.
    becomes_true("the listeners to be closed", async || {
        TcpStream::connect(mesh.https()).await.is_err()
    })
    .await;
    std::fs::write(released, "").unwrap();
    let answer = busy.answer().await;
    assert!(answer.text() == "released" && answer.says_close());
    busy.is_closed().await;
    assert!(mesh.ended().await.success());
}

// ---- reload -----------------------------------------------------------------------------------------------

/// The socket stays, and so do its connections: only who comes later is greeted otherwise.
#[tokio::test]
async fn an_address_that_becomes_https_keeps_its_plain_connections() {
    let app = App::start().await;
    let mut mesh = Mesh::of(&[&app]).await;
    let mut plain = mesh.client().await;
    assert_eq!(plain.get("/").await.status, 200);
    let text = mesh.setup().text();
    let secure = text
        .replace("http = [\"127.0.0.1:0\"]\nhttps = []", "http = []\nhttps = [\"127.0.0.1:0\"]");
    assert_ne!(text, secure);
    mesh.reload_text(&secure, "ok").await;
    let mut client = Tls::of(&mesh).connect(mesh.http(), NAME).await;
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(client.tls().protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let answer = plain.get("/").await;
    assert!(answer.status == 200 && !answer.says_close(), "{answer:?}");

    mesh.reload_text(&text, "ok").await;
    assert_eq!(within("a plain answer", mesh.get("/")).await.status, 200, "and back");
    assert_eq!(client.get("/").await.status, 200);
}
