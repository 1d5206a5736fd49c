//! The Platform API's port: HTTP, TLS and the rendezvous of one-off dynos.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{Answer, Client, Mesh, Setup, Tls, becomes_true, json_of};

const PROCFILE: &str = "web: TESTAPP\nconsole: echo console\n";
/// What the CLI puts behind a command whose exit code it wants to know.
const ECHO: &str = " ; echo \"\u{FFFF} heroku-command-exit-status: $?\"";
const MARK: &str = "\u{FFFF} heroku-command-exit-status: ";

/// A client of the API, with a token.
struct Api {
    mesh: Mesh,
    token: String,
}

impl Api {
    async fn start() -> Self {
        let mesh = Setup::new().procfile("shop", PROCFILE, "").api().start().await;
        let made = mesh.command(&["token:create", "-s", "admin"]).await;
        let token = made.out.trim().to_owned();
        assert!(token.starts_with("dynomesh-"), "{made:?}");
        Self { mesh, token }
    }

    async fn plain(&self) -> Client {
        Client::connect(self.mesh.api().await).await
    }

    async fn tls(&self) -> Client {
        Tls::of(&self.mesh).connect(self.mesh.api().await, "localhost").await
    }

    fn request(&self, method: &str, path: &str, fields: &str, body: &Value) -> String {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (token, length) = (&self.token, body.len());
        format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost:1234\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: {length}\r\n{fields}\r\n{body}"
        )
    }

    async fn ask(&self, method: &str, path: &str, body: &Value) -> Answer {
        let mut client = self.plain().await;
        client.send(self.request(method, path, "", body)).await;
        client.answer().await
    }

    /// Asks by this `Request-Id`.
    async fn ask_by(&self, id: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let mut client = self.plain().await;
        client.send(self.request(method, path, &format!("Request-Id: {id}\r\n"), body)).await;
        let answer = client.answer().await;
        (answer.status, json_of(&answer))
    }

    /// Orders an attached one-off dyno; returns its name and its secret.
    async fn order(&self, create: &Value) -> (String, String) {
        let answer = self.ask("POST", "/apps/shop/dynos", create).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let dyno = json_of(&answer);
        let url = dyno["attach_url"].as_str().unwrap();
        let secret = url.strip_prefix("rendezvous://localhost:1234/").expect(url);
        (dyno["name"].as_str().unwrap().to_owned(), secret.to_owned())
    }

    /// Attaches by a secret, after which the process runs.
    async fn attach(&self, secret: &str) -> Client {
        let mut client = self.tls().await;
        client.send(format!("{secret}\r\n")).await;
        assert_eq!(client.through(b"\r\n").await, b"rendezvous\r\n");
        client
    }

    /// What an attached command prints after the greeting, given this input.
    async fn run(&self, create: Value, input: &[u8]) -> String {
        let (_, secret) = self.order(&create).await;
        let mut client = self.attach(&secret).await;
        client.send(input).await;
        String::from_utf8(client.rest().await).unwrap()
    }
}

#[tokio::test]
async fn http_and_tls_share_the_port_and_urls_lead_back_the_same_way() {
    let api = Api::start().await;
    let addr = api.mesh.api().await;
    let by_address = Tls::of(&api.mesh).connect(addr, "127.0.0.1").await;
    for (mut client, scheme) in
        [(api.plain().await, "http"), (api.tls().await, "https"), (by_address, "https")]
    {
        client.send(api.request("GET", "/account", "", &Value::Null)).await;
        assert_eq!(json_of(&client.answer().await)["email"], "operator@localhost");
        // On the same connection, to which TLS gave one certificate.
        client.send(api.request("POST", "/apps/shop/log-sessions", "", &json!({}))).await;
        let session = json_of(&client.answer().await);
        let url = session["logplex_url"].as_str().unwrap();
        assert!(url.starts_with(&format!("{scheme}://localhost:1234/log-sessions/")), "{url}");
        client.send(api.request("GET", "/nothing", "", &Value::Null)).await;
        assert_eq!(client.answer().await.status, 404);
    }
    // The certificate is for the names of the API, and not for the apps' or anybody's.
    let other = Tls::of(&api.mesh).try_stream(addr, "shop.localhost").await;
    assert!(other.unwrap_err().to_string().contains("not valid for name"));
}

#[tokio::test]
async fn whatever_is_wrong_is_said_in_the_apis_own_form() {
    let api = Api::start().await;
    let mut client = api.plain().await;
    let mut refused = async |method: &str, path: &str, body: &str| {
        let (token, length) = (&api.token, body.len());
        client
            .send(format!(
                "{method} {path} HTTP/1.1\r\nHost: localhost:1234\r\nAuthorization: Bearer {token}\r\n\
                 Content-Length: {length}\r\n\r\n{body}"
            ))
            .await;
        let answer = client.answer().await;
        let id = json_of(&answer)["id"].as_str().unwrap().to_owned();
        (answer.status, id, answer.field("allow").map(str::to_owned))
    };
    let told =
        |status, id: &str, allow: Option<&str>| (status, id.into(), allow.map(str::to_owned));
    let not_allowed = told(405, "method_not_allowed", Some("GET,HEAD,POST"));
    assert_eq!(refused("PUT", "/apps", "").await, not_allowed);
    // A path and a query that are no text.
    assert_eq!(refused("GET", "/apps/%FF", "").await, told(404, "not_found", None));
    let twice = "/pipelines?eq[name]=a&eq[name]=b";
    assert_eq!(refused("GET", twice, "").await, told(422, "bad_request", None));
    // A list that stands where an object has to.
    assert_eq!(refused("POST", "/apps", "[\"blog\"]").await, told(422, "bad_request", None));
    let listed = r#"{"command": "true", "env": {"A": []}}"#;
    assert_eq!(refused("POST", "/apps/shop/dynos", listed).await, told(422, "bad_request", None));
    // Too large by its last byte, so that all of it is read.
    let large = " ".repeat((2 << 20) + 1);
    assert_eq!(refused("POST", "/apps", &large).await, told(413, "bad_request", None));
}

#[tokio::test]
async fn the_description_is_for_everybody() {
    let api = Api::start().await;
    let mut client = api.plain().await;
    client.send("GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.field("content-type")), (200, Some("application/json")));
    assert_eq!(json_of(&answer)["openapi"], "3.1.0");
}

#[tokio::test]
async fn a_request_over_tls_may_come_in_pieces() {
    let api = Api::start().await;
    let mut client = api.tls().await;
    let request = api.request("GET", "/apps/shop", "", &Value::Null);
    for piece in request.as_bytes().chunks(7) {
        client.send(piece).await;
    }
    assert_eq!(json_of(&client.answer().await)["name"], "shop");
}

#[tokio::test]
async fn who_does_not_say_what_he_is_is_let_go() {
    let api = Api::start().await;
    let addr = api.mesh.api().await;
    let began = Instant::now();
    let mut silent = Client::connect(addr).await;
    let mut half_way = Client::connect(addr).await;
    let hello = Tls::of(&api.mesh).hello();
    half_way.send(&hello[..hello.len() / 2]).await;
    let mut greeted = api.tls().await;
    greeted.send("abcdef").await;
    assert_eq!(silent.rest().await, b"");
    assert_eq!(half_way.rest().await, b"");
    greeted.rest_and_end().await;
    assert!(began.elapsed() >= Duration::from_secs(9), "{:?}", began.elapsed());
    assert_eq!(api.ask("GET", "/account", &Value::Null).await.status, 200);
}

#[tokio::test]
async fn an_attached_command_says_its_output_and_its_exit() {
    let api = Api::start().await;
    let create =
        |command: &str| json!({ "command": format!("{command}{ECHO}"), "attach": true, "env": {} });
    let said = api.run(create("echo out; echo err >&2; exit 3"), b"").await;
    assert_eq!(said, format!("out\nerr\n{MARK}3\n"));
    // A shell that is killed cannot say so itself.
    assert_eq!(api.run(create("kill -9 $$"), b"").await, format!("{MARK}137\n"));
    assert_eq!(api.run(create("console"), b"").await, format!("console\n{MARK}0\n"));
    let without = json!({ "command": "exit 4", "attach": true });
    assert_eq!(api.run(without, b"").await, "");
    // The end of the CLI's input is a character.
    let said = api.run(create("cat; echo end"), b"one\ntwo\n\x04").await;
    assert_eq!(said, format!("one\ntwo\nend\n{MARK}0\n"));
}

#[tokio::test]
async fn with_a_size_it_has_a_terminal_of_that_size() {
    let api = Api::start().await;
    let env = json!({ "TERM": "xterm", "COLUMNS": 97, "LINES": 31 });
    let command = "stty size; test -t 0 && test -t 1 && echo $TERM; read line; echo got $line";
    let create = json!({ "command": command, "attach": true, "env": env });
    let said = api.run(create, b"hello\r").await;
    assert!(said.contains("31 97\r\n") && said.contains("xterm\r\n"), "{said:?}");
    assert!(said.contains("got hello\r\n"), "{said:?}");
    let create = json!({ "command": "echo there; sleep 1000", "attach": true, "env": env });
    let (dyno, secret) = api.order(&create).await;
    let mut client = api.attach(&secret).await;
    client.through(b"there\r\n").await;
    client.send([3]).await;
    client.rest().await;
    api.mesh.says(&format!("heroku[{dyno}]"), "Process exited with status 130").await;
    // As the CLI has it with --no-tty.
    let create = json!({ "command": "test -t 1 || echo pipe", "attach": true, "env": env, "force_no_tty": true });
    assert_eq!(api.run(create, b"").await, "pipe\n");
}

#[tokio::test]
async fn a_secret_is_good_once() {
    let api = Api::start().await;
    let (_, secret) = api.order(&json!({ "command": "echo hello", "attach": true })).await;
    let mut unknown = api.tls().await;
    unknown.send(format!("{}\r\n", secret.replace(|_| true, "0"))).await;
    assert_eq!(unknown.rest_and_end().await.0, b"");
    assert_eq!(api.attach(&secret).await.rest().await, b"hello\n");
    let mut again = api.tls().await;
    again.send(format!("{secret}\r\n")).await;
    assert_eq!(again.rest_and_end().await.0, b"");
    // Nor is it one of the API's, or said to anybody.
    let lines = api.mesh.lines();
    assert!(!lines.iter().any(|line| line.message.contains(&secret)));
}

#[tokio::test]
async fn who_leaves_hangs_up() {
    let api = Api::start().await;
    let create = json!({ "command": "echo there; exec sleep 1000", "attach": true });
    let (dyno, secret) = api.order(&create).await;
    let mut client = api.attach(&secret).await;
    client.through(b"there\n").await;
    drop(client);
    api.mesh.says(&format!("heroku[{dyno}]"), "Process exited with status 129").await;
}

/// The CLI sends a request again when its connection broke before the answer.
#[tokio::test]
async fn a_request_that_is_repeated_begins_one_dyno() {
    let api = Api::start().await;
    let create = json!({ "command": "echo begun; sleep 1000", "attach": false });
    let mut broken = api.plain().await;
    broken.send(api.request("POST", "/apps/shop/dynos", "Request-Id: a,b\r\n", &create)).await;
    broken.reset();
    let ask = async |id: &str| {
        let (status, dyno) = api.ask_by(id, "POST", "/apps/shop/dynos", &create).await;
        assert_eq!(status, 201, "{dyno}");
        dyno["name"].as_str().unwrap().to_owned()
    };
    let first = ask("a,b").await;
    assert_eq!(ask("a,b").await, first);
    let other = ask("c,a,b").await;
    assert_ne!(other, first);
    let app = |name: &str| format!("app[{name}]");
    api.mesh.says(&app(&first), "begun").await;
    api.mesh.says(&app(&other), "begun").await;
    becomes_true("two one-offs", async || {
        let ps = api.mesh.command(&["ps", "run"]).await;
        ps.out.contains("one-off processes (2)")
    })
    .await;
}

/// Also what the first request has ended, and so cannot be found any more.
#[tokio::test]
async fn a_change_that_is_repeated_is_answered_as_it_was() {
    let api = Api::start().await;
    let twice = async |method: &str, path: &str, body: Value| {
        let id = format!("{method}-{path}");
        let first = api.ask_by(&id, method, path, &body).await;
        assert!([200, 201].contains(&first.0), "{method} {path}: {first:?}");
        assert_eq!(api.ask_by(&id, method, path, &body).await, first, "{method} {path}");
        first.1
    };
    let path = |noun: &str, it: &Value| format!("{noun}/{}", it["id"].as_str().unwrap());
    let app = twice("POST", "/apps", json!({})).await;
    let redis = json!({ "plan": "redis", "config": { "url": "redis://localhost" } });
    let addon = twice("POST", "/apps/shop/addons", redis).await;
    let attached = json_of(&api.ask("GET", "/addon-attachments", &Value::Null).await);
    assert_eq!(attached.as_array().unwrap().len(), 1, "{attached}");
    twice("DELETE", &path("/addon-attachments", &attached[0]), Value::Null).await;
    twice("DELETE", &path("/apps/shop/addons", &addon), Value::Null).await;
    let drain = json!({ "url": "syslog://localhost:1" });
    let drain = twice("POST", "/apps/shop/log-drains", drain).await;
    twice("DELETE", &path("/apps/shop/log-drains", &drain), Value::Null).await;
    let pipeline = twice("POST", "/pipelines", json!({ "name": "store" })).await;
    twice("DELETE", &path("/pipelines", &pipeline), Value::Null).await;
    twice("DELETE", &path("/apps", &app), Value::Null).await;
    let apps = json_of(&api.ask("GET", "/apps", &Value::Null).await);
    assert_eq!(apps.as_array().unwrap().len(), 1, "{apps}");
}

#[tokio::test]
async fn a_change_that_is_repeated_to_the_next_daemon_is_done_once() {
    let api = Api::start().await;
    let redis = json!({ "plan": "redis", "config": { "url": "redis://localhost" } });
    let create = async |api: &Api| api.ask_by("a", "POST", "/apps/shop/addons", &redis).await;
    let remove =
        async |api: &Api, path: &str| api.ask_by("b", "DELETE", path, &Value::Null).await.0;
    for app in ["old", "new"] {
        let (status, said) = api.ask_by(app, "POST", "/apps", &json!({ "name": app })).await;
        assert_eq!(status, 201, "{app}: {said}");
    }
    let (status, addon) = create(&api).await;
    assert_eq!(status, 201, "{addon}");
    assert_eq!(remove(&api, "/apps/old").await, 200);
    let Api { mesh, token } = api;
    let api = Api { mesh: mesh.killed().await.start().await, token };
    let (status, again) = create(&api).await;
    assert_eq!((status, &again["id"]), (201, &addon["id"]), "{again}");
    assert_eq!(remove(&api, "/apps/old").await, 200);
    assert_eq!(remove(&api, "/apps/new").await, 200);
    assert_eq!(remove(&api, "/apps/none").await, 404);
}

#[tokio::test]
async fn guessing_tokens_is_slowed_and_nobody_else_is() {
    let api = Api::start().await;
    let left =
        |answer: &Answer| answer.field("ratelimit-remaining").unwrap().parse::<u32>().unwrap();
    let first = api.ask("GET", "/account", &Value::Null).await;
    assert_eq!((first.status, left(&first)), (200, 4499));
    let mut guessing = api.plain().await;
    let request = api.request("GET", "/account", "", &Value::Null);
    let mut answers = Vec::new();
    // One comes back each second, so a machine that is slow makes a few more.
    for guess in 0..1000 {
        let token = format!("dynomesh-{guess}");
        guessing.send(request.replace(&api.token, &token)).await;
        let answer = guessing.answer().await;
        answers.push(answer.status);
        if answer.status == 429 {
            assert_eq!(json_of(&answer)["id"], "rate_limit");
            break;
        }
    }
    assert!(answers.len() > 60 && answers[..60].iter().all(|it| *it == 401), "{answers:?}");
    assert_eq!(answers.last(), Some(&429), "{answers:?}");
    assert_eq!(api.ask("GET", "/account", &Value::Null).await.status, 200);
}
