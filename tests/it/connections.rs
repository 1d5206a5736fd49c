//! Client connections: kept, pipelined, of HTTP/1.0, half-closed, given up in the middle.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::{
    App, Client, End, Http2, Mesh, Setup, becomes_true, file_appears, get, percent_encoded, request,
};

// ---- kept, or not -----------------------------------------------------------------------------------------

#[tokio::test]
async fn a_connection_carries_more_than_100_requests() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    for _ in 0..150 {
        let answer = client.get("/").await;
        assert!(answer.status == 200 && !answer.says_close());
    }
}

/// A worker begins a few requests between two looks at its sockets; a dyno that answers none of them holds up
/// nobody: all reach it, over HTTP/1.1 and as streams of one HTTP/2 connection.
#[tokio::test]
async fn as_many_requests_as_there_are_reach_a_dyno_that_answers_none() {
    const EACH: usize = 90;
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let answer = mesh.path("answer");
    let target = format!("/until?file={}", answer.display());
    let mut clients = Vec::new();
    for _ in 0..EACH {
        clients.push(mesh.client().await);
    }
    for client in &mut clients {
        client.send(request("GET", &target, "", "")).await;
    }
    let mut http2 = Http2::connect(&mesh).await;
    let mut streams = Vec::new();
    for _ in 0..EACH {
        streams.push(http2.begin(get(&target), true).await);
    }
    app.counts(2 * EACH as u64).await;
    std::fs::write(&answer, "").unwrap();
    for mut client in clients {
        assert_eq!(client.answer().await.status, 200);
    }
    for stream in streams {
        assert_eq!(stream.answer().await.status, 200);
    }
}

#[tokio::test]
async fn a_client_that_asks_for_the_end_gets_it() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    for fields in ["Connection: close\r\n", "Connection: keep-alive, CLOSE\r\n"] {
        let mut client = mesh.client().await;
        let answer = client.request("GET", "/", fields, "").await;
        assert!(answer.status == 200 && answer.says_close());
        client.is_closed().await;
    }
    assert!(app.connections().await <= 2, "the dyno's connection is kept all the same");
}

/// A refusal keeps the connection where the request is whole, and closes it where it cannot know.
#[tokio::test]
async fn a_refused_request_keeps_its_connection_if_it_is_whole() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    client.send("GET / HTTP/1.1\r\nHost: nobody.localhost\r\n\r\n").await;
    assert!(!client.answer().await.says_close());
    client.send("POST / HTTP/1.1\r\nHost: nobody.localhost\r\nContent-Length: 4\r\n\r\nbody").await;
    assert!(!client.answer().await.says_close());
    assert_eq!(client.get("/").await.status, 200);
    client
        .send("POST / HTTP/1.1\r\nHost: nobody.localhost\r\nContent-Length: 4000\r\n\r\nbody")
        .await;
    let answer = client.answer().await;
    assert!(answer.status == 404 && answer.says_close());
    client.is_closed().await;
}

/// `wind_down`: closing with unread input would send a reset, and that can destroy the answer.
#[tokio::test]
async fn a_refusal_survives_what_the_client_still_sends() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: nobody.localhost\r\nContent-Length: 200000\r\n\r\n")
        .await;
    client.send(vec![b'x'; 200_000]).await;
    assert_eq!(client.answer().await.status, 404);
    assert_eq!(client.rest_and_end().await.1, End::Closed);
}

/// And a client that goes on for ever does not keep the connection open.
#[tokio::test]
async fn the_winding_down_of_a_connection_is_bounded() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: nobody.localhost\r\nContent-Length: 1000000000\r\n\r\n")
        .await;
    assert_eq!(client.answer().await.status, 404);
    let block = vec![b'x'; 64 * 1024];
    let mut sent = 0;
    while client.try_send(&block).await.is_ok() {
        sent += 1;
        assert!(sent < 400, "25 MB were taken from a refused client");
    }
}

/// Nor does one that says nothing more and stays.
#[tokio::test]
async fn the_winding_down_of_a_silent_connection_is_bounded() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    let start = Instant::now();
    let head = "POST / HTTP/1.1\r\nHost: nobody.localhost\r\nContent-Length: 1000\r\n\r\n";
    client.send(head).await;
    assert_eq!(client.answer().await.status, 404);
    client.is_closed().await;
    assert_eq!(mesh.metrics().await.get("dynomesh_connections", &[]), 1.0, "one side has ended");
    mesh.metric_becomes("dynomesh_connections", &[], 0.0).await;
    assert!(start.elapsed() >= Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

// ---- pipelined --------------------------------------------------------------------------------------------

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    let echo = |body: &str| request("POST", "/echo", "", body);
    let chunked = "POST /echo HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\n";
    let slow = request("GET", "/sleep?ms=200", "", "");
    let all =
        [slow.as_str(), &echo("first"), chunked, &echo("second"), &request("GET", "/", "", "")]
            .concat();
    client.send(&all).await;
    for expected in ["slept", "first", "xyz", "second", "testapp"] {
        assert_eq!(client.answer().await.text(), expected);
    }
}

#[tokio::test]
async fn a_hundred_pipelined_requests_are_all_answered() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    let all = (0..100)
        .map(|number| request("POST", "/echo", "", &format!("number {number}")))
        .collect::<String>();
    client.send(&all).await;
    for number in 0..100 {
        assert_eq!(client.answer().await.text(), format!("number {number}"));
    }
}

/// What follows a request that said close is none: it is not answered.
#[tokio::test]
async fn nothing_is_answered_after_the_last_request() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    let last = request("GET", "/", "Connection: close\r\n", "");
    client.send([last, request("GET", "/", "Id: after\r\n", "")].concat()).await;
    assert!(client.answer().await.says_close());
    client.is_closed().await;
    assert_eq!(app.seen("after").await, 0);
}

// ---- HTTP/1.0 ---------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_client_of_1_0_is_served_and_its_connection_closed() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    client.send("GET /head HTTP/1.0\r\nHost: shop.localhost\r\n\r\n").await;
    let answer = client.answer().await;
    assert!(answer.text().starts_with("GET /head HTTP/1.1\r\n"), "dynos always see 1.1");
    client.is_closed().await;
}

#[tokio::test]
async fn a_client_of_1_0_may_ask_to_keep_its_connection() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    for _ in 0..3 {
        client
            .send("GET / HTTP/1.0\r\nHost: shop.localhost\r\nConnection: Keep-Alive\r\n\r\n")
            .await;
        let answer = client.answer().await;
        assert_eq!(answer.text(), "testapp");
        let says = answer.field("Connection").map(str::to_ascii_lowercase);
        assert_eq!(says.as_deref(), Some("keep-alive"), "else a client of 1.0 does not know");
    }
}

#[tokio::test]
async fn a_client_of_1_0_gets_no_chunks() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    for keep in ["", "Connection: keep-alive\r\n"] {
        let mut client = mesh.client().await;
        client
            .send(format!(
                "GET /chunked?n=3&trailers=1 HTTP/1.0\r\nHost: shop.localhost\r\n{keep}\r\n"
            ))
            .await;
        let answer = client.answer().await;
        assert_eq!(answer.field("Transfer-Encoding"), None);
        assert_eq!(answer.text(), "chunk 0;chunk 1;chunk 2;", "its end is the connection's");
    }
}

// ---- half-closed ------------------------------------------------------------------------------------------

/// FIN after a request that said close, or is of 1.0, is "I am done sending".
#[tokio::test]
async fn a_client_that_only_stops_sending_gets_its_answer() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    for head in [
        "GET /sleep?ms=300 HTTP/1.1\r\nHost: shop.localhost\r\nConnection: close\r\n\r\n",
        "GET /sleep?ms=300 HTTP/1.0\r\nHost: shop.localhost\r\n\r\n",
        "GET /drip?n=4&ms=100 HTTP/1.1\r\nHost: shop.localhost\r\nConnection: close\r\n\r\n",
    ] {
        let mut client = mesh.client().await;
        client.send(head).await;
        client.finish().await;
        let answer = client.answer().await;
        assert!(answer.text() == "slept" || answer.text() == "....", "{head:?}: {answer:?}");
        client.is_closed().await;
    }
}

#[tokio::test]
async fn pipelined_requests_before_a_half_close_are_answered() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    let first = request("GET", "/", "", "");
    client
        .send([first, request("GET", "/sleep?ms=200", "Connection: close\r\n", "")].concat())
        .await;
    client.finish().await;
    assert_eq!(client.answer().await.text(), "testapp");
    assert_eq!(client.answer().await.text(), "slept");
}

// ---- given up ---------------------------------------------------------------------------------------------

/// How a client leaves.
async fn leave(mut client: Client, how: End) {
    match how {
        End::Closed => {
            client.finish().await;
            drop(client);
        }
        End::Reset => client.reset(),
    }
}

/// Gone while the dyno works: the line is written now, and the slot is kept until the dyno is done.
#[tokio::test]
async fn a_client_that_leaves_while_it_waits_is_h27_and_the_dyno_finishes() {
    for how in [End::Closed, End::Reset] {
        let app = App::start().await;
        let mesh = Mesh::of(&[&app]).await;
        let released = mesh.path("released");
        let target = format!("/until?file={}", released.display());
        let mut client = mesh.client().await;
        client.send(request("GET", &target, "", "")).await;
        app.counts(1).await;
        leave(client, how).await;
        let line = mesh.request(&target).await;
        line.has(&[
            "sock=client",
            "at=warning",
            "code=H27",
            "desc=Client Request Interrupted",
            "status=499",
            "dyno=web.1",
        ]);
        let slot = [("app", "shop"), ("dyno", "web.1")];
        assert_eq!(mesh.metrics().await.get("dynomesh_in_flight", &slot), 1.0, "{how:?}");
        std::fs::write(released, "").unwrap();
        mesh.metric_becomes("dynomesh_in_flight", &slot, 0.0).await;
        mesh.late(&line).await.has(&["status=200"]);
    }
}

/// An app that looks can stop working for nobody: it sees the end of what we send.
#[tokio::test]
async fn a_dyno_can_see_that_its_client_has_left() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let touched = mesh.path("touched");
    let target = format!("/until-unwanted?touch={}", touched.display());
    let mut client = mesh.client().await;
    client.send(request("GET", &target, "", "")).await;
    app.counts(1).await;
    client.reset();
    let line = mesh.request(&target).await;
    line.has(&["sock=client", "code=H27", "status=499"]);
    file_appears(&touched).await;
    mesh.late(&line).await.has(&["status=200", "bytes=8"]);
    mesh.metric_becomes("dynomesh_in_flight", &[("dyno", "web.1")], 0.0).await;
}

/// Gone while it sends: the dyno must not take a cut body for whole.
#[tokio::test]
async fn a_client_that_leaves_while_it_sends_is_h27_and_the_dyno_is_told() {
    for (how, body) in [
        (End::Closed, "Content-Length: 100\r\n\r\npart"),
        (End::Reset, "Content-Length: 100\r\n\r\npart"),
        (End::Closed, "Transfer-Encoding: chunked\r\n\r\n4\r\npart\r\n"),
    ] {
        let app = App::start().await;
        let mesh = Mesh::of(&[&app]).await;
        let mut client = mesh.client().await;
        client.send(format!("POST /cut HTTP/1.1\r\nHost: shop.localhost\r\n{body}")).await;
        app.counts(1).await;
        leave(client, how).await;
        let line = mesh.request("/cut").await;
        line.has(&["sock=client", "at=warning", "code=H27", "status=499", "bytes=0"]);
        mesh.metric_becomes("dynomesh_in_flight", &[("dyno", "web.1")], 0.0).await;
        assert_eq!(mesh.requests("/cut").len(), 1);
    }
}

#[tokio::test]
async fn a_client_that_leaves_during_the_answer_is_h27_with_the_status_sent() {
    for how in [End::Closed, End::Reset] {
        let app = App::start().await;
        let mesh = Mesh::of(&[&app]).await;
        let mut client = mesh.client().await;
        client.send(request("GET", "/drip?n=200&ms=50", "", "")).await;
        assert_eq!(client.head().await.status, 200);
        client.chunk().await;
        leave(client, how).await;
        mesh.request("/drip?n=200&ms=50").await.has(&["sock=client", "code=H27", "status=200"]);
        mesh.metric_becomes("dynomesh_in_flight", &[("dyno", "web.1")], 0.0).await;
    }
}

/// Gone while it still sends, and its answer has begun.
#[tokio::test]
async fn a_client_that_leaves_an_early_answer_is_h27_with_the_status_sent() {
    for how in [End::Closed, End::Reset] {
        let app = App::start().await;
        let mesh = Mesh::of(&[&app]).await;
        let mut client = mesh.client().await;
        let head =
            "POST /early-part HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 100\r\n\r\npart";
        client.send(head).await;
        assert_eq!(client.head().await.status, 200);
        assert_eq!(client.exactly(4).await, b"half");
        leave(client, how).await;
        let line = mesh.request("/early-part").await;
        line.has(&["sock=client", "at=warning", "code=H27", "status=200", "bytes=4"]);
        mesh.metric_becomes("dynomesh_in_flight", &[("dyno", "web.1")], 0.0).await;
    }
}

/// Gone when its answer is with the router, and no dyno has to do with it any more.
#[tokio::test]
async fn a_client_that_leaves_what_is_read_already_is_h27_with_the_status_sent() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let target = "/fields?name=Padding&line=100000&n=4";
    let mut client = Client::connect_narrow(mesh.http()).await;
    client.send(request("GET", target, "", "")).await;
    app.counts(1).await;
    mesh.metric_becomes("dynomesh_in_flight", &[("dyno", "web.1")], 0.0).await;
    assert!(mesh.requests(target).is_empty(), "it is not over");
    client.reset();
    mesh.request(target).await.has(&["sock=client", "at=warning", "code=H27", "status=200"]);
}

#[tokio::test]
async fn a_client_that_leaves_while_it_is_held_is_h27() {
    let mesh = Setup::new().procfile("shop", "web: NEVER_BIND=1 TESTAPP\n", "").start().await;
    let mut client = mesh.client().await;
    client.send(request("GET", "/held", "", "")).await;
    mesh.metric_becomes("dynomesh_held_requests", &[("app", "shop")], 1.0).await;
    client.reset();
    let line = mesh.request("/held").await;
    line.has(&["sock=client", "code=H27", "status=499", "dyno=", "connect=", "service="]);
    mesh.metric_becomes("dynomesh_held_requests", &[("app", "shop")], 0.0).await;
}

/// A connection that ends before a whole head is no request.
#[tokio::test]
async fn a_client_that_leaves_in_its_head_has_no_line() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    for how in [End::Closed, End::Reset] {
        let mut client = mesh.client().await;
        client.send("GET /half HTTP/1.1\r\nHost: sh").await;
        leave(client, how).await;
    }
    drop(mesh.client().await);
    assert_eq!(mesh.get("/after").await.status, 200);
    mesh.request("/after").await;
    becomes_true("all connections to be over", async || {
        mesh.metrics().await.get("dynomesh_connections", &[]) <= 0.0
    })
    .await;
    assert_eq!(mesh.lines().iter().filter(|line| line.request().is_some()).count(), 1);
}

/// The dyno's connection is not used again after an answer that the client did not take to its end.
#[tokio::test]
async fn what_one_client_left_behind_reaches_no_other() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let part = percent_encoded("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nfirst ");
    let rest = percent_encoded("second");
    for _ in 0..5 {
        let mut client = mesh.client().await;
        client
            .send(request(
                "GET",
                &format!("/raw?bytes={part}&pause=200&more={rest}&then=keep"),
                "",
                "",
            ))
            .await;
        assert_eq!(client.head().await.status, 200);
        client.reset();
        assert_eq!(mesh.get("/").await.text(), "testapp");
    }
}

/// Its body is with the router already, which is no reason to do its work for nobody.
#[tokio::test]
async fn a_post_whose_client_leaves_while_it_is_held_reaches_no_dyno() {
    for how in [End::Closed, End::Reset] {
        let mesh =
            Setup::new().procfile("shop", "web: BIND_AFTER_MS=2500 TESTAPP\n", "").start().await;
        let mut client = mesh.client().await;
        client.send(request("POST", "/held", "Id: gone\r\n", "body")).await;
        mesh.metric_becomes("dynomesh_held_requests", &[("app", "shop")], 1.0).await;
        leave(client, how).await;
        let line = mesh.request("/held").await;
        line.has(&["sock=client", "code=H27", "status=499", "dyno=", "connect=", "service="]);
        assert_eq!(mesh.get("/seen?id=gone").await.text(), "0", "{how:?}");
    }
}

#[tokio::test]
async fn a_post_whose_client_leaves_while_it_connects_reaches_no_dyno() {
    for how in [End::Closed, End::Reset] {
        let app = App::start_with(&[("BACKLOG", "0")]).await;
        let mesh = Setup::new().timeouts("connect = \"20s\"").shop(&[&app]).start().await;
        app.freeze();
        let fillers = app.fill_queue().await;
        let mut client = mesh.client().await;
        client.send(request("POST", "/connecting", "Id: gone\r\n", "body")).await;
        mesh.metric_becomes("dynomesh_in_flight", &[("app", "shop")], 1.0).await;
        leave(client, how).await;
        let line = mesh.request("/connecting").await;
        line.has(&["sock=client", "code=H27", "status=499", "service="]);
        app.thaw();
        drop(fillers);
        assert_eq!(app.seen("gone").await, 0, "{how:?}");
    }
}

/// HTTP/1.0 knows an answer's end by that of its connection: a cut one must not end like a whole one.
#[tokio::test]
async fn a_cut_answer_to_a_1_0_client_ends_in_a_reset() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let bytes = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    let target = format!("/raw?bytes={}&then=close", percent_encoded(bytes));
    let mut client = mesh.client().await;
    client.send(format!("GET {target} HTTP/1.0\r\nHost: shop.localhost\r\n\r\n")).await;
    let (_, end) = client.rest_and_end().await;
    assert_eq!(end, End::Reset);
    mesh.request(&target).await.has(&["at=error", "code=H18", "status=200"]);
}
