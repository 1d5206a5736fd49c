//! What an app, and each of its clients, may ask at most.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::support::{Answer, App, Client, Mesh, Setup, becomes_true, request};

/// The app with these limits.
async fn limited(app: &App, lines: &str) -> Mesh {
    Setup::new().shop_with(&[app], lines).start().await
}

/// The same behind a proxy that may name clients.
async fn limited_behind_proxy(app: &App, lines: &str) -> Mesh {
    let proxy = Setup::new().router("trusted_proxies = [\"127.0.0.1\"]");
    proxy.shop_with(&[app], lines).start().await
}

/// A request of the app that lasts until its file is there.
struct Held {
    client: Client,
    file: PathBuf,
}

impl Held {
    async fn begin(mesh: &Mesh, app: &App, name: &str, fields: &str) -> Self {
        let mut client = mesh.client().await;
        let file = mesh.path(name);
        let before = app.count().await;
        client.send(request("GET", &format!("/until?file={}", file.display()), fields, "")).await;
        app.counts(before + 1).await;
        Self { client, file }
    }

    fn release(&self) {
        std::fs::write(&self.file, "").unwrap();
    }

    async fn end(mut self) {
        self.release();
        assert_eq!(self.client.answer().await.text(), "released");
    }
}

#[track_caller]
fn is_limited(answer: &Answer) {
    answer.is_refusal(429, "H22");
    assert_eq!(answer.field("Retry-After"), Some("1"));
}

/// Waits until so many requests are counted against this limit.
async fn counted(mesh: &Mesh, limit: &str, requests: usize) {
    let labels = [("app", "shop"), ("limit", limit)];
    mesh.metric_becomes("dynomesh_limited_requests_total", &labels, requests as f64).await;
}

/// Whether a request is served; if so, its place is free again afterwards: that is when its line has come, a moment
/// after the last byte of its answer.
async fn is_served(mesh: &Mesh, fields: &str) -> bool {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let target = format!("/served-{}", ASKED.fetch_add(1, Ordering::Relaxed));
    let served = mesh.client().await.request("GET", &target, fields, "").await.status == 200;
    if served {
        mesh.request(&target).await;
    }
    served
}

// ---- in a second -----------------------------------------------------------------------------------------

/// The first five of a burst are served whatever was before them, the rest is told to come again.
async fn a_burst_of_fifty(mesh: &Mesh) -> usize {
    let burst = request("GET", "/burst", "", "").repeat(50);
    let began = Instant::now();
    let mut client = mesh.client().await;
    client.send(burst).await;
    let mut answers = Vec::new();
    for _ in 0..50 {
        answers.push(client.answer().await);
    }
    // Five for each second of the clock that the burst has touched: ten, unless this machine is very busy.
    let most = 5 * (began.elapsed().as_secs() as usize + 2);
    let (served, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|it| it.status == 200);
    assert!((5..=most).contains(&served.len()), "{} of 50, not 5 to {most}", served.len());
    refused.iter().for_each(is_limited);
    refused.len()
}

#[tokio::test]
async fn an_app_has_so_many_requests_a_second() {
    let app = App::start().await;
    let mesh = limited(&app, "limits = { requests_per_second = 5 }").await;
    let refused = a_burst_of_fifty(&mesh).await;
    counted(&mesh, "limits.requests_per_second", refused).await;
    let errors = [("app", "shop"), ("code", "H22")];
    mesh.metric_becomes("dynomesh_errors_total", &errors, refused as f64).await;
    assert_eq!(app.count().await, 50 - refused as u64);
    mesh.line("a refusal", |line| {
        line.request().filter(|it| it.find("code") == Some("H22")).map(|line| {
            line.has(&[
                "at=error",
                "code=H22",
                "desc=Connection limit reached",
                "cause=requests per second",
                "dyno=",
                "status=429",
            ]);
        })
    })
    .await;
    becomes_true("the next second", async || is_served(&mesh, "").await).await;
}

#[tokio::test]
async fn a_client_has_so_many_requests_a_second() {
    let app = App::start().await;
    let mesh = limited(&app, "client_limits = { requests_per_second = 5 }").await;
    let refused = a_burst_of_fifty(&mesh).await;
    counted(&mesh, "client_limits.requests_per_second", refused).await;
    becomes_true("the next second", async || is_served(&mesh, "").await).await;
}

/// A client is whom a trusted proxy names; an IPv6 network is one client.
#[tokio::test]
async fn clients_do_not_spend_what_is_others() {
    let app = App::start().await;
    let lines = "client_limits = { in_flight = 1 }";
    let mesh = limited_behind_proxy(&app, lines).await;
    let from = |client: &str| format!("X-Forwarded-For: 192.0.2.7, {client}\r\n");
    let held = Held::begin(&mesh, &app, "one", &from("2001:db8::1")).await;
    is_limited(&mesh.client().await.request("GET", "/", &from("2001:db8::ffff"), "").await);
    for other in ["2001:db8:0:1::1", "203.0.113.1", "192.0.2.7"] {
        assert!(is_served(&mesh, &from(other)).await, "{other}");
    }
    counted(&mesh, "client_limits.in_flight", 1).await;
    held.end().await;
    becomes_true("the client's turn", async || is_served(&mesh, &from("2001:db8::2")).await).await;
}

// ---- at one time -----------------------------------------------------------------------------------------

#[tokio::test]
async fn an_app_has_so_many_requests_in_flight() {
    let app = App::start().await;
    let mesh = limited(&app, "limits = { in_flight = 2 }").await;
    let one = Held::begin(&mesh, &app, "one", "").await;
    let two = Held::begin(&mesh, &app, "two", "").await;
    is_limited(&mesh.get("/third").await);
    mesh.request("/third").await.has(&["code=H22", "cause=in flight"]);
    one.end().await;
    becomes_true("a free place", async || is_served(&mesh, "").await).await;
    two.end().await;
}

/// A dyno that works on after its client's 503 is still busy: the app's request stays in flight, the client's
/// does not.
#[tokio::test]
async fn what_lingers_is_the_apps_and_not_the_clients() {
    let app = App::start().await;
    let lines = "timeouts = { first_byte = \"200ms\" }\n";
    for (limits, is_the_apps) in
        [("limits = { in_flight = 1 }", true), ("client_limits = { in_flight = 1 }", false)]
    {
        let mesh = limited(&app, &format!("{lines}{limits}")).await;
        let mut held = Held::begin(&mesh, &app, "one", "").await;
        held.client.answer().await.is_refusal(503, "H12");
        let answer = mesh.get("/next").await;
        if is_the_apps {
            is_limited(&answer);
        } else {
            assert_eq!(answer.status, 200);
        }
        held.release();
        becomes_true("a free place", async || is_served(&mesh, "").await).await;
    }
}

/// Neither a client that leaves nor a dyno that dies keeps a place for ever.
#[tokio::test]
async fn every_end_gives_its_place_back() {
    let app = App::start().await;
    let mesh = limited(&app, "limits = { in_flight = 1 }\nclient_limits = { in_flight = 1 }").await;
    for round in 0..3 {
        let held = Held::begin(&mesh, &app, &format!("{round}"), "").await;
        assert!(!is_served(&mesh, "").await);
        let Held { client, file } = held;
        client.reset();
        std::fs::write(file, "").unwrap();
        becomes_true("a place", async || is_served(&mesh, "").await).await;
        mesh.client().await.request("GET", "/reset", "", "").await;
        becomes_true("a place", async || is_served(&mesh, "").await).await;
    }
}

/// Counts go on over a reload, and against the limit that is new.
#[tokio::test]
async fn a_reload_forgets_nothing() {
    let app = App::start().await;
    let mut mesh = limited(&app, "limits = { in_flight = 1 }").await;
    let one = Held::begin(&mesh, &app, "one", "").await;
    is_limited(&mesh.get("/a").await);
    let limit = async |mesh: &mut Mesh, lines: &str| {
        mesh.reload(|mut setup| {
            setup.clear_apps();
            setup.shop_with(&[&app], lines)
        })
        .await;
    };
    limit(&mut mesh, "limits = { in_flight = 2 }").await;
    let two = Held::begin(&mesh, &app, "two", "").await;
    is_limited(&mesh.get("/b").await);
    limit(&mut mesh, "limits = { in_flight = 1 }").await;
    one.end().await;
    is_limited(&mesh.get("/c").await);
    limit(&mut mesh, "").await;
    assert!(is_served(&mesh, "").await);
    two.end().await;
}

// ---- connections -----------------------------------------------------------------------------------------

#[tokio::test]
async fn an_app_has_so_many_connections() {
    let app = App::start().await;
    let mesh = limited(&app, "limits = { connections = 2 }").await;
    let (mut one, mut two, mut three) =
        (mesh.client().await, mesh.client().await, mesh.client().await);
    // A connection counts once, and only from its first request on.
    for _ in 0..3 {
        assert_eq!(one.get("/").await.status, 200);
        assert_eq!(two.get("/").await.status, 200);
    }
    is_limited(&three.get("/third").await);
    mesh.request("/third").await.has(&["code=H22", "cause=connections"]);
    counted(&mesh, "limits.connections", 1).await;
    drop(one);
    // Whoever was refused may try again on the same connection.
    let three = tokio::sync::Mutex::new(three);
    becomes_true("a free place", async || three.lock().await.get("/").await.status == 200).await;
    assert_eq!(two.get("/").await.status, 200);
    is_limited(&mesh.get("/fourth").await);
}

#[tokio::test]
async fn a_client_has_so_many_connections() {
    let app = App::start().await;
    let mesh = limited(&app, "client_limits = { connections = 1 }").await;
    let mut one = mesh.client().await;
    assert_eq!(one.get("/").await.status, 200);
    let mut two = mesh.client().await;
    is_limited(&two.get("/second").await);
    mesh.request("/second").await.has(&["code=H22", "cause=client connections"]);
    let mut other = Client::connect_from([127, 0, 0, 2].into(), mesh.http()).await;
    assert_eq!(other.get("/").await.status, 200);
    drop(one);
    let two = tokio::sync::Mutex::new(two);
    becomes_true("the client's turn", async || two.lock().await.get("/").await.status == 200).await;
    is_limited(&mesh.get("/third").await);
}

/// A proxy's connections carry the requests of many, so that no client is told of too many.
#[tokio::test]
async fn connections_of_a_trusted_proxy_are_no_clients() {
    let app = App::start().await;
    let mesh = limited_behind_proxy(&app, "client_limits = { connections = 1 }").await;
    let client = "X-Forwarded-For: 203.0.113.1\r\n";
    let (mut one, mut two) = (mesh.client().await, mesh.client().await);
    for connection in [&mut one, &mut two] {
        assert_eq!(connection.request("GET", "/", client, "").await.status, 200);
    }
}

/// In HTTP/2 it is the connection that counts, not the stream.
#[tokio::test]
async fn the_streams_of_a_connection_count_as_one() {
    let app = App::start().await;
    let mesh = limited(&app, "limits = { connections = 1 }").await;
    let stream = tokio::net::TcpStream::connect(mesh.http()).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = spawn(connection);
    for _ in 0..5 {
        let request = http::Request::get("http://shop.localhost/").body(()).unwrap();
        sender = sender.ready().await.unwrap();
        let (answer, _) = sender.send_request(request, true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
    }
    is_limited(&mesh.get("/second").await);
    drop(sender);
    driver.await.unwrap();
    becomes_true("a free place", async || is_served(&mesh, "").await).await;
}

#[expect(clippy::disallowed_methods, reason = "a test stands outside the house")]
fn spawn(connection: h2::client::Connection<tokio::net::TcpStream>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async {
        // How the connection ends is not what is asked here.
        let _ = connection.await;
    })
}

#[tokio::test]
async fn without_limits_nothing_is_counted() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let within_a_second = async || {
        for _ in 0..50 {
            assert_eq!(mesh.get("/").await.status, 200);
        }
    };
    tokio::time::timeout(Duration::from_secs(20), within_a_second()).await.unwrap();
    assert_eq!(mesh.metrics().await.series("dynomesh_limited_requests_total"), 0);
}
