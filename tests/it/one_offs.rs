//! Dynos for one command.

use serde_json::Value;

use crate::support::{Mesh, Ran, Setup, becomes_true};

const PROCFILE: &str = "web: TESTAPP\nconsole: echo console\n";

async fn shop() -> Mesh {
    let lines = "formation = { web = 1 }\n[apps.shop.config]\nGREETING = \"hello\"";
    Setup::new().procfile("shop", PROCFILE, lines).start().await
}

/// `run.4711`, of what a run printed.
fn name(ran: &Ran) -> String {
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let (_, name) = ran.out.trim_end().rsplit_once(", ").expect("done, run.NNNN");
    assert!(name.starts_with("run.") && name.len() == 8, "{ran:?}");
    name.to_owned()
}

#[tokio::test]
async fn a_detached_command_runs_once_into_the_log() {
    let mesh = shop().await;
    let command = "echo $GREETING $ONE in $DYNO; exit 3";
    let ran = mesh.command(&["run:detached", "-a", "shop", "-e", "ONE=1", command]).await;
    let dyno = name(&ran);
    let (heroku, app) = (format!("heroku[{dyno}]"), format!("app[{dyno}]"));
    mesh.says(&heroku, "State changed from up to complete").await;
    mesh.says(&app, &format!("hello 1 in {dyno}")).await;
    let lines = mesh.lines();
    let said = lines.iter().filter(|line| line.source == heroku).map(|line| &*line.message);
    assert_eq!(
        said.collect::<Vec<_>>(),
        [
            &*format!("Starting process with command `{command}`"),
            "State changed from starting to up",
            "Process exited with status 3",
            "State changed from up to complete",
        ]
    );
    let ps = mesh.command(&["ps"]).await;
    assert!(!ps.out.contains("run."), "{ps:?}");
}

#[tokio::test]
async fn a_process_type_stands_for_its_command() {
    let mesh = shop().await;
    let dyno = name(&mesh.command(&["run:detached", "console", "and", "a b"]).await);
    mesh.says(&format!("app[{dyno}]"), "console and a b").await;
}

#[tokio::test]
async fn ps_lists_it_and_stop_ends_it() {
    let mesh = shop().await;
    let ran = mesh.command(&["run:detached", "-s", "Standard-2X", "sleep 1000"]).await;
    let dyno = name(&ran);
    mesh.says(&format!("heroku[{dyno}]"), "State changed from starting to up").await;
    let ps = mesh.command(&["ps"]).await;
    assert!(ps.out.starts_with("=== run: one-off processes (1)\n\n"), "{ps:?}");
    let line = ps.out.lines().nth(2).unwrap();
    assert!(line.starts_with(&format!("{dyno} (Standard-2X): up 2")), "{ps:?}");
    assert!(line.ends_with("s ago): sleep 1000"), "{ps:?}");

    let stop = mesh.command(&["ps:stop", &dyno]).await;
    assert_eq!(stop.err, format!("Stopping dyno {dyno} on ⬢ shop... done\n"));
    mesh.says(&format!("heroku[{dyno}]"), "Process exited with status 143").await;
    mesh.says(&format!("heroku[{dyno}]"), "State changed from up to complete").await;
    let again = mesh.command(&["ps:stop", &dyno]).await;
    assert_eq!(again.code, Some(1));
    assert_eq!(again.err, format!("dynomesh: Couldn't find the dyno {dyno} of shop.\n"));
}

#[tokio::test]
async fn a_formations_dyno_that_is_stopped_is_replaced() {
    let mesh = shop().await;
    mesh.says_times("heroku[web.1]", "State changed from starting to up", 1).await;
    let pid = async || {
        let dynos: Vec<Value> =
            serde_json::from_str(mesh.ask_admin("/debug/dynos").await.text()).unwrap();
        dynos.iter().find_map(|dyno| dyno["pid"].as_u64().filter(|_| dyno["state"] == "up"))
    };
    let before = pid().await;
    assert!(before.is_some());
    assert_eq!(mesh.command(&["ps:stop", "web.1"]).await.code, Some(0));
    becomes_true("another process", async || {
        let now = pid().await;
        now.is_some() && now != before
    })
    .await;
}

#[tokio::test]
async fn what_cannot_run_is_said() {
    let mesh = shop().await;
    let check = async |args: &[&str], expected: &str| {
        let ran = mesh.command(args).await;
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.err.starts_with(expected), "{ran:?}");
    };
    check(&["run:detached", "-a", "shpo", "true"], "dynomesh: Couldn't find the app shpo.").await;
    check(&["run:detached", "-s", "huge", "true"], "dynomesh: There is no size huge (there is: ")
        .await;
    check(&["run:detached", "-e", "A", "true"], "dynomesh: -e has NAME=value pairs").await;
    check(&["run:detached", " "], "dynomesh: there is no command to run").await;
}

#[tokio::test]
async fn a_one_off_is_paid_for_as_run() {
    let mesh = shop().await;
    let dyno = name(&mesh.command(&["run:detached", "sleep 1000"]).await);
    mesh.says(&format!("heroku[{dyno}]"), "State changed from starting to up").await;
    becomes_true("a second of run", async || {
        let usage = mesh.command(&["ps:usage", "--json"]).await;
        let rows: Vec<Value> = serde_json::from_str(&usage.out).unwrap();
        rows.iter().any(|row| row["type"] == "run" && row["dyno_seconds"].as_u64() >= Some(1))
    })
    .await;
}
