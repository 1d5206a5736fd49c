//! SIGHUP: one step from one configuration to the next, in which nothing that is open is closed.

use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::support::{
    App, Client, Load, Mesh, Setup, becomes_true, percent_encoded, refusing_addr, request, within,
};

// ---- what is refused --------------------------------------------------------------------------------------

/// An invalid file changes nothing, is counted, and is told with file, line and key.
#[tokio::test]
async fn an_invalid_file_changes_nothing_and_says_why() {
    let app = App::start().await;
    let mut mesh = Mesh::of(&[&app]).await;
    let good = mesh.setup().text();
    let file = mesh.setup().file();
    let version = mesh.metrics().await.get("dynomesh_table_version", &[]);
    let mut client = mesh.client().await;
    assert_eq!(client.get("/").await.status, 200);
    for (bad, key) in [
        (good.replace("domain =", "domian ="), "domian"),
        (good.replace("workers = 2", "workers = \"two\""), "workers"),
        (
            good.replace("[router.timeouts]", "[router.timeouts]\nfirst_byte = \"30 parsecs\""),
            "first_byte",
        ),
        (format!("{good}[apps.other]\ndomains = [\"shop.localhost\", \"a..b\"]\n"), "domains"),
        (format!("{good}[apps.other]\ndir = \"not-there\"\n"), "dir"),
        (format!("{good}[apps.other\n"), "dynomesh.toml"),
        (good.replace("workers = 2", "workers = 3"), "workers"),
    ] {
        let before = mesh.lines().len();
        mesh.reload_text(&bad, "refused").await;
        let told = |line: &crate::support::Line| {
            let told = line.message.contains(key) && line.message.contains("dynomesh.toml");
            told.then(|| line.clone())
        };
        let line = mesh.line_since(before, &format!("what is wrong with {key}"), told).await;
        // Cannot-change refusals name the key; errors in the file its line as well.
        let place = format!("{}:", file.display());
        let numbered = line
            .message
            .split(&place)
            .nth(1)
            .is_some_and(|it| it.starts_with(|c: char| c.is_ascii_digit()));
        assert!(numbered, "without a line number: {}", line.message);
        assert_eq!(client.get("/").await.status, 200, "{key}");
    }
    assert_eq!(mesh.metrics().await.get("dynomesh_table_version", &[]), version);
    mesh.reload_text(&good, "ok").await;
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(app.connections().await, 1, "not even the dyno has noticed");
}

#[tokio::test]
async fn an_address_that_is_taken_refuses_the_whole_reload() {
    let app = App::start().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut mesh = Mesh::of(&[&app]).await;
    let text = mesh.setup().text();
    let taken = taken.local_addr().unwrap().to_string();
    let bad = text
        .replace("[\"127.0.0.1:0\"]", &format!("[\"127.0.0.1:0\", \"{taken}\"]"))
        .replace("[apps.shop]", "[apps.shop]\nmaintenance = true");
    mesh.reload_text(&bad, "refused").await;
    mesh.line("the address", |line| line.message.contains(&taken).then_some(())).await;
    assert_eq!(mesh.get("/").await.status, 200, "nothing of the file is in force");
}

#[tokio::test]
async fn a_file_that_is_gone_changes_nothing() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    std::fs::remove_file(mesh.setup().file()).unwrap();
    mesh.signal(Signal::HUP);
    mesh.metric_becomes("dynomesh_reloads_total", &[("result", "refused")], 1.0).await;
    assert_eq!(mesh.get("/").await.status, 200);
}

// ---- what changes -----------------------------------------------------------------------------------------

#[tokio::test]
async fn domains_apps_and_limits_change_in_one_step() {
    let [shop, blog] = [App::start().await, App::start().await];
    let mut mesh = Mesh::of(&[&shop]).await;
    let mut client = mesh.client().await;
    let ask = async |client: &mut Client, host: &str| {
        client.send(format!("GET /sleep?ms=400 HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        client.answer().await.status
    };
    assert_eq!(ask(&mut client, "blog.localhost").await, 404);
    mesh.reload(|mut setup| {
        setup.clear_apps();
        setup
            .shop_with(
                &[&shop],
                "domains = [\"shop.example.com\"]\ntimeouts = { first_byte = \"100ms\" }",
            )
            .app("blog", &format!("dynos = [{:?}]", blog.place()))
    })
    .await;
    // The same connection sees the new configuration with its next request.
    assert_eq!(ask(&mut client, "blog.localhost").await, 200);
    assert_eq!(ask(&mut client, "shop.example.com").await, 503, "the new limit");
    mesh.reload(|mut setup| {
        setup.clear_apps();
        setup.shop(&[&shop])
    })
    .await;
    assert_eq!(ask(&mut client, "blog.localhost").await, 404);
    assert_eq!(ask(&mut client, "shop.example.com").await, 404);
    assert_eq!(ask(&mut client, "shop.localhost").await, 200);
}

/// A running exchange keeps the limits it was admitted with.
#[tokio::test]
async fn a_request_under_way_is_not_touched_by_a_reload() {
    let app = App::start().await;
    let mut mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    client.send(request("GET", "/sleep?ms=700", "", "")).await;
    app.counts(1).await;
    mesh.reload(|mut setup| {
        setup.clear_apps();
        setup.shop_with(&[&app], "maintenance = true\ntimeouts = { first_byte = \"100ms\" }")
    })
    .await;
    assert_eq!(client.answer().await.text(), "slept");
    client.get("/").await.is_refusal(503, "H80");
}

#[tokio::test]
async fn listeners_come_and_go_without_touching_the_others() {
    let app = App::start().await;
    let mut mesh = Mesh::of(&[&app]).await;
    let second = refusing_addr();
    let mut old = mesh.client().await;
    assert_eq!(old.get("/").await.status, 200);

    mesh.reload(|setup| setup.listen(&second.to_string())).await;
    let mut new = Client::connect(second).await;
    assert_eq!(new.get("/").await.status, 200);
    assert_eq!(old.get("/").await.status, 200);

    let text = mesh.setup().text().replace(&format!(", \"{second}\""), "");
    mesh.reload_text(&text, "ok").await;
    // Its connection lives on, and is told with the next answer that it was the last.
    let last = new.get("/").await;
    assert!(last.status == 200 && last.says_close(), "{last:?}");
    new.is_closed().await;
    becomes_true("the address to refuse", async || {
        tokio::net::TcpStream::connect(second).await.is_err()
    })
    .await;
    assert!(!old.get("/").await.says_close());
}

// ---- dynos ------------------------------------------------------------------------------------------------

/// A dyno that stays keeps its record: counts, connections, everything.
#[tokio::test]
async fn a_dyno_that_stays_keeps_its_count_and_connections() {
    let [kept, gone, added] = [App::start().await, App::start().await, App::start().await];
    let mut mesh = Setup::new()
        .shop(&[&kept])
        .app("other", &format!("dynos = [{:?}]", gone.place()))
        .start()
        .await;
    let released = mesh.path("released");
    let mut idle = mesh.client().await;
    assert_eq!(idle.get("/").await.status, 200);
    let mut busy = mesh.client().await;
    busy.send(request("GET", &format!("/until?file={}", released.display()), "", "")).await;
    kept.counts(2).await;
    let connections = kept.connections().await;
    for _ in 0..3 {
        mesh.reload(|mut setup| {
            setup.clear_apps();
            setup
                .shop_with(&[&kept], "domains = [\"shop.example.com\"]")
                .app("third", &format!("dynos = [{:?}]", added.place()))
        })
        .await;
        assert_eq!(
            mesh.metrics().await.get("dynomesh_in_flight", &[("app", "shop"), ("dyno", "web.1")]),
            1.0
        );
        assert_eq!(idle.get("/").await.status, 200);
    }
    assert!(kept.connections().await <= connections + 1, "its pooled connections were closed");
    std::fs::write(released, "").unwrap();
    assert_eq!(busy.answer().await.text(), "released");
}

/// A dyno that goes takes nothing new and finishes what it holds.
#[tokio::test]
async fn a_dyno_that_goes_finishes_what_it_holds() {
    let [stays, goes] = [App::start().await, App::start().await];
    let mut mesh = Setup::new().shop(&[&goes]).start().await;
    let released = mesh.path("released");
    let mut busy = mesh.client().await;
    busy.send(request("GET", &format!("/until?file={}", released.display()), "", "")).await;
    goes.counts(1).await;
    mesh.reload(|mut setup| {
        setup.clear_apps();
        setup.shop(&[&stays])
    })
    .await;
    let mut client = mesh.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!((goes.count().await, stays.count().await), (1, 10));
    std::fs::write(released, "").unwrap();
    assert_eq!(busy.answer().await.text(), "released");
    assert_eq!(busy.get("/").await.status, 200);
    assert_eq!(goes.count().await, 1);
}

/// Neither the half that is sent nor the half that is received is cut.
#[tokio::test]
async fn a_dyno_that_goes_takes_its_uploads_and_gives_its_downloads_to_their_ends() {
    let [stays, goes] = [App::start().await, App::start().await];
    let mut mesh = Setup::new().shop(&[&goes]).start().await;
    let mut sending = mesh.client().await;
    sending
        .send("POST /echo HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 8\r\n\r\nhalf")
        .await;
    let mut receiving = mesh.client().await;
    let part = percent_encoded("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf");
    receiving
        .send(request("GET", &format!("/raw?bytes={part}&pause=2000&more=half&then=keep"), "", ""))
        .await;
    assert_eq!(receiving.head().await.status, 200);
    goes.counts(2).await;
    mesh.reload(|mut setup| {
        setup.clear_apps();
        setup.shop(&[&stays])
    })
    .await;
    assert_eq!(mesh.get("/").await.status, 200);
    assert_eq!(stays.count().await, 1, "the table has changed");
    sending.send("half").await;
    assert_eq!(sending.answer().await.text(), "halfhalf");
    assert_eq!(receiving.exactly(8).await, b"halfhalf");
}

/// Nothing of the request is with it: another dyno is found, and that is no retry.
#[tokio::test]
async fn a_request_that_connects_to_a_dyno_that_goes_finds_another_one() {
    let goes = App::start_with(&[("BACKLOG", "0")]).await;
    let stays = App::start().await;
    let mut mesh = Setup::new().timeouts("connect = \"20s\"").shop(&[&goes]).start().await;
    goes.freeze();
    let fillers = goes.fill_queue().await;
    let mut client = mesh.client().await;
    client.send(request("POST", "/connecting", "Id: one\r\n", "body")).await;
    mesh.metric_becomes("dynomesh_in_flight", &[("app", "shop")], 1.0).await;
    mesh.reload(|mut setup| {
        setup.clear_apps();
        setup.shop(&[&stays])
    })
    .await;
    assert_eq!(within("the answer", client.answer()).await.status, 200);
    let line = mesh.request("/connecting").await;
    line.has(&["at=info", "status=200"]);
    assert_eq!(line.find("retries"), None, "{}", line.line.text);
    goes.thaw();
    drop(fillers);
    assert_eq!((goes.seen("one").await, stays.seen("one").await), (0, 1));
}

/// Held requests see the dynos that a later configuration brings.
#[tokio::test]
async fn a_held_request_goes_to_a_dyno_that_a_reload_brings() {
    let app = App::start().await;
    let mut mesh = Setup::new().procfile("shop", "web: NEVER_BIND=1 TESTAPP\n", "").start().await;
    let mut client = mesh.client().await;
    client.send(request("GET", "/held", "", "")).await;
    mesh.metric_becomes("dynomesh_held_requests", &[("app", "shop")], 1.0).await;
    mesh.reload(|mut setup| {
        setup.clear_apps();
        setup.shop(&[&app])
    })
    .await;
    assert_eq!(within("the held request", client.answer()).await.status, 200);
}

// ---- under load -------------------------------------------------------------------------------------------

/// The promise: 20 reloads in 4 s under 60 clients that keep their connections and never retry.
#[tokio::test]
async fn twenty_reloads_under_load_break_no_request() {
    let apps = [App::start().await, App::start().await, App::start().await];
    let [a, b, c] = &apps;
    let mut mesh = Setup::new().shop(&[a, b]).start().await;
    let load = Load::start(mesh.http(), 60, &request("GET", "/", "", ""));
    load.carries(200).await;
    let start = Instant::now();
    for number in 0..20_u32 {
        // Dynos, domains and listeners differ from one to the next.
        mesh.reload(|mut setup| {
            setup.clear_apps();
            let dynos = if number % 2 == 0 { [b, c] } else { [a, b] };
            setup.shop_with(&dynos, &format!("domains = [\"n{number}.example.com\"]"))
        })
        .await;
        tokio::time::sleep_until(start + Duration::from_millis(200) * (number + 1)).await;
    }
    load.carries(200).await;
    let tally = load.stop().await;
    assert_eq!((tally.broken, tally.refused), (0, 0), "{tally:?}");
    assert!(tally.fine > 1000, "hardly a load: {tally:?}");
}

#[tokio::test]
async fn signals_that_pile_up_do_no_harm() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let load = Load::start(mesh.http(), 10, &request("GET", "/", "", ""));
    for _ in 0..50 {
        mesh.signal(Signal::HUP);
        load.carries(5).await;
    }
    let tally = load.stop().await;
    assert_eq!((tally.broken, tally.refused), (0, 0), "{tally:?}");
    assert!(mesh.metrics().await.get("dynomesh_reloads_total", &[("result", "ok")]) >= 1.0);
}

#[tokio::test]
async fn a_listener_in_the_place_of_a_file_refuses_the_reload() {
    let app = App::start().await;
    let mut mesh = Mesh::of(&[&app]).await;
    let file = mesh.path("notes.txt");
    std::fs::write(&file, "precious").unwrap();
    let listener = format!("[\"127.0.0.1:0\", \"unix:{}\"]", file.display());
    let bad = mesh.setup().text().replace("[\"127.0.0.1:0\"]", &listener);
    mesh.reload_text(&bad, "refused").await;
    mesh.line("the file", |line| line.message.contains("notes.txt").then_some(())).await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    assert_eq!(mesh.get("/").await.status, 200);
}

/// Maintenance is for those who wait, too: not for what is under way.
#[tokio::test]
async fn requests_that_are_held_hear_of_maintenance_at_once() {
    let never = "web: NEVER_BIND=1 TESTAPP\n";
    let mut mesh = Setup::new().procfile("shop", never, "").start().await;
    let mut client = mesh.client().await;
    client.send(request("GET", "/held", "", "")).await;
    mesh.metric_becomes("dynomesh_held_requests", &[("app", "shop")], 1.0).await;
    let text = mesh.setup().text().replace("[apps.shop]", "[apps.shop]\nmaintenance = true");
    mesh.reload_text(&text, "ok").await;
    client.answer().await.is_refusal(503, "H80");
    mesh.request("/held").await.has(&["at=info", "code=H80", "status=503"]);
}

#[tokio::test]
async fn what_a_dyno_works_on_is_not_touched_by_maintenance() {
    let app = App::start().await;
    let mut mesh = Mesh::of(&[&app]).await;
    let released = mesh.path("released");
    let mut busy = mesh.client().await;
    busy.send(request("GET", &format!("/until?file={}", released.display()), "", "")).await;
    app.counts(1).await;
    let text = mesh.setup().text().replace("[apps.shop]", "[apps.shop]\nmaintenance = true");
    mesh.reload_text(&text, "ok").await;
    mesh.get("/new").await.is_refusal(503, "H80");
    std::fs::write(released, "").unwrap();
    assert_eq!(busy.answer().await.text(), "released");
    busy.get("/next").await.is_refusal(503, "H80");
}

/// Nor does anything else that a dyno holds whose process is not ours to stop: an answer that never ends, a
/// request without one.
#[tokio::test]
async fn what_an_external_dyno_still_holds_at_the_drain_bound_is_cut() {
    let [stays, goes] = [App::start().await, App::start().await];
    let mut mesh = Setup::new().timeouts("drain = \"1s\"").shop(&[&goes]).start().await;
    let mut endless = mesh.client().await;
    endless.send(request("GET", "/stall", "", "")).await;
    assert_eq!(endless.head().await.status, 200);
    let mut silent = mesh.client().await;
    silent.send(request("GET", "/sleep?ms=60000", "", "")).await;
    goes.counts(2).await;
    let removed = Instant::now();
    mesh.reload(|mut setup| {
        setup.clear_apps();
        setup.shop(&[&stays])
    })
    .await;
    silent.answer().await.is_refusal(503, "H24");
    assert!(removed.elapsed() >= Duration::from_secs(1), "{:?}", removed.elapsed());
    let _ = endless.rest_and_end().await;
    mesh.request("/stall").await.has(&[
        "at=error",
        "code=H24",
        "dyno=web.1",
        "status=200",
        "bytes=4",
    ]);
    mesh.metric_becomes("dynomesh_in_flight", &[("app", "shop")], 0.0).await;
}

/// What lingers on a dyno that goes has the time of `drain`, like all that it holds.
#[tokio::test]
async fn what_lingers_on_a_dyno_that_goes_ends_with_its_drain() {
    let [stays, goes] = [App::start().await, App::start().await];
    let mut mesh = Setup::new()
        .timeouts("first_byte = \"300ms\"\ndrain = \"1s\"")
        .shop(&[&goes])
        .start()
        .await;
    mesh.get("/sleep?ms=60000").await.is_refusal(503, "H12");
    let line = mesh.request("/sleep?ms=60000").await;
    mesh.reload(|mut setup| {
        setup.clear_apps();
        setup.shop(&[&stays])
    })
    .await;
    let start = Instant::now();
    mesh.late(&line).await.has(&["late=drain", "status=", "dyno=web.1"]);
    assert!(start.elapsed() >= Duration::from_millis(500), "{:?}", start.elapsed());
}

/// Whoever waits for a reload while one is under way is answered by the next one, all of them by one.
#[tokio::test]
async fn reloads_that_are_asked_for_at_once_become_few() {
    let apps: String =
        (0..200).map(|number| format!("[apps.a{number}]\ndynos = [\"127.0.0.1:1\"]\n")).collect();
    let setup = Setup::new();
    let text = setup.text() + &apps;
    let mesh = setup.start_with(&text).await;
    let socket = mesh.path("state/dynomesh.sock");
    let mut askers = Vec::new();
    for _ in 0..12 {
        askers.push(UnixStream::connect(&socket).await.unwrap());
    }
    for asker in &mut askers {
        let request = b"POST /reload HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        asker.write_all(request).await.unwrap();
    }
    for mut asker in askers {
        let mut answer = String::new();
        within("an answer", asker.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let reloads = mesh.metrics().await.get("dynomesh_reloads_total", &[("result", "ok")]);
    assert!(reloads < 12.0, "{reloads} reloads");
}
