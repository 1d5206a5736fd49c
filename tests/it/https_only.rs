//! `force_https`, and requests that come on a connection that was made for somebody else.

use crate::support::{App, Client, Http2, Mesh, Setup, Tls, request};

const FORCED: &str = "force_https = true";

async fn ask(
    addr: std::net::SocketAddr,
    method: &str,
    target: &str,
    fields: &str,
) -> crate::support::Answer {
    let mut client = Client::connect(addr).await;
    client.send(format!("{method} {target} HTTP/1.1\r\n{fields}\r\n")).await;
    client.answer_to(method).await
}

// ---- force_https ------------------------------------------------------------------------------------------

#[tokio::test]
async fn plain_requests_are_sent_to_https_whatever_their_method() {
    let app = App::start().await;
    let mesh = Setup::new().listen_tls().shop_with(&[&app], FORCED).start().await;
    let own = mesh.https().port();
    for method in ["GET", "POST", "HEAD"] {
        // Who was asked at the usual port is sent to the usual one, who was asked elsewhere to ours.
        for (host, location) in [
            ("shop.localhost".to_string(), "https://shop.localhost/a?b=c".to_string()),
            (
                format!("shop.localhost:{}", mesh.http().port()),
                format!("https://shop.localhost:{own}/a?b=c"),
            ),
        ] {
            let answer = ask(mesh.http(), method, "/a?b=c", &format!("Host: {host}\r\n")).await;
            assert_eq!(answer.status, 308, "{method} {host}");
            assert_eq!(answer.field("Location"), Some(&location[..]));
        }
    }
    mesh.request("/a?b=c").await.has(&["at=info", "status=308", "dyno=", "tls=false"]);
    assert_eq!(app.count().await, 0);
    let mut client = Tls::of(&mesh).connect(mesh.https(), "shop.localhost").await;
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(Http2::connect(&mesh).await.get("/").await.status, 308, "in clear as well");
    assert_eq!(Http2::connect_tls(&mesh, "shop.localhost").await.get("/").await.status, 200);
}

/// The body is the next address's business, and the connection is kept where it is here already.
#[tokio::test]
async fn a_post_that_is_sent_to_https_keeps_its_connection() {
    let app = App::start().await;
    let mesh = Setup::new().listen_tls().shop_with(&[&app], FORCED).start().await;
    let mut client = mesh.client().await;
    for _ in 0..2 {
        let answer = client.request("POST", "/form", "", "body").await;
        assert!(answer.status == 308 && !answer.says_close(), "{answer:?}");
    }
}

/// No certificate is for an address, and health probes ask there.
#[tokio::test]
async fn bare_addresses_are_not_sent_to_https() {
    let app = App::start().await;
    let mesh = Setup::new()
        .listen_tls()
        .router("default_app = \"shop\"")
        .shop_with(&[&app], FORCED)
        .start()
        .await;
    for host in ["127.0.0.1", "127.0.0.1:8080", "[::1]"] {
        let answer = ask(mesh.http(), "GET", "/", &format!("Host: {host}\r\n")).await;
        assert_eq!(answer.status, 200, "{host}");
    }
    let answer = ask(mesh.http(), "GET", "/", "Host: localhost\r\n").await;
    assert_eq!(answer.status, 308, "the domain itself is a name");
}

/// A proxy that is trusted has said how the client came; anybody else may say what they like.
#[tokio::test]
async fn requests_that_came_by_https_to_a_trusted_proxy_are_served() {
    let app = App::start().await;
    let fields = "Host: shop.localhost\r\nX-Forwarded-Proto: https\r\n";
    for (trusted, status) in [("trusted_proxies = [\"127.0.0.0/8\"]", 200), ("", 308)] {
        let mesh =
            Setup::new().listen_tls().router(trusted).shop_with(&[&app], FORCED).start().await;
        assert_eq!(ask(mesh.http(), "GET", "/", fields).await.status, status, "{trusted}");
    }
}

// ---- misdirected ------------------------------------------------------------------------------------------

/// RFC 9110 §15.5.20: a browser that shares connections between names comes with a new one then.
#[tokio::test]
async fn a_request_for_another_app_than_the_connections_is_421() {
    let [shop, blog] = [App::start().await, App::start().await];
    let mesh = Setup::new()
        .listen_tls()
        .shop_with(&[&shop], "domains = [\"shop.example.com\"]")
        .app("blog", &format!("dynos = [{:?}]", blog.place()))
        .start()
        .await;
    let host = |host: &str, target: &str| format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let mut client = Tls::of(&mesh).connect(mesh.https(), "shop.localhost").await;
    client.send(host("blog.localhost", "/misdirected")).await;
    let answer = client.answer().await;
    answer.is_refusal(421, "H31");
    assert!(!answer.says_close(), "what it was made for may still be asked");
    mesh.request("/misdirected").await.has(&[
        "at=error",
        "code=H31",
        "desc=Misdirected Request",
        "status=421",
    ]);
    client.send(host("shop.example.com", "/")).await;
    assert_eq!(client.answer().await.status, 200, "the same app's other name");
    client.send(host("SHOP.localhost.:443", "/")).await;
    assert_eq!(client.answer().await.status, 200, "the same name, written otherwise");
    assert_eq!(blog.count().await, 0);

    let mut client = Http2::connect_tls(&mesh, "shop.localhost").await;
    let to = |name: &str| http::Request::get(format!("https://{name}/"));
    client.ask(to("blog.localhost"), b"").await.is_refusal(421, "H31");
    assert_eq!(client.ask(to("shop.example.com"), b"").await.status, 200);

    let mut client = mesh.client().await;
    client.send(request("GET", "/", "", "")).await;
    assert_eq!(client.answer().await.status, 200, "a plain connection is nobody's");
}

/// Whoever asked for no name was shown the domain's certificate, which promises no app in particular.
#[tokio::test]
async fn a_connection_that_named_nobody_is_for_every_app() {
    let [shop, blog] = [App::start().await, App::start().await];
    let mesh: Mesh = Setup::new()
        .listen_tls()
        .shop(&[&shop])
        .app("blog", &format!("dynos = [{:?}]", blog.place()))
        .start()
        .await;
    let mut client = Tls::of(&mesh).connect(mesh.https(), "127.0.0.1").await;
    for host in ["shop.localhost", "blog.localhost"] {
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(client.answer().await.status, 200, "{host}");
    }
}
