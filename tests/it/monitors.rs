//! Numbers of dynos that follow the requests from a command on: what the heroku CLI asks of a host of Heroku's.

use serde_json::{Value, json};

use crate::support::{
    Answer, Client, Load, Mesh, Setup, Tls, becomes_true, json_of, request, within,
};

const HOST: &str = "api.metrics.heroku.com";

/// A shop whose daemon has the API, and a token for it.
struct Metrics {
    mesh: Mesh,
    token: String,
    shop: String,
}

impl Metrics {
    /// With these lines about the shop.
    async fn start(lines: &str) -> Self {
        let setup = Setup::new().procfile("shop", "web: TESTAPP\nworker: sleep 1000\n", lines);
        Self::of(setup.api().start().await).await
    }

    async fn of(mesh: Mesh) -> Self {
        let token = token(&mesh, "operate").await;
        let mut metrics = Self { mesh, token, shop: String::new() };
        let mut client = Client::connect(metrics.mesh.api().await).await;
        client.send(metrics.request("GET", "/apps/shop", "localhost", &Value::Null)).await;
        metrics.shop = json_of(&client.answer().await)["id"].as_str().unwrap().to_owned();
        metrics
    }

    fn request(&self, method: &str, path: &str, host: &str, body: &Value) -> String {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (token, length) = (&self.token, body.len());
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )
    }

    /// Asks as the CLI does: by way of the port as a proxy, and by TLS.
    async fn ask(&self, method: &str, path: &str, body: &Value) -> Answer {
        let mut client = within_tunnel(&self.mesh).await;
        let host = format!("{HOST}:{}", self.mesh.api().await.port());
        client.send(self.request(method, path, &host, body)).await;
        client.answer().await
    }

    fn monitors(&self) -> String {
        format!("/apps/{}/formation/web/monitors", self.shop)
    }

    async fn list(&self) -> Value {
        json_of(&self.ask("GET", &self.monitors(), &Value::Null).await)
    }

    /// Makes or changes the monitor, as the CLI would.
    async fn enable(&self, min: u32, max: u32, p95: u32) -> Answer {
        let wanted = json!({
            "action_type": "scale", "is_active": true, "min_quantity": min, "max_quantity": max, "value": p95,
            "op": "GREATER_OR_EQUAL", "period": 1, "notification_period": 1440, "notification_channels": [],
        });
        match self.list().await[0]["id"].as_str() {
            None => self.ask("POST", &self.monitors(), &wanted).await,
            Some(id) => self.ask("PATCH", &format!("{}/{id}", self.monitors()), &wanted).await,
        }
    }

    async fn disable(&self) -> Answer {
        let off = json!({ "is_active": false, "op": "GREATER_OR_EQUAL", "period": 1 });
        self.ask("PATCH", &format!("{}/{}", self.monitors(), self.shop), &off).await
    }

    async fn web_dynos_up(&self, count: usize) {
        becomes_true(&format!("{count} web dynos to be up, and no others"), async || {
            let known = self.mesh.known().await;
            known.len() == count && known.iter().all(|dyno| dyno.state == "up")
        })
        .await;
    }

    /// What a command says, and whether it was done.
    async fn command(&self, args: &[&str]) -> (String, bool) {
        let ran = self.mesh.command(args).await;
        (ran.out + &ran.err, ran.code == Some(0))
    }
}

async fn token(mesh: &Mesh, scope: &str) -> String {
    mesh.command(&["token:create", "-s", scope]).await.out.trim().to_owned()
}

/// A connection to that host, as the CLI has it.
async fn within_tunnel(mesh: &Mesh) -> Client {
    let stream = tunnel(mesh).await;
    Client::over_tls(Tls::of(mesh).over(stream, HOST).await.unwrap())
}

async fn tunnel(mesh: &Mesh) -> tokio::net::TcpStream {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(mesh.api().await).await.unwrap();
    stream.write_all(format!("CONNECT {HOST}:5000 HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = [0; 19];
    within("200", stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK\r\n\r\n");
    stream
}

#[track_caller]
fn is_refused(answer: &Answer, status: u16, why: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let message = json_of(answer)["message"].as_str().unwrap().to_owned();
    assert!(message.contains(why), "{message}");
}

#[tokio::test]
async fn the_number_follows_from_a_command_on_and_stays_when_that_ends() {
    let metrics = Metrics::start("").await;
    metrics.web_dynos_up(1).await;
    assert_eq!(metrics.list().await, json!([]));
    is_refused(&metrics.disable().await, 404, "Couldn't find that monitor");

    // Fewer than there are to be become more at once, and more become fewer.
    let made = metrics.enable(2, 3, 700).await;
    assert_eq!(made.status, 201);
    metrics.web_dynos_up(2).await;
    let expected = json!([2, 3, 700, "scale", true, "commands"]);
    let keys = ["min_quantity", "max_quantity", "value", "action_type", "is_active", "decided_by"];
    let listed = metrics.list().await;
    assert_eq!(json!(keys.map(|key| &listed[0][key])), expected);
    assert_eq!(listed, json!([json_of(&made)]));
    let (check, _) = metrics.command(&["check"]).await;
    let rules = "web 2 to 3 dynos for p95 700ms, up after 10s, down after 5m";
    assert!(check.contains(rules), "{check}");
    assert_eq!(metrics.enable(1, 1, 700).await.status, 200);
    metrics.web_dynos_up(1).await;

    // Nobody else decides meanwhile, and the next daemon goes on with it.
    metrics.enable(3, 4, 700).await;
    metrics.web_dynos_up(3).await;
    let decided = "The number of web dynos of shop follows its requests, from 3 to 4";
    for scale in ["web=1", "web+1"] {
        let (said, done) = metrics.command(&["ps:scale", scale]).await;
        assert!(!done && said.contains(decided), "{said}");
    }
    assert!(metrics.command(&["ps:scale", "web=3", "worker=0"]).await.1, "so it is");
    let metrics = Metrics::of(metrics.mesh.killed().await.start().await).await;
    metrics.mesh.says("heroku[web.3]", "Adopted, up since ").await;
    assert_eq!(metrics.list().await[0]["min_quantity"], 3);

    // What there is stays.
    let off = metrics.disable().await;
    assert_eq!((off.status, &json_of(&off)["is_active"]), (200, &json!(false)));
    assert_eq!(metrics.list().await, json!([]));
    assert_eq!(metrics.command(&["ps:scale"]).await.0, "web=3:Basic worker=0:Basic\n");
    metrics.web_dynos_up(3).await;
    assert!(metrics.command(&["ps:scale", "web=1"]).await.1);
    metrics.web_dynos_up(1).await;
    let (releases, _) = metrics.command(&["releases"]).await;
    assert!(releases.starts_with("=== shop Releases - Current: v1\n"), "{releases}");
}

#[tokio::test]
async fn requests_that_take_longer_than_a_command_allows_have_more_dynos() {
    let metrics = Metrics::start("").await;
    metrics.web_dynos_up(1).await;
    metrics.enable(1, 2, 100).await;
    let slow = request("GET", "/sleep?ms=300", "", "");
    let crowd = Load::start(metrics.mesh.http(), 4, &slow);
    let scaled = "Scaled to web@2:basic by autoscale, up: target=\"p95 100ms\"";
    // It is looked at for ten seconds, so that the second bound begins when half of them are over.
    crowd.carries(60).await;
    metrics.mesh.says("heroku[autoscale]", scaled).await;
    metrics.web_dynos_up(2).await;
    assert!(metrics.command(&["ps:scale"]).await.0.starts_with("web=2:Basic "));
    let crowd = crowd.stop().await;
    assert_eq!((crowd.broken, crowd.refused), (0, 0));
    metrics.disable().await;
    assert!(metrics.command(&["ps:scale"]).await.0.starts_with("web=2:Basic "));
}

#[tokio::test]
async fn what_the_file_says_of_web_it_decides() {
    let autoscale = "autoscale.web = { max = 3, target = \"in_flight 9\" }";
    for (line, monitors) in [(autoscale, 1), ("formation = { web = 1 }", 0)] {
        let metrics = Metrics::start(line).await;
        let fixed = format!("{}:", metrics.mesh.setup().file().display());
        is_refused(&metrics.enable(1, 2, 700).await, 422, &fixed);
        let listed = metrics.list().await;
        assert_eq!(listed.as_array().unwrap().len(), monitors, "{listed}");
        if monitors > 0 {
            let expected = json!([1, 3, null, "file"]);
            let keys = ["min_quantity", "max_quantity", "value", "decided_by"];
            assert_eq!(json!(keys.map(|key| &listed[0][key])), expected);
            is_refused(&metrics.disable().await, 422, &fixed);
        }
        metrics.web_dynos_up(1).await;
    }
}

#[tokio::test]
async fn nobody_else_is_served_there_and_nothing_else() {
    let mut metrics = Metrics::start("").await;
    metrics.web_dynos_up(1).await;
    is_refused(&metrics.enable(0, 2, 700).await, 422, "min_quantity: expected 1 to 1000 dynos");
    is_refused(&metrics.enable(2, 1, 700).await, 422, "max_quantity: expected 2 (min_quantity)");
    is_refused(&metrics.enable(1, 2, 0).await, 422, "value: expected 1 to 3600000 milliseconds");
    is_refused(&metrics.ask("GET", "/account", &Value::Null).await, 404, "");
    let unknown = metrics.ask("GET", "/apps/blog/formation/web/monitors", &Value::Null).await;
    is_refused(&unknown, 404, "Couldn't find the app blog");
    let addr = metrics.mesh.api().await;
    let direct = async |host: &str, path: &str| {
        let mut client = Client::connect(addr).await;
        client.send(metrics.request("GET", path, host, &Value::Null)).await;
        client.answer().await
    };
    // Only by way of the port as a proxy.
    is_refused(&direct("localhost", &metrics.monitors()).await, 404, "");
    is_refused(&direct(HOST, &metrics.monitors()).await, 404, "");
    is_refused(&direct(HOST, "/account").await, 421, "This is the API of ");
    assert!(Tls::of(&metrics.mesh).try_stream(addr, HOST).await.is_err(), "no certificate for it");
    let inside = tunnel(&metrics.mesh).await;
    assert!(Tls::of(&metrics.mesh).over(inside, "localhost").await.is_err(), "nor there another");
    let mut misled = within_tunnel(&metrics.mesh).await;
    misled.send(metrics.request("GET", &metrics.monitors(), "localhost", &Value::Null)).await;
    is_refused(&misled.answer().await, 421, "This is the API of api.metrics.heroku.com");

    metrics.token = token(&metrics.mesh, "read").await;
    assert_eq!(metrics.list().await, json!([]));
    is_refused(&metrics.enable(1, 2, 700).await, 403, "The token's scope is read");
    metrics.token = "nobody's".into();
    is_refused(&metrics.ask("GET", &metrics.monitors(), &Value::Null).await, 401, "Invalid");
}
