//! Who the client is when a balancer in front says so on the connection itself.

use crate::support::{App, Client, Mesh, Setup};

const REQUEST: &str =
    "GET /head HTTP/1.1\r\nHost: shop.localhost\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n";

/// Version 2: PROXY, TCP over IPv4, 192.0.2.7:4711 to 198.51.100.1:443.
const VERSION_2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x01\x12\x67\x01\xbb";
/// Version 2: LOCAL, as a health probe of the balancer's own.
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

async fn behind_a_balancer(app: &App, trusted: &str) -> Mesh {
    let router = format!("proxy_protocol = [\"127.0.0.1:0\"]\ntrusted_proxies = [\"{trusted}\"]");
    Setup::new().router(&router).shop(&[app]).start().await
}

/// What the dyno was told of the client, after these first bytes.
async fn told(client: &mut Client) -> (String, String) {
    let answer = client.answer().await;
    assert_eq!(answer.status, 200);
    let field = |name: &str| {
        let line = answer.text().lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim().to_owned()
    };
    (field("X-Forwarded-For:"), field("X-Forwarded-Port:"))
}

/// Closed, or reset where something had come, without a word.
async fn is_given_up(client: &mut Client) {
    assert_eq!(client.rest_and_end().await.0, b"");
}

#[tokio::test]
async fn the_client_is_who_the_header_says() {
    let app = App::start().await;
    let mesh = behind_a_balancer(&app, "127.0.0.1/32").await;
    let line = b"PROXY TCP6 2001:db8::9 2001:db8::1 4711 8443\r\n";
    for (header, expected) in [(VERSION_2, ("192.0.2.7", "443")), (line, ("2001:db8::9", "8443"))] {
        let mut client = mesh.client().await;
        client.send([header, REQUEST.as_bytes()].concat()).await;
        let (fwd, port) = told(&mut client).await;
        assert_eq!((&*fwd, &*port), expected, "what the client itself says is not believed");
        // It holds for the connection, not for one request.
        client.send(REQUEST.replace("/head", "/head?again")).await;
        assert_eq!(told(&mut client).await.0, expected.0);
        let fwd = format!("fwd=\"{}\"", expected.0);
        mesh.line(&fwd, |line| line.message.contains(&fwd).then_some(())).await;
    }
}

#[tokio::test]
async fn a_header_may_come_byte_by_byte() {
    let app = App::start().await;
    let mesh = behind_a_balancer(&app, "127.0.0.1/32").await;
    let mut client = mesh.client().await;
    for byte in VERSION_2 {
        client.send([*byte]).await;
        tokio::task::yield_now().await;
    }
    client.send(REQUEST).await;
    assert_eq!(told(&mut client).await.0, "192.0.2.7");
}

#[tokio::test]
async fn the_balancers_own_connection_is_its_own() {
    let app = App::start().await;
    let mesh = behind_a_balancer(&app, "127.0.0.1/32").await;
    let mut client = mesh.client().await;
    client.send([LOCAL, REQUEST.as_bytes()].concat()).await;
    // The balancer itself is a trusted proxy, so what it forwards is believed.
    assert_eq!(told(&mut client).await.0, "6.6.6.6, 127.0.0.1");
}

#[tokio::test]
async fn nobody_else_may_say_who_he_is() {
    let app = App::start().await;
    let mesh = behind_a_balancer(&app, "10.0.0.0/8").await;
    let mut client = mesh.client().await;
    client.send([VERSION_2, REQUEST.as_bytes()].concat()).await;
    is_given_up(&mut client).await;
    assert_eq!(mesh.metrics().await.get("dynomesh_bad_proxy_headers_total", &[]), 1.0);
}

#[tokio::test]
async fn what_is_no_header_is_not_served() {
    let app = App::start().await;
    let mesh = behind_a_balancer(&app, "127.0.0.1/32").await;
    for bytes in
        [REQUEST.as_bytes(), b"PROXY TCP4 1.2.3.4 01.2.3.4 1 2\r\n", b"\r\n\r\n\0\r\nQUIT\n\x31"]
    {
        let mut client = mesh.client().await;
        client.send(bytes).await;
        is_given_up(&mut client).await;
    }
    assert_eq!(mesh.metrics().await.get("dynomesh_bad_proxy_headers_total", &[]), 3.0);
}

#[tokio::test]
async fn a_header_that_does_not_come_is_not_waited_for() {
    let app = App::start().await;
    let setup = Setup::new()
        .router("proxy_protocol = [\"127.0.0.1:0\"]\ntrusted_proxies = [\"127.0.0.1/32\"]")
        .timeouts("handshake = \"300ms\"");
    let mesh = setup.shop(&[&app]).start().await;
    for bytes in ["", "PROXY TCP4 192.0.2.7 "] {
        let mut client = mesh.client().await;
        client.send(bytes).await;
        is_given_up(&mut client).await;
    }
}
