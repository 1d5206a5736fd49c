//! The head that a dyno sees, and the head that a client gets back.

use crate::support::{Answer, App, Mesh, Setup, percent_encoded, request};

/// The head as the dyno received it, for these field lines from the client.
async fn head_seen(mesh: &Mesh, fields: &str) -> Head {
    let answer = mesh.client().await.request("GET", "/head", fields, "").await;
    assert_eq!(answer.status, 200);
    Head::parse(answer.text())
}

/// A head as a dyno sees it.
struct Head {
    text: String,
    request_line: String,
    fields: Vec<(String, String)>,
}

impl Head {
    fn parse(text: &str) -> Self {
        let mut lines = text.trim_end().split("\r\n");
        let request_line = lines.next().unwrap().to_string();
        let field = |line: &str| {
            let (name, value) =
                line.split_once(": ").unwrap_or_else(|| panic!("{line:?} in {text:?}"));
            (name.to_string(), value.to_string())
        };
        Self { text: text.into(), request_line, fields: lines.map(field).collect() }
    }

    /// Every value of a field, its name compared byte by byte.
    fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(it, _)| it == name).map(|(_, value)| value.as_str()).collect()
    }

    /// The only value of a field.
    #[track_caller]
    fn one(&self, name: &str) -> &str {
        let all = self.all(name);
        assert_eq!(all.len(), 1, "{name} in {}", self.text);
        all[0]
    }

    /// Whether a field stands there in whatever spelling.
    fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(it, _)| it.eq_ignore_ascii_case(name))
    }
}

const TRUSTING: &str = "trusted_proxies = [\"127.0.0.0/8\"]";

// ---- to the dyno ------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_dyno_sees_one_plain_head() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    client
        .send(
            "GET /head?a=%20b&c=//d/../e HTTP/1.1\r\nHost: Shop.localhost:8080\r\nx-FIRST: 1\r\n\
             accept:  */*  \r\nX-FIRST: 2\r\nEmpty:\r\nBytes: caf\u{e9}\r\n\r\n",
        )
        .await;
    let head = Head::parse(client.answer().await.text());
    assert_eq!(
        head.request_line, "GET /head?a=%20b&c=//d/../e HTTP/1.1",
        "the path is never touched"
    );
    assert_eq!(head.one("Host"), "Shop.localhost:8080", "Host as sent");
    assert_eq!(head.all("X-First"), ["1", "2"], "names Like-This, order kept");
    assert_eq!(head.one("Accept"), "*/*");
    assert_eq!(head.one("Empty"), "");
    assert_eq!(head.one("Bytes"), "caf\u{e9}");
    assert_eq!(head.one("Via"), "1.1 dynomesh");
    assert_eq!(head.one("X-Forwarded-For"), "127.0.0.1");
    assert_eq!(head.one("X-Forwarded-Proto"), "http");
    assert_eq!(head.one("X-Forwarded-Port"), mesh.http().port().to_string());
    let start = head.one("X-Request-Start").parse::<u128>().expect("Unix milliseconds without t=");
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    assert!(start <= now && now - start < 60_000, "{start} against {now}");
    let id = head.one("X-Request-Id");
    assert!(is_uuid(id), "{id}");
    assert!(!head.has("Content-Length") && !head.has("Transfer-Encoding"), "{}", head.text);
    let allowed = head.all("Connection");
    assert!(allowed.is_empty() || allowed == ["keep-alive"], "{allowed:?}");
}

fn is_uuid(id: &str) -> bool {
    let groups = id.split('-').map(str::len).collect::<Vec<_>>();
    groups == [8, 4, 4, 4, 12]
        && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'))
}

#[tokio::test]
async fn what_a_stranger_says_of_its_way_here_is_replaced() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let head = head_seen(
        &mesh,
        "X-Forwarded-For: 6.6.6.6\r\nx-forwarded-for: 7.7.7.7\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Port: 443\r\nForwarded: for=6.6.6.6\r\nX-Request-Start: t=1\r\n\
         X-Forwarded-Host: kept.example.com\r\n",
    )
    .await;
    assert_eq!(head.one("X-Forwarded-For"), "127.0.0.1");
    assert_eq!(head.one("X-Forwarded-Proto"), "http");
    assert_eq!(head.one("X-Forwarded-Port"), mesh.http().port().to_string());
    assert!(!head.has("Forwarded"));
    assert_ne!(head.one("X-Request-Start"), "t=1");
    assert_eq!(head.one("X-Forwarded-Host"), "kept.example.com", "left alone, as on Heroku");
    let line = mesh.request("/head").await;
    assert_eq!(line.get("fwd"), "127.0.0.1", "fwd= is what was sent to the dyno");
}

#[tokio::test]
async fn a_trusted_peer_is_believed_and_appended_to() {
    let app = App::start().await;
    let mesh = Setup::new().router(TRUSTING).shop(&[&app]).start().await;
    let head = head_seen(
        &mesh,
        "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\n",
    )
    .await;
    assert_eq!(head.all("X-Forwarded-For").join(", "), "1.2.3.4, 10.0.0.1, 127.0.0.1");
    assert_eq!(head.one("X-Forwarded-Proto"), "https");
    assert_eq!(head.one("X-Forwarded-Port"), "443");
    assert_eq!(mesh.request("/head").await.get("fwd"), "1.2.3.4, 10.0.0.1, 127.0.0.1");
}

#[tokio::test]
async fn a_trusted_peer_that_says_nothing_gets_our_own_fields() {
    let app = App::start().await;
    let mesh = Setup::new().router(TRUSTING).shop(&[&app]).start().await;
    let head = head_seen(&mesh, "").await;
    assert_eq!(head.one("X-Forwarded-For"), "127.0.0.1");
    assert_eq!(head.one("X-Forwarded-Proto"), "http");
    assert_eq!(head.one("X-Forwarded-Port"), mesh.http().port().to_string());
}

/// CGI-style servers (WSGI, Rack) fold `_` and `-`: a twin would overwrite or precede the real field.
#[tokio::test]
async fn underscore_twins_of_our_fields_are_dropped() {
    let app = App::start().await;
    for router in ["", TRUSTING] {
        let mesh = Setup::new().router(router).shop(&[&app]).start().await;
        let head = head_seen(
            &mesh,
            "X_Forwarded_For: 6.6.6.6\r\nX-Forwarded_For: 6.6.6.6\r\nx_forwarded_proto: https\r\n\
             X_Forwarded-Port: 1\r\nX_Request_Id: forged-forged-forged-forged\r\nX_Request_Start: 1\r\nMy_Own: kept\r\n",
        )
        .await;
        assert!(!head.text.contains("6.6.6.6") && !head.text.contains("forged"), "{}", head.text);
        let folded = |name: &str| name.replace('_', "-").to_ascii_lowercase();
        for ours in [
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded-port",
            "x-request-id",
            "x-request-start",
        ] {
            let twins = head.fields.iter().filter(|(name, _)| folded(name) == ours).count();
            assert_eq!(twins, 1, "{ours} in {}", head.text);
        }
        assert!(head.text.contains("kept"), "{}", head.text);
    }
}

#[tokio::test]
async fn hop_by_hop_fields_end_at_the_router() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let head = head_seen(
        &mesh,
        "Connection: keep-alive, x-secret, TE\r\nKeep-Alive: timeout=5\r\nX-Secret: 1\r\nTE: trailers\r\n\
         Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic x\r\nX-Kept: 1\r\n",
    )
    .await;
    for gone in ["Keep-Alive", "X-Secret", "TE", "Proxy-Connection", "Proxy-Authorization"] {
        assert!(!head.has(gone), "{gone} in {}", head.text);
    }
    assert!(head.has("X-Kept"));
}

/// A client that could strip our own fields by naming them in Connection could hide where it comes from.
#[tokio::test]
async fn naming_our_fields_in_connection_does_not_remove_them() {
    let app = App::start().await;
    let mesh = Setup::new().router(TRUSTING).shop(&[&app]).start().await;
    let head = head_seen(
        &mesh,
        "Connection: X-Forwarded-For, X-Forwarded-Proto, X-Request-Id, Host, Via, X-Request-Start\r\n",
    )
    .await;
    for kept in
        ["X-Forwarded-For", "X-Forwarded-Proto", "X-Request-Id", "Host", "Via", "X-Request-Start"]
    {
        head.one(kept);
    }
}

#[tokio::test]
async fn request_ids_are_kept_where_they_are_sound() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let longest = "a".repeat(200);
    for sound in ["0123456789abcdefABC-", "abc+/=-abc+/=-abc+/=-", &longest] {
        let head = head_seen(&mesh, &format!("X-Request-Id: {sound}\r\n")).await;
        assert_eq!(head.one("X-Request-Id"), sound);
    }
    let too_long = "a".repeat(201);
    for unsound in
        ["", "too-short-by-1-byte", "under_score_under_score", "with space with space", &too_long]
    {
        let head = head_seen(&mesh, &format!("X-Request-Id: {unsound}\r\n")).await;
        assert!(
            is_uuid(head.one("X-Request-Id")),
            "{unsound:?} gave {:?}",
            head.one("X-Request-Id")
        );
    }
    let ids = [head_seen(&mesh, "").await, head_seen(&mesh, "").await];
    assert_ne!(ids[0].one("X-Request-Id"), ids[1].one("X-Request-Id"));
}

#[tokio::test]
async fn via_is_appended_to() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let head = head_seen(&mesh, "Via: 1.0 fred, 1.1 p.example.net\r\n").await;
    assert_eq!(head.all("Via").join(", "), "1.0 fred, 1.1 p.example.net, 1.1 dynomesh");
}

/// Absolute-form is reduced to its path; the fragment, which no client should send, is dropped.
#[tokio::test]
async fn request_targets_are_reduced_to_path_and_query() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let check = async |target: &str, expected: &str| {
        let mut client = mesh.client().await;
        client.send(format!("GET {target} HTTP/1.1\r\nHost: shop.localhost\r\n\r\n")).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 200, "{target}");
        if answer.text() != "testapp" {
            assert_eq!(Head::parse(answer.text()).request_line, format!("GET {expected} HTTP/1.1"));
        }
    };
    check("http://shop.localhost/head?x=1", "/head?x=1").await;
    check("/head?x=1#part", "/head?x=1").await;
    check("http://shop.localhost", "/").await;
}

#[tokio::test]
async fn methods_nobody_knows_reach_the_dyno() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    for method in ["BREW", "M-SEARCH", "X", "get"] {
        let answer = mesh.client().await.request(method, "/head", "", "").await;
        assert!(
            answer.text().starts_with(&format!("{method} /head HTTP/1.1\r\n")),
            "{}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn options_for_the_whole_server_reaches_the_dyno() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let answer = mesh.client().await.request("OPTIONS", "*", "", "").await;
    assert_eq!(answer.status, 200);
}

// ---- to the client ----------------------------------------------------------------------------------------

/// The answer that a client gets when the dyno sends this.
async fn answer_to(mesh: &Mesh, bytes: &str) -> Answer {
    mesh.get(&format!("/raw?bytes={}&then=keep", percent_encoded(bytes))).await
}

#[tokio::test]
async fn answers_lose_what_is_hop_by_hop_and_gain_a_via() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let answer = answer_to(
        &mesh,
        "HTTP/1.1 201 Well Made\r\nconnection: keep-alive, x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: keep-alive\r\nset-cookie: a=1\r\nSet-Cookie: b=2\r\nX-Dynomesh-Error: H99\r\n\
         Server: mine\r\nDate: Sat, 21 Nov 2026 00:00:00 GMT\r\nVia: 1.1 inner\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    assert_eq!((answer.status, answer.reason.as_str(), answer.text()), (201, "Well Made", "ok"));
    for gone in ["X-Hop", "Keep-Alive", "Proxy-Connection", "X-Dynomesh-Error"] {
        assert_eq!(answer.field(gone), None, "{answer:?}");
    }
    let cookies = answer.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("Set-Cookie"));
    assert_eq!(cookies.map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["a=1", "b=2"]);
    assert_eq!(answer.field("Server"), Some("mine"));
    assert_eq!(answer.field("Date"), Some("Sat, 21 Nov 2026 00:00:00 GMT"));
    let via = answer.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("Via"));
    assert_eq!(
        via.map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(", "),
        "1.1 inner, 1.1 dynomesh"
    );
    assert!(!answer.says_close());
}

#[tokio::test]
async fn a_missing_date_is_added() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let date = mesh.get("/").await.field("Date").map(str::to_string).expect("a Date");
    // Sat, 21 Nov 2026 00:00:00 GMT
    let shape = date.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect::<String>();
    assert!(shape.ends_with(" 0000 00:00:00 GMT") && shape.len() == 29, "{date}");
}

#[tokio::test]
async fn a_missing_reason_is_no_reason_to_refuse() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    for line in ["HTTP/1.1 200", "HTTP/1.1 200 "] {
        let answer = answer_to(&mesh, &format!("{line}\r\nContent-Length: 2\r\n\r\nok")).await;
        assert_eq!((answer.status, answer.text()), (200, "ok"), "{line:?}");
    }
}

// ---- answers that are no HTTP -----------------------------------------------------------------------------

#[tokio::test]
async fn an_answer_that_is_no_http_is_h17() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    for bytes in [
        "220 smtp.example.com ESMTP\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 99 Low\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        "HTTP/1.1 200 OK\r\nSpace : before\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
        "HTTP/1.1 200 OK\nA: b\n\n",
        "HTTP/1.1 200 OK\r\nA: nul\0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    ] {
        let target = format!("/raw?bytes={}", percent_encoded(bytes));
        let answer = mesh.get(&target).await;
        assert_eq!((answer.status, answer.code()), (503, Some("H17")), "{bytes:?}");
        mesh.request(&target).await.has(&[
            "code=H17",
            "desc=Poorly formatted HTTP response",
            "status=503",
        ]);
    }
}

#[tokio::test]
async fn an_answer_beyond_the_bounds_is_h25() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let cookie =
        format!("HTTP/1.1 200 OK\r\nSet-Cookie: {}\r\nContent-Length: 0\r\n\r\n", "c".repeat(5));
    assert_eq!(answer_to(&mesh, &cookie).await.status, 200);
    for bytes in [
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na",
        "HTTP/1.1 200 OK\r\nContent-Length: 0x1\r\n\r\na",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\na",
    ] {
        let target = format!("/raw?bytes={}", percent_encoded(bytes));
        let answer = mesh.get(&target).await;
        assert_eq!((answer.status, answer.code()), (502, Some("H25")), "{bytes:?}");
        mesh.request(&target).await.has(&["code=H25", "status=502"]);
    }
}

/// The limits of an answer's head, from both sides: `/fields?name=…&bytes=…&n=…` makes them.
#[tokio::test]
async fn the_bounds_of_an_answers_head_are_where_they_are_said_to_be() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    // One Set-Cookie line of 8192 bytes; one field of 512 KiB; 1000 fields, two of which are framing's.
    for (query, status) in [
        ("name=Set-Cookie&line=8192", 200),
        ("name=Set-Cookie&line=8193", 502),
        ("name=X-Long&line=8193", 200),
        ("name=X-Long&line=524288", 200),
        ("name=X-Long&line=524289", 502),
        ("name=X-Many&line=20&n=999", 200),
        ("name=X-Many&line=20&n=1000", 502),
    ] {
        let answer = mesh.get(&format!("/fields?{query}")).await;
        assert_eq!(answer.status, status, "{query}");
        assert_eq!(answer.code(), (status == 502).then_some("H25"), "{query}");
    }
}

#[tokio::test]
async fn a_refused_answer_leaves_the_client_its_connection() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let mut client = mesh.client().await;
    client
        .send(request("GET", &format!("/raw?bytes={}", percent_encoded("rubbish\r\n\r\n")), "", ""))
        .await;
    client.answer().await.is_refusal(503, "H17");
    assert_eq!(client.get("/").await.status, 200);
}

/// The head alone would be fine, and the client must not be told 200 for it.
#[tokio::test]
async fn an_answer_whose_first_chunk_is_bad_is_h17() {
    let app = App::start().await;
    let mesh = Mesh::of(&[&app]).await;
    let bytes = percent_encoded("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n");
    for then in ["keep", "close"] {
        let target = format!("/raw?bytes={bytes}&then={then}");
        mesh.get(&target).await.is_refusal(503, "H17");
        mesh.request(&target).await.has(&["at=error", "code=H17", "status=503"]);
    }
}
