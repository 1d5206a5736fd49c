//! The router's own answers: which code when, and what they look like.

use crate::support::{App, Mesh, Setup, becomes_true, refusing_addr, request, within};

// ---- codes ------------------------------------------------------------------------------------------------

#[tokio::test]
async fn an_app_in_maintenance_is_h80_and_its_dynos_are_left_alone() {
    let app = App::start().await;
    let mesh = Setup::new().shop_with(&[&app], "maintenance = true").start().await;
    mesh.get("/x").await.is_refusal(503, "H80");
    let line = mesh.request("/x").await;
    line.has(&[
        "at=info",
        "code=H80",
        "desc=Maintenance mode",
        "dyno=",
        "connect=",
        "service=",
        "status=503",
    ]);
    assert_eq!(app.count().await, 0);
}

#[tokio::test]
async fn an_app_without_release_is_h81() {
    let mesh = Setup::new().app("shop", "").start().await;
    mesh.get("/x").await.is_refusal(502, "H81");
    mesh.request("/x").await.has(&["at=info", "code=H81", "desc=Blank app", "dyno=", "status=502"]);
}

#[tokio::test]
async fn an_app_without_web_dynos_is_h14() {
    for (procfile, formation) in
        [("web: TESTAPP\n", "{ web = 0 }"), ("worker: sleep 60\n", "{ worker = 0 }")]
    {
        let lines = format!("formation = {formation}");
        let mesh = Setup::new().procfile("shop", procfile, &lines).start().await;
        mesh.get("/x").await.is_refusal(503, "H14");
        mesh.request("/x").await.has(&[
            "at=error",
            "code=H14",
            "desc=No web processes running",
            "dyno=",
            "status=503",
        ]);
    }
}

#[tokio::test]
async fn an_app_whose_dynos_all_crashed_is_h10() {
    let mesh = Setup::new()
        .procfile("shop", "web: CRASH_DURING_BOOT=1 TESTAPP\n", "timeouts = { cool_off = \"60s\" }")
        .start()
        .await;
    // The first restart is at once; the cool-off comes after the second crash.
    mesh.says_times("heroku[web.1]", "State changed from starting to crashed", 2).await;
    mesh.get("/x").await.is_refusal(503, "H10");
    mesh.request("/x").await.has(&[
        "at=error",
        "code=H10",
        "desc=App crashed",
        "dyno=",
        "connect=",
        "service=",
        "bytes=",
    ]);
}

/// Those who were held for it hear of it at once, not at the end of their time.
#[tokio::test]
async fn requests_held_for_a_dyno_that_crashes_are_h10() {
    let lines = "timeouts = { cool_off = \"60s\" }";
    let procfile = "web: NEVER_BIND=1 EXIT_AFTER_MS=500 TESTAPP\n";
    let mesh = Setup::new().procfile("shop", procfile, lines).start().await;
    within("the crash to end the hold", mesh.get("/held")).await.is_refusal(503, "H10");
}

#[tokio::test]
async fn too_many_requests_that_wait_are_h11() {
    let mesh =
        Setup::new().procfile("shop", "web: NEVER_BIND=1 TESTAPP\n", "backlog = 2").start().await;
    let mut waiting = Vec::new();
    for number in 1..=2 {
        let mut client = mesh.client().await;
        client.send(request("GET", "/waits", "", "")).await;
        waiting.push(client);
        mesh.metric_becomes("dynomesh_held_requests", &[("app", "shop")], f64::from(number)).await;
    }
    mesh.get("/too-many").await.is_refusal(503, "H11");
    let line = mesh.request("/too-many").await;
    line.has(&[
        "at=error",
        "code=H11",
        "desc=Backlog too deep",
        "dyno=",
        "connect=",
        "service=",
        "status=503",
    ]);
    // One leaves, one may come.
    waiting.pop().unwrap().reset();
    mesh.metric_becomes("dynomesh_held_requests", &[("app", "shop")], 1.0).await;
    let mut client = mesh.client().await;
    client.send(request("GET", "/may-wait", "", "")).await;
    mesh.metric_becomes("dynomesh_held_requests", &[("app", "shop")], 2.0).await;
}

/// The same line when the request has been with a dyno before: it waits for another one.
#[tokio::test]
async fn a_request_that_may_not_wait_for_another_dyno_is_h11_and_says_where_it_was() {
    let dying = App::start_with(&[("CLOSE_ALWAYS", "1")]).await;
    let dynos = format!("dynos = [\"{}\", \"{}\"]\nbacklog = 1", dying.addr(), refusing_addr());
    let mesh = Setup::new().app("shop", &dynos).start().await;
    // The other one goes into quarantine, whichever is first, and then whoever loses the dying one waits for it.
    assert_eq!(mesh.get("/both").await.status, 503);
    let mut waiting = Vec::new();
    for number in 1..=2 {
        let mut client = mesh.client().await;
        client.send(request("GET", "/waits", "", "")).await;
        waiting.push(client);
        mesh.metric_becomes("dynomesh_held_requests", &[("app", "shop")], f64::from(number)).await;
    }
    mesh.get("/too-many").await.is_refusal(503, "H11");
    mesh.request("/too-many").await.has(&["code=H11", "dyno=web.1"]);
}

/// H11 is about those who wait for a dyno: requests in flight are not bounded by it.
#[tokio::test]
async fn requests_in_flight_are_no_backlog() {
    let app = App::start().await;
    let mesh = Setup::new().shop_with(&[&app], "backlog = 1").start().await;
    let released = mesh.path("released");
    let mut clients = Vec::new();
    for number in 1..=20 {
        let mut client = mesh.client().await;
        client.send(request("GET", &format!("/until?file={}", released.display()), "", "")).await;
        app.counts(number).await;
        clients.push(client);
    }
    assert_eq!(mesh.metrics().await.get("dynomesh_in_flight", &[("app", "shop")]), 20.0);
    std::fs::write(released, "").unwrap();
    for mut client in clients {
        assert_eq!(client.answer().await.text(), "released");
    }
}

#[tokio::test]
async fn connect_is_405() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    for target in ["shop.localhost:80", "/", "127.0.0.1:5432"] {
        let mut client = mesh.client().await;
        client
            .send(format!(
                "CONNECT {target} HTTP/1.1\r\nHost: shop.localhost\r\n\r\nGET / HTTP/1.1\r\n"
            ))
            .await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 405, "{target}");
        assert!(answer.says_close());
    }
    assert_eq!(app.count().await, 0);
}

/// An app whose dyno is the router itself: a request goes round until its Via gives it away.
#[tokio::test]
async fn a_request_that_runs_in_a_circle_is_508() {
    let door = refusing_addr();
    let mesh = Setup::new()
        .listen(&door.to_string())
        .app("shop", &format!("dynos = [\"{door}\"]"))
        .start()
        .await;
    assert_eq!(mesh.get("/round").await.status, 508);
    mesh.request("/round").await;
    let rounds = mesh.requests("/round").len();
    assert!(rounds < 10, "{rounds} rounds");
}

// ---- what they look like ----------------------------------------------------------------------------------

#[tokio::test]
async fn a_refusal_is_a_page_for_people_and_json_for_programs() {
    let mesh = Setup::new().app("shop", "maintenance = true").start().await;
    let check = async |accept: &str, expected: &str| {
        let fields =
            if accept.is_empty() { String::new() } else { format!("Accept: {accept}\r\n") };
        let answer = mesh.client().await.request("GET", "/", &fields, "").await;
        answer.is_refusal(503, "H80");
        let kind = answer.field("Content-Type").unwrap_or("");
        assert!(kind.starts_with(expected), "Accept {accept:?} gave {kind:?}");
        answer
    };
    for accept in [
        "",
        "*/*",
        "text/html",
        "text/html,application/xhtml+xml,*/*;q=0.8",
        "application/json;q=0.5, text/html",
    ] {
        let answer = check(accept, "text/html").await;
        let page = answer.text().to_ascii_lowercase();
        assert!(page.contains("<html") && page.contains("h80"), "{page}");
    }
    for accept in
        ["application/json", "application/json, text/html;q=0.5", "application/vnd.heroku+json"]
    {
        let answer = check(accept, "application/json").await;
        let json: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert!(json.to_string().contains("H80"), "{json}");
    }
}

#[tokio::test]
async fn a_refusal_can_be_found_again_and_is_not_stored() {
    let mesh = Setup::new().app("shop", "maintenance = true").start().await;
    let answer = mesh
        .client()
        .await
        .request("GET", "/x", "X-Request-Id: abcdefghijklmnopqrstuvwxyz\r\n", "")
        .await;
    assert_eq!(answer.field("X-Request-Id"), Some("abcdefghijklmnopqrstuvwxyz"));
    assert_eq!(mesh.request("/x").await.get("request_id"), "abcdefghijklmnopqrstuvwxyz");
    assert!(answer.field("Cache-Control").is_some_and(|it| it.contains("no-store")), "{answer:?}");
    assert!(answer.field("Retry-After").is_some() && answer.field("Date").is_some(), "{answer:?}");
    let made_up = mesh.client().await.get("/y").await;
    assert_eq!(made_up.field("X-Request-Id"), Some(mesh.request("/y").await.get("request_id")));
}

#[tokio::test]
async fn the_bytes_of_a_refusal_are_those_of_its_page() {
    let mesh = Setup::new().app("shop", "maintenance = true").start().await;
    let answer = mesh.get("/x").await;
    let bytes = mesh.request("/x").await.get("bytes").to_string();
    // Heroku's samples vary: it counts the page, or is empty for what never met a dyno.
    assert!(bytes.is_empty() || bytes == answer.body.len().to_string(), "bytes={bytes}");
}

#[tokio::test]
async fn an_app_may_have_pages_of_its_own() {
    let app = App::start().await;
    let setup = Setup::new();
    std::fs::write(setup.dir().join("error.html"), "<html>our own error</html>").unwrap();
    std::fs::write(setup.dir().join("maintenance.html"), "<html>our own maintenance</html>")
        .unwrap();
    let pages = "error_page = \"error.html\"\nmaintenance_page = \"maintenance.html\"";
    let mesh = setup
        .shop_with(&[&app], &format!("{pages}\nmaintenance = true"))
        .app("dead", &format!("dynos = [\"unix:/nonexistent\"]\n{pages}"))
        .start()
        .await;
    let answer = mesh.get("/").await;
    answer.is_refusal(503, "H80");
    assert_eq!(answer.text(), "<html>our own maintenance</html>");
    let mut client = mesh.client().await;
    client.send("GET / HTTP/1.1\r\nHost: dead.localhost\r\n\r\n").await;
    let answer = client.answer().await;
    answer.is_refusal(503, "H21");
    assert_eq!(answer.text(), "<html>our own error</html>");
}

/// An app's own errors are its own.
#[tokio::test]
async fn an_apps_own_errors_pass_through() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    for status in [400, 404, 500, 503, 599] {
        let bytes = format!("HTTP/1.1 {status} Mine\r\nContent-Length: 4\r\n\r\nmine");
        let target = format!("/raw?bytes={}&then=keep", crate::support::percent_encoded(bytes));
        let answer = mesh.get(&target).await;
        assert_eq!((answer.status, answer.code(), answer.text()), (status, None, "mine"));
        let line = mesh.request(&target).await;
        assert_eq!((line.get("at"), line.find("code")), ("info", None));
    }
}

/// Each code that a test here can bring about is counted under its name.
#[tokio::test]
async fn refusals_are_counted_by_code() {
    let mesh = Setup::new().app("shop", "maintenance = true").app("blank", "").start().await;
    mesh.get("/").await.is_refusal(503, "H80");
    mesh.get("/").await.is_refusal(503, "H80");
    let mut client = mesh.client().await;
    client.send("GET / HTTP/1.1\r\nHost: blank.localhost\r\n\r\n").await;
    client.answer().await.is_refusal(502, "H81");
    becomes_true("the counters", async || {
        let metrics = mesh.metrics().await;
        metrics.get("dynomesh_errors_total", &[("app", "shop"), ("code", "H80")]) == 2.0
            && metrics.get("dynomesh_errors_total", &[("app", "blank"), ("code", "H81")]) == 1.0
            && metrics.get("dynomesh_requests_total", &[("app", "shop"), ("status", "503")]) == 2.0
            && metrics.get("dynomesh_requests_total", &[("app", "blank"), ("status", "502")]) == 1.0
    })
    .await;
}
