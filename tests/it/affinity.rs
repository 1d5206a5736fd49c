//! Session affinity: a client's requests go to the same dyno while it is there.

use rustix::process::Signal;

use crate::support::{Answer, App, Mesh, Setup, becomes_true, percent_encoded, request};

const WEB: &str = "web: TESTAPP\n";

/// An app with so many dynos of its own, each of which answers with its name.
fn shop(setup: Setup, dynos: usize, affinity: &str) -> Setup {
    let lines = format!("formation = {{ web = {dynos} }}\naffinity = {affinity:?}");
    setup.procfile("shop", WEB, &lines)
}

async fn all_up(mesh: &Mesh, dynos: usize) {
    let labels = [("app", "shop"), ("type", "web"), ("state", "up")];
    mesh.metric_becomes("dynomesh_dynos", &labels, dynos as f64).await;
}

/// What a browser would send back of what it was given, as a field line.
fn given(answer: &Answer) -> Option<String> {
    let cookie = answer.field("Set-Cookie")?.split(';').next()?;
    assert!(cookie.starts_with("dynomesh-session-affinity="), "{cookie}");
    Some(format!("Cookie: theirs=1; {cookie}\r\n"))
}

async fn ask(mesh: &Mesh, fields: &str) -> Answer {
    let answer = mesh.client().await.request("GET", "/", fields, "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

/// A client of this dyno, as its Cookie line.
async fn client_of(mesh: &Mesh, dyno: &str) -> String {
    for _ in 0..500 {
        let answer = ask(mesh, "").await;
        if answer.text() == dyno {
            return given(&answer).expect("a cookie for whoever has none");
        }
    }
    panic!("no client comes to {dyno}");
}

/// Asserts that the client is served by this dyno and needs no other cookie.
async fn belongs(mesh: &Mesh, client: &str, dyno: &str) {
    for _ in 0..6 {
        let answer = ask(mesh, client).await;
        assert_eq!((answer.text(), answer.field("Set-Cookie")), (dyno, None));
    }
}

#[tokio::test]
async fn a_cookie_brings_a_client_back_to_its_dyno() {
    let mesh = shop(Setup::new(), 3, "cookie").start().await;
    all_up(&mesh, 3).await;
    for dyno in ["web.1", "web.2", "web.3"] {
        let client = client_of(&mesh, dyno).await;
        belongs(&mesh, &client, dyno).await;
    }
    let answer = ask(&mesh, "").await;
    let cookie = answer.field("Set-Cookie").unwrap();
    assert!(cookie.ends_with("; Max-Age=86400; Path=/; HttpOnly; SameSite=Lax"), "{cookie}");
}

/// The app sees the cookie, as on Heroku, and its own go beside it.
#[tokio::test]
async fn the_cookie_takes_nothing_from_the_app() {
    let mesh = shop(Setup::new(), 1, "cookie").start().await;
    all_up(&mesh, 1).await;
    let client = client_of(&mesh, "web.1").await;
    let seen = mesh.client().await.request("GET", "/head", &client, "").await;
    assert!(seen.text().contains(&client), "{} without {client}", seen.text());
    let own = percent_encoded("HTTP/1.1 204 No\r\nSet-Cookie: theirs=2\r\n\r\n");
    let both = mesh.get(&format!("/raw?bytes={own}")).await;
    let cookies = both.fields.iter().filter(|(name, _)| name == "Set-Cookie");
    let cookies: Vec<_> = cookies.map(|(_, value)| value.split('=').next().unwrap()).collect();
    assert_eq!(cookies, ["theirs", "dynomesh-session-affinity"]);
}

/// A pipe's client comes back to its dyno, too.
#[tokio::test]
async fn the_answer_to_an_upgrade_has_the_cookie() {
    let mesh = shop(Setup::new(), 2, "cookie").start().await;
    all_up(&mesh, 2).await;
    let mut client = mesh.client().await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    client.send(request("GET", "/ws", upgrade, "")).await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 101);
    let cookie = given(&answer).unwrap();
    // The line comes when the pipe ends.
    drop(client);
    let line = mesh.request("/ws").await;
    belongs(&mesh, &cookie, line.get("dyno")).await;
}

#[tokio::test]
async fn a_cookie_given_over_https_is_never_sent_in_the_clear() {
    let proxy = Setup::new().router("trusted_proxies = [\"127.0.0.1\"]");
    let mesh = shop(proxy, 1, "cookie").start().await;
    all_up(&mesh, 1).await;
    for (proto, is_secure) in [("https", true), ("http", false)] {
        let answer = ask(&mesh, &format!("X-Forwarded-Proto: {proto}\r\n")).await;
        let cookie = answer.field("Set-Cookie").unwrap();
        assert_eq!(cookie.ends_with("; Secure"), is_secure, "{cookie} over {proto}");
    }
}

/// Restarts keep names, and the daemon keeps its key: nobody loses a session that the app itself has kept.
#[tokio::test]
async fn clients_keep_their_dyno_over_restarts_of_dyno_and_daemon() {
    let mut mesh = shop(Setup::new(), 3, "cookie").start().await;
    all_up(&mesh, 3).await;
    let client = client_of(&mesh, "web.2").await;
    let restarted = mesh.client().await.request("GET", "/exit-idle", &client, "").await;
    assert_eq!(restarted.status, 200);
    mesh.says_times("heroku[web.2]", "State changed from starting to up", 2).await;
    belongs(&mesh, &client, "web.2").await;

    mesh.signal(Signal::TERM);
    assert!(mesh.ended().await.success());
    let mesh = mesh.start_again().await;
    all_up(&mesh, 3).await;
    belongs(&mesh, &client, "web.2").await;
}

#[tokio::test]
async fn clients_of_a_dyno_that_has_gone_get_another_one() {
    let mut mesh = shop(Setup::new(), 3, "cookie").start().await;
    all_up(&mesh, 3).await;
    let (first, third) = (client_of(&mesh, "web.1").await, client_of(&mesh, "web.3").await);
    mesh.reload(|setup| {
        let mut setup = setup;
        setup.clear_apps();
        shop(setup, 2, "cookie")
    })
    .await;
    mesh.says("heroku[web.3]", "State changed from up to down").await;
    belongs(&mesh, &first, "web.1").await;
    let answer = ask(&mesh, &third).await;
    let moved = given(&answer).expect("another cookie");
    belongs(&mesh, &moved, answer.text()).await;
    // One more dyno changes nothing for those that have one.
    mesh.reload(|setup| {
        let mut setup = setup;
        setup.clear_apps();
        shop(setup, 4, "cookie")
    })
    .await;
    all_up(&mesh, 4).await;
    belongs(&mesh, &first, "web.1").await;
    belongs(&mesh, &moved, answer.text()).await;
}

#[tokio::test]
async fn without_affinity_nobody_gets_a_cookie() {
    let mesh = shop(Setup::new(), 1, "off").start().await;
    all_up(&mesh, 1).await;
    assert_eq!(ask(&mesh, "").await.field("Set-Cookie"), None);
}

// ---- by address ------------------------------------------------------------------------------------------

const CLIENTS: usize = 60;

/// The dyno that serves each of many clients, whom a trusted proxy names.
async fn served_by(mesh: &Mesh) -> Vec<String> {
    let mut served = Vec::new();
    for client in 0..CLIENTS {
        let fields = format!("X-Forwarded-For: 203.0.113.{client}\r\n");
        let answer = ask(mesh, &fields).await;
        assert_eq!(answer.field("Set-Cookie"), None);
        served.push(answer.text().to_string());
    }
    served
}

#[tokio::test]
async fn an_address_belongs_to_one_dyno_and_scaling_moves_few() {
    let proxy = Setup::new().router("trusted_proxies = [\"127.0.0.1\"]");
    let mut mesh = shop(proxy, 3, "address").start().await;
    all_up(&mesh, 3).await;
    let before = served_by(&mesh).await;
    assert_eq!(served_by(&mesh).await, before);
    for dyno in ["web.1", "web.2", "web.3"] {
        assert!(before.iter().any(|it| it == dyno), "nobody belongs to {dyno}: {before:?}");
    }
    mesh.reload(|setup| {
        let mut setup = setup;
        setup.clear_apps();
        shop(setup, 4, "address")
    })
    .await;
    becomes_true("web.4 to have its clients", async || {
        served_by(&mesh).await.iter().any(|it| it == "web.4")
    })
    .await;
    let after = served_by(&mesh).await;
    let moved: Vec<_> =
        before.iter().zip(&after).filter(|(before, after)| before != after).collect();
    assert!(moved.iter().all(|(_, after)| *after == "web.4"), "{moved:?}");
    assert!(!moved.is_empty() && moved.len() < CLIENTS / 2, "{moved:?}");
}

/// Only its own clients go elsewhere, and they come back.
#[tokio::test]
async fn clients_come_back_to_a_dyno_that_comes_back() {
    let named = async |name: &'static str| App::start_with(&[("DYNO", name)]).await;
    let (one, mut two, three) = (named("one").await, named("two").await, named("three").await);
    let port = two.addr().port();
    let mesh = Setup::new()
        .router("trusted_proxies = [\"127.0.0.1\"]")
        .shop_with(&[&one, &two, &three], "affinity = \"address\"")
        .start()
        .await;
    let before = served_by(&mesh).await;
    two.kill().await;
    for (before, now) in before.iter().zip(served_by(&mesh).await) {
        assert_eq!(*before == now, before != "two", "{before}'s client is at {now}");
    }
    let _back = App::start_on(port).await;
    // The quarantine ends.
    becomes_true("clients to be where they were", async || {
        let now = served_by(&mesh).await;
        before
            .iter()
            .zip(&now)
            .all(|(before, now)| before == now || (before, &**now) == (&"two".into(), "testapp"))
    })
    .await;
}
