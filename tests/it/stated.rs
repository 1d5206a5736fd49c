//! What commands say, beside what the file says.

use serde_json::Value;

use crate::support::{Answer, DrainServer, Mesh, Setup, becomes_true};

async fn shop(extra: &str) -> Mesh {
    let mesh =
        Setup::new().procfile("shop", "web: TESTAPP\nworker: sleep 1000\n", extra).start().await;
    mesh.says("heroku[web.1]", "State changed from starting to up").await;
    mesh
}

/// Runs a command that has to succeed, and returns what it printed on both.
async fn does(mesh: &Mesh, args: &[&str]) -> (String, String) {
    let ran = mesh.command(args).await;
    assert_eq!(ran.code, Some(0), "{args:?}: {ran:?}");
    (ran.out, ran.err)
}

/// Runs a command that has to be refused, and returns why.
async fn is_refused(mesh: &Mesh, args: &[&str]) -> String {
    let ran = mesh.command(args).await;
    assert_eq!(ran.code, Some(1), "{args:?}: {ran:?}");
    ran.err
}

/// The answer to a request for this host.
async fn ask(mesh: &Mesh, host: &str) -> Answer {
    let mut client = mesh.client().await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    client.answer().await
}

/// How many dynos of a type are up.
async fn up(mesh: &Mesh, process_type: &str) -> usize {
    let dynos: Vec<Value> =
        serde_json::from_str(mesh.ask_admin("/debug/dynos").await.text()).unwrap();
    let of_type =
        |dyno: &&Value| dyno["dyno"].as_str().unwrap().starts_with(&format!("{process_type}."));
    dynos.iter().filter(|dyno| dyno["state"] == "up").filter(of_type).count()
}

#[tokio::test]
async fn config_vars_are_set_and_unset_and_each_time_a_release() {
    let mesh = shop("").await;
    let (out, err) = does(&mesh, &["config:set", "GREETING=hello there", "B=2"]).await;
    assert_eq!(err, "Setting B, GREETING and restarting ⬢ shop... done, v2\n");
    assert_eq!(out, "B:        2\nGREETING: hello there\n");
    assert_eq!(does(&mesh, &["config:get", "GREETING"]).await.0, "hello there\n");
    assert_eq!(does(&mesh, &["config", "-s"]).await.0, "B=2\nGREETING='hello there'\n");
    mesh.says("heroku[web.1]", "State changed from starting to up").await;
    let (_, err) = does(&mesh, &["config:unset", "B"]).await;
    assert_eq!(err, "Unsetting B and restarting ⬢ shop... done, v3\n");
    let (out, _) = does(&mesh, &["releases"]).await;
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "=== shop Releases - Current: v3");
    assert!(lines[2].starts_with("v3  Remove B config vars"), "{out}");
    assert!(lines[3].starts_with("v2  Set B, GREETING config vars"), "{out}");
    assert!(lines[4].starts_with("v1  Initial release"), "{out}");
    let (_, err) = does(&mesh, &["rollback", "v2"]).await;
    assert_eq!(err, "Rolling back ⬢ shop to v2... done, v4\n");
    assert_eq!(does(&mesh, &["config", "-s"]).await.0, "B=2\nGREETING='hello there'\n");
    assert_eq!(
        does(&mesh, &["config:set", "B=2"]).await.1,
        "Setting B and restarting ⬢ shop... done, v4\n"
    );
}

#[tokio::test]
async fn what_the_file_says_no_command_changes() {
    let mesh =
        shop("formation = { worker = 1 }\nmaintenance = false\nconfig = { A = \"file\" }").await;
    let fixed = is_refused(&mesh, &["config:set", "A=command"]).await;
    assert!(
        fixed.contains("The config var A is fixed by /") && fixed.contains("dynomesh.toml:"),
        "{fixed}"
    );
    let line: usize =
        fixed.split("dynomesh.toml:").nth(1).unwrap().split('.').next().unwrap().parse().unwrap();
    let written = std::fs::read_to_string(mesh.setup().file()).unwrap();
    assert!(
        written.lines().nth(line - 1).unwrap().contains("A = \"file\""),
        "line {line} of\n{written}"
    );
    for (args, what) in [
        (&["ps:scale", "worker=2"][..], "The number of worker dynos of shop is fixed by "),
        (&["maintenance:on"], "Whether shop is under maintenance is fixed by "),
        (&["apps:create", "shop"], "The app shop is fixed by "),
        (&["apps:destroy", "-a", "shop", "--confirm", "shop"], "The app shop is fixed by "),
    ] {
        let refused = is_refused(&mesh, args).await;
        assert!(refused.contains(what), "{args:?}: {refused}");
    }
    assert_eq!(does(&mesh, &["config", "-s"]).await.0, "A=file\n");
    // What it does not mention is theirs.
    does(&mesh, &["config:set", "B=command"]).await;
    assert_eq!(does(&mesh, &["config", "-s"]).await.0, "A=file\nB=command\n");
    assert_eq!(does(&mesh, &["ps:scale", "web=2"]).await.1.split(" done").count(), 2);
    assert_eq!(does(&mesh, &["ps:scale"]).await.0, "web=2:Basic worker=1:Basic\n");
}

#[tokio::test]
async fn who_scales_at_the_same_time_scales_together() {
    let mesh = shop("").await;
    let more = || mesh.command(&["ps:scale", "worker+1"]);
    let ran = tokio::join!(more(), more(), more(), more());
    assert_eq!([ran.0, ran.1, ran.2, ran.3].map(|it| it.code), [Some(0); 4]);
    assert_eq!(does(&mesh, &["ps:scale"]).await.0, "web=1:Basic worker=4:Basic\n");
}

#[tokio::test]
async fn what_commands_said_outlives_the_daemon_and_a_reload() {
    let mesh = shop("").await;
    let (_, err) = does(&mesh, &["ps:scale", "web=2", "worker+1"]).await;
    assert_eq!(err, "Scaling dynos... done, now running web at 2:Basic, worker at 1:Basic\n");
    becomes_true("three dynos", async || {
        up(&mesh, "web").await == 2 && up(&mesh, "worker").await == 1
    })
    .await;
    does(&mesh, &["domains:add", "shop.example.com"]).await;
    does(&mesh, &["maintenance:on"]).await;
    assert_eq!(does(&mesh, &["maintenance"]).await.0, "on\n");
    does(&mesh, &["reload"]).await;
    let mesh = mesh.killed().await.start().await;
    becomes_true("two web dynos", async || up(&mesh, "web").await == 2).await;
    let answer: Answer = ask(&mesh, "shop.example.com").await;
    assert!(answer.code() == Some("H80"), "{answer:?}");
    does(&mesh, &["maintenance:off"]).await;
    assert_eq!(ask(&mesh, "shop.example.com").await.status, 200);
    let (out, _) = does(&mesh, &["domains"]).await;
    assert!(out.contains("=== shop Custom Domains\n\nshop.example.com\n"), "{out}");
    does(&mesh, &["domains:remove", "shop.example.com"]).await;
    let own = is_refused(&mesh, &["domains:remove", "shop.localhost"]).await;
    assert_eq!(own, "dynomesh: shop.localhost is the own name of shop.\n");
    assert_eq!(ask(&mesh, "shop.example.com").await.status, 404);
    let (out, _) = does(&mesh, &["releases"]).await;
    assert!(out.starts_with("=== shop Releases - Current: v1\n"), "a restart is no release: {out}");
}

#[tokio::test]
async fn an_app_that_a_command_made_is_one() {
    let mesh = shop("").await;
    let (out, err) = does(&mesh, &["apps:create", "blog"]).await;
    assert_eq!(err, "Creating ⬢ blog... done\n");
    assert!(out.starts_with("http://blog.localhost:"), "{out}");
    assert!(ask(&mesh, "blog.localhost").await.code() == Some("H81"), "nothing is deployed yet");
    assert_eq!(
        is_refused(&mesh, &["apps:create", "blog"]).await,
        "dynomesh: Name blog is already taken.\n"
    );
    let (_, err) = does(&mesh, &["config:set", "-a", "blog", "A=1"]).await;
    assert_eq!(err, "Setting A and restarting ⬢ blog... done, v2\n");
    // What is attached to it is a release of it as well, though nothing runs.
    does(&mesh, &["addons:create", "redis", "-a", "blog", "--url", "redis://localhost"]).await;
    let (out, _) = does(&mesh, &["releases", "-a", "blog"]).await;
    assert!(out.starts_with("=== blog Releases - Current: v3\n"), "{out}");
    // A name that is another app's already.
    does(&mesh, &["domains:add", "-a", "shop", "www.example.com"]).await;
    let taken = is_refused(&mesh, &["domains:add", "-a", "blog", "www.example.com"]).await;
    assert!(
        taken.contains("www.example.com belongs to the app shop (domains:add)")
            || taken.contains("www.example.com belongs"),
        "{taken}"
    );
    assert_eq!(
        does(&mesh, &["apps"]).await.0,
        "blog  decided by commands\nshop  decided by file\n"
    );
    does(&mesh, &["apps:destroy", "-a", "blog", "--confirm", "blog"]).await;
    let gone = is_refused(&mesh, &["config", "-a", "blog"]).await;
    assert_eq!(gone, "dynomesh: Couldn't find the app blog.\n");
}

#[tokio::test]
async fn drains_of_commands_join_those_of_the_file() {
    let [fixed, other] = [DrainServer::syslog().await, DrainServer::syslog().await];
    let url = |server: &DrainServer| format!("syslog://127.0.0.1:{}", server.port());
    let (fixed_url, other_url) = (url(&fixed), url(&other));
    let mesh = shop(&format!("drains = [{fixed_url:?}]")).await;
    let (out, _) = does(&mesh, &["drains:add", &other_url]).await;
    assert_eq!(out, format!("Successfully added drain {other_url}\n"));
    ask(&mesh, "shop.localhost").await;
    other.has("path=\"/\"").await;
    fixed.has("path=\"/\"").await;
    let again = is_refused(&mesh, &["drains:add", &other_url]).await;
    assert_eq!(again, format!("dynomesh: {other_url} is already a drain of shop.\n"));
    let refused = is_refused(&mesh, &["drains:remove", &fixed_url]).await;
    assert!(refused.contains(&format!("The drain {fixed_url} is fixed by /")), "{refused}");

    let mesh = mesh.killed().await.start().await;
    let (out, _) = does(&mesh, &["drains"]).await;
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..2], ["=== Drains", ""]);
    assert!(lines[2].starts_with(&format!("{fixed_url} (d.")), "{out}");
    let token = lines[3].strip_prefix(&format!("{other_url} (")).unwrap().trim_end_matches(')');
    let (out, _) = does(&mesh, &["drains:remove", token]).await;
    assert_eq!(out, format!("Successfully removed drain {other_url}\n"));
    assert_eq!(does(&mesh, &["drains"]).await.0.lines().count(), 3);
    assert_eq!(does(&mesh, &["releases"]).await.0.lines().count(), 3, "none of it is a release");
    let bad = is_refused(&mesh, &["drains:add", "tcp://user:hunter2@logs.test"]).await;
    assert!(bad.contains("expected a URL like syslog+tls://") && !bad.contains("hunter2"), "{bad}");
}

#[tokio::test]
async fn features_are_what_the_file_calls_deploy_and_affinity() {
    let mesh = shop("").await;
    let cookie =
        async |mesh: &Mesh| ask(mesh, "shop.localhost").await.field("Set-Cookie").is_some();
    assert!(!cookie(&mesh).await);
    let (_, err) = does(&mesh, &["features:enable", "http-session-affinity"]).await;
    assert_eq!(err, "Enabling http-session-affinity for ⬢ shop... done\n");
    assert!(cookie(&mesh).await);
    does(&mesh, &["features:enable", "preboot"]).await;
    assert_eq!(
        is_refused(&mesh, &["features:enable", "preboot"]).await,
        "dynomesh: preboot is already enabled.\n"
    );
    let (out, _) = does(&mesh, &["check"]).await;
    assert!(out.contains("deploy") && out.contains("preboot"), "{out}");
    let mesh = mesh.killed().await.start().await;
    mesh.says("heroku[web.1]", "Adopted, up since").await;
    assert!(cookie(&mesh).await);
    does(&mesh, &["features:disable", "http-session-affinity"]).await;
    assert!(!cookie(&mesh).await);
    let (out, _) = does(&mesh, &["features"]).await;
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[2].starts_with("[ ] http-session-affinity "), "{out}");
    assert!(lines[3].starts_with("[+] preboot "), "{out}");

    let mesh = shop("affinity = \"off\"").await;
    let refused = is_refused(&mesh, &["features:enable", "http-session-affinity"]).await;
    assert!(refused.contains("The affinity of shop is fixed by /"), "{refused}");
}

#[tokio::test]
async fn sizes_are_changed_and_waited_for() {
    let mesh = shop("sizes = { worker = \"eco\" }").await;
    let (_, err) = does(&mesh, &["config:set", "A=1"]).await;
    assert_eq!(err, "Setting A and restarting ⬢ shop... done, v2\n");
    let (_, err) = does(&mesh, &["ps:wait"]).await;
    assert!(["", "Waiting for every dyno to be running v2... 1 / 1, done\n"].contains(&&*err));
    let dynos = does(&mesh, &["ps", "--json"]).await.0;
    let dynos: Value = serde_json::from_str(&dynos).unwrap();
    assert_eq!((&dynos[0]["state"], &dynos[0]["release"]["version"]), (&"up".into(), &2.into()));

    let pid = async || {
        let dynos = mesh.ask_admin("/debug/dynos").await;
        let dynos: Value = serde_json::from_str(dynos.text()).unwrap();
        dynos[0]["pid"].as_u64().filter(|_| dynos[0]["state"] == "up")
    };
    let before = pid().await.unwrap();
    let (out, err) = does(&mesh, &["ps:type", "web=standard-1x"]).await;
    assert_eq!(err, "Scaling dynos on ⬢ shop... done\n");
    let expected = "=== Process Types\n\n\
        Type    Size         Qty  Max cost/month\n\
        web     Standard-1X  1    $25.00\n\
        worker  Eco          0    $0.00\n";
    assert_eq!(out, expected);
    let refused = is_refused(&mesh, &["ps:type", "basic"]).await;
    assert!(refused.contains("The size of worker dynos of shop is fixed by /"), "{refused}");
    assert_eq!(does(&mesh, &["ps:type"]).await.0, expected, "and web is as it was");

    // The dynos are of another size then, and of the same release; the next one counts on from there for both.
    let of_dyno = async || {
        let dynos = does(&mesh, &["ps", "--json"]).await.0;
        let dynos: Value = serde_json::from_str(&dynos).unwrap();
        dynos[0]["release"]["version"].as_u64()
    };
    let is_other = async || pid().await.is_some_and(|it| it != before);
    becomes_true("a dyno of the other size", is_other).await;
    let current = async || does(&mesh, &["releases"]).await.0.lines().next().unwrap().to_owned();
    assert_eq!((of_dyno().await, &*current().await), (Some(2), "=== shop Releases - Current: v2"));
    let (_, err) = does(&mesh, &["config:set", "A=2"]).await;
    assert_eq!(err, "Setting A and restarting ⬢ shop... done, v3\n");
    does(&mesh, &["ps:wait"]).await;
    assert_eq!((of_dyno().await, &*current().await), (Some(3), "=== shop Releases - Current: v3"));
}

#[tokio::test]
async fn a_backup_of_a_running_daemon_is_restored() {
    let mesh = shop("").await;
    does(&mesh, &["config:set", "SECRET=hunter2"]).await;
    does(&mesh, &["maintenance:on"]).await;
    let copy = mesh.path("copy.db");
    does(&mesh, &["backup", copy.to_str().unwrap()]).await;
    does(&mesh, &["config:set", "SECRET=later"]).await;
    let key = std::fs::read(mesh.path("state/store.key")).unwrap();
    let setup = mesh.killed().await;
    let state = setup.dir().join("state");
    for name in ["dynomesh.db", "dynomesh.db-wal", "dynomesh.db-shm", "store.key"] {
        std::fs::remove_file(state.join(name)).unwrap();
    }
    std::fs::rename(&copy, state.join("dynomesh.db")).unwrap();
    std::fs::write(state.join("store.key"), key).unwrap();
    let mesh = setup.start().await;
    assert_eq!(does(&mesh, &["config:get", "SECRET"]).await.0, "hunter2\n");
    assert_eq!(does(&mesh, &["maintenance"]).await.0, "on\n");
    let releases = does(&mesh, &["releases"]).await.0;
    assert!(releases.starts_with("=== shop Releases - Current: v2\n"), "{releases}");
}

#[tokio::test]
async fn addons_are_config_vars_of_the_apps_that_they_are_attached_to() {
    let blog = "[apps.blog]\ndir = \"shop\"\nformation = { web = 0 }\n";
    let mesh = shop(blog).await;
    let (out, err) =
        does(&mesh, &["addons:create", "redis", "-a", "shop", "--url", "redis://:one@localhost"])
            .await;
    assert_eq!(err, "Creating redis on ⬢ shop... done\n");
    let addon = out.strip_prefix("Created ").unwrap().strip_suffix(" as REDIS_URL\n").unwrap();
    let var = async |mesh: &Mesh, app: &str, name: &str| {
        does(mesh, &["config:get", name, "-a", app]).await.0.trim_end().to_owned()
    };
    assert_eq!(var(&mesh, "shop", "REDIS_URL").await, "redis://:one@localhost");
    let fixed = is_refused(&mesh, &["config:set", "REDIS_URL=x", "-a", "shop"]).await;
    assert_eq!(fixed, "dynomesh: Cannot overwrite attachment values REDIS_URL.\n");

    // An app that has the config var already is asked once more.
    does(&mesh, &["config:set", "CACHE_URL=mine", "-a", "blog"]).await;
    let attach = ["addons:attach", addon, "--as", "CACHE", "-a", "blog"];
    let refused = is_refused(&mesh, &attach).await;
    assert!(refused.contains("CACHE_URL is set already on blog"), "{refused}");
    for nameless in ["", "-", "2"] {
        let attach = ["addons:attach", addon, &format!("--as={nameless}"), "-a", "blog"];
        let refused = is_refused(&mesh, &attach).await;
        assert!(refused.contains("a letter or an underscore first"), "{refused}");
    }
    let (_, err) = does(&mesh, &[&attach[..], &["--confirm", "blog"]].concat()).await;
    let expected = format!(
        "Attaching {addon} as CACHE to ⬢ blog... done\n\
         Setting CACHE config vars and restarting ⬢ blog... done, v3\n"
    );
    assert_eq!(err, expected);
    let (out, _) = does(&mesh, &["addons:info", addon]).await;
    assert!(out.contains("Attachments: blog::CACHE, shop::REDIS\nOwning app:  shop\n"), "{out}");

    let mesh = mesh.killed().await.start().await;
    assert_eq!(var(&mesh, "blog", "CACHE_URL").await, "redis://:one@localhost");
    let (_, err) = does(&mesh, &["addons:detach", "CACHE", "-a", "blog"]).await;
    assert!(err.ends_with("Unsetting CACHE config vars and restarting ⬢ blog... done, v4\n"));
    assert_eq!(var(&mesh, "blog", "CACHE_URL").await, "");
    does(&mesh, &["addons:attach", addon, "-a", "blog"]).await;
    let (out, _) = does(&mesh, &["releases", "-a", "blog"]).await;
    let described: Vec<&str> = out.lines().skip(2).collect();
    assert!(described[0].starts_with(&format!("v5  Attach REDIS (@ref:{addon})")), "{out}");
    assert!(described[1].starts_with(&format!("v4  Detach CACHE (@ref:{addon})")), "{out}");

    // A roll back restores what commands set, and leaves add-ons alone.
    does(&mesh, &["rollback", "v2", "-a", "blog"]).await;
    assert_eq!(var(&mesh, "blog", "CACHE_URL").await, "mine");
    assert_eq!(var(&mesh, "blog", "REDIS_URL").await, "redis://:one@localhost");
    does(&mesh, &["addons:destroy", addon, "--confirm", "shop"]).await;
    for app in ["shop", "blog"] {
        assert_eq!(var(&mesh, app, "REDIS_URL").await, "", "{app}");
        let (out, _) = does(&mesh, &["addons", "-a", app]).await;
        assert_eq!(out, format!("No add-ons for ⬢ {app}.\n"));
    }
}
