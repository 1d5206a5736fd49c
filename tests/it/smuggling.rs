//! Requests that two parsers could read in two ways, and requests beyond the bounds: refused, the connection
//! closed, and no dyno ever sees them.

use crate::support::{App, Mesh, Setup};

/// Sends bytes with a second request right behind them, and expects one refusal and the end. A parser that
/// is led astray would answer twice, or ask the dyno.
async fn is_refused(mesh: &Mesh, app: &App, bytes: &[u8], status: u16) {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
    let mut client = mesh.client().await;
    let second = b"GET /smuggled HTTP/1.1\r\nHost: shop.localhost\r\n\r\n";
    // The router may have had enough before it has everything.
    let _ = client.try_send([bytes, second].concat()).await;
    let answer = client.answer().await;
    assert_eq!(answer.status, status, "{shown:?}");
    assert!(answer.says_close(), "{shown:?}");
    client.is_closed().await;
    assert_eq!(app.count().await, 0, "a dyno has seen {shown:?}");
}

async fn all_are_refused(requests: &[(u16, &str)]) {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    for (status, request) in requests {
        is_refused(&mesh, &app, request.as_bytes(), *status).await;
    }
    // The router is none the worse for it.
    assert_eq!(mesh.get("/").await.status, 200);
}

#[tokio::test]
async fn two_ways_to_say_where_a_body_ends_are_refused() {
    all_are_refused(&[
        (400, "POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        // Equal ones, too: RFC 9112 §6.3 leaves it to us, and which of two a parser takes is its secret.
        (400, "POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na"),
        (400, "POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 1, 1\r\n\r\na"),
        (400, "POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 1, 2\r\n\r\nab"),
        (400, "POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: +1\r\n\r\na"),
        (400, "POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: -1\r\n\r\na"),
        (400, "POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 0x1\r\n\r\na"),
        (400, "POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 1 1\r\n\r\na"),
        (400, "POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 1;\r\n\r\na"),
        (400, "POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length:\r\n\r\na"),
        (400, "POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 18446744073709551616\r\n\r\na"),
    ])
    .await;
}

#[tokio::test]
async fn transfer_codings_other_than_chunked_are_refused() {
    all_are_refused(&[
        (400, "POST / HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: gzip\r\n\r\nx"),
        (400, "POST / HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: chunked, gzip\r\n\r\nx"),
        (400, "POST / HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: identity\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding:\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"),
        // It does end in chunked, and this router cannot decode the rest of it.
        (501, "POST / HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        // Chunked did not exist in HTTP/1.0, and servers of that time do not know it.
        (400, "POST / HTTP/1.0\r\nHost: shop.localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ])
    .await;
}

#[tokio::test]
async fn lines_that_do_not_end_in_crlf_are_refused() {
    all_are_refused(&[
        (400, "GET / HTTP/1.1\nHost: shop.localhost\n\n"),
        (400, "GET / HTTP/1.1\r\nHost: shop.localhost\nX: y\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: shop.localhost\r\nX: a\nY: b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: shop.localhost\r\nX: a\rY: b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\r\nHost: shop.localhost\r\n\r\n"),
        (400, "\nGET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: shop.localhost\r\nX: a\0b\r\n\r\n"),
        (400, "GET /\0 HTTP/1.1\r\nHost: shop.localhost\r\n\r\n"),
    ])
    .await;
}

#[tokio::test]
async fn malformed_fields_are_refused() {
    all_are_refused(&[
        (400, "GET / HTTP/1.1\r\nHost: shop.localhost\r\nX : y\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: shop.localhost\r\nX\t: y\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length : 1\r\n\r\na"),
        (400, "GET / HTTP/1.1\r\nHost: shop.localhost\r\nX: y\r\n folded\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\n Host: shop.localhost\r\nHost: shop.localhost\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: shop.localhost\r\nno colon\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: shop.localhost\r\n: no name\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: shop.localhost\r\nX y: z\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: shop.localhost\r\nX\u{e9}: z\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: shop.localhost\r\nX: \u{7f}\r\n\r\n"),
    ])
    .await;
}

#[tokio::test]
async fn no_host_two_hosts_and_wrong_hosts_are_refused() {
    all_are_refused(&[
        (400, "GET / HTTP/1.1\r\n\r\n"),
        (400, "GET / HTTP/1.0\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: shop.localhost\r\nHost: shop.localhost\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: shop.localhost\r\nhost: evil.localhost\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: shop.localhost, evil.localhost\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: shop.localhost:port\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: shop.localhost:99999\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: user@shop.localhost\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: shop.localhost/path\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: shop localhost\r\n\r\n"),
        (400, "GET http://evil.localhost/ HTTP/1.1\r\nHost: shop.localhost\r\n\r\n"),
        (400, "GET http://shop.localhost/ HTTP/1.1\r\n\r\n"),
    ])
    .await;
}

#[tokio::test]
async fn malformed_request_lines_are_refused() {
    all_are_refused(&[
        (400, "GET  / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n"),
        (400, "GET /  HTTP/1.1\r\nHost: shop.localhost\r\n\r\n"),
        (400, "GET\t/ HTTP/1.1\r\nHost: shop.localhost\r\n\r\n"),
        (400, " GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n"),
        (400, "GET / HTTP/1.1 \r\nHost: shop.localhost\r\n\r\n"),
        (400, "GET /a b HTTP/1.1\r\nHost: shop.localhost\r\n\r\n"),
        (400, "GET HTTP/1.1\r\nHost: shop.localhost\r\n\r\n"),
        (400, "GET /\r\nHost: shop.localhost\r\n\r\n"),
        (400, "G(T / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n"),
        (400, "GET nopath HTTP/1.1\r\nHost: shop.localhost\r\n\r\n"),
        (400, "GET * HTTP/1.1\r\nHost: shop.localhost\r\n\r\n"),
        (400, "GET / http/1.1\r\nHost: shop.localhost\r\n\r\n"),
        (400, "\r\n\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n"),
        (405, "CONNECT shop.localhost:80 HTTP/1.1\r\nHost: shop.localhost\r\n\r\n"),
        (505, "GET / HTTP/2.0\r\nHost: shop.localhost\r\n\r\n"),
        (505, "GET / HTTP/1.2\r\nHost: shop.localhost\r\n\r\n"),
        (505, "GET / HTTP/0.9\r\nHost: shop.localhost\r\n\r\n"),
        (417, "GET / HTTP/1.1\r\nHost: shop.localhost\r\nExpect: 200-ok\r\n\r\n"),
    ])
    .await;
}

/// HTTP/2 begins with a connection. Behind a request somebody in front may believe that both still speak
/// HTTP/1.1, and would pass on whatever the client says next.
#[tokio::test]
async fn an_http2_preface_behind_a_request_is_refused() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    client.send("GET /first HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 505);
}

#[tokio::test]
async fn each_bound_of_a_head_is_where_it_is_said_to_be() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    // "GET /" + path + " HTTP/1.1" is the request line; name + ": " + value a field line. No CRLF counted.
    let line = |bytes: usize| {
        format!("GET /{} HTTP/1.1\r\nHost: shop.localhost\r\n\r\n", "p".repeat(bytes - 14))
    };
    let field = |bytes: usize| {
        format!("GET / HTTP/1.1\r\nHost: shop.localhost\r\nX: {}\r\n\r\n", "v".repeat(bytes - 3))
    };
    let name = |bytes: usize| {
        format!("GET / HTTP/1.1\r\nHost: shop.localhost\r\n{}: v\r\n\r\n", "n".repeat(bytes))
    };
    let fields = |count: usize| {
        let fields = "X: v\r\n".repeat(count - 1);
        format!("GET / HTTP/1.1\r\nHost: shop.localhost\r\n{fields}\r\n")
    };
    let head = |bytes: usize| {
        let start = "GET / HTTP/1.1\r\nHost: shop.localhost\r\n";
        let fields = format!("X: {}\r\n", "v".repeat(8000)).repeat(8);
        let rest = bytes - start.len() - fields.len() - "Y: \r\n\r\n".len();
        format!("{start}{fields}Y: {}\r\n\r\n", "v".repeat(rest))
    };
    for (bytes, status) in [
        (line(8193), 414),
        (line(60_000), 414),
        (field(8193), 431),
        (field(60_000), 431),
        (name(1001), 431),
        (fields(1001), 431),
        (head(65_537), 431),
        (head(70_000), 431),
    ] {
        is_refused(&mesh, &app, bytes.as_bytes(), status).await;
    }
    for bytes in [line(8192), field(8192), name(1000), fields(1000), head(65_536)] {
        let mut client = mesh.client().await;
        client.send(&bytes).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 200, "{:?}", &bytes[..bytes.len().min(100)]);
    }
}

/// A head that never ends must not cost more than its bound.
#[tokio::test]
async fn a_head_without_end_is_refused_at_its_bound() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    client.send("GET / HTTP/1.1\r\nHost: shop.localhost\r\n").await;
    for _ in 0..20_000 {
        if client.try_send("X: yyyyyyyyyyyyyyyy\r\n").await.is_err() {
            break;
        }
    }
    let answer = client.answer().await;
    assert_eq!(answer.status, 431);
    assert_eq!(app.count().await, 0);
}

/// A bad chunk behind a good head that came with it: 400, whatever the dyno has seen by then. It never sees
/// the end of such a body: it must not take a cut one for whole.
#[tokio::test]
async fn bad_chunks_are_400() {
    let head = "POST /echo HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in [
        "zz\r\n",
        "-1\r\n",
        "+1\r\na\r\n0\r\n\r\n",
        "0x1\r\na\r\n0\r\n\r\n",
        " 1\r\na\r\n0\r\n\r\n",
        "1 \r\na\r\n0\r\n\r\n",
        "1\na\r\n0\r\n\r\n",
        "1\r\nab\r\n0\r\n\r\n",
        "1\r\na\n0\r\n\r\n",
        "\r\n",
        "11111111111111111\r\n",
        "1;ext\n\r\na\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nBad Trailer\r\n\r\n",
        "5\r\nhello\r\n0\r\n folded: x\r\n\r\n",
        &format!("1;{}\r\na\r\n0\r\n\r\n", "e".repeat(300)),
    ] {
        let app = App::start().await;
        let mesh = Mesh::of(&[&app]).await;
        let mut client = mesh.client().await;
        client.send(format!("{head}{body}")).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.code()), (400, Some("H26")), "{body:?}");
        client.is_closed().await;
        let line = mesh.request("/echo").await;
        line.has(&["code=H26", "desc=Request Error", "cause=bad chunk", "status=400"]);
        // The app answers an echo once it has the whole body: it never had.
        mesh.metric_becomes("dynomesh_in_flight", &[("dyno", "web.1")], 0.0).await;
        assert_eq!(
            mesh.metrics()
                .await
                .get("dynomesh_requests_total", &[("app", "shop"), ("status", "200")]),
            0.0
        );
    }
}

#[tokio::test]
async fn chunk_extensions_are_taken_and_not_passed_on() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    client
        .send("POST /echo HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b;c=\"d\"\r\nhello\r\n0;e\r\n\r\n")
        .await;
    assert_eq!(client.answer().await.text(), "hello");
}

#[tokio::test]
async fn some_blank_lines_before_a_request_are_skipped() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    for _ in 0..2 {
        client.send("\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await;
        assert_eq!(client.answer().await.status, 200);
    }
}

/// What was refused is a request all the same: one line, app `-`, with the cause.
#[tokio::test]
async fn a_refused_head_has_its_line() {
    let app = App::start().await;
    let mesh = Setup::new().shop(&[&app]).start().await;
    is_refused(&mesh, &app, b"GET /bad HTTP/1.1\r\nHost: shop.localhost\r\nX : y\r\n\r\n", 400)
        .await;
    let line = mesh
        .line("the refusal", |line| line.request().filter(|it| it.get("status") == "400"))
        .await;
    line.has(&["at=error", "code=H26", "desc=Request Error", "dyno=", "connect=", "service="]);
    assert_eq!(line.line.app, "-");
    assert!(!line.get("cause").is_empty());
    let metrics = mesh.metrics().await;
    assert_eq!(metrics.get("dynomesh_requests_total", &[("app", "-"), ("status", "400")]), 1.0);
}
