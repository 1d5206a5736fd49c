//! What dynos may take: R14, R15, processes, CPU. Where this host gives us no control groups there is nothing to
//! promise, and the tests say that they were skipped.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity};

use crate::support::{
    Answer, Load, Mesh, Setup, becomes_true, control_groups, directories, init_of, request, testapp,
};

/// Small, so that it is soon used up.
const NAP: &str = "memory = \"32MB\"\nprocesses = 40";

/// A daemon whose dynos are held to their sizes; none where the host cannot.
async fn held(setup: Setup) -> Option<Mesh> {
    let mesh = setup.start().await;
    if mesh.control_groups().is_none() {
        eprintln!("skipped: no control groups here");
        return None;
    }
    Some(mesh)
}

/// The app `shop` that behaves, and another one of the size `nap` that is to misbehave.
fn shop_and(other: &str, lines: &str) -> Setup {
    // The neighbour's requests are thousands of lines.
    Setup::new()
        .router("access_log = \"off\"")
        .procfile("shop", "web: TESTAPP\n", "")
        .procfile(other, "web: TESTAPP\n", &format!("size = \"nap\"\n{lines}"))
        .table("sizes.nap", NAP)
}

/// A request that is not repeated when its dyno dies.
async fn ask(mesh: &Mesh, app: &str, target: &str) -> Answer {
    let mut client = mesh.client().await;
    let head =
        format!("POST {target} HTTP/1.1\r\nHost: {app}.localhost\r\nContent-Length: 0\r\n\r\n");
    client.send(head).await;
    client.answer().await
}

/// What the platform said of an app's `web.1`, runtime metrics left out.
fn said(mesh: &Mesh, app: &str) -> Vec<String> {
    let of_app =
        mesh.lines().into_iter().filter(|it| it.app == app && it.source == "heroku[web.1]");
    of_app.map(|it| it.message).filter(|it| !it.contains("sample#")).collect()
}

async fn is_up(mesh: &Mesh, app: &str) {
    let up = async || said(mesh, app).iter().any(|it| it == "State changed from starting to up");
    becomes_true("the dyno to be up", up).await;
}

/// The directories of the groups of all dynos.
fn groups(mesh: &Mesh) -> Vec<PathBuf> {
    let parents = control_groups(&mesh.control_groups().expect("there are some"));
    let entries = parents.iter().flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten());
    entries.map(|it| it.path()).filter(|it| it.is_dir()).collect()
}

/// A number out of the group of the dyno whose `HEROKU_DYNO_ID` this is: of the first file that is there.
fn number(mesh: &Mesh, id: &str, files: &[(&str, &str)]) -> u64 {
    let groups = groups(mesh).into_iter().filter(|dir| dir.ends_with(id)).collect::<Vec<_>>();
    let read = |(file, word): &(&str, &str)| {
        let text = groups.iter().find_map(|dir| fs::read_to_string(dir.join(file)).ok())?;
        text.lines().find_map(|line| line.strip_prefix(word)?.trim().parse().ok())
    };
    files.iter().find_map(read).unwrap_or_else(|| panic!("none of {files:?} in {groups:?}"))
}

/// Nanoseconds of CPU, by v1 or v2.
fn cpu(mesh: &Mesh, id: &str) -> u64 {
    let v2 = |mesh| number(mesh, id, &[("cpu.stat", "usage_usec ")]) * 1000;
    let is_v1 = groups(mesh).iter().any(|dir| dir.join("cpuacct.usage").exists());
    if is_v1 { number(mesh, id, &[("cpuacct.usage", "")]) } else { v2(mesh) }
}

/// A look at memory comes each 20 s, the first of them within as much: twice that, and what is said afterwards.
async fn says_r14(mesh: &Mesh, app: &str) {
    let looked = async {
        while !said(mesh, app).iter().any(|it| it == "Error R14 (Memory quota exceeded)") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), looked).await.expect("R14");
}

#[tokio::test]
async fn a_memory_hog_is_told_of_then_killed_and_its_neighbour_does_not_notice() {
    let Some(mesh) = held(shop_and("hog", "runtime_metrics = true")).await else { return };
    is_up(&mesh, "shop").await;
    is_up(&mesh, "hog").await;
    let load = Load::start(mesh.http(), 2, &request("GET", "/", "", ""));
    assert_eq!(ask(&mesh, "hog", "/take-memory?mb=40").await.status, 200);
    says_r14(&mesh, "hog").await;
    let lines = said(&mesh, "hog");
    let percent = lines.iter().find_map(|it| {
        let (_, percent) = it.strip_prefix("Process running mem=")?.split_once("M(")?;
        percent.strip_suffix("%)")?.parse::<f64>().ok()
    });
    assert!(percent.is_some_and(|percent| (125.0..200.0).contains(&percent)), "{lines:?}");
    let metrics = mesh.says("heroku[web.1]", "sample#memory_total=").await.message;
    assert!(metrics.ends_with(" sample#memory_quota=32.00MB"), "{metrics}");
    let scrape = mesh.metrics().await;
    let rss = [("app", "hog"), ("dyno", "web.1"), ("kind", "rss")];
    assert!(scrape.get("dynomesh_dyno_memory_bytes", &rss) > 40e6, "{}", scrape.text);
    // More than there is until twice the quota: the kernel kills it in the middle of this.
    ask(&mesh, "hog", "/take-memory?mb=40").await.is_refusal(503, "H13");
    let again =
        async || said(&mesh, "hog").iter().any(|it| it.contains("from crashed to starting"));
    becomes_true("the hog to start again", again).await;
    let lines = said(&mesh, "hog");
    let r15 = lines.iter().position(|it| it.starts_with("Error R15")).expect("R15");
    assert_eq!(
        lines[r15 - 1..r15 + 5],
        [
            "Process running mem=64M(200.0%)",
            "Error R15 (Memory quota vastly exceeded)",
            "Stopping process with SIGKILL",
            "Process exited with status 137",
            "State changed from up to crashed",
            "State changed from crashed to starting",
        ],
        "{lines:#?}"
    );
    let scrape = mesh.metrics().await;
    assert_eq!(scrape.get("dynomesh_errors_total", &[("app", "hog"), ("code", "R15")]), 1.0);
    assert!(scrape.get("dynomesh_errors_total", &[("app", "hog"), ("code", "R14")]) >= 1.0);
    assert!(scrape.get("dynomesh_dyno_oom_kills_total", &[("app", "hog")]) >= 1.0);
    assert!(scrape.get("dynomesh_dyno_memory_bytes", &rss) < 40e6, "what it took went with it");
    let tally = load.stop().await;
    assert!(tally.fine > 0 && (tally.refused, tally.broken) == (0, 0), "{tally:?}");
}

#[tokio::test]
async fn a_fork_bomb_stops_at_its_limit_and_its_neighbour_does_not_notice() {
    let Some(mesh) = held(shop_and("bomb", "")).await else { return };
    is_up(&mesh, "shop").await;
    is_up(&mesh, "bomb").await;
    let load = Load::start(mesh.http(), 2, &request("GET", "/", "", ""));
    let spawned = ask(&mesh, "bomb", "/spawn?times=200").await.text().parse::<u32>().unwrap();
    assert!((20..40).contains(&spawned), "{spawned} processes");
    load.carries(20).await;
    let tally = load.stop().await;
    assert_eq!((tally.refused, tally.broken), (0, 0), "{tally:?}");
}

#[tokio::test]
async fn who_has_twice_the_share_gets_twice_the_cpu() {
    // Both on one processor, where both always want to run: who else works on this machine takes from both alike, and
    // how the kernel spreads groups over processors is not asked here.
    let own = sched_getaffinity(None).unwrap();
    let cpu_of_both = (0..CpuSet::MAX_CPU).find(|cpu| own.is_set(*cpu)).unwrap();
    let burn = format!(
        "burn: echo id=$HEROKU_DYNO_ID; exec taskset -c {cpu_of_both} sh -c 'while :; do :; done'\n"
    );
    let formation = "formation = { burn = 1 }";
    let setup = Setup::new()
        .procfile("one", &burn, &format!("size = \"standard-1x\"\n{formation}"))
        .procfile("two", &burn, &format!("size = \"standard-2x\"\n{formation}"));
    let Some(mesh) = held(setup).await else { return };
    let id = async |app: &str| {
        let of_app = |line: &crate::support::Line| {
            (line.app == app).then(|| line.message.strip_prefix("id=").map(str::to_owned))?
        };
        mesh.line("the dyno's id", of_app).await
    };
    let (one, two) = (id("one").await, id("two").await);
    let before = (cpu(&mesh, &one), cpu(&mesh, &two));
    // Counted in their own time, not by the clock: others work on this machine, too.
    let spent = || (cpu(&mesh, &one) - before.0, cpu(&mesh, &two) - before.1);
    becomes_true("two seconds of CPU", async || spent().0 + spent().1 > 2_000_000_000).await;
    let (one, two) = spent();
    let ratio = two as f64 / one as f64;
    assert!((1.6..2.5).contains(&ratio), "{two} to {one}: {ratio}");
}

#[tokio::test]
async fn a_quota_of_the_cpu_holds_a_dyno_back() {
    let setup = Setup::new()
        .procfile(
            "shop",
            "burn: echo id=$HEROKU_DYNO_ID; while :; do :; done\n",
            "formation = { burn = 1 }\nsize = \"slow\"",
        )
        .table("sizes.slow", "memory = \"32MB\"\ncpus = 0.1");
    let Some(mesh) = held(setup).await else { return };
    let id = mesh.line("its id", |it| it.message.strip_prefix("id=").map(str::to_owned)).await;
    let held_back = async || number(&mesh, &id, &[("cpu.stat", "nr_throttled ")]) > 3;
    becomes_true("the dyno to be held back", held_back).await;
}

#[tokio::test]
async fn groups_are_gone_with_their_dynos() {
    let shop = |setup: Setup, count| {
        setup.procfile("shop", "web: TESTAPP\n", &format!("formation = {{ web = {count} }}"))
    };
    let Some(mut mesh) = held(shop(Setup::new(), 2)).await else { return };
    for dyno in ["web.1", "web.2"] {
        mesh.says(&format!("heroku[{dyno}]"), "State changed from starting to up").await;
    }
    let name = mesh.control_groups().unwrap();
    let hierarchies = control_groups(&name).len();
    assert_eq!(groups(&mesh).len(), 2 * hierarchies);
    mesh.reload(|mut setup| {
        setup.clear_apps();
        shop(setup, 1)
    })
    .await;
    becomes_true("a group to be gone", async || groups(&mesh).len() == hierarchies).await;
    mesh.signal(Signal::TERM);
    assert!(mesh.ended().await.success());
    assert_eq!(control_groups(&name), [] as [PathBuf; 0]);
}

/// Nor removes the group of all dynos while there is none.
#[tokio::test]
async fn a_second_daemon_of_a_state_directory_leaves_the_firsts_groups_alone() {
    let shop = |setup: Setup, count| {
        setup.procfile("shop", "web: TESTAPP\n", &format!("formation = {{ web = {count} }}"))
    };
    let Some(mut mesh) = held(shop(Setup::new(), 0)).await else { return };
    let (status, said) = mesh.setup().run_as_is("serve").await;
    assert!(!status.success(), "{said}");
    mesh.reload(|mut setup| {
        setup.clear_apps();
        shop(setup, 1)
    })
    .await;
    is_up(&mesh, "shop").await;
}

#[tokio::test]
async fn an_adopted_dyno_is_held_to_its_size_still() {
    let Some(mut mesh) = held(shop_and("hog", "")).await else { return };
    is_up(&mesh, "hog").await;
    let before = groups(&mesh);
    mesh.signal(Signal::KILL);
    mesh.ended().await;
    let mesh = mesh.start_again().await;
    becomes_true("the dyno to be adopted", async || said(&mesh, "hog").len() == 1).await;
    assert_eq!(groups(&mesh), before, "the same dynos in the same groups, and no other");
    ask(&mesh, "hog", "/take-memory?mb=70").await.is_refusal(503, "H13");
    let r15 = async || said(&mesh, "hog").iter().any(|it| it.starts_with("Error R15"));
    becomes_true("R15", r15).await;
}

/// Its init was killed together with the daemon: nobody else would end whom it has left.
#[tokio::test]
async fn what_a_killed_daemon_and_its_init_left_is_removed_by_the_next() {
    let setup = Setup::new().procfile(
        "shop",
        "worker: setsid sleep 300 & echo id=$HEROKU_DYNO_ID; wait\n",
        "formation = { worker = 1 }",
    );
    let Some(mut mesh) = held(setup).await else { return };
    let id = mesh.line("its id", |it| it.message.strip_prefix("id=").map(str::to_owned)).await;
    let of_dyno = |mesh: &Mesh| groups(mesh).into_iter().filter(|dir| dir.ends_with(&id)).count();
    assert!(of_dyno(&mesh) > 0);
    mesh.signal(Signal::KILL);
    mesh.ended().await;
    for init in mesh.dynos() {
        let name = fs::read_to_string(format!("/proc/{}/cmdline", init.as_raw_nonzero()));
        if name.is_ok_and(|name| name.starts_with("dynomesh\0init")) {
            kill_process(init, Signal::KILL).unwrap();
        }
    }
    let mesh = mesh.start_again().await;
    becomes_true("the groups to be gone", async || of_dyno(&mesh) == 0).await;
}

/// An init is not frozen with its dyno, nor killed for the memory that the dyno takes.
async fn are_in_their_groups(change: impl FnOnce(Setup) -> Setup) {
    let setup = Setup::new().procfile("shop", "web: TESTAPP\n", "");
    let Some(mesh) = held(change(setup)).await else { return };
    is_up(&mesh, "shop").await;
    let dyno = mesh.known().await[0].pid.expect("it runs");
    let home = directories(mesh.dir()).pop_first().unwrap();
    let of = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let id = home.file_name().unwrap().to_str().unwrap();
    let (ours, group) = (of(mesh.pid().as_raw_nonzero().get()), of(dyno));
    assert_eq!(of(init_of(&home).as_raw_nonzero().get()), ours);
    // One per hierarchy that the daemon has.
    let theirs = group.lines().filter(|line| line.ends_with(id)).count();
    assert_eq!(theirs, groups(&mesh).len(), "{group}");
    assert!(theirs > 0);
}

#[tokio::test]
async fn a_dyno_is_in_its_control_groups_and_its_init_is_not() {
    are_in_their_groups(|setup| setup).await;
}

#[tokio::test]
async fn an_isolated_dyno_is_in_its_control_groups_and_its_init_is_not() {
    are_in_their_groups(|setup| setup.isolated(&[&testapp()])).await;
}
