//! Bodies, both ways: every framing, none at all, trailers, back-pressure.

use std::time::Duration;

use crate::support::{App, Client, End, Mesh, Setup, file_appears, percent_encoded, request};

// ---- to the dyno ------------------------------------------------------------------------------------------

#[tokio::test]
async fn bodies_of_every_size_come_back_whole() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    for size in [1, 2, 16_383, 16_384, 16_385, 65_536, 262_144, 262_145, 3_000_000] {
        let body = pattern(size);
        for framing in ["length", "chunked"] {
            let target = format!("/echo?framing={framing}");
            let answer = client.request("POST", &target, "", &body).await;
            assert_eq!(answer.status, 200, "{size} {framing}");
            assert!(answer.text() == body, "{size} bytes came back otherwise ({framing})");
        }
    }
}

/// Text in which a byte that is lost, doubled or moved shows.
fn pattern(size: usize) -> String {
    (0..)
        .flat_map(|line: usize| format!("{line:07}\n").into_bytes())
        .take(size)
        .map(char::from)
        .collect()
}

#[tokio::test]
async fn a_chunked_request_stays_chunked_and_is_encoded_anew() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    let chunks = "5\r\nhello\r\n1;x=y\r\n \r\n0005\r\nworld\r\n0\r\n\r\n";
    client
        .send(format!("POST /head HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: Chunked\r\n\r\n{chunks}"))
        .await;
    let head = client.answer().await.text().to_string();
    assert!(head.contains("\r\nTransfer-Encoding: chunked\r\n"), "{head}");
    assert!(!head.contains("Content-Length"), "{head}");
    client
        .send(format!("POST /echo HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"))
        .await;
    assert_eq!(client.answer().await.text(), "hello world");
}

#[tokio::test]
async fn a_body_that_comes_byte_by_byte_arrives() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    let whole = "POST /echo HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n";
    for byte in whole.as_bytes() {
        client.send([*byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.answer().await.text(), "hello");
}

/// Streaming, not storing: the dyno has the first part before the client sends the second.
#[tokio::test]
async fn a_body_reaches_the_dyno_while_it_is_being_sent() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    client
        .send("POST /echo HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 9\r\n\r\npart")
        .await;
    app.counts(1).await;
    client.send(" two.").await;
    assert_eq!(client.answer().await.text(), "part two.");
}

#[tokio::test]
async fn trailers_of_a_request_reach_the_dyno() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    let trailers = "x-checksum: abc\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: evil\r\n\
                    Authorization: Basic x\r\nX-Forwarded-For: 6.6.6.6\r\n";
    client
        .send(format!(
            "POST /trailers HTTP/1.1\r\nHost: shop.localhost\r\nTrailer: X-Checksum\r\nTransfer-Encoding: chunked\r\n\r\n\
             5\r\nhello\r\n0\r\n{trailers}\r\n"
        ))
        .await;
    let seen = client.answer().await.text().to_string();
    assert!(seen.to_ascii_lowercase().contains("x-checksum: abc\r\n"), "{seen}");
    for never in ["content-length", "transfer-encoding", "host", "authorization", "x-forwarded-for"]
    {
        assert!(!seen.to_ascii_lowercase().contains(&format!("{never}:")), "{never} in {seen}");
    }
}

#[tokio::test]
async fn a_length_of_zero_is_passed_on() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let answer = mesh.client().await.request("POST", "/head", "Content-Length: 0\r\n", "").await;
    assert!(answer.text().contains("\r\nContent-Length: 0\r\n"), "{}", answer.text());
}

// ---- to the client ----------------------------------------------------------------------------------------

#[tokio::test]
async fn a_chunked_answer_stays_chunked_with_its_trailers() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    let answer = client.get("/chunked?n=3&trailers=1").await;
    assert_eq!(answer.field("Transfer-Encoding"), Some("chunked"));
    assert_eq!(answer.field("Content-Length"), None);
    assert_eq!(answer.text(), "chunk 0;chunk 1;chunk 2;");
    assert_eq!(answer.trailers, "Checksum: abc\r\n");
    assert_eq!(client.get("/chunked?n=0").await.text(), "", "and the connection is kept");
    mesh.request("/chunked?n=3&trailers=1").await.has(&["bytes=24"]);
}

#[tokio::test]
async fn pieces_of_an_answer_come_as_they_are_sent() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    let rest = percent_encoded("5\r\nthere\r\n0\r\n\r\n");
    let first =
        percent_encoded("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    client
        .send(request(
            "GET",
            &format!("/raw?bytes={first}&pause=700&more={rest}&then=keep"),
            "",
            "",
        ))
        .await;
    assert_eq!(client.head().await.status, 200);
    let start = tokio::time::Instant::now();
    assert_eq!(client.chunk().await.as_deref(), Some(&b"hello"[..]));
    assert!(start.elapsed() < Duration::from_millis(600), "held back until the rest came");
    assert_eq!(client.chunk().await.as_deref(), Some(&b"there"[..]));
    assert_eq!(client.chunk().await, None);
}

/// Without length and chunks the end of the connection is the end of the answer. To a client of 1.1 it may
/// be re-framed as chunks or end with the connection; either way its end must be seen.
#[tokio::test]
async fn an_answer_that_ends_with_its_connection_arrives_whole() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let body = pattern(100_000);
    let mut client = mesh.client().await;
    let answer = client.request("POST", "/echo?framing=close", "", &body).await;
    assert_eq!(answer.status, 200);
    assert!(answer.text() == body);
    if answer.field("Transfer-Encoding").is_none() {
        assert!(answer.says_close());
    }
    mesh.request("/echo?framing=close").await.has(&["at=info", "status=200", "bytes=100000"]);
}

/// A reset is no end: a client must be able to tell that the answer was cut.
#[tokio::test]
async fn an_answer_that_ends_with_a_reset_is_cut() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let part =
        percent_encoded("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    for then in ["reset", "close"] {
        let mut client = mesh.client().await;
        let target = format!("/raw?bytes={part}&then={then}&pause=100&more=");
        client.send(request("GET", &target, "", "")).await;
        assert_eq!(client.head().await.status, 200);
        let (rest, _) = client.rest_and_end().await;
        assert!(!rest.ends_with(b"0\r\n\r\n"), "a cut answer looks whole");
        mesh.request(&target).await.has(&[
            "sock=backend",
            "at=error",
            "code=H18",
            "desc=Server Request Interrupted",
            "status=200",
        ]);
    }
}

#[tokio::test]
async fn an_answer_shorter_than_its_length_is_cut() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let target = format!(
        "/raw?bytes={}",
        percent_encoded("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")
    );
    let mut client = mesh.client().await;
    client.send(request("GET", &target, "", "")).await;
    let (rest, _) = client.rest_and_end().await;
    if rest.starts_with(b"HTTP/1.1 200") {
        assert!(rest.ends_with(b"short"));
        mesh.request(&target).await.has(&["sock=backend", "code=H18", "status=200", "bytes=5"]);
    } else {
        // what fits one read may be looked at as a whole first.
        mesh.request(&target).await.has(&["sock=backend", "code=H18", "status=503"]);
    }
    mesh.metric_becomes("dynomesh_in_flight", &[("dyno", "web.1")], 0.0).await;
}

/// The good chunks are with the client by then: all that is left is not to make it look whole.
#[tokio::test]
async fn a_bad_chunk_behind_good_ones_cuts_the_answer() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let good =
        percent_encoded("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n");
    let bad = percent_encoded("zz\r\n0\r\n\r\n");
    let target = format!("/raw?bytes={good}&pause=300&more={bad}&then=keep");
    let mut client = mesh.client().await;
    client.send(request("GET", &target, "", "")).await;
    assert_eq!(client.head().await.status, 200);
    assert_eq!(client.chunk().await.as_deref(), Some(&b"good"[..]));
    assert_eq!(client.rest_and_end().await.0, b"");
    mesh.request(&target).await.has(&["at=error", "code=H17", "status=200", "bytes=4"]);
    mesh.metric_becomes("dynomesh_in_flight", &[("dyno", "web.1")], 0.0).await;
    // What came behind it is nobody's answer.
    assert_eq!(mesh.get("/").await.text(), "testapp");
}

#[tokio::test]
async fn a_dyno_that_closes_within_its_head_is_h18() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    for then in ["close", "reset"] {
        let head = percent_encoded("HTTP/1.1 200 OK\r\nA: b\r\n");
        let target = format!("/raw?bytes={head}&then={then}&pause=100&more=");
        mesh.get(&target).await.is_refusal(503, "H18");
        mesh.request(&target).await.has(&["sock=backend", "at=error", "code=H18", "status=503"]);
    }
    assert_eq!(app.count().await, 2, "an answer has begun: nothing is sent again");
}

/// A dyno that says no more and listens on: the end of its side is the end of its answer, or of the attempt.
#[tokio::test]
async fn a_dyno_that_closes_its_side_alone_has_said_all() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let whole = percent_encoded("HTTP/1.1 200 OK\r\n\r\nto the end");
    let target = format!("/raw?bytes={whole}&then=half");
    assert_eq!(mesh.get(&target).await.text(), "to the end");
    mesh.request(&target).await.has(&["at=info", "status=200", "bytes=10"]);
    mesh.get("/raw?bytes=&then=half").await.is_refusal(503, "H13");
    let part = percent_encoded("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    let target = format!("/raw?bytes={part}&then=half");
    let mut client = mesh.client().await;
    client.send(request("GET", &target, "", "")).await;
    assert_eq!(client.head().await.status, 200);
    assert_eq!(client.rest_and_end().await.0, b"half");
    mesh.request(&target).await.has(&["sock=backend", "code=H18", "status=200", "bytes=4"]);
    mesh.metric_becomes("dynomesh_in_flight", &[("dyno", "web.1")], 0.0).await;
}

/// What a dyno sends behind its answer is never the next client's answer.
#[tokio::test]
async fn bytes_behind_an_answer_are_not_the_next_answer() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 50\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ] {
        let mut client = mesh.client().await;
        let first = client.get(&format!("/raw?bytes={}&then=keep", percent_encoded(answer))).await;
        assert!(!first.text().contains("evil"));
        for _ in 0..3 {
            let next = client.get("/").await;
            assert_eq!((next.status, next.text()), (200, "testapp"), "{answer:?}");
        }
    }
}

// ---- no body ----------------------------------------------------------------------------------------------

#[tokio::test]
async fn answers_without_body_have_none_and_keep_the_connection() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    // The length of what a GET would give stays.
    let answer = client.request("HEAD", "/x", "", "").await;
    assert_eq!((answer.status, answer.field("Content-Length")), (200, Some("1234")));
    let raw = |bytes: &str| format!("/raw?bytes={}&then=keep", percent_encoded(bytes));
    let answer = client
        .get(&raw("HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nETag: x\r\n\r\n"))
        .await;
    assert_eq!((answer.status, answer.field("Content-Length")), (304, Some("99")));
    // RFC 9110 §8.6: no framing field on a 204, whatever the dyno says.
    let answer = client.get(&raw("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")).await;
    assert_eq!(
        (answer.status, answer.field("Content-Length"), answer.field("Transfer-Encoding")),
        (204, None, None)
    );
    let answer =
        client.get(&raw("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n")).await;
    assert_eq!((answer.status, answer.field("Transfer-Encoding")), (204, None));
    assert_eq!(client.get("/").await.text(), "testapp");
}

#[tokio::test]
async fn a_refusal_of_a_head_request_has_no_body() {
    let mesh = Setup::new().app("shop", "dynos = [\"unix:/nonexistent\"]").start().await;
    let mut client = mesh.client().await;
    for _ in 0..2 {
        let answer = client.request("HEAD", "/", "", "").await;
        assert_eq!((answer.status, answer.code().is_some()), (503, true));
    }
}

// ---- back-pressure ----------------------------------------------------------------------------------------

/// A client that reads nothing of a large answer: the dyno is made to wait, the router does not fill up.
#[tokio::test]
async fn a_slow_reader_does_not_fill_the_router() {
    const BYTES: usize = 200 << 20;
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let before = resident_kib(&mesh);
    let told = mesh.path("told");
    let target = format!("/big?bytes={BYTES}&told={}", told.display());
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = Client::connect_small(mesh.http()).await;
        client.send(request("GET", &target, "", "")).await;
        assert_eq!(client.head().await.status, 200);
        clients.push(client);
    }
    // Enough time to take the 800 MB, were they taken.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!told.exists(), "somebody swallowed {BYTES} bytes");
    let grown = resident_kib(&mesh).saturating_sub(before);
    assert!(grown < 16 * 1024, "the router has grown by {grown} KiB");
    // And it does go on when the client does.
    let mut reader = clients.pop().unwrap();
    drop(clients);
    reader.exactly(BYTES).await;
    file_appears(&told).await;
}

/// The other way round: a dyno that reads nothing makes the client wait.
#[tokio::test]
async fn a_slow_dyno_does_not_fill_the_router() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let before = resident_kib(&mesh);
    let mut client = mesh.client().await;
    client
        .send(format!(
            "POST /never-read HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: {}\r\n\r\n",
            1 << 30
        ))
        .await;
    let block = vec![b'x'; 1 << 20];
    let mut sent = 0;
    while let Ok(sending) =
        tokio::time::timeout(Duration::from_secs(1), client.try_send(&block)).await
    {
        sending.unwrap();
        sent += 1;
        assert!(sent < 200, "{sent} MiB were taken for a dyno that takes nothing");
    }
    let grown = resident_kib(&mesh).saturating_sub(before);
    assert!(grown < 16 * 1024, "the router has grown by {grown} KiB");
}

fn resident_kib(mesh: &Mesh) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", mesh.pid().as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

// ---- early answers ----------------------------------------------------------------------------------------

/// The dyno answers before it has the body and closes: that is the answer, not an H18.
#[tokio::test]
async fn an_answer_during_the_upload_is_relayed() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    for _ in 0..10 {
        let mut client = mesh.client().await;
        client.send("POST /early?status=413 HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 10000000\r\n\r\n").await;
        client.send([b'x'; 1000]).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text()), (413, "early"));
        assert!(answer.says_close(), "the request is not whole");
    }
    mesh.request("/early?status=413").await.has(&["at=info", "status=413", "bytes=5"]);
}

/// The client sends on for a while: the answer must not be destroyed by a reset over what was not read.
#[tokio::test]
async fn an_early_answer_survives_what_is_still_being_sent() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    client
        .send("POST /early?status=401 HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 10000000\r\n\r\n")
        .await;
    let _ = client.try_send([b'x'; 200_000]).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text()), (401, "early"));
    let (_, end) = client.rest_and_end().await;
    assert_eq!(end, End::Closed);
}

/// A dyno that answers early and keeps the connection takes the rest of the body, and is used again.
#[tokio::test]
async fn an_early_answer_with_the_body_taken_keeps_the_exchange_whole() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    client.send("POST /early-keep?status=200 HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 8\r\n\r\nhalf").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text()), (200, "early"));
    let _ = client.try_send("half").await;
    mesh.metric_becomes("dynomesh_in_flight", &[("dyno", "web.1")], 0.0).await;
    assert_eq!(mesh.get("/").await.status, 200);
}

/// Half of it is with the client: a 400 cannot take that back.
#[tokio::test]
async fn a_bad_chunk_behind_an_early_answer_cuts_it() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    client.send("POST /early-part HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n").await;
    assert_eq!(client.head().await.status, 200);
    assert_eq!(client.exactly(4).await, b"half");
    client.send("bad chunk\r\n").await;
    assert_eq!(client.rest_and_end().await.0, b"");
    let line = mesh.request("/early-part").await;
    line.has(&["at=error", "code=H26", "cause=bad chunk", "status=200", "bytes=4"]);
    mesh.metric_becomes("dynomesh_in_flight", &[("dyno", "web.1")], 0.0).await;
}

/// Closing while the upload runs, without an answer: H18 (the request was not whole).
#[tokio::test]
async fn a_dyno_that_hangs_up_on_an_upload_is_h18() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    client.send("POST /close-unread HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 1000000\r\n\r\nx").await;
    let answer = client.answer().await;
    answer.is_refusal(503, "H18");
    assert!(answer.says_close());
    let line = mesh.request("/close-unread").await;
    line.has(&["sock=backend", "at=error", "code=H18", "status=503", "dyno=web.1"]);
    assert_eq!(app.count().await, 1);
}
