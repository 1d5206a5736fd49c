//! WebSockets in streams of HTTP/2 (RFC 8441), which are upgrades of HTTP/1.1 for the dyno.

use h2::ext::Protocol;
use http::{Request, request};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{
    App, GOODBYE, Http2, Http2Exchange, Mesh, RESTART, Setup, get, is_switched, percent_encoded,
    read_body, within,
};

fn websocket(target: &str) -> request::Builder {
    Request::connect(format!("http://shop.localhost{target}"))
        .extension(Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .header("origin", "http://shop.localhost")
}

async fn connected(mesh: &Mesh) -> Http2 {
    let mut client = Http2::connect(mesh).await;
    client.takes_websockets().await;
    client
}

/// The WebSocket, and where its bytes come from.
async fn opened(client: &mut Http2, target: &str) -> (Http2Exchange, h2::RecvStream) {
    let mut exchange = client.begin(websocket(target), false).await;
    let head = exchange.head().await;
    assert!(is_switched(&head), "{head:?}");
    for name in ["upgrade", "connection", "sec-websocket-accept", "transfer-encoding"] {
        assert!(!head.headers().contains_key(name), "{head:?}");
    }
    (exchange, head.into_body())
}

#[tokio::test]
async fn a_websocket_is_a_pipe_of_bytes() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = connected(&mesh).await;
    let (mut exchange, mut from) = opened(&mut client, "/ws").await;
    for bytes in [&b"\x81\x05hello"[..], b"\0\r\n\r\n", &[0xff; 70_000]] {
        exchange.send(bytes, false).await;
        assert!(read_body(&mut from, bytes.len()).await.unwrap() == bytes);
    }
    assert_eq!(mesh.metrics().await.get("dynomesh_in_flight", &[("app", "shop")]), 1.0);
    let block = (0..50_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>();
    for _ in 0..20 {
        let (sent, received) =
            tokio::join!(exchange.send(&block, false), read_body(&mut from, block.len()));
        let () = sent;
        assert!(received.unwrap() == block);
    }
    assert_eq!(client.get("/beside").await.status, 200);
    exchange.reset(h2::Reason::CANCEL);
    mesh.request("/ws").await.has(&["at=info", "status=200", "protocol=http2.0", "dyno=web.1"]);
    mesh.metric_becomes("dynomesh_in_flight", &[("app", "shop")], 0.0).await;
    assert!(client.is_open());
}

/// END_STREAM is FIN, either way.
#[tokio::test]
async fn the_end_of_one_side_is_passed_on() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = connected(&mesh).await;
    let (mut exchange, mut from) = opened(&mut client, "/ws").await;
    exchange.send(b"last words", true).await;
    let rest = read_body(&mut from, usize::MAX).await.unwrap();
    assert_eq!(rest, b"last wordsbye");
    assert!(from.is_end_stream());
    mesh.request("/ws").await.has(&["at=info", "status=200", "bytes=13"]);

    let now = mesh.path("now");
    let target = format!("/ws-last?bytes=120000&file={}", now.display());
    let (_exchange, mut from) = opened(&mut client, &target).await;
    std::fs::write(now, "").unwrap();
    let rest = read_body(&mut from, usize::MAX).await.unwrap();
    assert_eq!(rest.len(), 120_000);
    mesh.request(&target).await.has(&["at=info", "status=200", "bytes=120000"]);
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test]
async fn the_dyno_is_asked_for_an_upgrade() {
    let dyno = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = dyno.local_addr().unwrap();
    let mesh = Setup::new().app("shop", &format!("dynos = [\"{place}\"]")).start().await;
    let mut client = connected(&mesh).await;
    let asking = websocket("/asked?a=b").header("sec-websocket-protocol", "chat");
    let mut exchange = client.begin(asking, false).await;
    let (mut dyno, _) = within("the dyno's connection", dyno.accept()).await.unwrap();
    let mut head = vec![0; 4096];
    let length = within("its request", dyno.read(&mut head)).await.unwrap();
    let head = str::from_utf8(&head[..length]).unwrap();
    assert!(head.starts_with("GET /asked?a=b HTTP/1.1\r\nHost: shop.localhost\r\n"), "{head}");
    for line in [
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-Websocket-Version: 13",
        "Sec-Websocket-Protocol: chat",
        "Origin: http://shop.localhost",
    ] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line} in {head}");
    }
    // Sixteen bytes in base64.
    let key = head.split("\r\nSec-Websocket-Key: ").nth(1).expect("a key");
    assert_eq!(key.find("==\r\n"), Some(22), "{head}");
    assert!(!head.contains("Content-Length") && !head.contains("Transfer-Encoding"), "{head}");

    let accept = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                  Sec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: chat\r\n\r\n";
    dyno.write_all(accept.as_bytes()).await.unwrap();
    let head = exchange.head().await;
    assert!(is_switched(&head), "{head:?}");
    assert_eq!(head.headers()["sec-websocket-protocol"], "chat");
}

/// Bytes that the client sends ahead of the answer are the WebSocket's.
#[tokio::test]
async fn bytes_sent_ahead_go_first() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = connected(&mesh).await;
    let mut exchange = client.begin(websocket("/ws"), false).await;
    exchange.send(b"early", false).await;
    let mut head = exchange.head().await;
    assert!(is_switched(&head));
    exchange.send(b"late", false).await;
    assert_eq!(read_body(head.body_mut(), 9).await.unwrap(), b"earlylate");
}

/// What the dyno says in place of 101 is its answer. But a 2xx would say that there is a WebSocket.
#[tokio::test]
async fn a_dyno_that_does_not_switch_gives_no_websocket() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = connected(&mesh).await;
    let refusal = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";
    let target = format!("/raw?bytes={}&then=keep", percent_encoded(refusal));
    let mut exchange = client.begin(websocket(&target), false).await;
    let answer = exchange.rest_of_answer().await.unwrap();
    assert_eq!((answer.status, answer.text()), (403, "no"));
    mesh.request(&target).await.has(&["at=info", "status=403"]);

    let mut exchange = client.begin(websocket("/plain"), false).await;
    let head = exchange.head().await;
    assert!(head.status().as_u16() >= 300, "{head:?}");
    let line = mesh.request("/plain").await;
    line.has(&["at=error", "code=H17", "status=503"]);
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test]
async fn a_websocket_whose_dyno_dies_is_over() {
    let mut app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = connected(&mesh).await;
    let (_exchange, mut from) = opened(&mut client, "/ws").await;
    app.kill().await;
    let _ = read_body(&mut from, usize::MAX).await;
    mesh.request("/ws").await.has(&["at=info", "status=200"]);
    assert!(client.is_open());
}

#[tokio::test]
async fn a_silent_websocket_is_h15() {
    let app = App::start().await;
    let mesh = Setup::new().timeouts("rolling = \"500ms\"").shop(&[&app]).start().await;
    let mut client = connected(&mesh).await;
    let (mut exchange, mut from) = opened(&mut client, "/ws").await;
    for _ in 0..4 {
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
        exchange.send(b"x", false).await;
        assert_eq!(read_body(&mut from, 1).await.unwrap(), b"x");
    }
    let _ = read_body(&mut from, usize::MAX).await;
    let line = mesh.request("/ws").await;
    line.has(&["at=error", "code=H15", "status=200"]);
    assert!(line.millis("service") >= 1500);
    assert_eq!(client.ask(get("/"), b"").await.status, 200);
}

#[tokio::test]
async fn a_websocket_over_tls_works_the_same() {
    let app = App::start().await;
    let mesh = Setup::new().listen_tls().shop(&[&app]).start().await;
    let mut client = Http2::connect_tls(&mesh, "shop.localhost").await;
    client.takes_websockets().await;
    let (mut exchange, mut from) = opened(&mut client, "/ws").await;
    exchange.send(b"hello", true).await;
    assert_eq!(read_body(&mut from, usize::MAX).await.unwrap(), b"hellobye");
    mesh.request("/ws").await.has(&["tls=true", "status=200"]);
}

/// Reads the close frame, says goodbye, and sees the stream end as it should.
async fn is_restarted(exchange: &mut Http2Exchange, from: &mut h2::RecvStream) {
    assert_eq!(read_body(from, 4).await.unwrap(), RESTART);
    exchange.send(GOODBYE, true).await;
    let mut behind = Vec::new();
    while let Some(data) = within("the end", from.data()).await {
        behind.extend(data.unwrap());
    }
    assert_eq!(behind, b"");
}

/// The close frame is ours, the end of the stream the dyno's.
#[tokio::test]
async fn a_websocket_of_a_dyno_that_goes_is_closed_with_1012() {
    let [goes, stays] = [App::start().await, App::start().await];
    let mut mesh = Setup::new().timeouts("ws_drain = \"500ms\"").shop(&[&goes]).start().await;
    let mut client = connected(&mesh).await;
    let (mut exchange, mut from) = opened(&mut client, "/ws").await;
    exchange.send(b"\x81\x05hello", false).await;
    assert_eq!(read_body(&mut from, 7).await.unwrap(), b"\x81\x05hello");
    mesh.reload(|mut setup| {
        setup.clear_apps();
        setup.shop(&[&stays])
    })
    .await;
    is_restarted(&mut exchange, &mut from).await;
    mesh.request("/ws").await.has(&["at=info", "status=200", "dyno=web.1"]);
    assert_eq!(client.get("/").await.status, 200, "the connection goes on");
}

#[tokio::test]
async fn a_websocket_of_a_daemon_that_stops_is_closed_with_1012() {
    let app = App::start().await;
    let timeouts = "stop = \"10m\"\nws_drain = \"500ms\"";
    let mut mesh = Setup::new().timeouts(timeouts).shop(&[&app]).start().await;
    let mut client = connected(&mesh).await;
    let (mut exchange, mut from) = opened(&mut client, "/ws").await;
    mesh.signal(Signal::TERM);
    is_restarted(&mut exchange, &mut from).await;
    mesh.request("/ws").await.has(&["at=info", "status=200", "dyno=web.1"]);
    drop(client);
    assert!(mesh.ended().await.success());
}
