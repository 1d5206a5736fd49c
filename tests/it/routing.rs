//! Which app and which dyno a request goes to, and what is tried again.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::net::UnixStream;

use crate::support::{App, Client, Mesh, Setup, refusing_addr, request, within};

#[tokio::test]
async fn a_request_reaches_the_dyno_and_its_answer_the_client() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let answer = mesh.get("/").await;
    assert_eq!((answer.status, answer.text()), (200, "testapp"));
    assert_eq!(app.count().await, 1);
}

// ---- hosts ------------------------------------------------------------------------------------------------

#[tokio::test]
async fn the_host_decides_the_app() {
    let [shop, blog] = [App::start().await, App::start().await];
    let mesh = Setup::new()
        .router("default_app = \"blog\"")
        .shop_with(&[&shop], "domains = [\"shop.example.com\", \"*.shop.example.com\"]")
        .app(
            "blog",
            &format!("dynos = [{:?}]\ndomains = [\"deep.shop.example.com\"]", blog.place()),
        )
        .start()
        .await;
    let check = async |host: &str, expected: &App| {
        let before = expected.count().await;
        let mut client = mesh.client().await;
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(client.answer().await.status, 200, "{host}");
        assert_eq!(expected.count().await, before + 1, "{host}");
    };
    for host in
        ["shop.localhost", "shop.example.com", "any.shop.example.com", "a.b.shop.example.com"]
    {
        check(host, &shop).await;
    }
    // Looked up in lower case, without port and trailing dot.
    for host in ["SHOP.Example.COM", "shop.localhost:8080", "shop.example.com."] {
        check(host, &shop).await;
    }
    // Exact beats wildcard; the domain itself and bare addresses belong to the default app.
    for host in ["deep.shop.example.com", "blog.localhost", "localhost", "127.0.0.1", "[::1]:8080"]
    {
        check(host, &blog).await;
    }
}

#[tokio::test]
async fn a_host_that_no_app_has_is_404_without_code() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    for host in ["nobody.localhost", "localhost", "127.0.0.1", "example.com"] {
        let mut client = mesh.client().await;
        client.send(format!("GET /{host} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.code()), (404, None), "{host}");
        let request = mesh.request(&format!("/{host}")).await;
        assert_eq!((request.line.app.as_str(), request.find("code")), ("-", None), "{host}");
        request.has(&["dyno=", "connect=", "service=", "status=404"]);
    }
    assert_eq!(app.count().await, 0);
}

#[tokio::test]
async fn dynos_at_unix_sockets_are_served() {
    let setup = Setup::new();
    let app = App::start_at(&setup.dir().join("app.sock")).await;
    let mesh = setup.shop(&[&app]).start().await;
    let mut client = mesh.client().await;
    for _ in 0..3 {
        assert_eq!(client.get("/").await.text(), "testapp");
    }
    assert_eq!(client.request("POST", "/echo", "", "body").await.text(), "body");
}

#[tokio::test]
async fn a_unix_socket_without_an_app_is_a_refusal() {
    let mesh = Setup::new().app("shop", "dynos = [\"unix:/nonexistent/app.sock\"]").start().await;
    mesh.get("/").await.is_refusal(503, "H21");
}

#[tokio::test]
async fn requests_are_accepted_at_unix_sockets() {
    let app = App::start().await;
    let setup = Setup::new();
    let door = setup.dir().join("door.sock");
    let mesh = setup.listen(&format!("unix:{}", door.display())).shop(&[&app]).start().await;
    let answer = Client::connect_unix(&door).await.get("/head").await;
    assert_eq!(answer.status, 200);
    // A peer without address: nothing to forward, and nothing to log.
    assert_eq!(mesh.request("/head").await.get("fwd"), "");
}

// ---- choice -----------------------------------------------------------------------------------------------

#[tokio::test]
async fn every_way_of_choosing_uses_every_dyno() {
    for balance in ["p2c", "random", "least"] {
        let apps = [App::start().await, App::start().await, App::start().await];
        let [a, b, c] = &apps;
        let mesh =
            Setup::new().shop_with(&[a, b, c], &format!("balance = {balance:?}")).start().await;
        let mut client = mesh.client().await;
        for _ in 0..60 {
            assert_eq!(client.get("/").await.status, 200);
        }
        for app in &apps {
            let count = app.count().await;
            assert!(count > 0, "{balance} left a dyno without any of 60 requests");
        }
    }
}

/// With one dyno busy, both ways that look at the count choose the other one each time.
#[tokio::test]
async fn a_busy_dyno_is_passed_over() {
    for balance in ["p2c", "least"] {
        let [a, b] = [App::start().await, App::start().await];
        let mesh =
            Setup::new().shop_with(&[&a, &b], &format!("balance = {balance:?}")).start().await;
        let released = mesh.path("released");
        let mut busy = mesh.client().await;
        busy.send(request("GET", &format!("/until?file={}", released.display()), "", "")).await;
        let busy_app = async {
            loop {
                if a.count().await == 1 {
                    break &a;
                }
                if b.count().await == 1 {
                    break &b;
                }
            }
        };
        let busy_app = within("the request to arrive", busy_app).await;
        let mut client = mesh.client().await;
        for _ in 0..20 {
            assert_eq!(client.get("/").await.status, 200);
        }
        assert_eq!(busy_app.count().await, 1, "{balance}");
        std::fs::write(released, "").unwrap();
        assert_eq!(busy.answer().await.text(), "released");
    }
}

// ---- connecting -------------------------------------------------------------------------------------------

/// Retry (a): nothing of the request was accepted by a socket, so any method goes to another dyno.
#[tokio::test]
async fn a_refused_connect_goes_to_another_dyno_whatever_the_method() {
    let app = App::start().await;
    let dynos = format!("dynos = [\"{}\", \"{}\"]", refusing_addr(), app.addr());
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "BREW"] {
        let mesh = Setup::new().app("shop", &dynos).start().await;
        // A fresh daemon has no quarantine: within some requests the refusing dyno is drawn.
        for _ in 0..6 {
            let answer = mesh.client().await.request(method, "/echo", "", "body").await;
            assert_eq!((answer.status, answer.text()), (200, "body"), "{method}");
        }
    }
}

#[tokio::test]
async fn dynos_that_all_refuse_are_h21() {
    let dynos = format!("dynos = [\"{}\", \"{}\"]", refusing_addr(), refusing_addr());
    let mesh = Setup::new().app("shop", &dynos).start().await;
    mesh.client().await.request("POST", "/x", "", "body").await.is_refusal(503, "H21");
    let request = mesh.request("/x").await;
    request.has(&[
        "at=error",
        "code=H21",
        "desc=Backend connection refused",
        "service=",
        "status=503",
    ]);
    assert!(request.get("dyno").starts_with("web."), "the dyno tried last");
    request.millis("connect");
}

/// A listen queue that is full drops connects silently: the kernel of a frozen app.
#[tokio::test]
async fn dynos_that_do_not_answer_a_connect_are_h19() {
    let app = App::start_with(&[("BACKLOG", "0")]).await;
    let mesh = Setup::new().timeouts("connect = \"300ms\"").shop(&[&app]).start().await;
    app.freeze();
    let _fillers = app.fill_queue().await;
    mesh.get("/x").await.is_refusal(503, "H19");
    let request = mesh.request("/x").await;
    request.has(&[
        "at=error",
        "code=H19",
        "desc=Backend connection timeout",
        "dyno=web.1",
        "service=",
    ]);
    let connect = request.millis("connect");
    assert!((300..2000).contains(&connect), "{connect}");
    app.thaw();
}

/// A Unix socket's full queue says so at once, where TCP would wait: the router waits in its place.
#[tokio::test]
async fn a_full_queue_at_a_unix_socket_is_waited_for() {
    let setup = Setup::new();
    let (app, _fillers) = full_at_a_unix_socket(&setup).await;
    let mesh = setup.timeouts("connect = \"20s\"").shop(&[&app]).start().await;
    let mut client = mesh.client().await;
    client.send(request("GET", "/queued", "", "")).await;
    mesh.metric_becomes("dynomesh_in_flight", &[("app", "shop")], 1.0).await;
    assert!(client.is_quiet());
    app.thaw();
    assert_eq!(client.answer().await.status, 200);
    let line = mesh.request("/queued").await;
    line.has(&["at=info", "dyno=web.1", "status=200"]);
    assert_eq!(line.find("retries"), None, "{}", line.line.text);
}

#[tokio::test]
async fn a_queue_at_a_unix_socket_that_stays_full_is_h19() {
    let setup = Setup::new();
    let (app, _fillers) = full_at_a_unix_socket(&setup).await;
    let mesh = setup.timeouts("connect = \"300ms\"").shop(&[&app]).start().await;
    mesh.get("/x").await.is_refusal(503, "H19");
    let line = mesh.request("/x").await;
    line.has(&["at=error", "code=H19", "desc=Backend connection timeout", "dyno=web.1"]);
    let connect = line.millis("connect");
    assert!((300..2000).contains(&connect), "{connect}");
}

/// A frozen app at a Unix socket whose listen queue is full while the second value is held.
async fn full_at_a_unix_socket(setup: &Setup) -> (App, Vec<UnixStream>) {
    let socket = setup.dir().join("app.sock");
    let place = socket.to_str().expect("it is text");
    let app = App::start_with(&[("UNIX_SOCKET", place), ("BACKLOG", "0")]).await;
    app.freeze();
    let mut fillers = Vec::new();
    loop {
        assert!(fillers.len() < 8, "the listen queue takes everything");
        match UnixStream::connect(&socket).await {
            Ok(filler) => fillers.push(filler),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return (app, fillers),
            Err(error) => panic!("{place}: {error}"),
        }
    }
}

/// 5 s: not one request goes to a dyno that has just refused, though it would take them now.
#[tokio::test]
async fn a_dyno_that_refused_is_left_alone_for_a_while() {
    let place = refusing_addr();
    let fine = App::start().await;
    let dynos = format!("dynos = [\"{place}\", \"{}\"]\nbalance = \"random\"", fine.addr());
    let mesh = Setup::new().app("shop", &dynos).start().await;
    let mut client = mesh.client().await;
    // 2^-20 that the refusing one is never drawn.
    for _ in 0..20 {
        assert_eq!(client.get("/").await.status, 200);
    }
    let back = App::start_on(place.port()).await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(back.count().await, 0);
    // And then it is asked again.
    within("the end of the quarantine", async {
        while back.count().await == 0 {
            assert_eq!(client.get("/").await.status, 200);
        }
    })
    .await;
}

/// The budget was too short, which says nothing about the dyno.
#[tokio::test]
async fn a_budget_that_ends_while_connecting_quarantines_nobody() {
    let app = App::start_with(&[("BACKLOG", "0")]).await;
    let mesh =
        Setup::new().timeouts("hold = \"500ms\"\nconnect = \"20s\"").shop(&[&app]).start().await;
    app.freeze();
    let fillers = app.fill_queue().await;
    mesh.get("/x").await.is_refusal(503, "H19");
    app.thaw();
    drop(fillers);
    app.count().await;
    // In quarantine it would have to wait, longer than its budget.
    assert_eq!(mesh.get("/").await.status, 200);
}

/// Nor does the wait for one of the sixteen connects that a worker has under way to a dyno.
#[tokio::test]
async fn waiting_for_a_place_to_connect_quarantines_nobody() {
    let app = App::start_with(&[("BACKLOG", "0")]).await;
    let mut mesh = Setup::new().timeouts("connect = \"20s\"").shop(&[&app]).start().await;
    app.freeze();
    let fillers = app.fill_queue().await;
    let mut connecting = Vec::new();
    for number in 1..=32 {
        let mut client = mesh.client().await;
        client.send(request("GET", "/connecting", "", "")).await;
        mesh.metric_becomes("dynomesh_in_flight", &[("app", "shop")], f64::from(number)).await;
        connecting.push(client);
    }
    let text = mesh.setup().text().replace("connect = \"20s\"", "connect = \"500ms\"");
    mesh.reload_text(&text, "ok").await;
    mesh.get("/queued").await.is_refusal(503, "H19");
    app.thaw();
    drop(fillers);
    app.count().await;
    // The places are needed, and a full queue's connects take the kernel a second or three.
    drop(connecting);
    let text = mesh.setup().text().replace("connect = \"500ms\"", "connect = \"20s\"");
    mesh.reload_text(&text, "ok").await;
    // In quarantine it would have to be held for five seconds.
    assert_eq!(mesh.get("/after").await.status, 200);
    let connect = mesh.request("/after").await.millis("connect");
    assert!(connect < 4500, "{connect}");
}

/// The dyno that was tried last decides between H19 and H21: here it did not answer before the budget was up,
/// and the one before had refused.
#[tokio::test]
async fn a_budget_that_ends_while_connecting_is_h19_after_a_refusal_too() {
    let app = App::start_with(&[("BACKLOG", "0")]).await;
    let mut mesh = Setup::new()
        .timeouts("hold = \"1s\"\nconnect = \"20s\"")
        .shop_with(&[&app], "balance = \"least\"")
        .start()
        .await;
    let mut busy = mesh.client().await;
    busy.send(request("GET", "/sleep?ms=60000", "", "")).await;
    app.counts(1).await;
    app.freeze();
    let _fillers = app.fill_queue().await;
    // The other one has fewer requests in flight, so it comes first.
    let dynos =
        format!("dynos = [\"{}\", \"{}\"]\nbalance = \"least\"", app.addr(), refusing_addr());
    mesh.reload(|mut setup| {
        setup.clear_apps();
        setup.app("shop", &dynos)
    })
    .await;
    mesh.get("/x").await.is_refusal(503, "H19");
    mesh.request("/x").await.has(&["code=H19", "dyno=web.1", "status=503", "service="]);
    app.thaw();
}

/// A request that has not itself tried the quarantined dyno waits for it; one that has is refused at once.
#[tokio::test]
async fn a_request_waits_for_a_quarantined_dyno_up_to_its_budget() {
    let place = refusing_addr();
    let mesh = Setup::new()
        .timeouts("hold = \"1s\"")
        .app("shop", &format!("dynos = [\"{place}\"]"))
        .start()
        .await;
    mesh.get("/tried").await.is_refusal(503, "H21");
    mesh.get("/waited").await.is_refusal(503, "H34");
    let request = mesh.request("/waited").await;
    request.has(&[
        "at=error",
        "code=H34",
        "desc=All up dynos are quarantined",
        "connect=",
        "service=",
    ]);
}

#[tokio::test]
async fn the_end_of_the_quarantine_wakes_who_waits_for_it() {
    let place = refusing_addr();
    let mesh = Setup::new().app("shop", &format!("dynos = [\"{place}\"]")).start().await;
    mesh.get("/tried").await.is_refusal(503, "H21");
    let app = App::start_on(place.port()).await;
    let answer = mesh.get("/waited").await;
    assert_eq!(answer.status, 200);
    assert_eq!(app.count().await, 1);
    // Holding is part of connect=, as on Heroku.
    let connect = mesh.request("/waited").await.millis("connect");
    assert!((1000..6000).contains(&connect), "{connect}");
}

// ---- connections that die ---------------------------------------------------------------------------------

/// Retry (b): the dyno closed a kept connection just as it was used again. What may be repeated is.
#[tokio::test]
async fn a_reused_connection_that_dies_costs_no_idempotent_request() {
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
        let app = App::start().await;
        let mesh = Mesh::of(&[&app]).await;
        let mut client = mesh.client().await;
        assert_eq!(client.get("/").await.status, 200);
        let target = format!("/once?{method}");
        let answer = client.request(method, &target, "Id: one\r\n", "").await;
        assert_eq!(answer.status, 200, "{method}");
        assert_eq!(app.seen("one").await, 2, "{method}");
        mesh.request(&target).await.has(&["status=200", "retries=1"]);
    }
}

#[tokio::test]
async fn a_reused_connection_that_dies_never_sends_a_post_twice() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    // A POST with and without body, a method nobody knows, and a GET that has a body.
    for (method, body) in
        [("POST", ""), ("POST", "body"), ("BREW", ""), ("GET", "body"), ("PUT", "body")]
    {
        let id = format!("{method}{body}");
        let mut client = mesh.client().await;
        assert_eq!(client.get("/").await.status, 200);
        let target = format!("/once?{id}");
        client
            .request(method, &target, &format!("Id: {id}\r\n"), body)
            .await
            .is_refusal(503, "H13");
        assert_eq!(app.seen(&id).await, 1, "{id}");
        let request = mesh.request(&target).await;
        request.has(&[
            "code=H13",
            "desc=Connection closed without response",
            "dyno=web.1",
            "status=503",
        ]);
        assert_eq!(request.find("retries"), None);
    }
}

/// A request that may not be repeated takes no connection that the dyno may be about to close: one unused
/// for more than a second.
#[tokio::test]
async fn a_post_takes_no_connection_that_has_idled() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    assert_eq!(client.get("/").await.status, 200);
    // The time that passes is the thing under test here.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(client.request("POST", "/once", "", "body").await.status, 200);
    assert_eq!(app.connections().await, 2);
}

/// Retry (c): a fresh connection that dies without an answer costs a safe request one other dyno.
#[tokio::test]
async fn a_get_lost_with_its_dyno_goes_to_another_one() {
    let closing = App::start_with(&[("CLOSE_ALWAYS", "1")]).await;
    let fine = App::start().await;
    let mesh = Setup::new().shop_with(&[&closing, &fine], "balance = \"random\"").start().await;
    for _ in 0..20 {
        assert_eq!(mesh.get("/").await.status, 200);
    }
    assert!(closing.count().await > 0, "2^-20: the closing dyno was never drawn");
}

#[tokio::test]
async fn a_post_lost_with_its_dyno_is_sent_to_no_other() {
    let apps = [App::start_with(&[("CLOSE_ALWAYS", "1")]).await, App::start().await];
    let [closing, fine] = &apps;
    let mesh = Setup::new().shop_with(&[closing, fine], "balance = \"random\"").start().await;
    // PUT and DELETE may be repeated by a client who knows what they do; the router repeats what is safe.
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        for number in 0..10 {
            let id = format!("{method}-{number}");
            let mut client = mesh.client().await;
            let answer =
                client.request(method, &format!("/{id}"), &format!("Id: {id}\r\n"), "").await;
            let seen = (closing.seen(&id).await, fine.seen(&id).await);
            match answer.status {
                200 => assert_eq!(seen, (0, 1), "{id}"),
                _ => {
                    answer.is_refusal(503, "H13");
                    assert_eq!(seen, (1, 0), "{id}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_poisonous_get_takes_two_dynos_and_not_all() {
    let closing = async || App::start_with(&[("CLOSE_ALWAYS", "1")]).await;
    let apps = [closing().await, closing().await, closing().await];
    let [a, b, c] = &apps;
    let mesh = Mesh::of(&[a, b, c]).await;
    mesh.get("/poison").await.is_refusal(503, "H13");
    let counts = [a.count().await, b.count().await, c.count().await];
    assert_eq!(counts.iter().sum::<u64>(), 2, "{counts:?}");
    assert!(counts.iter().all(|count| *count < 2), "twice to the same dyno: {counts:?}");
    mesh.request("/poison").await.has(&["code=H13", "retries=1"]);
}

#[tokio::test]
async fn a_get_lost_with_the_only_dyno_is_h13() {
    let app = App::start_with(&[("CLOSE_ALWAYS", "1")]).await;
    let mesh = Mesh::of(&[&app]).await;
    mesh.get("/x").await.is_refusal(503, "H13");
    assert_eq!(app.count().await, 1);
    assert_eq!(mesh.request("/x").await.find("retries"), None);
}

// ---- the pool ---------------------------------------------------------------------------------------------

#[tokio::test]
async fn connections_to_dynos_are_kept_and_used_again() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(app.connections().await, 1);
}

#[tokio::test]
async fn a_dyno_keepalive_of_zero_means_one_request_a_connection() {
    let app = App::start().await;
    let mesh = Setup::new().timeouts("dyno_keepalive = \"0s\"").shop(&[&app]).start().await;
    let mut client = mesh.client().await;
    for _ in 0..5 {
        let answer = client.get("/head").await;
        assert!(answer.text().contains("\r\nConnection: close\r\n"), "{}", answer.text());
    }
    assert_eq!(app.connections().await, 5);
}

/// A dyno that says how long it keeps a connection is believed, with a second to spare.
#[tokio::test]
async fn a_dynos_own_keep_alive_shortens_ours() {
    let app = App::start_with(&[("KEEP_ALIVE_SECONDS", "1")]).await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    for _ in 0..3 {
        assert_eq!(client.get("/").await.status, 200);
        // One second less one is none: after a tick the connection is gone.
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    assert_eq!(app.connections().await, 3);
}

/// The dyno closes idle connections after 100 ms; requests at every moment around that lose nothing.
#[tokio::test]
async fn a_dyno_that_closes_idle_connections_costs_no_request() {
    let app = App::start_with(&[("CLOSE_IDLE_AFTER_MS", "100")]).await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    for wait in [90, 95, 98, 99, 100, 101, 102, 105, 110, 150] {
        tokio::time::sleep(Duration::from_millis(wait)).await;
        assert_eq!(client.get("/").await.status, 200, "after {wait} ms");
    }
}

/// `connect=` is how long the first connection took, and `retries=` is about what was sent again.
#[tokio::test]
async fn a_retry_that_finds_no_dyno_is_none() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let target = "/raw?bytes=&pause=900&more=&then=close";
    mesh.get(target).await.is_refusal(503, "H13");
    let line = mesh.request(target).await;
    assert!(line.millis("connect") < 500, "{}", line.line.text);
    assert!(line.millis("service") >= 900, "{}", line.line.text);
    assert_eq!(line.find("retries"), None, "{}", line.line.text);
}

#[tokio::test]
async fn a_retry_that_is_refused_a_connection_was_not_sent_again() {
    let dying = App::start_with(&[("CLOSE_ALWAYS", "1")]).await;
    let dynos = format!("dynos = [\"{}\", \"{}\"]", dying.addr(), refusing_addr());
    let mesh = Setup::new().app("shop", &dynos).start().await;
    // Whichever is first, only one of them takes the request.
    assert_eq!(mesh.get("/x").await.status, 503);
    let line = mesh.request("/x").await;
    assert_eq!(line.find("retries"), None, "{}", line.line.text);
    assert_eq!(dying.count().await, 1);
}
