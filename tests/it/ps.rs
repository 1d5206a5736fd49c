//! Dynos as commands show and change them.

use serde_json::Value;

use crate::support::{Mesh, Setup, becomes_true};

async fn shop() -> Mesh {
    let procfile = "web: TESTAPP\nworker: sleep 1000\n";
    let formation = "formation = { web = 2, worker = 1 }";
    let mesh = Setup::new().procfile("shop", procfile, formation).start().await;
    for dyno in ["web.1", "web.2", "worker.1"] {
        mesh.says(&format!("heroku[{dyno}]"), "State changed from starting to up").await;
    }
    mesh
}

#[tokio::test]
async fn ps_prints_the_dynos_of_an_app_by_type() {
    let mesh = shop().await;
    let ps = mesh.command(&["ps", "-a", "shop"]).await;
    assert_eq!(ps.code, Some(0), "{ps:?}");
    let lines: Vec<_> = ps.out.lines().collect();
    assert!(lines[0].starts_with("=== web (Basic): ") && lines[0].ends_with(" (2)"), "{lines:?}");
    assert!(lines[2].starts_with("web.1: up 2") && lines[2].ends_with("s ago)"), "{lines:?}");
    assert!(lines[3].starts_with("web.2: up 2"), "{lines:?}");
    assert_eq!(lines[5], "=== worker (Basic): sleep 1000 (1)");
    assert!(lines[7].starts_with("worker.1: up 2"), "{lines:?}");

    let of_type = mesh.command(&["ps", "worker", "--json"]).await;
    let dynos: Vec<Value> = serde_json::from_str(&of_type.out).unwrap();
    assert_eq!(dynos.len(), 1);
    assert_eq!((&dynos[0]["name"], &dynos[0]["state"]), (&"worker.1".into(), &"up".into()));
}

#[tokio::test]
async fn what_is_not_there_is_said() {
    let mesh = shop().await;
    let unknown = mesh.command(&["ps", "-a", "shpo"]).await;
    assert_eq!(unknown.code, Some(1));
    assert_eq!(unknown.err, "dynomesh: Couldn't find the app shpo.\n");
    let no_type = mesh.command(&["ps", "clock"]).await;
    assert_eq!((no_type.code, &*no_type.err), (Some(1), "dynomesh: No clock dynos on ⬢ shop\n"));
}

/// The process of each dyno that is up, by name.
async fn pids(mesh: &Mesh) -> Vec<(String, u64)> {
    let dynos = mesh.ask_admin("/debug/dynos").await;
    let dynos: Vec<Value> = serde_json::from_str(dynos.text()).unwrap();
    let up = dynos.iter().filter(|dyno| dyno["state"] == "up");
    up.filter_map(|dyno| Some((dyno["dyno"].as_str()?.to_owned(), dyno["pid"].as_u64()?))).collect()
}

#[tokio::test]
async fn restart_starts_those_anew_that_are_meant() {
    let mesh = shop().await;
    // Lines are said before the numbers of processes are known.
    becomes_true("three processes", async || pids(&mesh).await.len() == 3).await;
    for (command, restarted, said) in [
        (&["ps:restart", "web.2"][..], &[1][..], "Restarting dyno web.2 on ⬢ shop... done\n"),
        (&["ps:restart", "worker"], &[2], "Restarting all worker dynos on ⬢ shop... done\n"),
        (&["ps:restart"], &[0, 1, 2], "Restarting all dynos on ⬢ shop... done\n"),
    ] {
        let before = pids(&mesh).await;
        let ran = mesh.command(command).await;
        assert_eq!((ran.code, &*ran.err), (Some(0), said));
        becomes_true(said, async || {
            let after = pids(&mesh).await;
            let differs = |place: &usize| before[*place] != after[*place];
            after.len() == 3 && restarted.iter().all(differs)
        })
        .await;
        let after = pids(&mesh).await;
        for place in (0..3).filter(|place| !restarted.contains(place)) {
            assert_eq!(before[place], after[place], "{command:?}");
        }
    }
    for (which, said) in [
        ("web.3", "dynomesh: Couldn't find the dyno web.3 of shop.\n"),
        ("clock", "dynomesh: No clock dynos on shop.\n"),
    ] {
        let ran = mesh.command(&["ps:restart", which]).await;
        assert_eq!((ran.code, &*ran.err), (Some(1), said));
    }
}
