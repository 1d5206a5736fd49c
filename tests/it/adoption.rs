//! Dynos that outlive the daemon: killed at any moment, it finds them again when it is started.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    Client, Known, Load, Mesh, Setup, becomes_true, directories, file_appears, init_of, is_gone,
    request, testapp,
};

/// Cool-offs short enough to be waited for.
const COOL: &str = "timeouts = { cool_off = \"200ms\", cool_off_max = \"400ms\", exit = \"1s\" }";

fn shop(procfile: &str, lines: &str) -> Setup {
    Setup::new().procfile("shop", procfile, &format!("{lines}\n{COOL}"))
}

/// What is known once every dyno is up.
async fn all_up(mesh: &Mesh) -> Vec<Known> {
    let all = || async {
        let known = mesh.known().await;
        known.iter().all(|dyno| dyno.state == "up" && dyno.pid.is_some()).then_some(known)
    };
    becomes_true("every dyno to be up", async || all().await.is_some()).await;
    all().await.unwrap()
}

/// These, where the second since when they are in their state is that of before: it is taken twice in a moment, which
/// may be the end of one.
fn same(mut now: Vec<Known>, before: &[Known]) -> Vec<Known> {
    for (now, before) in now.iter_mut().zip(before) {
        if now.since.abs_diff(before.since) <= 1 {
            now.since = before.since;
        }
    }
    now
}

/// Asks a dyno itself, while no daemon is there.
async fn ask_directly(known: &Known, target: &str) {
    let mut client = Client::connect(known.addr.unwrap()).await;
    assert_eq!(client.get(target).await.status, 200);
}

/// Stops the daemon as it should be, and looks at what is left.
async fn leaves_nothing(mut mesh: Mesh) {
    mesh.signal(Signal::TERM);
    assert!(mesh.ended().await.success());
    assert_eq!(mesh.dynos(), [], "no process is left");
    assert_eq!(directories(mesh.dir()), BTreeSet::new());
}

#[tokio::test]
async fn a_daemon_that_is_killed_20_times_under_load_loses_no_dyno() {
    is_killed_under_load(|setup| setup).await;
}

/// The same where dynos are kept apart, which root can have.
#[tokio::test]
async fn a_daemon_that_is_killed_20_times_under_load_loses_no_isolated_dyno() {
    is_killed_under_load(|setup| setup.isolated(&[&testapp()])).await;
}

async fn is_killed_under_load(change: impl FnOnce(Setup) -> Setup) {
    let setup =
        shop("web: TESTAPP\nworker: exec sleep 1000\n", "formation = { web = 2, worker = 1 }");
    let mut mesh = change(setup).start().await;
    let before = all_up(&mesh).await;
    let homes = directories(mesh.dir());
    assert_eq!((before.len(), homes.len()), (3, 3));
    for round in 0..20 {
        let load = Load::start(mesh.http(), 8, &request("GET", "/", "", ""));
        load.carries(50).await;
        let tally = load.tally();
        assert_eq!((tally.broken, tally.refused), (0, 0), "round {round}: {tally:?}");
        let setup = mesh.killed().await;
        drop(load);
        let line = format!("meanwhile-{round}");
        ask_directly(&before[0], &format!("/print?line={line}")).await;
        mesh = setup.start().await;
        // Whoever comes first finds them all.
        assert_eq!(mesh.get("/").await.status, 200);
        mesh.says("app[web.1]", &line).await;
        assert_eq!(same(all_up(&mesh).await, &before), before, "round {round}");
        assert_eq!(directories(mesh.dir()), homes, "round {round}");
        for dyno in ["web.1", "web.2", "worker.1"] {
            mesh.says(&format!("heroku[{dyno}]"), "Adopted, up since ").await;
        }
        let said = mesh.lines();
        assert!(!said.iter().any(|line| line.message.starts_with("Starting process")), "{said:?}");
    }
    leaves_nothing(mesh).await;
}

#[tokio::test]
async fn a_dyno_that_boots_while_the_daemon_is_killed_comes_up_all_the_same() {
    let mesh =
        shop("web: while ! test -e go; do sleep 0.02; done; exec TESTAPP\n", "").start().await;
    mesh.says("heroku[web.1]", "Starting process with command").await;
    becomes_true("its number to be known", async || mesh.known().await[0].pid.is_some()).await;
    let pid = mesh.known().await[0].pid;
    let mesh = mesh.killed().await.start().await;
    mesh.says("heroku[web.1]", "Adopted, starting since ").await;
    fs::write(mesh.path("shop/go"), "").unwrap();
    assert_eq!(mesh.get("/").await.text(), "web.1");
    mesh.says("heroku[web.1]", "State changed from starting to up").await;
    assert_eq!(all_up(&mesh).await[0].pid, pid);
    let mesh = mesh.killed().await.start().await;
    mesh.says("heroku[web.1]", "Adopted, up since ").await;
}

#[tokio::test]
async fn dynos_of_an_app_that_was_removed_meanwhile_are_stopped() {
    let mesh = shop("web: TESTAPP\n", "").start().await;
    let known = all_up(&mesh).await;
    let mut setup = mesh.killed().await;
    setup.clear_apps();
    let mesh = setup.start().await;
    mesh.says("heroku[web.1]", "Adopted to be stopped").await;
    mesh.says("heroku[web.1]", "Stopping all processes with SIGTERM").await;
    mesh.says("heroku[web.1]", "Process exited with status 143").await;
    assert!(is_gone(known[0].pid.unwrap()));
    becomes_true("its directory to be removed", async || directories(mesh.dir()).is_empty()).await;
    leaves_nothing(mesh).await;
}

#[tokio::test]
async fn a_program_that_was_changed_meanwhile_is_the_next_release() {
    let with = |color: &str| format!("[apps.shop.config]\nCOLOR = \"{color}\"");
    let mesh = Setup::new().procfile("shop", "web: TESTAPP\n", &with("red")).start().await;
    let pid = all_up(&mesh).await[0].pid;
    let setup = mesh.killed().await;
    let ask = async |mesh: &Mesh, name: &str| {
        mesh.get(&format!("/env?name={name}")).await.text().to_owned()
    };
    let text = setup.text().replace("red", "blue");
    let mesh = setup.start_with(&text).await;
    becomes_true("the new release", async || ask(&mesh, "COLOR").await == "blue").await;
    assert_eq!(ask(&mesh, "HEROKU_RELEASE_VERSION").await, "v2");
    becomes_true("the earlier process to go", async || is_gone(pid.unwrap())).await;
    let mesh = mesh.killed().await.start_with(&text).await;
    assert_eq!(ask(&mesh, "HEROKU_RELEASE_VERSION").await, "v2", "numbers go on");
    mesh.says("heroku[web.1]", "Adopted, up since ").await;
}

#[tokio::test]
async fn a_daemon_that_cannot_start_leaves_the_dynos_alone() {
    let mesh = shop("web: TESTAPP\n", "").start().await;
    let before = all_up(&mesh).await;
    let setup = mesh.killed().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let text = setup.text();
    let addr = taken.local_addr().unwrap().to_string();
    fs::write(setup.file(), text.replacen("127.0.0.1:0", &addr, 1)).unwrap();
    let (status, output) = setup.run_as_is("serve").await;
    assert!(!status.success() && output.contains("listen on "), "{output}");
    let mesh = setup.start_with(&text).await;
    assert_eq!(mesh.get("/").await.text(), "web.1");
    assert_eq!(same(all_up(&mesh).await, &before), before);
}

/// Whoever starts the daemon under a lock, as flock(1) does, could not start it again while a dyno lives.
#[tokio::test]
async fn what_the_daemon_was_started_with_does_not_stay_open_in_dynos() {
    let setup = shop("web: TESTAPP\n", "").before("exec 9>held; exec");
    let mesh = setup.start().await;
    all_up(&mesh).await;
    let held = mesh.path("held");
    assert!(has_open(mesh.pid(), &held), "the daemon was started with it");
    let home = directories(mesh.dir()).pop_first().unwrap();
    for pid in mesh.dynos().into_iter().chain([init_of(&home)]) {
        assert!(!has_open(pid, &held), "{pid:?}");
    }
}

fn has_open(pid: Pid, file: &Path) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).unwrap();
    let mut paths = descriptors.flatten().map(|entry| fs::read_link(entry.path()));
    paths.any(|path| path.is_ok_and(|path| path == file))
}

#[tokio::test]
async fn a_command_that_ends_meanwhile_takes_its_children_along_and_is_a_crash() {
    let mesh = shop("web: sleep 1000 & echo child=$!; exec TESTAPP\n", "").start().await;
    let before = all_up(&mesh).await;
    let line = mesh.says("app[web.1]", "child=").await;
    let child = line.message.rsplit('=').next().unwrap().parse::<i32>().unwrap();
    let setup = mesh.killed().await;
    assert!(!is_gone(child));
    ask_directly(&before[0], "/print?line=last-words").await;
    ask_directly(&before[0], "/exit-idle?code=3").await;
    becomes_true("the child to go", async || is_gone(child)).await;
    let mesh = setup.start().await;
    mesh.says("app[web.1]", "last-words").await;
    mesh.says("heroku[web.1]", "Process exited with status 3").await;
    mesh.says("heroku[web.1]", "State changed from up to crashed").await;
    assert_eq!(mesh.get("/").await.text(), "web.1", "and it is back");
    becomes_true("one directory", async || directories(mesh.dir()).len() == 1).await;
    leaves_nothing(mesh).await;
}

#[tokio::test]
async fn an_init_that_is_killed_takes_its_dyno_along_and_that_is_a_crash() {
    let mesh = shop("web: sleep 1000 & echo child=$!; exec TESTAPP\n", "").start().await;
    let before = all_up(&mesh).await;
    let line = mesh.says("app[web.1]", "child=").await;
    let child = line.message.rsplit('=').next().unwrap().parse::<i32>().unwrap();
    let home = directories(mesh.dir()).pop_first().unwrap();
    kill_process(init_of(&home), Signal::KILL).unwrap();
    mesh.says("heroku[web.1]", "Process exited with status 137").await;
    mesh.says("heroku[web.1]", "State changed from up to crashed").await;
    assert_eq!(mesh.get("/").await.text(), "web.1", "and it is back");
    for pid in [before[0].pid.unwrap(), child] {
        becomes_true("everyone of it to go", async || is_gone(pid)).await;
    }
    becomes_true("its directory to be removed", async || !home.exists()).await;
    leaves_nothing(mesh).await;
}

#[tokio::test]
async fn an_init_that_is_killed_while_no_daemon_is_there_leaves_a_place_to_fill() {
    let mesh = shop("web: TESTAPP\n", "").start().await;
    let before = all_up(&mesh).await;
    let home = directories(mesh.dir()).pop_first().unwrap();
    let setup = mesh.killed().await;
    kill_process(init_of(&home), Signal::KILL).unwrap();
    becomes_true("its dyno to go", async || is_gone(before[0].pid.unwrap())).await;
    let mesh = setup.start().await;
    assert_eq!(mesh.get("/").await.text(), "web.1");
    assert!(!home.exists());
    assert_eq!(directories(mesh.dir()).len(), 1);
}

#[tokio::test]
async fn what_is_too_much_to_keep_is_lost_and_counted() {
    let mesh = shop(
        "worker: while ! test -e go; do sleep 0.02; done; seq -f 'line number %.0f' 1 100000; touch done; exec sleep 1000\n",
        "formation = { worker = 1 }",
    );
    let mesh = mesh.start().await;
    all_up(&mesh).await;
    let setup = mesh.killed().await;
    fs::write(setup.dir().join("shop/go"), "").unwrap();
    file_appears(&setup.dir().join("shop/done")).await;
    let mesh = setup.start().await;
    mesh.says("app[worker.1]", "line number 100000").await;
    let lost = mesh.says("heroku[worker.1]", "Error L12: ").await;
    let lost = lost.message.split(' ').nth(2).unwrap().parse::<usize>().unwrap();
    let lines = mesh.lines();
    let printed = lines.iter().filter(|it| it.source == "app[worker.1]").count();
    assert!(lost > 0 && printed > 1000, "{lost} and {printed}");
    assert_eq!(lost + printed, 100_000);
}

/// Whoever ends is reaped, whoever's child it was.
#[tokio::test]
async fn no_zombie_stays() {
    let mesh = shop("web: (sleep 0.1 &) ; exec TESTAPP\n", "").start().await;
    for crashes in 1..=4 {
        assert_eq!(mesh.get("/exit-idle?code=0").await.status, 200);
        mesh.says_times("heroku[web.1]", "State changed from starting to up", crashes + 1).await;
    }
    let daemon = mesh.pid().as_raw_nonzero().get();
    let zombies = || {
        let stats = fs::read_dir("/proc").unwrap().flatten();
        let stats = stats.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
        let zombie = format!("Z {daemon} ");
        stats
            .filter(|stat| stat.rsplit_once(") ").is_some_and(|it| it.1.starts_with(&zombie)))
            .count()
    };
    becomes_true("no zombie to be there", async || zombies() == 0).await;
}
