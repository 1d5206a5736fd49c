//! Deploys: what is in a directory becomes what an app runs, or nothing changes.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::support::{
    Answer, Client, Load, Mesh, Ran, Setup, Sockets, becomes_true, request, testapp, within,
};

const QUICK: &str = "timeouts = { boot = \"5s\", exit = \"5s\", cool_off = \"200ms\", cool_off_max = \"400ms\", ws_drain = \"500ms\" }";

/// A daemon with the app `shop`, of which the file says nothing but how patient it is.
async fn shop() -> Mesh {
    Setup::new().app("shop", QUICK).start().await
}

/// A directory to deploy, with this Procfile.
fn source(mesh: &Mesh, procfile: &str) -> PathBuf {
    let dir = mesh.path("source");
    fs::create_dir_all(&dir).unwrap();
    let procfile = procfile.replace("TESTAPP", testapp().to_str().unwrap());
    fs::write(dir.join("Procfile"), procfile).unwrap();
    dir
}

async fn deploy(mesh: &Mesh, procfile: &str) -> Ran {
    let dir = source(mesh, procfile);
    mesh.command(&["deploy", dir.to_str().unwrap(), "-a", "shop"]).await
}

/// Deploys what has to become this release.
async fn deploys(mesh: &Mesh, procfile: &str, version: u64) -> String {
    let ran = deploy(mesh, procfile).await;
    assert_eq!((ran.code, &*ran.out), (Some(0), &*format!("Released v{version}\n")), "{ran:?}");
    ran.err
}

/// Deploys what has to fail, and returns what was said of it.
async fn fails(mesh: &Mesh, procfile: &str) -> String {
    let ran = deploy(mesh, procfile).await;
    assert_eq!((ran.code, &*ran.out), (Some(1), ""), "{ran:?}");
    ran.err
}

async fn does(mesh: &Mesh, args: &[&str]) -> String {
    let ran = mesh.command(args).await;
    assert_eq!(ran.code, Some(0), "{args:?}: {ran:?}");
    ran.out + &ran.err
}

/// The releases, the newest first: version, status, whether it is the current one.
async fn releases(mesh: &Mesh) -> Vec<(u64, String, bool)> {
    let out = does(mesh, &["releases", "--json", "-a", "shop"]).await;
    let releases: Vec<Value> = serde_json::from_str(&out).unwrap();
    let release = |it: &Value| {
        let status = it["status"].as_str().unwrap().to_owned();
        (it["version"].as_u64().unwrap(), status, it["current"].as_bool().unwrap())
    };
    releases.iter().map(release).collect()
}

fn row(version: u64, status: &str, current: bool) -> (u64, String, bool) {
    (version, status.to_owned(), current)
}

/// What the dynos have of a variable.
async fn seen(mesh: &Mesh, name: &str) -> String {
    let answer: Answer = mesh.get(&format!("/env?name={name}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.text().to_string()
}

#[tokio::test]
async fn what_is_deployed_runs_and_its_formation_stays() {
    let mesh = shop().await;
    assert_eq!(mesh.get("/").await.code(), Some("H81"));
    let said = deploys(&mesh, "web: V=1 TESTAPP\nworker: sleep 1000\n", 1).await;
    assert!(said.contains("web.1 is up (1 of 1)"), "{said}");
    assert_eq!(seen(&mesh, "V").await, "1");
    assert_eq!(does(&mesh, &["ps:scale"]).await, "web=1:Basic worker=0:Basic\n");
    does(&mesh, &["ps:scale", "web=2", "worker=1"]).await;
    let said = deploys(&mesh, "web: V=2 TESTAPP\nworker: sleep 1001\n", 2).await;
    assert!(said.contains("worker.1 is up") && said.contains("of 3)"), "{said}");
    assert_eq!(seen(&mesh, "V").await, "2");
    assert_eq!(does(&mesh, &["ps:scale"]).await, "web=2:Basic worker=1:Basic\n");
    assert_eq!(releases(&mesh).await, [row(2, "succeeded", true), row(1, "succeeded", false)]);
    // The same again is the same release.
    deploys(&mesh, "web: V=2 TESTAPP\nworker: sleep 1001\n", 2).await;
    does(&mesh, &["rollback", "v1"]).await;
    becomes_true("v1 to be back", async || seen(&mesh, "V").await == "1").await;
    let slugs = fs::read_dir(mesh.path("state/slugs")).unwrap().count();
    assert_eq!(slugs, 2);
}

#[tokio::test]
async fn what_cannot_be_deployed_is_said() {
    let mesh = Setup::new().app("shop", "").procfile("fixed", "web: TESTAPP\n", "").start().await;
    let dir = source(&mesh, "web: TESTAPP\n");
    let refused = async |app: &str, source: &str| {
        let ran = mesh.command(&["deploy", source, "-a", app]).await;
        assert_eq!((ran.code, &*ran.out), (Some(1), ""), "{ran:?}");
        ran.err
    };
    let fixed = refused("fixed", dir.to_str().unwrap()).await;
    assert!(fixed.contains("What fixed runs is fixed by /"), "{fixed}");
    assert!(fixed.contains("dynomesh.toml:"), "{fixed}");
    let unknown = refused("none", dir.to_str().unwrap()).await;
    assert_eq!(unknown, "dynomesh: Couldn't find the app none.\n");
    fs::write(dir.join("Procfile"), "web serve\n").unwrap();
    let wrong = refused("shop", dir.to_str().unwrap()).await;
    assert!(wrong.contains("Procfile:1:4: expected `:` after `web`"), "{wrong}");
    fs::remove_file(dir.join("Procfile")).unwrap();
    let without = refused("shop", dir.to_str().unwrap()).await;
    assert!(without.contains("Procfile: no such file: say in it what runs"), "{without}");
    fs::write(dir.join("archive.tgz"), "certainly none".repeat(99)).unwrap();
    let garbled = refused("shop", dir.join("archive.tgz").to_str().unwrap()).await;
    assert!(garbled.contains("The slug is refused: this is no tar archive"), "{garbled}");
    assert_eq!(releases(&mesh).await, []);
}

/// One that crashes at boot, one that never binds, one whose release command fails.
const FAULTY: [(&str, &str); 3] = [
    ("web: echo no such table: users; exit 3\n", "web.1 exited with status 3 before it was up"),
    ("web: NEVER_BIND=1 TESTAPP\n", "was not up within 5 seconds (R10, boot timeout)"),
    ("web: V=4 TESTAPP\nrelease: echo no such migration; exit 7\n", "exited with status 7"),
];

#[tokio::test]
async fn what_does_not_work_leaves_what_was() {
    let mut mesh = shop().await;
    deploys(&mesh, "web: V=1 TESTAPP\n", 1).await;
    does(&mesh, &["config:set", "A=1"]).await;
    becomes_true("it to be there", async || seen(&mesh, "A").await == "1").await;
    for (procfile, expected) in FAULTY {
        let said = fails(&mesh, procfile).await;
        assert!(said.contains(expected) && said.contains("What ran before goes on"), "{said}");
        let printed = ["no such table: users", "no such migration"];
        let prints = printed.iter().any(|it| procfile.contains(it));
        assert_eq!(prints, printed.iter().any(|it| said.contains(it)), "{said}");
        assert_eq!((&*seen(&mesh, "V").await, &*seen(&mesh, "A").await), ("1", "1"));
    }
    let expected = [
        row(5, "failed", false),
        row(4, "failed", false),
        row(3, "failed", false),
        row(2, "succeeded", true),
        row(1, "succeeded", false),
    ];
    assert_eq!(releases(&mesh).await, expected);
    // What is current is what runs, for the next daemon as well.
    mesh = mesh.killed().await.start().await;
    becomes_true("it to answer", async || mesh.get("/").await.status == 200).await;
    assert_eq!((&*seen(&mesh, "V").await, &*seen(&mesh, "A").await), ("1", "1"));
    assert_eq!(releases(&mesh).await, expected);
    // Also where no dyno is left that could go on.
    mesh.signal(Signal::TERM);
    mesh.ended().await;
    mesh = mesh.start_again().await;
    becomes_true("it to answer", async || mesh.get("/").await.status == 200).await;
    assert_eq!((&*seen(&mesh, "V").await, &*seen(&mesh, "A").await), ("1", "1"));
    assert_eq!(releases(&mesh).await, expected);
    assert_eq!(seen(&mesh, "HEROKU_RELEASE_VERSION").await, "v2");
    deploys(&mesh, "web: V=6 TESTAPP\n", 6).await;
    assert_eq!((&*seen(&mesh, "V").await, &*seen(&mesh, "A").await), ("6", "1"));
}

#[tokio::test]
async fn a_release_command_runs_before_and_as_the_release() {
    let mesh = shop().await;
    let ran = mesh.path("ran");
    let release = |version: u64| {
        let ran = ran.display();
        format!(
            "web: V={version} TESTAPP\nrelease: echo migrating; echo $A {version} $DYNO >> {ran}\n"
        )
    };
    let said = deploys(&mesh, &release(1), 1).await;
    assert!(said.contains("Running the release command...\nmigrating\n"), "{said}");
    let first = fs::read_to_string(&ran).unwrap();
    assert!(first.starts_with("1 release."), "{first:?}");
    mesh.line("its output", |line| {
        (line.source.starts_with("app[release.") && line.message == "migrating").then_some(())
    })
    .await;
    does(&mesh, &["config:set", "A=new"]).await;
    becomes_true("v2", async || releases(&mesh).await[0] == row(2, "succeeded", true)).await;
    assert!(fs::read_to_string(&ran).unwrap().contains("\nnew 1 release."));
    assert_eq!(does(&mesh, &["config:get", "A"]).await, "new\n");
}

#[tokio::test]
async fn one_deploy_of_an_app_goes_on_at_a_time() {
    let mesh = shop().await;
    let go = mesh.path("go");
    let slow =
        format!("web: TESTAPP\nrelease: until [ -e {} ]; do sleep 0.05; done\n", go.display());
    let dir = source(&mesh, &slow);
    let args = ["deploy", dir.to_str().unwrap(), "-a", "shop"];
    let (first, second) = tokio::join!(mesh.command(&args), async {
        becomes_true("the first to be on its way", async || {
            releases(&mesh).await.first() == Some(&row(1, "pending", false))
        })
        .await;
        let second = deploy(&mesh, "web: V=2 TESTAPP\n").await;
        let set = mesh.command(&["config:set", "-a", "shop", "A=1"]).await;
        fs::write(&go, "").unwrap();
        (second, set)
    });
    assert_eq!(first.code, Some(0), "{first:?}");
    let (second, set) = second;
    assert!(second.err.contains("A deploy of shop is under way"), "{second:?}");
    assert!(set.err.contains("The release command of shop is running"), "{set:?}");
    deploys(&mesh, "web: V=2 TESTAPP\n", 2).await;
}

#[tokio::test]
async fn a_release_command_runs_before_an_app_is_told_of_an_addon() {
    let ran = "web: TESTAPP\nrelease: echo it is $REDIS_URL\n";
    let mesh = Setup::new().procfile("shop", ran, QUICK).start().await;
    does(&mesh, &["ps:wait", "-a", "shop"]).await;
    let addon = json!({ "plan": "redis", "config": { "url": "redis://one" } });
    let client = begins(&mesh, "/apps/shop/addons", &addon).await;
    becomes_true("v2", async || releases(&mesh).await[0] == row(2, "succeeded", true)).await;
    drop(client);
    assert_eq!(seen(&mesh, "REDIS_URL").await, "redis://one");
    mesh.line("its output", |line| (line.message == "it is redis://one").then_some(())).await;
    let (_, attached) = ask(&mesh, "GET", "/apps/shop/addon-attachments", "").await;
    assert_eq!(attached[0]["config_vars"], json!(["REDIS_URL"]), "{attached}");
    let id = attached[0]["id"].as_str().unwrap();
    assert_eq!(ask(&mesh, "DELETE", &format!("/addon-attachments/{id}"), "").await.0, 200);
    becomes_true("v3", async || releases(&mesh).await[0] == row(3, "succeeded", true)).await;
    assert_eq!(seen(&mesh, "REDIS_URL").await, "(unset)");
    // Who stays is answered while the command runs.
    let addon = json!({ "plan": "kv", "name": "box", "config": { "url": "kv://one" } });
    let (status, made) = ask(&mesh, "POST", "/apps/shop/addons", &addon.to_string()).await;
    assert_eq!((status, &made["name"]), (201, &json!("box")), "{made}");
    becomes_true("v4", async || releases(&mesh).await[0] == row(4, "succeeded", true)).await;
    let attach = json!({ "addon": "box", "app": "shop", "name": "MORE" }).to_string();
    let (status, made) = ask(&mesh, "POST", "/addon-attachments", &attach).await;
    assert_eq!((status, &made["name"]), (201, &json!("MORE")), "{made}");
    becomes_true("v5", async || releases(&mesh).await[0] == row(5, "succeeded", true)).await;
    assert_eq!(seen(&mesh, "MORE_URL").await, "kv://one");
}

#[tokio::test]
async fn a_release_command_runs_before_nothing_but_releases() {
    let mesh = Setup::new().procfile("shop", "web: TESTAPP\n", QUICK).start().await;
    does(&mesh, &["ps:wait", "-a", "shop"]).await;
    // It would go into force with whatever comes first.
    let procfile = format!("web: {}\nrelease: exit 7\n", testapp().display());
    fs::write(mesh.path("shop/Procfile"), procfile).unwrap();
    does(&mesh, &["ps:scale", "web=2"]).await;
    assert_eq!(does(&mesh, &["ps:scale"]).await, "release=0:Basic web=2:Basic\n");
    does(&mesh, &["maintenance:on", "-a", "shop"]).await;
    assert_eq!(does(&mesh, &["maintenance", "-a", "shop"]).await, "on\n");
}

#[tokio::test]
async fn a_release_that_came_about_without_its_command_is_not_pending() {
    let mesh = shop().await;
    let go = mesh.path("go");
    fs::write(&go, "").unwrap();
    let waits =
        format!("web: V=1 TESTAPP\nrelease: until [ -e {} ]; do sleep 0.05; done\n", go.display());
    deploys(&mesh, &waits, 1).await;
    fs::remove_file(&go).unwrap();
    let (failed, ()) = tokio::join!(deploy(&mesh, "web: NEVER_BIND=1 TESTAPP\n"), async {
        becomes_true("v2 to be on its way", async || {
            releases(&mesh).await[0] == row(2, "pending", true)
        })
        .await;
        does(&mesh, &["rollback", "v1", "-a", "shop"]).await;
        // By itself, when it does not come up.
        becomes_true("v1 to be back", async || {
            releases(&mesh).await[1..] == [row(2, "failed", false), row(1, "succeeded", true)]
        })
        .await;
        fs::write(&go, "").unwrap();
    });
    assert_eq!(failed.code, Some(1), "{failed:?}");
    becomes_true("v3 to be decided", async || {
        releases(&mesh).await[0] == row(3, "succeeded", false)
    })
    .await;
    deploys(&mesh, "web: V=4 TESTAPP\n", 4).await;
}

/// The database is locked, so that the change is under way for as long as the test wants.
#[tokio::test]
async fn a_deploy_whose_client_leaves_is_in_the_way_of_no_other() {
    let mesh = shop().await;
    deploys(&mesh, "web: V=1 TESTAPP\n", 1).await;
    let (status, slug) = ask(&mesh, "POST", "/apps/shop/slugs", "{}").await;
    assert_eq!(status, 201, "{slug}");
    let place = slug["blob"]["url"].as_str().unwrap();
    assert_eq!(ask(&mesh, "PUT", place, &archive("web: V=2 TESTAPP\n")).await.0, 200);
    let id = slug["id"].as_str().unwrap();

    let database = locked_database(&mesh);
    let client = begins(&mesh, "/apps/shop/releases", &json!({ "slug": id })).await;
    holds_up_the_database(&mesh).await;
    drop(client);
    // Whatever the daemon answers now, it has seen before that the connection is gone.
    for _ in 0..3 {
        ask(&mesh, "GET", &format!("/apps/shop/slugs/{id}"), "").await;
    }
    database.execute_batch("ROLLBACK").unwrap();
    becomes_true("v2", async || releases(&mesh).await[0] == row(2, "succeeded", true)).await;
    deploys(&mesh, "web: V=3 TESTAPP\n", 3).await;
}

/// The database of a daemon, in which nobody else writes until the transaction ends.
fn locked_database(mesh: &Mesh) -> rusqlite::Connection {
    let database = rusqlite::Connection::open(mesh.path("state/dynomesh.db")).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    database
}

/// Returns once the daemon's own thread waits in the database, too.
async fn holds_up_the_database(mesh: &Mesh) {
    let quick = Duration::from_millis(500);
    let reads = async || timeout(quick, ask(mesh, "GET", "/apps/shop/releases", "")).await;
    becomes_true("a change to hold up the database", async || reads().await.is_err()).await;
}

/// A daemon that is stopped hears of it when its time is over; the database counts only how often it has tried.
#[tokio::test]
async fn what_is_remembered_too_late_is_in_force_all_the_same() {
    let mesh = shop().await;
    let database = locked_database(&mesh);
    let body = json!({ "A": "1" }).to_string();
    let (answer, ()) = tokio::join!(ask(&mesh, "PATCH", "/apps/shop/config-vars", &body), async {
        holds_up_the_database(&mesh).await;
        mesh.signal(Signal::STOP);
        tokio::time::sleep(Duration::from_secs(11)).await;
        mesh.signal(Signal::CONT);
    });
    assert_eq!(answer.0, 500, "{answer:?}");
    let said = answer.1["message"].as_str().unwrap();
    assert!(said.contains("the database has not answered within 10 s"), "{said}");
    database.execute_batch("ROLLBACK").unwrap();
    let vars = async || ask(&mesh, "GET", "/apps/shop/config-vars", "").await.1;
    becomes_true("A to be there", async || vars().await == json!({ "A": "1" })).await;
    let body = json!({ "B": "2" }).to_string();
    assert_eq!(ask(&mesh, "PATCH", "/apps/shop/config-vars", &body).await.0, 200);
    assert_eq!(vars().await, json!({ "A": "1", "B": "2" }));
}

/// Sends a request, and awaits no answer.
async fn begins(mesh: &Mesh, path: &str, body: &Value) -> UnixStream {
    let mut stream = UnixStream::connect(mesh.path("state/dynomesh.sock")).await.unwrap();
    let body = body.to_string();
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn deploys_under_load_lose_nothing() {
    let mesh = shop().await;
    deploys(&mesh, "web: V=1 TESTAPP\n", 1).await;
    does(&mesh, &["ps:scale", "web=2"]).await;
    let get = Load::start(mesh.http(), 2, &request("GET", "/", "", ""));
    let post = Load::start(mesh.http(), 2, &request("POST", "/echo", "", "hello"));
    for (round, (faulty, _)) in FAULTY.iter().enumerate() {
        let version = 2 * round as u64 + 2;
        deploys(&mesh, &format!("web: V=2{round} TESTAPP\n"), version).await;
        fails(&mesh, faulty).await;
        get.carries(50).await;
        post.carries(50).await;
    }
    for load in [get, post] {
        let tally = load.stop().await;
        assert_eq!((tally.refused, tally.broken), (0, 0), "{tally:?}");
    }
    assert_eq!(seen(&mesh, "V").await, "22");
}

/// Deploys, scalings, restarts and rollbacks: no request fails, and every WebSocket of a dyno that goes ends by 1012.
/// `bench/compare/run deploys` does it a hundred times.
async fn what_operators_do_loses_nothing(strategy: &str) {
    let lines = format!("deploy = {strategy:?}\n{QUICK}");
    let mesh = Setup::new().app("shop", &lines).start().await;
    deploys(&mesh, "web: V=first TESTAPP\n", 1).await;
    does(&mesh, &["ps:scale", "web=2"]).await;
    let get = Load::start(mesh.http(), 2, &request("GET", "/", "", ""));
    let post = Load::start(mesh.http(), 2, &request("POST", "/echo", "", "hello"));
    let sockets = Sockets::start(mesh.http(), 4);
    for round in 0..3 {
        for (name, version) in [("old", 3 * round + 2), ("new", 3 * round + 3)] {
            let before = sockets.restarts();
            deploys(&mesh, &format!("web: V={name}{round} TESTAPP\n"), version).await;
            assert_eq!(seen(&mesh, "V").await, format!("{name}{round}"));
            sockets.restarted(before + 4).await;
        }
        does(&mesh, &["ps:scale", "web+2"]).await;
        does(&mesh, &["ps:wait"]).await;
        does(&mesh, &["ps:scale", "web-2"]).await;
        // Over what is under way.
        does(&mesh, &["ps:restart"]).await;
        let before = sockets.restarts();
        does(&mesh, &["rollback"]).await;
        does(&mesh, &["ps:wait"]).await;
        assert_eq!(seen(&mesh, "V").await, format!("old{round}"));
        sockets.restarted(before + 4).await;
    }
    sockets.stop().await;
    for load in [get, post] {
        load.carries(50).await;
        let tally = load.stop().await;
        assert_eq!((tally.refused, tally.broken), (0, 0), "{strategy}: {tally:?}");
    }
}

#[tokio::test]
async fn what_operators_do_loses_nothing_where_dynos_roll() {
    what_operators_do_loses_nothing("rolling").await;
}

#[tokio::test]
async fn what_operators_do_loses_nothing_where_dynos_are_prebooted() {
    what_operators_do_loses_nothing("preboot").await;
}

/// How often, where nobody says otherwise by `DEPLOYS_KILLED`.
const DEPLOYS_KILLED: u64 = 8;

/// The daemon is killed at some moment of a deploy: the app serves the one or the other as a whole, and the releases say
/// which. What is random is the moment, by numbers that are the same each time.
#[tokio::test]
async fn a_daemon_that_is_killed_in_a_deploy_leaves_the_old_or_the_new() {
    let mut mesh = shop().await;
    deploys(&mesh, "web: V=0 TESTAPP\nrelease: sleep 0.1\n", 1).await;
    let mut seed: u64 = 0x9e37_79b9_7f4a_7c15;
    let killed = std::env::var("DEPLOYS_KILLED").map(|it| it.parse().expect("a number"));
    for round in 1..=killed.unwrap_or(DEPLOYS_KILLED) {
        // George Marsaglia, Xorshift RNGs: the triple 13, 7, 17.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let before = seen(&mesh, "V").await;
        let dir = source(&mesh, &format!("web: V={round} TESTAPP\nrelease: sleep 0.1\n"));
        let args = ["deploy", dir.to_str().unwrap(), "-a", "shop"];
        {
            let mut deploying = std::pin::pin!(mesh.command(&args));
            let moment = tokio::time::sleep(Duration::from_millis(seed % 900));
            tokio::select! {
                _ = &mut deploying => {}
                () = moment => {}
            }
            // The command goes with it.
        }
        mesh = mesh.killed().await.start().await;
        becomes_true("the releases to be decided", async || {
            releases(&mesh).await.iter().all(|(_, status, _)| status != "pending")
        })
        .await;
        becomes_true("it to answer", async || mesh.get("/").await.status == 200).await;
        let known = releases(&mesh).await;
        let current: Vec<_> = known.iter().filter(|(.., current)| *current).collect();
        assert_eq!(current.len(), 1, "{known:?}");
        let (version, status, _) = current[0];
        assert_eq!(status, "succeeded", "{known:?}");
        let runs =
            || async { (seen(&mesh, "V").await, seen(&mesh, "HEROKU_RELEASE_VERSION").await) };
        for _ in 0..5 {
            let (v, of) = runs().await;
            assert!([&before, &round.to_string()].contains(&&v), "{v} after {before}: {known:?}");
            assert_eq!(of, format!("v{version}"), "{known:?}");
        }
        // The next one is not in the way of what was broken off.
        let under_way = fs::read_dir(mesh.path("state/slugs")).unwrap();
        let under_way = under_way
            .filter(|it| it.as_ref().unwrap().file_name().to_str().unwrap().starts_with("new-"));
        assert_eq!(under_way.count(), 0);
    }
    let version = releases(&mesh).await[0].0 + 1;
    deploys(&mesh, "web: V=last TESTAPP\n", version).await;
    assert_eq!(seen(&mesh, "V").await, "last");
}

// ---- guard -----------------------------------------------------------------------------------------------

/// The same, judged by its requests.
async fn guarded_shop(within: &str) -> Mesh {
    let guard = format!("guard = {{ errors = \"5%\", within = \"{within}\" }}\n{QUICK}");
    Setup::new().app("shop", &guard).start().await
}

#[tokio::test]
async fn a_release_that_answers_500_goes_back_and_the_old_one_serves_on() {
    let mesh = guarded_shop("2m").await;
    deploys(&mesh, "web: V=1 TESTAPP\n", 1).await;
    does(&mesh, &["ps:scale", "web=4"]).await;
    becomes_true("four to be up", async || does(&mesh, &["ps"]).await.matches(": up").count() == 4)
        .await;
    let load = Load::start(mesh.http(), 4, &request("GET", "/", "", ""));
    load.carries(200).await;

    let said = fails(&mesh, "web: FAIL_ALWAYS=1 TESTAPP\n").await;
    for expected in [
        "release v2 of shop failed: web is worse than v1 by more than its guard allows (errors 5%): errors=100.0%",
        "v1: errors=0.0%",
        "What ran before goes on",
    ] {
        assert!(said.contains(expected), "{said}");
    }
    mesh.line("the figures", |line| {
        let is_it =
            line.source == "heroku[rollout]" && line.message.starts_with("Release v2 failed: web");
        (is_it && line.message.ends_with("All go back to v1")).then_some(())
    })
    .await;
    becomes_true("all to be back", async || {
        let before = load.tally();
        load.carries(100).await;
        load.tally().refused == before.refused
    })
    .await;
    let tally = load.stop().await;
    assert_eq!(tally.broken, 0, "{tally:?}");
    assert!(tally.refused >= 20 && tally.refused < tally.fine, "the old ones served: {tally:?}");
    assert_eq!(seen(&mesh, "V").await, "1");
    assert_eq!(releases(&mesh).await, [row(2, "failed", false), row(1, "succeeded", true)]);
}

#[tokio::test]
async fn a_release_is_there_when_its_guard_has_no_word_against_it() {
    let mesh = guarded_shop("5s").await;
    deploys(&mesh, "web: V=1 TESTAPP\n", 1).await;
    let load = Load::start(mesh.http(), 2, &request("GET", "/", "", ""));
    load.carries(50).await;
    let said = deploys(&mesh, "web: V=2 TESTAPP\n", 2).await;
    assert!(said.contains("All are up. The guard looks at their requests for 5 s"), "{said}");
    mesh.line("the figures", |line| {
        line.message.starts_with("Release v2 stands: errors=0.0%").then_some(())
    })
    .await;
    let tally = load.stop().await;
    assert_eq!((tally.refused, tally.broken), (0, 0), "{tally:?}");
    assert_eq!(seen(&mesh, "V").await, "2");
}

/// What the daemon has seen of requests goes with it: what was up is taken as it is.
#[tokio::test]
async fn a_guard_is_over_with_its_daemon() {
    let mut mesh = guarded_shop("1h").await;
    deploys(&mesh, "web: V=1 TESTAPP\n", 1).await;
    let dir = source(&mesh, "web: V=2 TESTAPP\n");
    let args = ["deploy", dir.to_str().unwrap(), "-a", "shop"];
    {
        let mut deploying = std::pin::pin!(mesh.command(&args));
        tokio::select! {
            ran = &mut deploying => panic!("{ran:?}"),
            _ = mesh.says("heroku[rollout]", "Release v2 is up in place of v1") => {}
        }
        assert_eq!(releases(&mesh).await[0], row(2, "pending", true));
    }
    mesh = mesh.killed().await.start().await;
    becomes_true("it to be decided", async || {
        releases(&mesh).await == [row(2, "succeeded", true), row(1, "succeeded", false)]
    })
    .await;
    assert_eq!(seen(&mesh, "V").await, "2");
}

// ---- canary ----------------------------------------------------------------------------------------------

/// A shop of one web dyno whose releases begin with a fifth of the requests.
async fn canaried_shop(more: &str) -> Mesh {
    let canary = format!("canary = \"20%\"\n{more}{QUICK}");
    let mesh = Setup::new().app("shop", &canary).start().await;
    deploys(&mesh, "web: V=1 TESTAPP\n", 1).await;
    mesh
}

/// How many of so many requests see this.
async fn seen_of(mesh: &Mesh, value: &str, requests: u32) -> u32 {
    let mut count = 0;
    for _ in 0..requests {
        count += u32::from(seen(mesh, "V").await == value);
    }
    count
}

#[tokio::test]
async fn a_canary_has_its_part_of_the_requests_and_then_all_of_them_and_none_is_lost() {
    let mesh = canaried_shop("canary_for = \"5s\"\n").await;
    let load = Load::start(mesh.http(), 4, &request("GET", "/", "", ""));
    load.carries(50).await;
    let dir = source(&mesh, "web: V=2 TESTAPP\n");
    let args = ["deploy", dir.to_str().unwrap(), "-a", "shop"];
    let deploying = async {
        let ran = mesh.command(&args).await;
        assert!(ran.err.contains("A canary is up, with 20% of the requests for 5 s"), "{ran:?}");
    };
    let asking = async {
        mesh.says(
            "heroku[rollout]",
            "Release v2 has 20% of the requests for 5s, by a canary of web.1",
        )
        .await;
        seen_of(&mesh, "2", 200).await
    };
    let ((), count) = tokio::join!(deploying, asking);
    // Forty, and four and a half standard deviations; whatever came after the canary's time makes it more.
    assert!(count >= 15, "{count}");
    assert_eq!(seen_of(&mesh, "2", 50).await, 50);
    let tally = load.stop().await;
    assert_eq!((tally.refused, tally.broken), (0, 0), "{tally:?}");
    assert_eq!(releases(&mesh).await[0], row(2, "succeeded", true));
}

#[tokio::test]
async fn a_canary_that_a_guard_finds_worse_leaves_the_only_dyno_as_it_was() {
    let guard = "canary_for = \"1h\"\nguard = { errors = \"5%\" }\n";
    let mesh = canaried_shop(guard).await;
    let before = pid(&mesh).await;
    let load = Load::start(mesh.http(), 4, &request("GET", "/", "", ""));
    load.carries(200).await;
    let said = fails(&mesh, "web: FAIL_ALWAYS=1 TESTAPP\n").await;
    assert!(said.contains("release v2 of shop failed: web is worse than v1"), "{said}");
    let tally = load.stop().await;
    assert_eq!(tally.broken, 0, "{tally:?}");
    assert!(tally.refused < tally.fine, "no more than its part met it: {tally:?}");
    assert_eq!(pid(&mesh).await, before);
}

/// The next one does not know what exactly ran before, and goes on as without a canary.
#[tokio::test]
async fn a_canary_is_over_with_its_daemon() {
    let mut mesh = canaried_shop("canary_for = \"1h\"\n").await;
    let dir = source(&mesh, "web: V=2 TESTAPP\n");
    let args = ["deploy", dir.to_str().unwrap(), "-a", "shop"];
    let up = "Release v2 has 20% of the requests for 1h, by a canary of web.1";
    {
        let mut deploying = std::pin::pin!(mesh.command(&args));
        tokio::select! {
            ran = &mut deploying => panic!("{ran:?}"),
            _ = mesh.says("heroku[rollout]", up) => {}
        }
    }
    mesh = mesh.killed().await.start().await;
    becomes_true("it to be there", async || releases(&mesh).await[0].1 == "succeeded").await;
    assert_eq!(seen_of(&mesh, "2", 30).await, 30);
}

#[tokio::test]
async fn who_goes_back_from_a_canary_need_not_wait_for_its_time() {
    let mesh = canaried_shop("canary_for = \"1h\"\n").await;
    let dir = source(&mesh, "web: V=2 TESTAPP\n");
    let args = ["deploy", dir.to_str().unwrap(), "-a", "shop"];
    let up = "Release v2 has 20% of the requests for 1h, by a canary of web.1";
    let went_back = async {
        mesh.says("heroku[rollout]", up).await;
        does(&mesh, &["rollback", "v1"]).await;
    };
    let (ran, ()) = tokio::join!(mesh.command(&args), went_back);
    assert_ne!(ran.code, Some(0), "{ran:?}");
    becomes_true("it to be there", async || releases(&mesh).await[0].1 == "succeeded").await;
    assert_eq!(seen_of(&mesh, "1", 30).await, 30);
}

// ---- warm ------------------------------------------------------------------------------------------------

async fn pid(mesh: &Mesh) -> String {
    mesh.get("/pid").await.text().to_string()
}

#[tokio::test]
async fn a_rollback_to_what_is_warm_boots_nothing_and_loses_nothing() {
    let setup = Setup::new().app("shop", &format!("keep_warm = \"1h\"\n{QUICK}"));
    let mesh = setup.start().await;
    deploys(&mesh, "web: V=1 TESTAPP\n", 1).await;
    let old = pid(&mesh).await;
    deploys(&mesh, "web: V=2 TESTAPP\n", 2).await;
    mesh.says("heroku[web.1]", "v1 is kept warm for 1h").await;
    assert_eq!(seen(&mesh, "V").await, "2");
    let new = pid(&mesh).await;
    let load = Load::start(mesh.http(), 4, &request("GET", "/", "", ""));
    load.carries(50).await;
    does(&mesh, &["rollback", "v1"]).await;
    becomes_true("v1 to be back", async || pid(&mesh).await == old).await;
    mesh.says("heroku[web.1]", "v1 is warm, and goes on").await;
    load.carries(50).await;
    let tally = load.stop().await;
    assert_eq!((tally.refused, tally.broken), (0, 0), "{tally:?}");
    becomes_true("it to be decided", async || releases(&mesh).await[0].1 == "succeeded").await;
    becomes_true("the new one to be gone", async || !is_alive(&new)).await;
    let starts =
        mesh.lines().iter().filter(|it| it.message.starts_with("Starting process")).count();
    assert_eq!(starts, 2);
}

fn is_alive(pid: &str) -> bool {
    PathBuf::from(format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn what_was_warm_when_its_daemon_was_killed_ends_with_the_next_one() {
    let setup = Setup::new().app("shop", &format!("keep_warm = \"1h\"\n{QUICK}"));
    let mut mesh = setup.start().await;
    deploys(&mesh, "web: V=1 TESTAPP\n", 1).await;
    let old = pid(&mesh).await;
    deploys(&mesh, "web: V=2 TESTAPP\n", 2).await;
    mesh.says("heroku[web.1]", "v1 is kept warm").await;
    let new = pid(&mesh).await;
    assert!(is_alive(&old));
    mesh = mesh.killed().await.start().await;
    assert_eq!((pid(&mesh).await, &*seen(&mesh, "V").await), (new, "2"));
    mesh.says("heroku[web.1]", "Adopted to be stopped").await;
    becomes_true("the warm one to be gone", async || !is_alive(&old)).await;
}

/// Whatever a dyno writes to its directory is its own, where dynos are isolated; where they are not, an upload of the same
/// finds what is there, and going back to it finds that it is not what it was.
#[tokio::test]
async fn a_slug_that_was_written_to_is_not_released() {
    let mesh = shop().await;
    deploys(&mesh, "web: V=1 TESTAPP\n", 1).await;
    deploys(&mesh, "web: V=2 TESTAPP\n", 2).await;
    let slugs = fs::read_dir(mesh.path("state/slugs")).unwrap();
    let procfile = |slug: &PathBuf| slug.join("app/Procfile");
    let is_first = |slug: &PathBuf| fs::read_to_string(procfile(slug)).unwrap().contains("V=1");
    let first = slugs.map(|slug| slug.unwrap().path()).find(is_first).unwrap();
    fs::write(procfile(&first), "web: evil\n").unwrap();
    let ran = mesh.command(&["rollback", "v1"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("Error R17 (Checksum error) -> Procfile of slug"), "{ran:?}");
    assert_eq!(seen(&mesh, "V").await, "2");
}

#[tokio::test]
async fn isolated_dynos_write_to_nobodys_slug() {
    let mesh = Setup::new().isolated(&[&testapp()]).app("shop", QUICK).start().await;
    let writes = "web: echo evil > Procfile; V=1 TESTAPP\nrelease: echo evil > Procfile\n";
    deploys(&mesh, writes, 1).await;
    deploys(&mesh, "web: V=2 TESTAPP\n", 2).await;
    if mesh.lines().iter().any(|line| line.message.contains("dynos are not isolated")) {
        return;
    }
    does(&mesh, &["rollback", "v1"]).await;
    becomes_true("v1 to be back", async || seen(&mesh, "V").await == "1").await;
}

/// Asks the API, as programs do.
async fn ask(mesh: &Mesh, method: &str, path: &str, body: &str) -> (u16, Value) {
    ask_with(mesh, "", method, path, body).await
}

async fn ask_with(mesh: &Mesh, fields: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
    let mut stream = UnixStream::connect(mesh.path("state/dynomesh.sock")).await.unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{fields}content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_default())
}

/// Promotes, and returns what came of it for the only target.
async fn promote(mesh: &Mesh, source: &str, target: &str) -> Value {
    let (status, promotion) = begin_promotion(mesh, source, &[target]).await;
    assert_eq!(status, 201, "{promotion}");
    let path = format!("/pipeline-promotions/{}", promotion["id"].as_str().unwrap());
    let targets = format!("{path}/promotion-targets");
    let is_over = async || ask(mesh, "GET", &targets, "").await.1[0]["status"] != "pending";
    becomes_true("the promotion to be over", is_over).await;
    assert_eq!(ask(mesh, "GET", &path, "").await.1["status"], "completed");
    ask(mesh, "GET", &targets, "").await.1[0].clone()
}

async fn begin_promotion(mesh: &Mesh, source: &str, targets: &[&str]) -> (u16, Value) {
    ask(mesh, "POST", "/pipeline-promotions", &promotion(source, targets)).await
}

fn promotion(source: &str, targets: &[&str]) -> String {
    let of_app = |app: &&str| json!({ "app": { "id": app } });
    let promotion = json!({
        "pipeline": { "id": "store" },
        "source": of_app(&source),
        "targets": targets.iter().map(of_app).collect::<Vec<_>>(),
    });
    promotion.to_string()
}

/// What dynos of the app `prod` have of the variable `V`.
async fn seen_in_production(mesh: &Mesh) -> String {
    let mut client = mesh.client().await;
    client.send("GET /env?name=V HTTP/1.1\r\nHost: prod.localhost\r\n\r\n".to_owned()).await;
    client.answer().await.text().to_string()
}

/// An app `shop` that is staging, `early` before it, and `prod` and `fixed` after it.
async fn pipeline() -> Mesh {
    let setup = Setup::new().app("shop", QUICK).procfile("fixed", "web: TESTAPP\n", "");
    let mesh = setup.start().await;
    deploys(&mesh, "web: V=1 TESTAPP\n", 1).await;
    for app in ["early", "prod"] {
        does(&mesh, &["apps:create", app]).await;
    }
    assert_eq!(ask(&mesh, "POST", "/pipelines", r#"{"name":"store"}"#).await.0, 201);
    let stages = [
        ("early", "development"),
        ("shop", "staging"),
        ("prod", "production"),
        ("fixed", "production"),
    ];
    for (app, stage) in stages {
        let body = json!({ "app": app, "pipeline": "store", "stage": stage }).to_string();
        let (status, said) = ask(&mesh, "POST", "/pipeline-couplings", &body).await;
        assert_eq!(status, 201, "{said}");
    }
    mesh
}

#[tokio::test]
async fn what_is_promoted_is_what_was_tried_and_runs_with_the_vars_of_its_app() {
    let mesh = pipeline().await;
    does(&mesh, &["config:set", "V=ours", "-a", "prod"]).await;
    let promoted = promote(&mesh, "shop", "prod").await;
    assert_eq!(promoted["status"], "succeeded", "{promoted}");
    assert_eq!(seen_in_production(&mesh).await, "1");
    assert_eq!(fs::read_dir(mesh.path("state/slugs")).unwrap().count(), 1, "nothing was built");
    let release = promoted["release"]["id"].as_str().unwrap();
    let (_, release) = ask(&mesh, "GET", &format!("/apps/prod/releases/{release}"), "").await;
    let said = release["description"].as_str().unwrap();
    assert!(said.starts_with("Promote shop v1 ") && said.len() == 24, "{said}");
    assert_eq!((&release["version"], &release["current"]), (&3.into(), &true.into()));

    // It works where it was tried alone.
    does(&mesh, &["config:set", "BROKEN=1", "-a", "prod"]).await;
    let procfile = "web: if [ -n \"$BROKEN\" ]; then exit 3; fi; V=2 TESTAPP\n";
    deploys(&mesh, procfile, 2).await;
    let promoted = promote(&mesh, "shop", "prod").await;
    assert_eq!(promoted["status"], "failed", "{promoted}");
    assert_eq!(promoted["error_message"], "web.1 exited with status 3 before it was up");
    assert_eq!(seen_in_production(&mesh).await, "1");
}

/// Asks twice by one `Request-Id`, as clients do whose connection broke before the answer.
async fn ask_twice(mesh: &Mesh, path: &str, body: &str) -> Value {
    let ask = async || ask_with(mesh, "Request-Id: a,b\r\n", "POST", path, body).await;
    let first = ask().await;
    assert_eq!(first.0, 201, "{first:?}");
    assert_eq!(ask().await, first);
    first.1
}

#[tokio::test]
async fn a_deploy_that_is_repeated_while_it_is_under_way_is_no_other_one() {
    let mesh = pipeline().await;
    let go = mesh.path("go");
    // Built where its dynos come up, which no others do then.
    let build_held = async |version: u64| {
        fs::write(&go, "").unwrap();
        let wait = format!("until [ -e {} ]; do sleep 0.05; done", go.display());
        let url = upload(&mesh, &archive(&format!("web: {wait}; V={version} TESTAPP\n"))).await;
        let (built, output) = build(&mesh, json!({ "url": url })).await;
        assert_eq!(built["status"], "succeeded", "{output}");
        let is_up = async || releases(&mesh).await[0] == row(version, "succeeded", true);
        becomes_true("it to be up", is_up).await;
        fs::remove_file(&go).unwrap();
        built["slug"]["id"].clone()
    };
    build_held(2).await;
    let promoted = ask_twice(&mesh, "/pipeline-promotions", &promotion("shop", &["prod"])).await;
    let path = format!("/pipeline-promotions/{}", promoted["id"].as_str().unwrap());
    let status = async || {
        let (_, targets) = ask(&mesh, "GET", &format!("{path}/promotion-targets"), "").await;
        targets[0]["status"].as_str().unwrap().to_owned()
    };
    assert_eq!(status().await, "pending");
    fs::write(&go, "").unwrap();
    becomes_true("it to be promoted", async || status().await == "succeeded").await;

    let slug = build_held(3).await;
    let body = json!({ "slug": slug }).to_string();
    let released = ask_twice(&mesh, "/apps/prod/releases", &body).await;
    assert_eq!((&released["status"], &released["slug"]["id"]), (&"pending".into(), &slug));
}

/// The next daemon knows nothing of the slug that was uploaded, but what became of it.
#[tokio::test]
async fn a_release_that_is_repeated_to_the_next_daemon_is_no_other_one() {
    let mesh = shop().await;
    let create = r#"{"process_types":{"task":"sleep 1000"}}"#;
    let (_, slug) = ask(&mesh, "POST", "/apps/shop/slugs", create).await;
    assert_eq!(ask(&mesh, "PUT", slug["blob"]["url"].as_str().unwrap(), "").await.0, 200);
    let body = json!({ "slug": slug["id"] }).to_string();
    let first = ask_twice(&mesh, "/apps/shop/releases", &body).await;
    let mesh = mesh.killed().await.start().await;
    let again = ask_twice(&mesh, "/apps/shop/releases", &body).await;
    assert_eq!((&again["id"], &again["version"]), (&first["id"], &1.into()));
}

#[tokio::test]
async fn what_cannot_be_promoted_is_said() {
    let mesh = pipeline().await;
    for (source, targets, expected) in [
        ("early", &["prod"][..], "early has no slug to promote: deploy to it first."),
        ("shop", &[], "No app downstream of shop is said."),
        ("prod", &["shop"], "shop (staging) is not downstream of prod (production)."),
        ("shop", &["prod", "shop"], "shop (staging) is not downstream of shop (staging)."),
        ("shop", &["prod", "fixed"], "What fixed runs is fixed by /"),
    ] {
        let (status, said) = begin_promotion(&mesh, source, targets).await;
        let message = said["message"].as_str().unwrap();
        assert!(status == 422 && message.starts_with(expected), "{source}: {said}");
    }
    let (_, releases) = ask(&mesh, "GET", "/apps/prod/releases", "").await;
    assert_eq!(releases.as_array().unwrap().len(), 1, "of none of it, for nobody");
    assert_eq!(ask(&mesh, "GET", "/pipeline-promotions/none/promotion-targets", "").await.0, 404);
}

/// Within the hour for which a slug that nobody releases is kept.
#[tokio::test]
async fn an_app_is_deployed_more_often_than_slugs_may_wait() {
    let mesh = shop().await;
    for round in 0..70 {
        let (status, slug) =
            ask(&mesh, "POST", "/apps/shop/slugs", r#"{"process_types":{"task":"sleep 1"}}"#).await;
        assert_eq!(status, 201, "{round}: {slug}");
        assert_eq!(ask(&mesh, "PUT", slug["blob"]["url"].as_str().unwrap(), "").await.0, 200);
        let release = json!({ "slug": slug["id"] }).to_string();
        becomes_true("it to be released", async || {
            let (status, said) = ask(&mesh, "POST", "/apps/shop/releases", &release).await;
            assert!([201, 409].contains(&status), "{round}: {said}");
            status == 201
        })
        .await;
    }
}

/// As clients of Heroku's Platform API do it.
#[tokio::test]
async fn an_archive_has_to_be_what_was_announced() {
    let mesh = shop().await;
    let ask = async |method: &str, path: &str, body: &str| ask(&mesh, method, path, body).await;
    let checksum = format!("SHA256:{}", "0".repeat(64));
    let create = format!(r#"{{"process_types":{{"web":"true"}},"checksum":"{checksum}"}}"#);
    let (status, slug) = ask("POST", "/apps/shop/slugs", &create).await;
    assert_eq!((status, slug["blob"]["method"].as_str()), (201, Some("put")), "{slug}");
    let url = slug["blob"]["url"].as_str().unwrap();
    let (status, refused) = ask("PUT", url, "anything").await;
    let said = refused["message"].as_str().unwrap();
    assert!(status == 422 && said.contains("R17 (Checksum error)") && said.contains(&checksum));
    let id = slug["id"].as_str().unwrap();
    let (status, early) =
        ask("POST", "/apps/shop/releases", &format!(r#"{{"slug":"{id}"}}"#)).await;
    assert_eq!(status, 422);
    assert!(early["message"].as_str().unwrap().contains("has not been uploaded yet"), "{early}");
    assert_eq!(ask("PUT", "/slug-uploads/0123", "anything").await.0, 404);
    // An empty archive has nothing but what was said of its process types, and is one.
    let (_, slug) =
        ask("POST", "/apps/shop/slugs", r#"{"process_types":{"task":"sleep 1000"}}"#).await;
    let (status, uploaded) = ask("PUT", slug["blob"]["url"].as_str().unwrap(), "").await;
    assert_eq!(status, 200, "{uploaded}");
    let id = slug["id"].as_str().unwrap();
    let body = format!(r#"{{"slug":"{id}","description":"Deploy by hand"}}"#);
    let (status, release) = ask("POST", "/apps/shop/releases", &body).await;
    assert_eq!((status, &release["version"]), (201, &Value::from(1)), "{release}");
    becomes_true("it to be there", async || releases(&mesh).await == [row(1, "succeeded", true)])
        .await;
    let slug = release["slug"]["id"].as_str().unwrap();
    let (status, slug) = ask("GET", &format!("/apps/shop/slugs/{slug}"), "").await;
    assert_eq!(
        (status, &slug["process_types"]["task"]),
        (200, &Value::from("sleep 1000")),
        "{slug}"
    );
}

/// An uncompressed archive with this Procfile alone, which is text.
fn archive(procfile: &str) -> String {
    let procfile = procfile.replace("TESTAPP", testapp().to_str().unwrap());
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(procfile.len() as u64);
    archive.append_data(&mut header, "Procfile", procfile.as_bytes()).unwrap();
    String::from_utf8(archive.into_inner().unwrap()).unwrap()
}

/// Uploads an archive, and returns what builds know it by.
async fn upload(mesh: &Mesh, archive: &str) -> String {
    let (status, source) = ask(mesh, "POST", "/apps/shop/sources", "").await;
    assert_eq!(status, 201, "{source}");
    let blob = &source["source_blob"];
    assert_eq!(ask(mesh, "PUT", blob["put_url"].as_str().unwrap(), archive).await.0, 200);
    blob["get_url"].as_str().unwrap().to_owned()
}

async fn begin_build(mesh: &Mesh, blob: Value) -> (u16, Value) {
    let body = json!({ "source_blob": blob }).to_string();
    ask(mesh, "POST", "/apps/shop/builds", &body).await
}

/// Builds to the end; returns the build and its output, whose end is that of the build.
async fn build(mesh: &Mesh, blob: Value) -> (Value, String) {
    let (status, begun) = begin_build(mesh, blob).await;
    assert_eq!((status, begun["status"].as_str()), (201, Some("pending")), "{begun}");
    let output = within("the output", output_of(mesh, &begun)).await;
    let path = format!("/apps/shop/builds/{}", begun["id"].as_str().unwrap());
    (ask(mesh, "GET", &path, "").await.1, output)
}

async fn output_of(mesh: &Mesh, build: &Value) -> String {
    let mut client = Client::connect_unix(&mesh.path("state/dynomesh.sock")).await;
    let answer = client.get(build["output_stream_url"].as_str().unwrap()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.text().to_owned()
}

#[tokio::test]
async fn a_source_is_built_and_released() {
    let mesh = shop().await;
    let url = upload(&mesh, &archive("web: V=1 TESTAPP\n")).await;
    let (first, output) = build(&mesh, json!({ "url": url })).await;
    assert_eq!(first["status"], "succeeded", "{first}");
    assert!(output.starts_with("-----> Slug "), "{output}");
    assert!(output.ends_with(" bytes\n-----> Release v1\n"), "{output}");
    let is_there = async || releases(&mesh).await == [row(1, "succeeded", true)];
    becomes_true("it to be there", is_there).await;
    assert_eq!(seen(&mesh, "V").await, "1");
    // Who may only read sees its URL now, and must not exchange what is built again.
    assert_eq!(ask(&mesh, "PUT", &url, &archive("web: V=3 TESTAPP\n")).await.0, 409);
    // The same source may be built again, and is the same release.
    let (again, _) = build(&mesh, json!({ "url": url })).await;
    assert_eq!((&again["release"], &again["slug"]), (&first["release"], &first["slug"]));

    let url = upload(&mesh, &archive("web: V=2 TESTAPP\n")).await;
    let (second, _) = build(&mesh, json!({ "url": url, "version": "3f9c2e1" })).await;
    let release = format!("/apps/shop/releases/{}", second["release"]["id"].as_str().unwrap());
    let (_, release) = ask(&mesh, "GET", &release, "").await;
    assert_eq!((&release["version"], &release["slug"]), (&2.into(), &second["slug"]));
    assert_eq!(release["description"], "Deploy 3f9c2e1");
    becomes_true("V=2 to be there", async || seen(&mesh, "V").await == "2").await;
    let (_, listed) = ask(&mesh, "GET", "/apps/shop/builds", "").await;
    assert_eq!(listed, json!([second, again, first]), "the newest first");
}

#[tokio::test]
async fn what_cannot_be_built_says_why_and_changes_nothing() {
    let mesh = shop().await;
    let url = upload(&mesh, &"certainly none".repeat(99)).await;
    let (built, output) = build(&mesh, json!({ "url": url })).await;
    assert_eq!((&built["status"], &built["slug"]), (&"failed".into(), &Value::Null), "{built}");
    assert!(output.starts_with(" !     The slug is refused: this is no tar archive"), "{output}");
    assert_eq!(releases(&mesh).await, []);

    let (_, waiting) = ask(&mesh, "POST", "/sources", "").await;
    let checksum = format!("SHA256:{}", "0".repeat(64));
    for (blob, expected) in [
        (json!({ "url": "https://example.com/app.tgz" }), "Nothing is fetched from elsewhere"),
        (json!({ "url": waiting["source_blob"]["get_url"] }), "nothing has been uploaded"),
        (json!({ "url": url, "checksum": checksum }), "R17 (Checksum error)"),
    ] {
        let (status, refused) = begin_build(&mesh, blob).await;
        let said = refused["message"].as_str().unwrap();
        assert!(status == 422 && said.contains(expected), "{refused}");
    }
    assert_eq!(ask(&mesh, "PUT", "/source-uploads/0123", "anything").await.0, 404);
    assert_eq!(ask(&mesh, "GET", "/apps/shop/builds", "").await.1.as_array().unwrap().len(), 1);
}
