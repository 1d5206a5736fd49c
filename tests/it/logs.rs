//! What apps said: read back, followed, sent elsewhere, written to files; in one order, and with every loss said.

use std::process::Stdio;
use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::support::{DrainServer, Mesh, Setup, becomes_true, within};

/// A `logs --tail` that goes on, and what it has printed.
struct Tail {
    _child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Tail {
    #[expect(
        clippy::disallowed_methods,
        reason = "it ends with the command, and that with the test"
    )]
    fn of(setup: &Setup, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dynomesh"));
        command.args(["logs", "--tail", "--config"]).arg(setup.file()).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut printed = BufReader::new(child.stdout.take().unwrap()).lines();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let taken = lines.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = printed.next_line().await {
                taken.lock().unwrap().push(line);
            }
        });
        Self { _child: child, lines }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    async fn has(&self, text: &str) {
        becomes_true(&format!("{text:?} in a tail"), async || {
            self.lines().iter().any(|line| line.contains(text))
        })
        .await;
    }
}

async fn shop() -> Mesh {
    let mesh = Setup::new().procfile("shop", "web: TESTAPP\n", "").start().await;
    mesh.says("heroku[web.1]", "State changed from starting to up").await;
    mesh
}

async fn logs(mesh: &Mesh, args: &[&str]) -> Vec<String> {
    let ran = mesh.command(&[&["logs"], args].concat()).await;
    assert_eq!((ran.code, &*ran.err), (Some(0), ""), "{ran:?}");
    ran.out.lines().map(str::to_owned).collect()
}

/// Where each of these texts stands among the lines; each must be there, in this order.
#[track_caller]
fn in_order(lines: &[String], texts: &[&str]) {
    let mut from = 0;
    for text in texts {
        let found = lines[from..].iter().position(|line| line.contains(text));
        from += found.unwrap_or_else(|| panic!("no {text:?} after line {from} of {lines:#?}")) + 1;
    }
}

#[tokio::test]
async fn logs_of_app_router_and_manager_are_in_one_order() {
    let mesh = shop().await;
    assert_eq!(mesh.get("/print?line=first").await.status, 200);
    mesh.says("app[web.1]", "first").await;
    mesh.request("/print?line=first").await;
    assert_eq!(mesh.get("/print?line=second").await.status, 200);
    mesh.says("app[web.1]", "second").await;
    let lines = logs(&mesh, &["-a", "shop"]).await;
    // What an app prints is stamped when it is read, which may be before its answer is out or after that.
    let request =
        |line: &str| format!("heroku[router]: at=info method=GET path=\"/print?line={line}\"");
    let (first, second) = (request("first"), request("second"));
    let (started, up) =
        ("heroku[web.1]: Starting process with", "heroku[web.1]: State changed from");
    for early in ["app[web.1]: first", &first] {
        for late in ["app[web.1]: second", &second] {
            in_order(&lines, &[started, up, early, late]);
        }
    }
    let stamps: Vec<_> = lines.iter().map(|line| &line[..32]).collect();
    assert!(stamps.is_sorted(), "{lines:#?}");
    // As Heroku prints them: without the app.
    assert!(
        lines.iter().all(|line| &line[26..33] == "+00:00 " && !line.contains(" shop ")),
        "{lines:#?}"
    );

    let of = |lines: &[String], origin: &str| {
        lines.iter().filter(|it| it[33..].starts_with(origin)).count()
    };
    for (args, origin) in [
        (&["-p", "router"][..], "heroku[router]: "),
        (&["-d", "web.1", "-s", "app"], "app[web.1]: "),
        (&["--source", "app"], "app["),
        (&["--ps", "web", "-s", "heroku"], "heroku[web.1]: "),
    ] {
        let some = logs(&mesh, args).await;
        assert!(!some.is_empty() && of(&some, origin) == some.len(), "{args:?}: {some:#?}");
    }
    let last = logs(&mesh, &["-n", "1"]).await;
    assert_eq!(last, lines[lines.len() - 1..]);
    let printed = logs(&mesh, &["-s", "app", "-n", "1", "--json"]).await;
    let parts: serde_json::Value = serde_json::from_str(&printed[0]).unwrap();
    assert_eq!((&parts["dyno"], &parts["message"]), (&"web.1".into(), &"second".into()));
    assert!(lines.iter().any(|line| line.starts_with(parts["at"].as_str().unwrap())), "{parts}");
    assert!(logs(&mesh, &["-d", "web.2"]).await.is_empty());
    let unknown = mesh.command(&["logs", "-a", "shpo"]).await;
    assert_eq!((unknown.code, &*unknown.err), (Some(1), "dynomesh: Couldn't find the app shpo.\n"));
}

#[tokio::test]
async fn a_tail_goes_on_over_a_restart_of_the_daemon() {
    let mut mesh = shop().await;
    let tail = Tail::of(mesh.setup(), &["-n", "3"]);
    tail.has("State changed from starting to up").await;
    assert_eq!(mesh.get("/print?line=before").await.status, 200);
    tail.has("app[web.1]: before").await;
    tail.has("path=\"/print?line=before\"").await;
    mesh.signal(Signal::TERM);
    mesh.ended().await;
    let mesh = mesh.start_again().await;
    mesh.says("heroku[web.1]", "State changed from starting to up").await;
    assert_eq!(mesh.get("/print?line=after").await.status, 200);
    tail.has("app[web.1]: after").await;
    let lines = tail.lines();
    in_order(
        &lines,
        &["app[web.1]: before", "heroku[web.1]: Starting process", "app[web.1]: after"],
    );
    assert_eq!(
        lines.iter().filter(|line| line.contains("app[web.1]: before")).count(),
        1,
        "{lines:#?}"
    );
}

// ---- sessions, byte by byte -----------------------------------------------------------------------------------

/// A request over the control socket, whose answer ends with its connection.
async fn ask(mesh: &Mesh, head: &str, body: &str) -> UnixStream {
    let socket = UnixStream::connect(mesh.path("state/dynomesh.sock")).await;
    let mut socket = socket.expect("the control socket");
    let length = body.len();
    let text = format!(
        "{head}\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    socket.write_all(text.as_bytes()).await.unwrap();
    socket
}

async fn answer(mesh: &Mesh, head: &str, body: &str) -> String {
    let mut text = Vec::new();
    let mut socket = ask(mesh, head, body).await;
    within(head, socket.read_to_end(&mut text)).await.unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

/// The path of a session for this.
async fn session(mesh: &Mesh, wanted: &str) -> String {
    let created = answer(mesh, "POST /apps/shop/log-sessions HTTP/1.1", wanted).await;
    assert!(created.starts_with("HTTP/1.1 201 "), "{created}");
    let body: serde_json::Value =
        serde_json::from_str(created.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(body["id"].as_str().unwrap().len(), 36);
    body["logplex_url"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_session_is_its_url_and_lines_have_ids_to_come_back_with() {
    let mesh = shop().await;
    mesh.get("/print?line=known").await;
    let path = session(&mesh, r#"{"lines": 5, "source": "app"}"#).await;
    let events = answer(&mesh, &format!("GET {path} HTTP/1.1"), "").await;
    assert!(events.to_lowercase().contains("\r\ncontent-type: text/event-stream\r\n"), "{events}");
    assert!(events.contains("retry: 1\n\n"), "{events}");
    let ids: Vec<u64> =
        events.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect();
    assert!(!ids.is_empty() && ids.is_sorted(), "{events}");
    assert!(events.contains("app[web.1]: known\n\n"), "{events}");

    mesh.get("/print?line=later").await;
    let last = ids.last().unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nLast-Event-ID: {last}");
    let events = answer(&mesh, &head, "").await;
    assert!(events.contains("app[web.1]: later") && !events.contains("known"), "{events}");

    // The signature is at the end.
    let forged = format!("{}x", &path[..path.len() - 1]);
    for path in [forged.as_str(), "/log-sessions/x", "/log-sessions/e30.e30"] {
        let refused = answer(&mesh, &format!("GET {path} HTTP/1.1"), "").await;
        assert!(refused.starts_with("HTTP/1.1 404 "), "{path}: {refused}");
    }
    let wrong = answer(&mesh, "POST /apps/shop/log-sessions HTTP/1.1", "[").await;
    assert!(wrong.starts_with("HTTP/1.1 422 "), "{wrong}");
    assert!(
        mesh.lines().iter().all(|line| !line.text.contains(&path)),
        "a capability is in the log"
    );
}

/// Who follows and does not read loses lines, is told how many, and stops nobody.
#[tokio::test]
async fn a_slow_follower_loses_its_own_lines_and_is_told() {
    let procfile =
        "web: TESTAPP\nloud: while ! test -e go; do sleep 0.1; done; seq 60000; sleep 1000\n";
    let mesh = Setup::new().procfile("shop", procfile, "formation = { loud = 1 }").start().await;
    mesh.says("heroku[loud.1]", "State changed from starting to up").await;
    let path = session(&mesh, r#"{"tail": true, "source": "app", "dyno": "loud"}"#).await;
    let socket = ask(&mesh, &format!("GET {path} HTTP/1.1"), "").await;
    let mut slow = BufReader::new(socket).lines();
    let head = within("an answer", slow.next_line()).await.unwrap().unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let quick = Tail::of(mesh.setup(), &["-n", "0", "-p", "loud"]);
    std::fs::write(mesh.path("shop/go"), "").unwrap();
    quick.has("app[loud.1]: 60000").await;
    let (mut read, mut lost) = (0, 0);
    loop {
        let line = within("the last line", slow.next_line()).await.unwrap().unwrap();
        let told = line.split_once("This tail session dropped ").map(|(_, rest)| rest);
        if let Some(told) = told.and_then(|rest| rest.split(' ').next()) {
            assert!(
                line.contains(" heroku[logplex]: Error L11 (Tail buffer overflow) -> "),
                "{line}"
            );
            lost += told.parse::<u64>().unwrap();
        }
        read += u64::from(line.contains(" app[loud.1]: "));
        if line.ends_with(" app[loud.1]: 60000") {
            break;
        }
    }
    assert!(lost > 0, "{read} lines read");
    // What the dyno itself lost by printing that fast is said of it, and in the count of nobody else; other lines of
    // the app, which this session would not have seen, are.
    assert!(read + lost <= 60_100 && read > 10_000, "{read} lines read, {lost} lost");
    assert_eq!(mesh.get("/").await.status, 200);
}

// ---- drains ---------------------------------------------------------------------------------------------------

fn drains(urls: &[String]) -> String {
    format!("drains = {urls:?}")
}

#[tokio::test]
async fn drains_take_lines_by_syslog() {
    let (plain, tls) = (DrainServer::syslog().await, DrainServer::syslog_tls().await);
    let urls = [
        format!("syslog://127.0.0.1:{}", plain.port()),
        format!("syslog+tls://localhost:{}", tls.port()),
    ];
    let setup = Setup::new().procfile("shop", "web: TESTAPP\n", &drains(&urls));
    std::fs::write(setup.dir().join("root.pem"), tls.certificate()).unwrap();
    let mesh = setup.table("logs", "ca_file = \"root.pem\"").start().await;
    assert_eq!(mesh.get("/print?line=hello").await.status, 200);
    for server in [&plain, &tls] {
        let line = server.has(" - - hello").await;
        assert!(
            line.starts_with("<190>1 20") && line.ends_with("+00:00 shop app web.1 - - hello"),
            "{line}"
        );
        let line = server.has(" heroku router - - at=info method=GET ").await;
        assert!(line.starts_with("<158>1 "), "{line}");
        let line = server.has("State changed from starting to up").await;
        assert!(line.starts_with("<45>1 ") && line.contains(" shop heroku web.1 - - "), "{line}");
        let messages = server.messages();
        let stamps: Vec<_> = messages.iter().filter_map(|it| it.split(' ').nth(1)).collect();
        assert!(stamps.is_sorted(), "{messages:#?}");
    }
    // Both have the same, to the dynos' last words at the daemon's end.
    let mut mesh = mesh;
    mesh.signal(Signal::TERM);
    mesh.ended().await;
    plain.has("State changed from up to down").await;
    tls.has("State changed from up to down").await;
    assert_eq!(plain.messages(), tls.messages());
}

#[tokio::test]
async fn a_drain_by_https_is_herokus_and_is_tried_again() {
    let server = DrainServer::logplex().await;
    // Down for two batches, then it will not have the third.
    server.answers(&[503, 503, 204, 401]);
    let urls = [format!("https://user:p%40ss@localhost:{}/in?a=b", server.port())];
    let setup = Setup::new().procfile("shop", "web: TESTAPP\n", &drains(&urls));
    std::fs::write(setup.dir().join("root.pem"), server.certificate()).unwrap();
    let mesh = setup.table("logs", "ca_file = \"root.pem\"").start().await;
    server.has("Starting process with command").await;
    let posts = server.posts();
    let statuses: Vec<_> = posts.iter().map(|post| post.status).take(3).collect();
    assert_eq!(statuses, [503, 503, 204]);
    let header = |post: usize, name: &str| posts[post].headers[name].clone();
    assert_eq!(posts[0].path, "/in?a=b");
    assert_eq!(header(0, "content-type"), "application/logplex-1");
    assert_eq!(header(0, "authorization"), "Basic dXNlcjpwQHNz");
    assert!(header(0, "logplex-drain-token").starts_with("d."));
    assert_eq!(header(0, "logplex-msg-count"), posts[0].messages.len().to_string());
    let message = posts[0].messages.iter().find(|it| it.contains("Starting process")).unwrap();
    assert!(
        message.starts_with("<45>1 20")
            && message.contains(" host heroku web.1 - Starting process"),
        "{message}"
    );
    // The same batch, by the same name.
    assert_eq!(header(0, "logplex-frame-id"), header(2, "logplex-frame-id"));
    assert_eq!(posts[0].messages, posts[2].messages);

    becomes_true("a batch to be refused", async || {
        mesh.get("/print?line=next").await;
        server.posts().iter().any(|post| post.status == 401)
    })
    .await;
    let told = async || {
        mesh.get("/print?line=next").await;
        server.messages().iter().any(|it| it.contains(" heroku logplex - Error L13: "))
    };
    becomes_true("the loss to be said", told).await;
    let refused = server.posts().into_iter().find(|post| post.status == 401).unwrap();
    let said = server.has("Error L13: ").await;
    let lost = format!("Error L13: {} messages dropped since ", refused.messages.len());
    assert!(said.starts_with("<172>1 ") && said.contains(&lost), "{said}");
    let labels = [("app", "shop"), ("result", "lost")];
    let counted = mesh.metrics().await.get("dynomesh_drain_lines_total", &labels);
    assert_eq!(counted, refused.messages.len() as f64);
    assert!(
        mesh.lines().iter().all(|line| !line.text.contains("p%40ss")),
        "a password is in the log"
    );
}

/// How many lines of the app reached a drain, and how many it was told that it has lost.
fn reached(server: &DrainServer) -> (usize, usize) {
    let messages = server.messages();
    let lost = messages.iter().filter_map(|it| {
        let (_, rest) = it.split_once("Error L10 (output buffer overflow): ")?;
        it.contains(" heroku logplex ").then(|| rest.split(' ').next()?.parse::<usize>().ok())?
    });
    let lost = lost.sum();
    (messages.iter().filter(|it| !it.contains(" heroku logplex ")).count(), lost)
}

#[tokio::test]
async fn a_slow_drain_loses_its_own_lines_alone() {
    let (quick, slow) = (DrainServer::syslog().await, DrainServer::logplex().await);
    slow.stalls(true);
    let urls = [
        format!("syslog://127.0.0.1:{}", quick.port()),
        format!("https://localhost:{}/", slow.port()),
    ];
    let procfile = "loud: while ! test -e go; do sleep 0.1; done; seq 60000; while ! test -e end; do sleep 0.1; done; echo the end; sleep 1000\n";
    let lines = format!("formation = {{ loud = 1 }}\n{}", drains(&urls));
    let setup = Setup::new().procfile("shop", procfile, &lines);
    std::fs::write(setup.dir().join("root.pem"), slow.certificate()).unwrap();
    let mesh = setup.table("logs", "ca_file = \"root.pem\"").start().await;
    quick.has("State changed from starting to up").await;
    std::fs::write(mesh.path("shop/go"), "").unwrap();
    quick.has(" - - 60000").await;
    slow.stalls(false);
    slow.has(" - 60000").await;
    std::fs::write(mesh.path("shop/end"), "").unwrap();
    quick.has("the end").await;
    slow.has("the end").await;
    let ((quick_has, quick_lost), (slow_has, slow_lost)) = (reached(&quick), reached(&slow));
    assert!(
        slow_lost > 60_000 - 16_384 - 20_000,
        "{slow_has} lines reached it, {slow_lost} were lost"
    );
    assert_eq!(quick_has + quick_lost, slow_has + slow_lost, "{quick_lost} {slow_lost}");
    assert!(quick_lost < slow_lost, "{quick_lost} {slow_lost}");
}

#[tokio::test]
async fn drains_come_and_go_by_a_reload() {
    let (one, other) = (DrainServer::syslog().await, DrainServer::syslog().await);
    let url = |server: &DrainServer| format!("syslog://127.0.0.1:{}", server.port());
    let setup = Setup::new().procfile("shop", "web: TESTAPP\n", &drains(&[url(&one)]));
    let mut mesh = setup.start().await;
    mesh.get("/print?line=first").await;
    one.has(" - - first").await;
    let text = mesh.setup().text().replace(&url(&one), &url(&other));
    mesh.reload_text(&text, "ok").await;
    mesh.get("/print?line=second").await;
    other.has(" - - second").await;
    let messages = other.messages();
    assert!(!messages.iter().any(|it| it.contains("first")), "{messages:#?}");
    let messages = one.messages();
    assert!(!messages.iter().any(|it| it.ends_with(" - - second")), "{messages:#?}");
    let wrong = text.replace("syslog://", "tcp://secret@");
    mesh.reload_text(&wrong, "refused").await;
    assert!(
        mesh.lines().iter().all(|line| !line.text.contains("secret")),
        "what may be a password is in the log"
    );
}

// ---- files, and targets that fail -----------------------------------------------------------------------------

#[tokio::test]
async fn each_app_has_a_file_of_what_logs_prints() {
    let setup = Setup::new().procfile("shop", "web: TESTAPP\n", "");
    let setup = setup.procfile("blog", "web: TESTAPP\n", "");
    let mut mesh = setup.table("logs", "dir = \"logs\"\nkeep = 1").start().await;
    mesh.says("heroku[web.1]", "State changed from starting to up").await;
    mesh.get("/print?line=in-a-file").await;
    let printed = logs(&mesh, &["-a", "shop", "-n", "1500"]).await;
    in_order(&printed, &["app[web.1]: in-a-file"]);
    let file = mesh.path("logs/shop.log");
    let read = || std::fs::read_to_string(&file).unwrap_or_default();
    becomes_true("the file", async || read().contains("app[web.1]: in-a-file")).await;
    let text = read();
    let of_file: Vec<_> = text.lines().take(printed.len()).collect();
    assert_eq!(of_file, printed);
    mesh.signal(Signal::TERM);
    mesh.ended().await;
    assert!(
        read().contains("State changed from up to down"),
        "the last words are missing: {}",
        read()
    );
    let blog = std::fs::read_to_string(mesh.path("logs/blog.log")).unwrap();
    assert!(!blog.contains("in-a-file") && !blog.is_empty());
}

/// What one taker of lines cannot take, the others have; and it is counted for the app whose lines they are.
#[tokio::test]
async fn a_full_disk_loses_lines_of_the_disk_alone() {
    let setup = Setup::new().router("access_log = \"/dev/full\"");
    let mesh = setup.procfile("shop", "web: TESTAPP\n", "").start().await;
    mesh.says("heroku[web.1]", "State changed from starting to up").await;
    for _ in 0..3 {
        assert_eq!(mesh.get("/lost").await.status, 200);
    }
    mesh.metric_becomes("dynomesh_log_lines_dropped_total", &[("app", "shop")], 3.0).await;
    assert_eq!(logs(&mesh, &["-p", "router"]).await.len(), 3);
}

#[tokio::test]
async fn without_an_access_log_there_are_no_lines_of_requests() {
    let setup = Setup::new().router("access_log = \"off\"");
    let mesh = setup.procfile("shop", "web: TESTAPP\n", "").start().await;
    mesh.says("heroku[web.1]", "State changed from starting to up").await;
    assert_eq!(mesh.get("/print?line=heard").await.status, 200);
    let lines = logs(&mesh, &[]).await;
    in_order(&lines, &["app[web.1]: heard"]);
    assert!(lines.iter().all(|line| !line.contains("heroku[router]")), "{lines:#?}");
}
