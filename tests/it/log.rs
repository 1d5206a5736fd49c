//! The line per request (one logfmt line, Heroku's keys in Heroku's order, ours after them), and the
//! counters beside it.

use crate::support::{App, Mesh, Setup, becomes_true, request};

#[tokio::test]
async fn a_line_has_every_key_in_its_order() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let answer = mesh.get("/a?b=c").await;
    let line = mesh.request("/a?b=c").await;
    let expected = [
        "at",
        "method",
        "path",
        "host",
        "request_id",
        "fwd",
        "dyno",
        "connect",
        "service",
        "status",
        "bytes",
        "protocol",
        "tls",
    ];
    assert_eq!(line.keys(), expected);
    line.has(&[
        "at=info",
        "method=GET",
        "path=/a?b=c",
        "host=shop.localhost",
        "fwd=127.0.0.1",
        "dyno=web.1",
        "status=200",
        "protocol=http1.1",
        "tls=false",
    ]);
    assert_eq!(line.get("bytes"), answer.body.len().to_string());
    assert!(line.millis("connect") < 1000 && line.millis("service") < 1000);
    assert_eq!(line.line.app, "shop");
    assert!(
        line.line.text.contains(" path=\"/a?b=c\" host=shop.localhost request_id="),
        "{}",
        line.line.text
    );
    // 2026-11-21T01:44:50.123456+00:00
    let stamp = line.line.stamp.replace(|c: char| c.is_ascii_digit(), "0");
    assert_eq!(stamp, "0000-00-00T00:00:00.000000+00:00");
}

#[tokio::test]
async fn a_failures_line_has_its_code_after_its_severity() {
    let app = App::start().await;
    let mesh = Setup::new().timeouts("rolling = \"300ms\"").shop_with(&[&app], "").start().await;
    let mut client = mesh.client().await;
    client
        .send("POST /cut HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 9\r\n\r\npart")
        .await;
    app.counts(1).await;
    client.reset();
    let line = mesh.request("/cut").await;
    assert_eq!(line.keys()[..6], ["sock", "at", "code", "desc", "method", "path"]);
    let mut client = mesh.client().await;
    client.send("POST /bad HTTP/1.1\r\nHost: shop.localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n").await;
    client.answer().await.is_refusal(400, "H26");
    let line = mesh.request("/bad").await;
    assert_eq!(line.keys()[..6], ["at", "code", "desc", "cause", "method", "path"]);
    assert!(
        line.line
            .text
            .contains(" at=error code=H26 desc=\"Request Error\" cause=\"bad chunk\" method=POST ")
    );
}

/// One request is one line, whatever it holds: quotes, escapes of terminals, bytes beyond ASCII.
#[tokio::test]
async fn nobody_writes_lines_of_their_own_into_the_log() {
    let app = App::start().await;
    let mesh = Setup::new().router("trusted_proxies = [\"127.0.0.1\"]").shop(&[&app]).start().await;
    let mut client = mesh.client().await;
    client
        .send(
            b"GET /\"%22\\caf\xc3\xa9?at=error%0A HTTP/1.1\r\nHost: shop.localhost\r\n\
              X-Forwarded-For: 1.1.1.1\" status=999 x=\"\x1b[31m\r\n\r\n",
        )
        .await;
    let status = client.head().await.status;
    let asked =
        |line: &crate::support::Line| line.request().filter(|it| it.find("status").is_some());
    let line = mesh.line("the line", asked).await;
    assert_eq!(line.get("status"), status.to_string());
    assert!(
        line.line.text.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
        "{:?}",
        line.line.text
    );
    if status == 200 {
        line.has(&["path=/\"%22\\caf\\xc3\\xa9?at=error%0A"]);
        assert!(line.get("fwd").ends_with(", 127.0.0.1"), "{}", line.line.text);
    }
    assert_eq!(mesh.lines().iter().filter(|line| line.request().is_some()).count(), 1);
}

#[tokio::test]
async fn every_request_has_one_line_and_one_count() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    for _ in 0..50 {
        assert_eq!(client.get("/x").await.status, 200);
    }
    assert_eq!(client.get("/last").await.status, 200);
    mesh.request("/last").await;
    let requests = mesh.requests("/x");
    assert_eq!(requests.len(), 50);
    let mut ids = requests.iter().map(|it| it.get("request_id").to_string()).collect::<Vec<_>>();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 50);
    let metrics = mesh.metrics().await;
    let labels = [("app", "shop"), ("status", "200")];
    assert_eq!(metrics.get("dynomesh_requests_total", &labels), 51.0);
    assert_eq!(metrics.get("dynomesh_request_duration_seconds_count", &[("app", "shop")]), 51.0);
}

#[tokio::test]
async fn the_line_may_go_to_a_file_or_nowhere() {
    let app = App::start().await;
    let setup = Setup::new();
    let file = setup.dir().join("access.log");
    let mut mesh = setup
        .router(&format!("access_log = {:?}", file.to_str().unwrap()))
        .shop(&[&app])
        .start()
        .await;
    assert_eq!(mesh.get("/to-the-file").await.status, 200);
    let in_file = async |what: &str| {
        becomes_true(what, async || {
            std::fs::read_to_string(&file).is_ok_and(|text| text.contains(what))
        })
        .await;
    };
    in_file("path=\"/to-the-file\"").await;
    // Rotated away, and opened anew by a reload.
    std::fs::rename(&file, file.with_extension("old")).unwrap();
    let text = mesh.setup().text();
    mesh.reload_text(&text, "ok").await;
    assert_eq!(mesh.get("/after-rotation").await.status, 200);
    in_file("path=\"/after-rotation\"").await;
    mesh.reload_text(&text.replace(&format!("{:?}", file.to_str().unwrap()), "\"off\""), "ok")
        .await;
    assert_eq!(mesh.get("/nowhere").await.status, 200);
    let labels = [("app", "shop"), ("status", "200")];
    mesh.metric_becomes("dynomesh_requests_total", &labels, 3.0).await;
    assert!(mesh.requests("/to-the-file").is_empty(), "it is on standard output as well");
}

/// Nobody reads our output: requests go on, and what was dropped is counted.
#[tokio::test]
async fn a_log_that_nobody_reads_stops_no_request() {
    let app = App::start().await;
    let setup = Setup::new();
    let fifo = setup.dir().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    // A reader must be there for the daemon to open it; it never reads.
    let reader = std::fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    let mesh = setup
        .router(&format!("access_log = {:?}", fifo.to_str().unwrap()))
        .shop(&[&app])
        .start()
        .await;
    let long = "x".repeat(7000);
    let mut client = mesh.client().await;
    for _ in 0..100 {
        // 700 KB of lines: the pipe holds 64.
        assert_eq!(client.get(&format!("/{long}")).await.status, 200);
    }
    drop(reader);
}

// ---- metrics ----------------------------------------------------------------------------------------------

#[tokio::test]
async fn metrics_have_the_names_that_others_rely_on() {
    let app = App::start().await;
    let mesh = Setup::new()
        .shop(&[&app])
        .procfile(
            "run",
            "web: TESTAPP\nworker: exec sleep 60\n",
            "formation = { web = 1, worker = 1 }",
        )
        .start()
        .await;
    mesh.says("heroku[web.1]", "State changed from starting to up").await;
    assert_eq!(mesh.get("/").await.status, 200);
    mesh.get("/close").await.is_refusal(503, "H13");
    let mut mesh = mesh;
    let text = mesh.setup().text();
    mesh.reload_text(&text, "ok").await;
    let metrics = mesh.metrics().await;
    for (name, labels) in [
        ("dynomesh_requests_total", &[("app", "shop"), ("status", "200")][..]),
        ("dynomesh_request_duration_seconds_bucket", &[("app", "shop")]),
        ("dynomesh_errors_total", &[("app", "shop"), ("code", "H13")]),
        ("dynomesh_in_flight", &[("app", "shop"), ("dyno", "web.1")]),
        ("dynomesh_held_requests", &[("app", "shop")]),
        ("dynomesh_dynos", &[("app", "run"), ("type", "web"), ("state", "up")]),
        ("dynomesh_dyno_boot_seconds_count", &[("app", "run"), ("type", "web")]),
        ("dynomesh_reloads_total", &[("result", "ok")]),
        ("dynomesh_table_version", &[]),
        ("dynomesh_connections", &[]),
    ] {
        assert!(metrics.find(name, labels).is_some(), "no {name}{labels:?} in:\n{}", metrics.text);
    }
    assert_eq!(
        metrics.get("dynomesh_dynos", &[("app", "run"), ("type", "worker"), ("state", "up")]),
        1.0
    );
}

/// Whatever clients ask for, the number of series stays what the configuration makes it.
#[tokio::test]
async fn clients_make_no_series() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let ask = async |number: usize| {
        let mut client = mesh.client().await;
        client
            .send(format!("X{number} /{number} HTTP/1.1\r\nHost: host-{number}.localhost\r\n\r\n"))
            .await;
        client.answer().await;
        assert_eq!(
            mesh.client().await.request("GET", &format!("/{number}"), "", "").await.status,
            200
        );
        // An answer is counted when its client's socket has it, which the client may know sooner.
        let count = (number + 1) as f64;
        for (app, status) in [("-", "404"), ("shop", "200")] {
            let labels = [("app", app), ("status", status)];
            mesh.metric_becomes("dynomesh_requests_total", &labels, count).await;
        }
    };
    ask(0).await;
    let before = mesh.metrics().await.series("dynomesh_requests_total");
    for number in 1..20 {
        ask(number).await;
    }
    assert_eq!(mesh.metrics().await.series("dynomesh_requests_total"), before);
}

#[tokio::test]
async fn health_and_readiness_are_said() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    assert_eq!(mesh.ask_admin("/healthz").await.status, 200);
    assert_eq!(mesh.ask_admin("/readyz").await.status, 200);
    assert_eq!(mesh.ask_admin("/nothing").await.status, 404);
}

#[tokio::test]
async fn the_debug_pages_show_what_is_held() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let released = mesh.path("released");
    let mut client = mesh.client().await;
    client.send(request("GET", &format!("/until?file={}", released.display()), "", "")).await;
    app.counts(1).await;
    let page = mesh.ask_admin("/debug/dynos").await;
    let dynos: serde_json::Value = serde_json::from_slice(&page.body).expect("JSON");
    assert_eq!(
        dynos.pointer("/0/in_flight").and_then(serde_json::Value::as_u64),
        Some(1),
        "{dynos}"
    );
    let workers = mesh.ask_admin("/debug/workers").await;
    serde_json::from_slice::<serde_json::Value>(&workers.body).expect("JSON");
    std::fs::write(released, "").unwrap();
    assert_eq!(client.answer().await.text(), "released");
}
