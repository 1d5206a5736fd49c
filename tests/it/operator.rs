//! What an operator does: start, check, stop, stop twice, at the wrong moment.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, prlimit};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::{App, Client, Load, Mesh, Setup, becomes_true, request};

// ---- stopping ---------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_stop_lets_requests_finish_and_stops_the_dynos() {
    let app = App::start().await;
    let mut mesh = Setup::new().shop(&[&app]).procfile("run", "web: TESTAPP\n", "").start().await;
    mesh.says("heroku[web.1]", "State changed from starting to up").await;
    let released = mesh.path("released");
    let mut client = mesh.client().await;
    client.send(request("GET", &format!("/until?file={}", released.display()), "", "")).await;
    app.counts(1).await;
    mesh.signal(Signal::TERM);
    becomes_true("new connections to be refused", async || {
        tokio::net::TcpStream::connect(mesh.http()).await.is_err()
    })
    .await;
    assert!(mesh.runs());
    std::fs::write(released, "").unwrap();
    let answer = client.answer().await;
    assert_eq!(answer.text(), "released");
    assert!(answer.says_close());
    client.is_closed().await;
    assert!(mesh.ended().await.success());
    mesh.says("heroku[web.1]", "Process exited with status 143").await;
    assert!(mesh.dynos().is_empty());
}

/// A kept connection that is idle gets one more answer for a while, so that a request on its way is not lost.
#[tokio::test]
async fn an_idle_connection_has_one_more_request_when_the_daemon_stops() {
    let app = App::start().await;
    let mut mesh = Mesh::of(&[&app]).await;
    let mut idle = mesh.client().await;
    assert_eq!(idle.get("/").await.status, 200);
    mesh.signal(Signal::TERM);
    becomes_true("new connections to be refused", async || {
        tokio::net::TcpStream::connect(mesh.http()).await.is_err()
    })
    .await;
    let answer = idle.get("/").await;
    assert!(answer.status == 200 && answer.says_close(), "{answer:?}");
    assert!(mesh.ended().await.success());
}

/// But nobody waits for it until the bound of the stop.
#[tokio::test]
async fn a_connection_that_stays_idle_does_not_hold_up_a_stop() {
    let app = App::start().await;
    let mut mesh = Setup::new().timeouts("stop = \"10m\"").shop(&[&app]).start().await;
    let (mut used, mut fresh) = (mesh.client().await, mesh.client().await);
    assert_eq!(used.get("/").await.status, 200);
    mesh.metric_becomes("dynomesh_connections", &[], 2.0).await;
    let start = Instant::now();
    mesh.signal(Signal::TERM);
    used.is_closed().await;
    fresh.is_closed().await;
    assert!(start.elapsed() > Duration::from_secs(4), "{:?}", start.elapsed());
    assert!(mesh.ended().await.success());
}

#[tokio::test]
async fn a_stop_under_load_breaks_no_request() {
    let app = App::start().await;
    let mut mesh = Mesh::of(&[&app]).await;
    // Each on connections of its own: those made after the stop are refused, and that is no loss.
    let mut clients = Vec::new();
    for _ in 0..30 {
        let mut client = mesh.client().await;
        client.send(request("GET", "/sleep?ms=300", "", "")).await;
        clients.push(client);
    }
    app.counts(30).await;
    mesh.signal(Signal::TERM);
    for mut client in clients {
        assert_eq!(client.answer().await.text(), "slept");
    }
    assert!(mesh.ended().await.success());
}

#[tokio::test]
async fn what_is_left_at_the_stop_bound_is_cut() {
    let app = App::start().await;
    let mut mesh = Setup::new().timeouts("stop = \"500ms\"").shop(&[&app]).start().await;
    let mut waiting = mesh.client().await;
    waiting.send(request("GET", "/sleep?ms=60000", "", "")).await;
    app.counts(1).await;
    let start = Instant::now();
    mesh.signal(Signal::TERM);
    waiting.answer().await.is_refusal(503, "H24");
    assert!(start.elapsed() >= Duration::from_millis(500));
    mesh.ended().await;
    mesh.request("/sleep?ms=60000").await.has(&["at=error", "code=H24", "desc=Forced close"]);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

/// What has begun to arrive cannot become a 503: it ends in the middle.
#[tokio::test]
async fn an_answer_half_sent_at_the_stop_bound_is_cut() {
    let app = App::start().await;
    let mut mesh = Setup::new().timeouts("stop = \"500ms\"").shop(&[&app]).start().await;
    let mut client = mesh.client().await;
    client.send(request("GET", "/stall", "", "")).await;
    assert_eq!(client.head().await.status, 200);
    mesh.signal(Signal::TERM);
    let (body, _) = client.rest_and_end().await;
    assert_eq!(body, b"half");
    mesh.ended().await;
    mesh.request("/stall").await.has(&["at=error", "code=H24", "status=200", "bytes=4"]);
}

/// Wherever a request is by then: not yet at a dyno, on its way to one, or behind it.
#[tokio::test]
async fn whatever_a_request_is_at_it_is_cut_at_the_stop_bound() {
    let setup = Setup::new();
    let (app, full) = (App::start().await, App::start_with(&[("BACKLOG", "0")]).await);
    let mut mesh = setup
        .timeouts("stop = \"1s\"\nconnect = \"20s\"")
        .shop(&[&app])
        .app("full", &format!("dynos = [\"{}\"]", full.addr()))
        .procfile("starting", "web: NEVER_BIND=1 TESTAPP\n", "timeouts = { boot = \"20s\" }")
        .start()
        .await;
    full.freeze();
    let _fillers = full.fill_queue().await;
    let begin = async |mut client: Client, host: &str, text: &str| {
        client.send(text.replace("shop.localhost", host)).await;
        client
    };
    let held = request("GET", "/held", "", "");
    let mut held = begin(mesh.client().await, "starting.localhost", &held).await;
    let connecting = request("GET", "/connecting", "", "");
    let mut connecting = begin(mesh.client().await, "full.localhost", &connecting).await;
    let upload = "POST /sending HTTP/1.1\r\nHost: shop.localhost\r\nContent-Length: 9\r\n\r\nhalf";
    let mut sending = begin(mesh.client().await, "shop.localhost", upload).await;
    let early = upload.replace("/sending", "/early-part");
    let mut early = begin(mesh.client().await, "shop.localhost", &early).await;
    assert_eq!(early.head().await.status, 200);
    let fields = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let upgrade = request("GET", "/ws", fields, "");
    let mut pipe = begin(mesh.client().await, "shop.localhost", &upgrade).await;
    assert_eq!(pipe.answer().await.status, 101);
    // In the middle of what would be a frame, no close frame can stand.
    pipe.send("still").await;
    assert_eq!(pipe.exactly(5).await, b"still");
    let taking_nothing = Client::connect_narrow(mesh.http()).await;
    let big = request("GET", "/fields?name=Padding&line=100000&n=4", "", "");
    let taking_nothing = begin(taking_nothing, "shop.localhost", &big).await;
    app.counts(4).await;
    let in_flight = "dynomesh_in_flight";
    mesh.metric_becomes("dynomesh_held_requests", &[("app", "starting")], 1.0).await;
    mesh.metric_becomes(in_flight, &[("app", "full")], 1.0).await;
    // The pipe and both uploads; the answer that nobody takes has been read.
    mesh.metric_becomes(in_flight, &[("app", "shop")], 3.0).await;

    mesh.signal(Signal::TERM);
    pipe.send(" here").await;
    assert_eq!(pipe.exactly(5).await, b" here");
    for client in [&mut held, &mut connecting, &mut sending] {
        client.answer().await.is_refusal(503, "H24");
    }
    assert_eq!(early.rest_and_end().await.0, b"half");
    let _ = pipe.rest_and_end().await;
    mesh.ended().await;
    drop(taking_nothing);
    for (target, expected) in [
        ("/held", ["status=503", "dyno=", "service="].as_slice()),
        ("/connecting", &["status=503", "dyno=web.1", "service="]),
        ("/sending", &["status=503", "dyno=web.1"]),
        ("/early-part", &["status=200", "dyno=web.1", "bytes=4"]),
        ("/fields?name=Padding&line=100000&n=4", &["status=200", "dyno=web.1"]),
        ("/ws", &["status=101", "dyno=web.1", "bytes=10"]),
    ] {
        let line = mesh.request(target).await;
        line.has(&["at=error", "code=H24", "desc=Forced close"]);
        line.has(expected);
        assert_eq!(mesh.requests(target).len(), 1, "{target}");
    }
}

/// A stop is no reason to turn away who has come before it.
#[tokio::test]
async fn a_held_request_is_served_while_the_daemon_stops() {
    let mut mesh =
        Setup::new().procfile("shop", "web: BIND_AFTER_MS=2000 TESTAPP\n", "").start().await;
    let mut client = mesh.client().await;
    client.send(request("GET", "/held", "", "")).await;
    mesh.metric_becomes("dynomesh_held_requests", &[("app", "shop")], 1.0).await;
    mesh.signal(Signal::TERM);
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text()), (200, "web.1"));
    assert!(answer.says_close());
    assert!(mesh.ended().await.success());
}

const ENDLESS: &str = "/big?bytes=1000000000000";

/// Enough of them to keep the workers busy: while one has its turn, the others' bytes pile up.
async fn downloads_without_end(mesh: &Mesh) -> JoinSet<()> {
    let mut downloads = JoinSet::new();
    for _ in 0..8 {
        let mut client = mesh.client().await;
        client.send(request("GET", ENDLESS, "", "")).await;
        assert_eq!(client.head().await.status, 200);
        downloads.spawn(client.discard());
    }
    downloads
}

/// A transfer that never pauses is cut like one that does.
#[tokio::test]
async fn a_download_without_end_is_cut_at_the_stop_bound() {
    let app = App::start().await;
    let mut mesh = Setup::new().timeouts("stop = \"500ms\"").shop(&[&app]).start().await;
    let downloads = downloads_without_end(&mesh).await;
    let start = Instant::now();
    mesh.signal(Signal::TERM);
    downloads.join_all().await;
    mesh.ended().await;
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    mesh.request(ENDLESS).await.has(&["at=error", "code=H24", "status=200"]);
}

#[tokio::test]
async fn a_second_signal_cuts_a_download_without_end() {
    let app = App::start().await;
    let mut mesh = Mesh::of(&[&app]).await;
    let downloads = downloads_without_end(&mesh).await;
    let start = Instant::now();
    mesh.signal(Signal::TERM);
    becomes_true("new connections to be refused", async || {
        tokio::net::TcpStream::connect(mesh.http()).await.is_err()
    })
    .await;
    mesh.signal(Signal::TERM);
    downloads.join_all().await;
    mesh.ended().await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    mesh.request(ENDLESS).await.has(&["at=error", "code=H24", "status=200"]);
}

#[tokio::test]
async fn requests_that_linger_when_the_daemon_stops_have_their_line() {
    let app = App::start().await;
    let mut mesh = Setup::new()
        .timeouts("stop = \"500ms\"\nfirst_byte = \"300ms\"")
        .shop(&[&app])
        .start()
        .await;
    mesh.get("/sleep?ms=60000").await.is_refusal(503, "H12");
    let line = mesh.request("/sleep?ms=60000").await;
    mesh.signal(Signal::TERM);
    mesh.ended().await;
    mesh.late(&line).await.has(&["late=stop", "status=", "dyno=web.1"]);
}

#[tokio::test]
async fn a_second_signal_means_now() {
    let app = App::start().await;
    let mut mesh = Setup::new().shop(&[&app]).procfile("run", "web: TESTAPP\n", "").start().await;
    mesh.says("heroku[web.1]", "State changed from starting to up").await;
    let mut client = mesh.client().await;
    client.send(request("GET", "/sleep?ms=60000", "", "")).await;
    app.counts(1).await;
    let start = Instant::now();
    mesh.signal(Signal::TERM);
    becomes_true("new connections to be refused", async || {
        tokio::net::TcpStream::connect(mesh.http()).await.is_err()
    })
    .await;
    mesh.signal(Signal::TERM);
    client.answer().await.is_refusal(503, "H24");
    mesh.ended().await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(mesh.dynos().is_empty(), "dynos were left behind");
}

#[tokio::test]
async fn sigint_is_a_stop_too() {
    let app = App::start().await;
    let mut mesh = Mesh::of(&[&app]).await;
    mesh.signal(Signal::INT);
    assert!(mesh.ended().await.success());
}

#[tokio::test]
async fn a_stop_during_boot_leaves_nothing_behind() {
    let mut mesh = Setup::new()
        .procfile("shop", "web: NEVER_BIND=1 GRANDCHILD=1 TESTAPP\n", "formation = { web = 2 }")
        .start()
        .await;
    becomes_true("both to be started", async || mesh.dynos().len() >= 4).await;
    mesh.signal(Signal::TERM);
    assert!(mesh.ended().await.success());
    assert!(mesh.dynos().is_empty());
}

/// What a dyno still holds that is on its way out is finished, like all that is under way.
#[tokio::test]
async fn a_stop_while_a_dyno_drains_lets_it_finish() {
    let mut mesh =
        Setup::new().procfile("shop", "web: TESTAPP\n", "formation = { web = 1 }").start().await;
    let released = mesh.path("released");
    let mut client = mesh.client().await;
    client.send(request("GET", &format!("/until?file={}", released.display()), "", "")).await;
    mesh.metric_becomes("dynomesh_in_flight", &[("app", "shop"), ("dyno", "web.1")], 1.0).await;
    let text = mesh.setup().text().replace("web = 1", "web = 0");
    mesh.reload_text(&text, "ok").await;
    mesh.says("heroku[web.1]", "State changed from up to down").await;
    mesh.signal(Signal::TERM);
    becomes_true("new connections to be refused", async || {
        tokio::net::TcpStream::connect(mesh.http()).await.is_err()
    })
    .await;
    assert!(mesh.runs());
    std::fs::write(released, "").unwrap();
    assert_eq!(client.answer().await.text(), "released");
    assert!(mesh.ended().await.success());
    mesh.says("heroku[web.1]", "Process exited with status 143").await;
    assert!(mesh.dynos().is_empty());
}

#[tokio::test]
async fn a_stop_is_bounded_by_dynos_that_ignore_it() {
    let mut mesh = Setup::new()
        .procfile(
            "shop",
            "web: trap '' TERM; TESTAPP & wait; wait; wait\n",
            "timeouts = { exit = \"500ms\" }",
        )
        .start()
        .await;
    assert_eq!(mesh.get("/").await.status, 200);
    mesh.signal(Signal::TERM);
    mesh.ended().await;
    mesh.says("heroku[web.1]", "Error R12").await;
    assert!(mesh.dynos().is_empty());
}

/// systemd and load balancers look at readiness first.
#[tokio::test]
async fn a_daemon_that_stops_is_not_ready_any_more() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    assert_eq!(mesh.ask_admin("/readyz").await.status, 200);
    let released = mesh.path("released");
    let mut client = mesh.client().await;
    client.send(request("GET", &format!("/until?file={}", released.display()), "", "")).await;
    app.counts(1).await;
    mesh.signal(Signal::TERM);
    becomes_true("readiness to end", async || mesh.ask_admin("/readyz").await.status == 503).await;
    assert_eq!(mesh.ask_admin("/healthz").await.status, 200);
    std::fs::write(released, "").unwrap();
    assert_eq!(client.answer().await.text(), "released");
}

// ---- starting ---------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_start_with_an_invalid_file_says_where_and_ends_with_64() {
    for (lines, key) in [
        ("formation = { web = 1 }\ndynos = [\"127.0.0.1:1\"]", "formation"),
        ("dynos = [\"nowhere\"]", "dynos"),
        ("dynos = []", "dynos"),
        ("colour = \"red\"", "colour"),
        ("backlog = -1", "backlog"),
        ("balance = \"fair\"", "balance"),
    ] {
        for command in ["serve", "check"] {
            let setup = Setup::new().app("shop", lines);
            let (status, output) = setup.run(command).await;
            assert_eq!(status.code(), Some(64), "{command} with {lines:?}: {output}");
            let place = format!("{}:", setup.file().display());
            assert!(output.contains(&place) && output.contains(key), "{lines:?}: {output}");
        }
    }
}

#[tokio::test]
async fn a_procfile_that_is_wrong_is_named_with_its_line() {
    let setup = Setup::new().procfile("shop", "web: TESTAPP\nnot a process type\n", "");
    let (status, output) = setup.run("check").await;
    assert_eq!(status.code(), Some(64), "{output}");
    assert!(output.contains("Procfile:2"), "{output}");
}

#[tokio::test]
async fn a_start_on_a_taken_address_says_which() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let setup = Setup::new().listen(&addr).procfile("shop", "web: TESTAPP\n", "");
    let (status, output) = setup.run("serve").await;
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains(&addr), "{output}");
}

#[tokio::test]
async fn a_check_says_what_would_be_done() {
    let setup = Setup::new().procfile("shop", "web: TESTAPP\n", "domains = [\"shop.example.com\"]");
    let (status, output) = setup.run("check").await;
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(output.contains("shop.example.com") && output.contains("web"), "{output}");
}

/// While the daemon runs, a check says what a reload would change, and changes nothing.
#[tokio::test]
async fn a_check_beside_a_running_daemon_shows_the_difference() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let text = format!("{}[apps.blog]\ndynos = [\"127.0.0.1:1\"]\n", mesh.setup().text());
    std::fs::write(mesh.setup().file(), text).unwrap();
    let (status, output) = mesh.setup().run_as_is("check").await;
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(output.contains("blog"), "{output}");
    let mut client = mesh.client().await;
    client.send("GET / HTTP/1.1\r\nHost: blog.localhost\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 404);
}

// ---- many -------------------------------------------------------------------------------------------------

/// More connections at once than any pool or queue holds.
#[tokio::test]
async fn a_thousand_idle_connections_are_in_nobodys_way() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut idle = Vec::new();
    for _ in 0..1000 {
        idle.push(Client::connect(mesh.http()).await);
    }
    mesh.metric_becomes("dynomesh_connections", &[], 1000.0).await;
    let load = Load::start(mesh.http(), 20, &request("GET", "/", "", ""));
    load.carries(500).await;
    let tally = load.stop().await;
    assert_eq!((tally.broken, tally.refused), (0, 0), "{tally:?}");
    for client in idle.iter_mut().take(50) {
        assert_eq!(client.get("/").await.status, 200);
    }
}

/// Fewer descriptors than clients: the others wait in the kernel, nobody is turned away, nothing spins.
#[tokio::test]
async fn clients_beyond_the_limit_on_open_files_wait() {
    let app = App::start().await;
    // 256 are kept aside, and each client may need two.
    let mesh = Setup::new().descriptors(256 + 20).shop(&[&app]).start().await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = mesh.client().await;
        assert_eq!(client.get("/").await.status, 200);
        clients.push(client);
    }
    let mut waiting = Vec::new();
    for _ in 0..5 {
        let mut client = mesh.client().await;
        client.send(request("GET", "/waited", "", "")).await;
        waiting.push(client);
    }
    mesh.line("that accepting pauses", |line| {
        line.message.contains("accepting pauses").then_some(())
    })
    .await;
    idles(&mesh).await;
    assert!(waiting.iter_mut().all(Client::is_quiet));
    for client in &mut clients {
        assert_eq!(client.get("/").await.status, 200, "those inside notice nothing");
    }
    drop(clients);
    for client in &mut waiting {
        assert_eq!(client.answer().await.status, 200);
    }
}

/// The same when the kernel says so first: something else has used the descriptors up.
#[tokio::test]
async fn accepting_goes_on_once_there_are_descriptors_again() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut inside = mesh.client().await;
    assert_eq!(inside.get("/").await.status, 200);
    let before = limit_descriptors(&mesh, None);
    let mut waiting = mesh.client().await;
    waiting.send(request("GET", "/waited", "", "")).await;
    mesh.line("that accepting pauses", |line| {
        line.message.contains("accepting pauses").then_some(())
    })
    .await;
    idles(&mesh).await;
    assert!(waiting.is_quiet());
    assert_eq!(inside.get("/").await.status, 200);
    limit_descriptors(&mesh, Some(before));
    assert_eq!(waiting.answer().await.status, 200);
}

/// A shortage of the daemon's own is called that, and no dyno pays for it.
#[tokio::test]
async fn a_request_without_a_descriptor_for_its_dyno_is_h99() {
    let app = App::start().await;
    let mesh = Setup::new().timeouts("hold = \"2s\"").shop(&[&app]).start().await;
    let mut client = mesh.client().await;
    // Its connection is accepted, and no dyno was asked.
    client.send("GET / HTTP/1.1\r\nHost: nobody.localhost\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 404);
    let before = limit_descriptors(&mesh, None);
    client.get("/short").await.is_refusal(503, "H99");
    limit_descriptors(&mesh, Some(before));
    let line = mesh.request("/short").await;
    line.has(&["at=error", "code=H99", "desc=Platform error", "dyno=web.1", "status=503"]);
    // In quarantine it would be out of reach for longer than this may be held.
    assert_eq!(client.get("/after").await.status, 200);
    assert_eq!(app.count().await, 1, "only the second one has reached it");
}

/// Nothing can be written any more: whoever needs no file is served, and a dyno that does comes up once there is room.
#[tokio::test]
async fn a_full_disk_keeps_nobody_from_being_served() {
    let app = App::start().await;
    let cool_off = "timeouts = { cool_off = \"200ms\", cool_off_max = \"200ms\" }";
    let mut mesh = Setup::new()
        .before("trap '' XFSZ; exec")
        .shop(&[&app])
        .procfile("run", "web: TESTAPP\n", cool_off)
        .start()
        .await;
    mesh.says("heroku[web.1]", "State changed from starting to up").await;
    let room = getrlimit(Resource::Fsize);
    let none = Rlimit { current: Some(0), ..getrlimit(Resource::Fsize) };
    prlimit(Some(mesh.pid()), Resource::Fsize, none).unwrap();
    let crash = request("GET", "/exit-idle", "", "").replace("shop.", "run.");
    let mut client = mesh.client().await;
    client.send(crash).await;
    assert_eq!(client.answer().await.status, 200);
    drop(client);
    mesh.says_times("heroku[web.1]", "State changed from starting to crashed", 2).await;
    mesh.line("why", |line| line.message.contains("File too large").then_some(())).await;
    assert_eq!(mesh.get("/").await.status, 200);
    prlimit(Some(mesh.pid()), Resource::Fsize, room).unwrap();
    mesh.says_times("heroku[web.1]", "State changed from starting to up", 2).await;
    mesh.signal(Signal::TERM);
    assert!(mesh.ended().await.success());
}

/// Sets the daemon's limit on open files; to the first descriptor that is free, if it is not said.
fn limit_descriptors(mesh: &Mesh, limit: Option<Rlimit>) -> Rlimit {
    let open = format!("/proc/{}/fd", mesh.pid().as_raw_nonzero());
    let first_free = (0..).find(|fd| !Path::new(&format!("{open}/{fd}")).exists());
    let none = Rlimit { current: first_free, maximum: getrlimit(Resource::Nofile).maximum };
    prlimit(Some(mesh.pid()), Resource::Nofile, limit.unwrap_or(none)).unwrap()
}

/// Asserts that the daemon uses next to no processor time for a second.
async fn idles(mesh: &Mesh) {
    let before = mesh.cpu();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let used = mesh.cpu() - before;
    assert!(used < Duration::from_millis(300), "{used:?} of processor time in a second of waiting");
}

// ---- unix sockets -----------------------------------------------------------------------------------------

/// A slip in the configuration must not cost a file.
#[tokio::test]
async fn a_listener_takes_the_place_of_no_ordinary_file() {
    let setup = Setup::new();
    let file = setup.dir().join("notes.txt");
    std::fs::write(&file, "precious").unwrap();
    let setup = setup.listen(&format!("unix:{}", file.display()));
    let (status, output) = setup.run("serve").await;
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains("notes.txt"), "{output}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}

#[tokio::test]
async fn a_socket_that_nobody_listens_on_any_more_is_replaced() {
    let app = App::start().await;
    let setup = Setup::new();
    let door = setup.dir().join("door.sock");
    drop(std::os::unix::net::UnixListener::bind(&door).unwrap());
    assert!(door.exists(), "a socket's file outlives it");
    let mesh = setup.listen(&format!("unix:{}", door.display())).shop(&[&app]).start().await;
    assert_eq!(Client::connect_unix(&door).await.get("/").await.status, 200);
    drop(mesh);
}
