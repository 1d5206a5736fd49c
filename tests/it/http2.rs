//! HTTP/2: each stream walks the same exchange as a request of HTTP/1.1, and has a line of its own.

use h2::Reason;
use h2::client::Builder;
use http::{HeaderMap, Request};

use crate::support::{
    App, Client, Frame, Frames, Http2, Line, Mesh, PREFACE, Setup, get, get_fields,
    percent_encoded, post, read_body, request, within,
};

const SLOT: [(&str, &str); 2] = [("app", "shop"), ("dyno", "web.1")];

/// Bytes in which no two places look alike.
fn noise(length: usize) -> Vec<u8> {
    let words = (0..length as u32 / 4 + 1).map(|n| n.wrapping_mul(2_654_435_761));
    words.flat_map(u32::to_be_bytes).take(length).collect()
}

fn raw(bytes: &str, then: &str) -> String {
    format!("/raw?bytes={}&then={then}", percent_encoded(bytes))
}

// ---- requests and answers ---------------------------------------------------------------------------------

#[tokio::test]
async fn requests_are_answered_and_logged_one_by_one() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = Http2::connect(&mesh).await;
    for number in 0..20 {
        let answer = client.get(&format!("/n{number}")).await;
        assert_eq!((answer.status, answer.text()), (200, "testapp"));
        assert_eq!(answer.field("content-length"), Some("7"));
        assert_eq!(answer.field("via"), Some("1.1 dynomesh"));
        assert_eq!(answer.field("connection"), None);
    }
    let line = mesh.request("/n19").await;
    line.has(&["at=info", "method=GET", "host=shop.localhost", "dyno=web.1", "status=200"]);
    line.has(&["bytes=7", "protocol=http2.0", "tls=false"]);
    assert_eq!(app.connections().await, 1, "a dyno sees kept connections of HTTP/1.1");
    assert_eq!(mesh.metrics().await.get("dynomesh_connections", &[]), 1.0);
}

#[tokio::test]
async fn a_body_arrives_with_and_without_its_length() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = Http2::connect(&mesh).await;
    let answer = client.ask(post("/echo").header("content-length", "4"), b"body").await;
    assert_eq!(answer.text(), "body");
    assert_eq!(client.ask(post("/echo"), b"body").await.text(), "body");
    let head = client.ask(post("/head").header("content-length", "4"), b"body").await;
    assert!(head.text().contains("\r\nContent-Length: 4\r\n"), "{head:?}");
    let head = client.ask(post("/head"), b"body").await;
    assert!(head.text().contains("\r\nTransfer-Encoding: chunked\r\n"), "{head:?}");
    let head = client.ask(post("/head"), b"").await;
    assert!(head.text().contains("\r\nContent-Length: 0\r\n"), "{head:?}");
    // Headers first, and later an end without data.
    let mut exchange = client.begin(post("/length"), false).await;
    app.counts(6).await;
    exchange.body.send_data(bytes::Bytes::new(), true).unwrap();
    assert_eq!(exchange.answer().await.text(), "0");
}

#[tokio::test]
async fn large_bodies_travel_byte_for_byte() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let body = noise(10_000_003);
    let mut client = Http2::connect(&mesh).await;
    for framing in ["", "?framing=chunked", "?framing=close"] {
        let answer = client.ask(post(&format!("/echo{framing}")), &body).await;
        assert!(answer.status == 200 && answer.body == body, "{framing}");
    }
    let mesh = Setup::new().listen_tls().shop(&[&app]).start().await;
    let mut client = Http2::connect_tls(&mesh, "shop.localhost").await;
    assert!(client.ask(post("/echo"), &body).await.body == body);
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = Http2::connect(&mesh).await;
    let head = Request::head("http://shop.localhost/");
    let answer = client.ask(head, b"").await;
    assert_eq!((answer.status, answer.field("content-length")), (200, Some("1234")));
    assert!(answer.body.is_empty());
    for (bytes, status) in [
        ("HTTP/1.1 204 No Content\r\n\r\n", 204),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nETag: a\r\n\r\n", 304),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200),
        ("HTTP/1.1 200 OK\r\n\r\n", 200),
    ] {
        let then = if bytes.contains("OK\r\n\r\n") { "close" } else { "keep" };
        let answer = client.get(&raw(bytes, then)).await;
        assert!(answer.status == status && answer.body.is_empty(), "{bytes}: {answer:?}");
        assert_eq!(answer.field("transfer-encoding"), None);
    }
    assert!(client.is_open());
}

/// RFC 9113 §8.2.2: a client would take such an answer for malformed.
#[tokio::test]
async fn fields_about_the_dynos_connection_stay_behind() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = Http2::connect(&mesh).await;
    let hops = "Connection: keep-alive, Named\r\nKeep-Alive: timeout=5\r\nProxy-Connection: a\r\n\
                Named: b\r\nUpgrade: h2c\r\nTE: trailers\r\nFine: yes\r\n";
    for status in ["200 OK", "426 Upgrade Required"] {
        let bytes = format!(
            "HTTP/1.1 103 Hints\r\n{hops}\r\nHTTP/1.1 {status}\r\n{hops}Content-Length: 2\r\n\r\nok"
        );
        let answer = client.get(&raw(&bytes, "keep")).await;
        assert!(status.starts_with(&answer.status.to_string()), "{answer:?}");
        assert_eq!((answer.text(), answer.field("fine")), ("ok", Some("yes")));
        for name in ["connection", "keep-alive", "proxy-connection", "named", "upgrade"] {
            assert_eq!(answer.field(name), None);
        }
    }
}

#[tokio::test]
async fn a_large_head_of_an_answer_is_passed_on() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = Http2::connect(&mesh).await;
    let answer = client.get("/fields?name=Padding&line=100000&n=4").await;
    let padding = answer.fields.iter().filter(|(name, _)| name == "padding");
    assert_eq!(padding.map(|(_, value)| value.len()).sum::<usize>(), 4 * (100_000 - 9));
}

#[tokio::test]
async fn trailers_travel_both_ways() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = Http2::connect(&mesh).await;
    for body in ["with a body", ""] {
        let mut exchange = client.begin(post("/trailers"), false).await;
        exchange.send(body.as_bytes(), false).await;
        let mut trailers = HeaderMap::new();
        trailers.insert("checksum", "abc".parse().unwrap());
        trailers.insert("other", "d".parse().unwrap());
        exchange.send_trailers(trailers);
        let seen = exchange.answer().await;
        assert_eq!(seen.text(), "Checksum: abc\r\nOther: d\r\n", "{body:?}");
    }
    let answer = client.get("/chunked?n=3&trailers=1").await;
    assert_eq!(answer.text(), "chunk 0;chunk 1;chunk 2;");
    assert_eq!(answer.trailers, "checksum: abc\r\n");
    assert_eq!(client.get("/chunked?n=1").await.trailers, "");
    // All in one piece.
    let bytes = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nA: b\r\n\r\n";
    let answer = client.get(&raw(bytes, "keep")).await;
    assert_eq!((answer.text(), &answer.trailers[..]), ("x", "a: b\r\n"));
}

/// A field that says how a message is framed has no place behind it.
#[tokio::test]
async fn trailers_that_would_frame_or_route_do_not_reach_the_dyno() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = Http2::connect(&mesh).await;
    let mut exchange = client.begin(post("/trailers"), false).await;
    exchange.send(b"body", false).await;
    let mut trailers = HeaderMap::new();
    for name in ["content-length", "host", "authorization", "fine"] {
        trailers.insert(name, "1".parse().unwrap());
    }
    exchange.send_trailers(trailers);
    match exchange.rest_of_answer().await {
        Ok(answer) if answer.status == 200 => assert_eq!(answer.text(), "Fine: 1\r\n"),
        Ok(answer) => assert_eq!(answer.status, 400, "{answer:?}"),
        Err(error) => assert_eq!(error.reason(), Some(Reason::PROTOCOL_ERROR)),
    }
}

#[tokio::test]
async fn interim_answers_are_passed_on() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = Http2::connect(&mesh).await;
    let mut exchange = client.begin(get("/interim?n=3"), true).await;
    for number in 0..3 {
        let interim = exchange.interim().await.expect("a hint");
        assert_eq!(interim.status(), 103);
        assert_eq!(interim.headers()["link"], format!("</{number}>"));
    }
    assert_eq!(exchange.answer().await.text(), "final");
}

#[tokio::test]
async fn whoever_expects_it_is_told_to_go_on() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = Http2::connect(&mesh).await;
    let expecting = || post("/echo").header("expect", "100-continue");
    let mut exchange = client.begin(expecting(), false).await;
    assert_eq!(exchange.interim().await.expect("100").status(), 100);
    exchange.send(b"the body", true).await;
    assert_eq!(exchange.answer().await.text(), "the body");
    // Where nobody is there to take it, it is not asked for.
    let nobody = Request::post("http://nobody.localhost/").header("expect", "100-continue");
    let mut exchange = client.begin(nobody, false).await;
    assert_eq!(exchange.interim().await.map(|it| it.status()), None);
    assert_eq!(exchange.head().await.status(), 404);
}

#[tokio::test]
async fn crumbs_of_cookies_are_one_field() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = Http2::connect(&mesh).await;
    let crumbs = ["a=1", "b=2", "c=3"].iter();
    let crumbs = crumbs.fold(get("/head"), |request, crumb| request.header("cookie", *crumb));
    let head = client.ask(crumbs, b"").await;
    assert!(head.text().contains("\r\nCookie: a=1; b=2; c=3\r\n"), "{head:?}");
}

// ---- what is refused --------------------------------------------------------------------------------------

#[tokio::test]
async fn requests_that_can_be_read_two_ways_are_refused() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = Http2::connect(&mesh).await;
    let two_hosts = get("/two-hosts").header("host", "blog.localhost");
    client.ask(two_hosts, b"").await.is_refusal(400, "H26");
    mesh.request("/two-hosts").await.has(&["at=error", "code=H26", "status=400"]);
    let same_host = get("/").header("host", "SHOP.localhost");
    assert_eq!(client.ask(same_host, b"").await.status, 200);
    let two_lengths = post("/").header("content-length", "4").header("content-length", "5");
    let mut exchange = client.begin(two_lengths, false).await;
    match exchange.try_head().await {
        Ok(head) => assert_eq!(head.status(), 400),
        Err(error) => assert_eq!(error.reason(), Some(Reason::PROTOCOL_ERROR)),
    }
    assert_eq!(app.count().await, 1);
    assert!(client.is_open());
}

/// The h2 crate counts for us: a body is as long as it said.
#[tokio::test]
async fn a_body_that_is_not_as_long_as_it_said_reaches_no_dyno_as_whole() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    for body in ["", "too short", "and this one is too long"] {
        let mut frames = Frames::connect(&mesh).await;
        let mut fields = get_fields("/echo");
        fields[0] = 0x83; // POST
        fields.extend_from_slice(&[0x0f, 0x0d, 2, b'1', b'2']); // content-length
        let end = if body.is_empty() { Frame::END_STREAM } else { 0 };
        let head = Frame::new(Frame::HEADERS, Frame::END_HEADERS | end, 1, &fields);
        let body = Frame::new(Frame::DATA, Frame::END_STREAM, 1, body.as_bytes());
        frames.send([head].into_iter().chain((end == 0).then_some(body.clone()))).await;
        let reset = frames.until(Frame::RST_STREAM).await;
        assert_eq!(reset.payload, 1_u32.to_be_bytes(), "PROTOCOL_ERROR for {body:?}");
        frames.send([Frame::get(3, "/")]).await;
        assert_eq!(frames.until(Frame::HEADERS).await.stream, 3, "the connection lives on");
    }
    mesh.metric_becomes("dynomesh_in_flight", &SLOT, 0.0).await;
    assert!(mesh.requests("/echo").iter().all(|line| line.get("status") != "200"));
}

#[tokio::test]
async fn connect_is_refused_and_so_is_a_protocol_that_nobody_knows() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = Http2::connect(&mesh).await;
    client.takes_websockets().await;
    let mut exchange = client.begin(Request::connect("shop.localhost:443"), false).await;
    assert_eq!(exchange.head().await.status(), 405);
    let strange = Request::connect("http://shop.localhost/strange")
        .extension(h2::ext::Protocol::from_static("connect-udp"));
    let mut exchange = client.begin(strange, false).await;
    assert_eq!(exchange.head().await.status(), 501);
    let line = mesh.request("/strange").await;
    line.has(&["at=error", "code=H26", "status=501", "protocol=http2.0"]);
    assert_eq!(app.count().await, 0);
}

/// The bounds are those of HTTP/1.1.
#[tokio::test]
async fn a_header_list_that_is_too_large_is_431_and_has_a_line() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = Http2::connect(&mesh).await;
    let fields = |target: &str, count: usize, length: usize| {
        let padding = "p".repeat(length);
        (0..count).fold(get(target), |it, n| it.header(format!("padding-{n}"), &padding))
    };
    assert_eq!(client.ask(fields("/fits", 6, 8000), b"").await.status, 200);
    for (target, count, length) in [("/one", 1, 9000), ("/all", 10, 8000), ("/many", 1100, 10)] {
        client.ask(fields(target, count, length), b"").await.is_refusal(431, "H26");
        mesh.request(target).await.has(&["at=error", "code=H26", "status=431"]);
    }
    // Far beyond it, the frames themselves are not kept.
    assert_eq!(client.ask(fields("/far", 30, 8000), b"").await.status, 431);
    assert_eq!(app.count().await, 1);
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test]
async fn the_routers_own_answers_are_the_same() {
    let mesh = Setup::new()
        .app("blank", "")
        .app("away", "dynos = [\"127.0.0.1:9\"]\nmaintenance = true")
        .procfile("broken", "web: CRASH_DURING_BOOT=1 TESTAPP\n", "")
        .start()
        .await;
    mesh.says_times("app[web.1]", "crashing during boot", 2).await;
    let mut client = Http2::connect(&mesh).await;
    for (host, status, code) in [
        ("nobody", 404, None),
        ("blank", 502, Some("H81")),
        ("away", 503, Some("H80")),
        ("broken", 503, Some("H10")),
    ] {
        let request = || Request::get(format!("http://{host}.localhost/{host}"));
        let html = client.ask(request(), b"").await;
        assert_eq!((html.status, html.code()), (status, code));
        assert!(html.text().starts_with("<!doctype html>"), "{html:?}");
        assert_eq!(html.field("connection"), None);
        let json = client.ask(request().header("accept", "application/json"), b"").await;
        assert_eq!((json.status, json.code()), (status, code));
        let value: serde_json::Value = serde_json::from_slice(&json.body).unwrap();
        assert_eq!(value["error"]["status"], status);
        let head = Request::head(format!("http://{host}.localhost/{host}"));
        let head = client.ask(head, b"").await;
        assert!(head.status == status && head.body.is_empty());
        let status = format!("status={status}");
        mesh.request(&format!("/{host}")).await.has(&[&status, "protocol=http2.0"]);
    }
    assert!(client.is_open(), "a refusal is a stream's business");
}

// ---- many at once -----------------------------------------------------------------------------------------

#[tokio::test]
async fn a_hundred_streams_are_served_at_once() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let released = mesh.path("released");
    let target = format!("/until?file={}", released.display());
    let mut client = Http2::connect(&mesh).await;
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(client.streams_max(), 100);
    let mut exchanges = Vec::new();
    for _ in 0..100 {
        exchanges.push(client.begin(get(&target), true).await);
    }
    mesh.metric_becomes("dynomesh_in_flight", &SLOT, 100.0).await;
    std::fs::write(released, "").unwrap();
    for exchange in exchanges {
        assert_eq!(exchange.answer().await.text(), "released");
    }
    mesh.metric_becomes("dynomesh_in_flight", &SLOT, 0.0).await;
    client.get("/last").await;
    mesh.request("/last").await;
    // Both lines are written by the worker of the connection, so this one was the last.
    assert_eq!(mesh.lines().iter().filter_map(Line::request).count(), 102, "a line for each");
}

#[tokio::test]
async fn a_stream_too_many_is_refused_and_may_be_tried_again() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut frames = Frames::connect(&mesh).await;
    // Below /sleep's answer, above the time that all this takes.
    frames.send((0..101).map(|number| Frame::get(2 * number + 1, "/sleep?ms=3000"))).await;
    let reset = frames.until(Frame::RST_STREAM).await;
    assert_eq!((reset.stream, &reset.payload[..]), (201, &7_u32.to_be_bytes()[..]));
    app.counts(100).await;
    for _ in 0..100 {
        assert_ne!(frames.until(Frame::HEADERS).await.stream, 201);
    }
    assert_eq!(app.count().await, 100);
}

/// Back-pressure is each stream's own: who does not read holds up nobody else, and the dyno is not read on.
#[tokio::test]
async fn a_stream_that_nobody_reads_stops_only_itself() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let told = mesh.path("told");
    let target = format!("/big?bytes=32000000&told={}", told.display());
    let mut settings = Builder::new();
    settings.initial_window_size(100_000).initial_connection_window_size(1_000_000);
    let mut client = Http2::connect_with(mesh.http(), &settings).await;
    let (head, mut body) = client.begin(get(&target), true).await.head().await.into_parts();
    assert_eq!(head.status, 200);
    for _ in 0..20 {
        let answer = client.ask(post("/echo"), &noise(300_000)).await;
        assert_eq!(answer.body.len(), 300_000);
    }
    assert!(!told.exists(), "32 MB have left the dyno");
    let bytes = read_body(&mut body, usize::MAX).await.unwrap();
    assert!(bytes.len() == 32_000_000 && bytes.iter().all(|byte| *byte == b'b'));
    mesh.request(&target).await.has(&["at=info", "status=200", "bytes=32000000"]);
}

/// The same the other way: a dyno that does not read its upload.
#[tokio::test]
async fn an_upload_that_nobody_takes_stops_only_itself() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = Http2::connect(&mesh).await;
    let mut stuck = client.begin(post("/never-read"), false).await;
    app.counts(1).await;
    // Until the kernel's buffers are full and the window is closed.
    let block = vec![b'x'; 1 << 20];
    let mut sent = 0;
    while tokio::time::timeout(std::time::Duration::from_millis(300), stuck.try_send(&block, false))
        .await
        .is_ok()
    {
        sent += 1;
        assert!(sent < 64, "64 MB were taken for a dyno that reads nothing");
    }
    for _ in 0..20 {
        let answer = client.ask(post("/echo"), &noise(300_000)).await;
        assert_eq!(answer.body.len(), 300_000);
    }
    stuck.reset(Reason::CANCEL);
    let line = mesh.request("/never-read").await;
    line.has(&["code=H27", "status=499"]);
}

// ---- ends of streams --------------------------------------------------------------------------------------

/// RFC 9113 §8.1: the answer is whole, and nothing more is wanted.
#[tokio::test]
async fn an_early_answer_ends_an_upload_without_an_error() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = Http2::connect(&mesh).await;
    let mut exchange = client.begin(post("/early?status=413"), false).await;
    exchange.send(b"some of it", false).await;
    let answer = exchange.rest_of_answer().await.unwrap();
    assert_eq!((answer.status, answer.text()), (413, "early"));
    assert_eq!(exchange.was_reset().await, Reason::NO_ERROR);
    mesh.request("/early?status=413").await.has(&["at=info", "status=413"]);
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test]
async fn a_stream_that_its_client_gives_up_is_h27_and_lingers() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let released = mesh.path("released");
    let target = format!("/until?file={}", released.display());
    let mut client = Http2::connect(&mesh).await;
    let exchange = client.begin(get(&target), true).await;
    app.counts(1).await;
    exchange.reset(Reason::CANCEL);
    let line = mesh.request(&target).await;
    line.has(&["sock=client", "at=warning", "code=H27", "status=499", "dyno=web.1"]);
    assert_eq!(mesh.metrics().await.get("dynomesh_in_flight", &SLOT), 1.0);
    assert_eq!(client.get("/").await.status, 200);
    std::fs::write(released, "").unwrap();
    mesh.metric_becomes("dynomesh_in_flight", &SLOT, 0.0).await;
    mesh.late(&line).await.has(&["status=200"]);
    assert!(client.is_open());
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_all_of_its_streams() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let released = mesh.path("released");
    let target = format!("/until?file={}", released.display());
    let mut client = Http2::connect(&mesh).await;
    let mut exchanges = Vec::new();
    for _ in 0..3 {
        exchanges.push(client.begin(get(&target), true).await);
    }
    let mut upload = client.begin(post("/upload"), false).await;
    upload.send(b"part", false).await;
    app.counts(4).await;
    client.hang_up().await;
    mesh.request("/upload").await.has(&["sock=client", "code=H27", "status=499"]);
    mesh.metric_becomes("dynomesh_errors_total", &[("code", "H27")], 4.0).await;
    assert_eq!(mesh.metrics().await.get("dynomesh_in_flight", &SLOT), 3.0, "those that wait");
    std::fs::write(released, "").unwrap();
    mesh.metric_becomes("dynomesh_in_flight", &SLOT, 0.0).await;
    mesh.metric_becomes("dynomesh_connections", &[], 0.0).await;
}

#[tokio::test]
async fn a_stream_given_up_while_it_is_sent_cuts_the_dynos_request() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = Http2::connect(&mesh).await;
    for length in [None, Some("100")] {
        let target = format!("/cut-{}", length.is_some());
        let cut =
            length.iter().fold(post(&target), |it, length| it.header("content-length", *length));
        let before = app.count().await;
        let mut exchange = client.begin(cut, false).await;
        exchange.send(b"part", false).await;
        app.counts(before + 1).await;
        exchange.reset(Reason::CANCEL);
        let line = mesh.request(&target).await;
        line.has(&["sock=client", "code=H27", "status=499", "bytes=0"]);
        mesh.metric_becomes("dynomesh_in_flight", &SLOT, 0.0).await;
    }
}

#[tokio::test]
async fn a_stream_given_up_while_it_receives_is_h27_with_the_status_sent() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = Http2::connect(&mesh).await;
    let target = "/drip?n=200&ms=50";
    let mut exchange = client.begin(get(target), true).await;
    let mut head = exchange.head().await;
    assert!(!read_body(head.body_mut(), 1).await.unwrap().is_empty());
    exchange.reset(Reason::CANCEL);
    mesh.request(target).await.has(&["sock=client", "code=H27", "status=200"]);
    mesh.metric_becomes("dynomesh_in_flight", &SLOT, 0.0).await;
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test]
async fn an_answer_that_its_dyno_cuts_is_reset() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = Http2::connect(&mesh).await;
    for (bytes, then) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "close"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "close"),
        ("HTTP/1.1 200 OK\r\n\r\nhalf", "reset"),
    ] {
        let target = raw(bytes, then).replace("&then", "&pause=100&more=&then");
        let mut exchange = client.begin(get(&target), true).await;
        let mut head = exchange.head().await;
        assert_eq!(head.status(), 200);
        let body = head.body_mut();
        assert_eq!(read_body(body, 4).await.unwrap(), b"half");
        let error = read_body(body, 1).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR), "{bytes}");
        let line = mesh.request(&target).await;
        line.has(&["sock=backend", "at=error", "code=H18", "status=200", "bytes=4"]);
    }
    assert!(client.is_open());
}

// ---- finding a dyno ---------------------------------------------------------------------------------------

#[tokio::test]
async fn requests_are_sent_again_as_ever() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = Http2::connect(&mesh).await;
    assert_eq!(client.get("/once").await.status, 200);
    // The dyno closes the kept connection without a word: once more on a fresh one (retry b).
    assert_eq!(client.get("/once").await.status, 200);
    let retried = |line: &Line| line.request().filter(|it| it.find("retries") == Some("1"));
    mesh.line("the retry", retried).await.has(&["path=/once", "status=200"]);
    client.ask(post("/close"), b"body").await.is_refusal(503, "H13");

    // A fresh one: once more on another dyno (retry c).
    let [dies, lives] = [App::start_with(&[("CLOSE_ALWAYS", "1")]).await, App::start().await];
    let mesh = Mesh::of(&[&dies, &lives]).await;
    let mut client = Http2::connect(&mesh).await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert!(dies.count().await > 0, "drawn at least once in twenty");
}

#[tokio::test]
async fn requests_are_held_until_a_dyno_is_up() {
    let mesh = Setup::new().procfile("shop", "web: BIND_AFTER_MS=1500 TESTAPP\n", "").start().await;
    let mut client = Http2::connect(&mesh).await;
    let mut upload = client.begin(post("/echo"), false).await;
    upload.send(&noise(50_000), true).await;
    let given_up = client.begin(get("/given-up"), true).await;
    let held = client.begin(get("/held"), true).await;
    mesh.metric_becomes("dynomesh_held_requests", &[("app", "shop")], 3.0).await;
    given_up.reset(Reason::CANCEL);
    mesh.request("/given-up").await.has(&["code=H27", "status=499", "dyno="]);
    assert_eq!(held.answer().await.status, 200);
    assert!(upload.answer().await.body == noise(50_000));
}

// ---- how a connection begins ------------------------------------------------------------------------------

#[tokio::test]
async fn a_preface_may_come_in_pieces() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let settings = Frame::new(Frame::SETTINGS, 0, 0, &[]).bytes();
    let all = [&PREFACE[..], &settings, &Frame::get(1, "/").bytes()].concat();
    for size in [1, 7, 17, 18, 19, 24, 25] {
        let mut client = Client::connect(mesh.http()).await;
        for piece in all.chunks(size) {
            client.send(piece).await;
        }
        let mut frames = Frames::from(client);
        assert_eq!(frames.until(Frame::HEADERS).await.stream, 1, "pieces of {size}");
    }
}

/// Behind a request, whoever is in front may believe that they still speak HTTP/1.1 with us.
#[tokio::test]
async fn a_preface_behind_a_request_is_refused() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    for pipelined in [true, false] {
        let mut client = mesh.client().await;
        client.send(request("GET", "/", "", "")).await;
        if !pipelined {
            assert_eq!(client.answer().await.status, 200);
        }
        client.send(PREFACE).await;
        if pipelined {
            assert_eq!(client.answer().await.status, 200);
        }
        let answer = client.answer().await;
        assert!(answer.status == 505 || answer.status == 400, "{answer:?}");
        client.is_closed().await;
    }
    assert_eq!(app.count().await, 2);
}

#[tokio::test]
async fn a_preface_that_goes_wrong_ends_the_connection() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    for bad in ["PRI * HTTP/2.0\r\n\r\nSM\r\n\rX", "PRI * HTTP/2.0\r\n\r\nGET / HTTP/1.1\r\n\r\n"] {
        let mut client = mesh.client().await;
        client.send(bad).await;
        let _ = within("the end", client.rest_and_end()).await;
    }
    mesh.metric_becomes("dynomesh_connections", &[], 0.0).await;
    assert_eq!(app.count().await, 0);
}
