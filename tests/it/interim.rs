//! Interim answers (1xx) and `Expect: 100-continue`, in both modes.

use crate::support::{App, Client, Mesh, Setup, request};

const EXPECTING: &str = "POST /echo HTTP/1.1\r\nHost: shop.localhost\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";

// ---- 1xx from the dyno ------------------------------------------------------------------------------------

#[tokio::test]
async fn early_hints_come_before_the_answer() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    for status in [103, 102, 199] {
        client.send(request("GET", &format!("/interim?n=2&status={status}"), "", "")).await;
        for number in 0..2 {
            let hint = client.answer().await;
            assert_eq!(hint.status, status);
            assert_eq!(hint.field("Link"), Some(format!("</{number}>").as_str()));
            assert_eq!(
                (hint.field("Content-Length"), hint.field("Transfer-Encoding")),
                (None, None)
            );
        }
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text()), (200, "final"));
    }
}

#[tokio::test]
async fn clients_of_1_0_get_no_interim_answers() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    client.send("GET /interim?n=3 HTTP/1.0\r\nHost: shop.localhost\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "final");
}

#[tokio::test]
async fn interim_answers_without_end_are_h17() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    // Which of them still go out before the end of it all is not said.
    for (count, code) in [(64, None), (65, Some("H17"))] {
        let mut client = mesh.client().await;
        client.send(request("GET", &format!("/interim?n={count}"), "", "")).await;
        let mut answer = client.answer().await;
        let mut interim = 0;
        while answer.status == 103 {
            interim += 1;
            answer = client.answer().await;
        }
        assert_eq!(answer.code(), code, "{count}");
        assert!(interim == 64 || code.is_some(), "{interim} of {count}");
    }
}

// ---- Expect, answered by the router -----------------------------------------------------------------------

#[tokio::test]
async fn the_router_asks_for_the_body_and_the_dyno_hears_nothing_of_it() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    client.send(EXPECTING.replace("/echo", "/head")).await;
    let interim = client.answer().await;
    assert_eq!((interim.status, interim.fields.len()), (100, 0), "{interim:?}");
    client.send("body").await;
    let answer = client.answer().await;
    assert!(!answer.text().contains("Expect"), "{}", answer.text());
    assert!(answer.text().contains("\r\nContent-Length: 4\r\n"));
    mesh.request("/head").await.has(&["status=200"]);
}

/// Having answered once itself, the router swallows the dyno's own 100.
#[tokio::test]
async fn one_100_is_enough() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    client.send(EXPECTING.replace("/echo", "/continue")).await;
    assert_eq!(client.answer().await.status, 100);
    client.send("body").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text()), (200, "testapp"));
}

/// A refused request must not start its upload.
#[tokio::test]
async fn a_refused_request_is_not_asked_for_its_body() {
    let app = App::start().await;
    let mesh = Setup::new()
        .shop(&[&app])
        .app("closed", &format!("dynos = [{:?}]\nmaintenance = true", app.place()))
        .app("dead", "dynos = [\"unix:/nonexistent\"]")
        .start()
        .await;
    for (host, status) in
        [("nobody.localhost", 404), ("closed.localhost", 503), ("dead.localhost", 503)]
    {
        let mut client = mesh.client().await;
        client.send(EXPECTING.replace("shop.localhost", host)).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, status, "{host}");
        assert!(answer.says_close(), "a body may or may not follow");
    }
}

/// Nor must a held one: it is asked once a dyno is there.
#[tokio::test]
async fn a_held_request_is_asked_for_its_body_once_a_dyno_is_there() {
    let mesh = Setup::new().procfile("shop", "web: BIND_AFTER_MS=800 TESTAPP\n", "").start().await;
    let mut client = mesh.client().await;
    client.send(EXPECTING).await;
    mesh.metric_becomes("dynomesh_held_requests", &[("app", "shop")], 1.0).await;
    assert!(client.is_quiet());
    assert_eq!(client.answer().await.status, 100);
    client.send("body").await;
    assert_eq!(client.answer().await.text(), "body");
}

#[tokio::test]
async fn clients_of_1_0_are_not_asked() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    client.send(EXPECTING.replace("HTTP/1.1", "HTTP/1.0")).await;
    client.send("body").await;
    assert_eq!(client.answer().await.text(), "body");
}

#[tokio::test]
async fn an_empty_expectation_is_none() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let answer = mesh.client().await.request("POST", "/echo", "Expect:\r\n", "body").await;
    assert_eq!((answer.status, answer.text()), (200, "body"));
}

// ---- Expect, answered by the dyno -------------------------------------------------------------------------

const BY_THE_DYNO: &str = "expect = \"dyno\"";

#[tokio::test]
async fn a_dyno_that_wants_to_may_answer_expectations_itself() {
    let app = App::start().await;
    let mesh = Setup::new().shop_with(&[&app], BY_THE_DYNO).start().await;
    let mut client = mesh.client().await;
    client.send(EXPECTING.replace("/echo", "/continue")).await;
    assert_eq!(client.answer().await.status, 100, "the dyno's");
    client.send("body").await;
    assert_eq!(client.answer().await.status, 200);
    let answer = client.request("POST", "/head", "Expect: 100-continue\r\n", "body").await;
    assert!(answer.text().contains("\r\nExpect: 100-continue\r\n"), "{}", answer.text());
}

#[tokio::test]
async fn a_dyno_that_refuses_an_expectation_never_sees_the_body() {
    let app = App::start().await;
    let mesh = Setup::new().shop_with(&[&app], BY_THE_DYNO).start().await;
    let mut client = mesh.client().await;
    client.send(EXPECTING.replace("/echo", "/refuse-expectation")).await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 417);
    assert!(answer.says_close());
    client.is_closed().await;
}

/// A client need not wait for ever, and the router passes the body on without having relayed a 100.
#[tokio::test]
async fn a_client_that_does_not_wait_for_the_100_is_served() {
    let app = App::start().await;
    let mesh = Setup::new().shop_with(&[&app], BY_THE_DYNO).start().await;
    let mut client = mesh.client().await;
    client.send(EXPECTING).await;
    app.counts(1).await;
    client.send("body").await;
    assert_eq!(client.answer().await.text(), "body");
}

/// Half a head is with the client: nothing else may be written after it.
#[tokio::test]
async fn a_failure_behind_half_an_interim_answer_is_a_cut() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = Client::connect_narrow(mesh.http()).await;
    let fields = "Transfer-Encoding: chunked\r\n";
    client.send(request("POST", "/hint?bytes=200000", fields, "")).await;
    client.send("4\r\nbody\r\n").await;
    assert!(client.exactly(100).await.starts_with(b"HTTP/1.1 103 "));
    client.send("bad chunk\r\n").await;
    // The dyno's half is over, so the failure has been noticed while the client took nothing.
    mesh.metric_becomes("dynomesh_in_flight", &[("app", "shop")], 0.0).await;
    let (rest, _) = client.rest_and_end().await;
    assert!(rest.len() < 199_000, "the failure came too late to be between: {}", rest.len());
    let rest = String::from_utf8_lossy(&rest);
    assert!(!rest.contains("HTTP/1.1"), "{:?}", &rest[rest.len() - 300..]);
    mesh.request("/hint?bytes=200000").await.has(&["code=H26", "cause=bad chunk"]);
}
