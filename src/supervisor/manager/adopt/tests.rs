use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use super::*;
use crate::config::AppSource;
use crate::init::Identity;
use crate::model::{Autoscale, DynoName, Exit, ProcessType, Target};
use crate::supervisor::Which;
use crate::supervisor::program::{Start, Streams};
use crate::supervisor::scripted::{Script, Scripted, Scripts};
use crate::supervisor::tests::rollouts::Lineups;
use crate::supervisor::tests::{Formation, app_name, basic, managed, passes};
use crate::table::Standing;

/// A dyno that was left behind.
#[derive(Clone, Copy)]
struct Left {
    dyno: (&'static str, u32),
    release: u64,
    /// What it runs; `run web` is what a test's configuration has for web.
    command: &'static str,
    age: u64,
    is_up: bool,
    is_stopping: bool,
    script: Script,
}

fn web(number: u32) -> Left {
    Left {
        dyno: ("web", number),
        release: 7,
        command: "run web",
        age: 100,
        is_up: true,
        is_stopping: false,
        script: Script::listens(0),
    }
}

fn survivor(left: Left, scripts: &Scripts) -> Survivor<Scripted> {
    let Left { dyno: (process_type, number), release, command, age, is_up, is_stopping, script } =
        left;
    let dyno = DynoName { process_type: ProcessType::parse(process_type).unwrap(), number };
    let port = dyno.process_type.is_web().then_some(20_000 + number as u16);
    let program = Program {
        release,
        command: command.into(),
        dir: PathBuf::from("/"),
        size: basic(),
        config_vars: Arc::default(),
    };
    let identity = Identity {
        id: "an id".into(),
        app: "shop".into(),
        dyno: dyno.to_string(),
        release,
        program: digest_of(&program),
        size: Some("eco".into()),
        port,
        started: unix_millis() - age * 1000,
    };
    let order = Order {
        identity,
        command: command.into(),
        dir: "/".into(),
        environment: BTreeMap::new(),
        descriptors: None,
        namespaces: false,
        network: None,
        sandbox: None,
        confinement: None,
        cgroups: vec![],
        terminal: None,
        stdin: false,
    };
    let process = scripts.process(script, None, Streams::Log);
    let up_since = is_up.then_some(order.identity.started + 1000);
    Survivor { process, app: app_name("shop"), dyno, order, up_since, is_stopping }
}

fn adopt(left: &[Left], apps: &[(&str, AppSource)]) -> Formation {
    let scripts = Scripts::new(&[Script::listens(1)]);
    let survivors = left.iter().map(|left| survivor(*left, &scripts)).collect();
    Formation::start_after(survivors, scripts, apps)
}

fn shop(web: u32) -> [(&'static str, AppSource); 1] {
    [("shop", managed(&[("web", web)]))]
}

/// A moment: lives begin, and nothing else has time to happen.
async fn begins() {
    passes(0).await;
}

#[tokio::test(start_paused = true)]
async fn a_dyno_that_is_up_is_routed_to_at_once_and_nothing_is_started() {
    let formation = adopt(&[web(1), web(2)], &shop(2));
    begins().await;
    assert_eq!(formation.lineup("shop").dynos.len(), 2);
    passes(100).await;
    assert_eq!(formation.states(), ["shop web.1 up", "shop web.2 up"]);
    assert_eq!(formation.started(), 0);
    let status = &formation.supervisor.status()[0];
    let age = unix_millis() / 1000 - status.since;
    assert!((99..110).contains(&age), "since it came up: {age}");
    assert_eq!(status.addr.as_deref(), Some("127.0.0.1:20001"));
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn of_what_is_autoscaled_there_are_as_many_as_are_found() {
    let [(name, AppSource::Managed(mut app))] = shop(1) else { unreachable!() };
    let secs = Duration::from_secs;
    let target = Target::P95(secs(1));
    let rules = Autoscale { min: 1, max: 3, target, up_after: secs(10), down_after: secs(600) };
    app.autoscale.insert(ProcessType::web(), rules);
    let formation = adopt(&[web(1), web(3), web(4)], &[(name, AppSource::Managed(app))]);
    passes(100).await;
    let up = ["shop web.1 up", "shop web.2 up", "shop web.3 up"];
    assert_eq!(formation.states(), up, "the fourth is one too many");
    assert_eq!(formation.started(), 1);
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_is_started_and_its_port_is_another_one() {
    let formation = adopt(&[web(2)], &shop(3));
    begins().await;
    assert_eq!(formation.lineup("shop").dynos.len(), 1);
    passes(2).await;
    assert_eq!(formation.states(), ["shop web.1 up", "shop web.2 up", "shop web.3 up"]);
    let starts = formation.scripts.starts.lock().unwrap().clone();
    assert_eq!(starts.len(), 2);
    assert!(starts.iter().all(|start| start.program.release == 7 && start.port != Some(20_002)));
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn another_program_is_the_next_release_and_replaced_without_a_gap() {
    let formation = adopt(&[Left { command: "run something else", ..web(1) }], &shop(1));
    begins().await;
    let before = formation.lineup("shop").dynos[0].id();
    passes(2).await;
    assert_eq!(formation.lineup("shop").dynos.len(), 1);
    assert_ne!(formation.lineup("shop").dynos[0].id(), before);
    assert_eq!(formation.scripts.starts.lock().unwrap()[0].program.release, 8);
    formation.supervisor.stop().await;
}

/// What numbers releases knows that it is none.
#[tokio::test(start_paused = true)]
async fn another_size_is_the_same_release_and_replaced_without_a_gap() {
    let [(name, AppSource::Managed(mut app))] = shop(1) else { unreachable!() };
    app.release = Some(7);
    let mut size = Size::clone(&basic());
    size.limits.processes = 10;
    app.sizes.insert(ProcessType::web(), Arc::new(size));
    let formation = adopt(&[web(1)], &[(name, AppSource::Managed(app))]);
    begins().await;
    let before = formation.lineup("shop").dynos[0].id();
    passes(2).await;
    assert_eq!(formation.lineup("shop").dynos.len(), 1);
    assert_ne!(formation.lineup("shop").dynos[0].id(), before);
    let starts = formation.scripts.starts.lock().unwrap().clone();
    let program = |it: &Start| (it.program.size.limits.processes, it.program.release);
    assert_eq!(starts.iter().map(program).collect::<Vec<_>>(), [(10, 7)]);
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_earlier_release_is_replaced_and_the_newest_goes_on() {
    let earlier = Left { release: 6, command: "run something else", ..web(2) };
    let formation = adopt(&[web(1), earlier], &shop(2));
    passes(2).await;
    let starts = formation.scripts.starts.lock().unwrap().clone();
    let started = starts.iter().map(|start| (start.dyno.to_string(), start.program.release));
    assert_eq!(started.collect::<Vec<_>>(), [("web.2".to_owned(), 7)]);
    formation.supervisor.stop().await;
}

/// The daemon before knew what the earlier release ran, and this one is told when it is wanted again.
#[tokio::test(start_paused = true)]
async fn who_goes_back_to_a_release_of_the_daemon_before_runs_what_that_was() {
    let numbered = |command: &str, release| {
        let [(name, AppSource::Managed(mut app))] = shop(2) else { unreachable!() };
        app.commands.insert(ProcessType::web(), command.into());
        app.release = Some(release);
        [(name, AppSource::Managed(app))]
    };
    let old = |number| Left { command: "run the old", ..web(number) };
    let formation = adopt(&[old(1), old(2)], &numbered("run the new", 8));
    formation.scripts.plan(&[Script::fails(), Script::listens(1)]);
    passes(10).await;
    formation.apply(&numbered("run the old", 7)).await;
    passes(10).await;
    formation.supervisor.restart(&app_name("shop"), Which::All).await;
    passes(30).await;
    let starts = formation.scripts.starts.lock().unwrap().clone();
    let started = starts.iter().map(|it| (it.program.command.as_str(), it.program.release));
    let started = started.collect::<Vec<_>>();
    assert_eq!(started, [("run the old", 7), ("run the old", 7)]);
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_dyno_that_was_starting_has_what_is_left_of_its_time() {
    let starting = Left { is_up: false, age: 20, ..web(1) };
    let formation = adopt(&[Left { script: Script::never_listens(), ..starting }], &shop(1));
    begins().await;
    assert_eq!(formation.lineup("shop").standing, Standing::Starting);
    passes(38).await;
    assert_eq!(formation.started(), 0);
    passes(3).await;
    assert_eq!(formation.started(), 1, "R10 after 60 s in all");
    formation.supervisor.stop().await;

    let formation = adopt(&[Left { script: Script::listens(3), ..starting }], &shop(1));
    let came_up = async |formation: &Formation| formation.lineup("shop").dynos.len();
    begins().await;
    assert_eq!(came_up(&formation).await, 0);
    passes(3).await;
    assert_eq!((came_up(&formation).await, formation.started()), (1, 0));
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_dyno_that_came_up_while_nobody_looked_is_no_r10() {
    let starting = Left { is_up: false, age: 1000, script: Script::listens(1), ..web(1) };
    let formation = adopt(&[starting], &shop(1));
    passes(2).await;
    assert_eq!(formation.states(), ["shop web.1 up"]);
    assert_eq!(formation.started(), 0);
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_wanted_no_more_is_stopped_and_never_routed_to() {
    let ignores = Left { script: Script::listens(0).ignores_sigterm(), ..web(3) };
    let formation = adopt(&[web(1), ignores], &shop(1));
    begins().await;
    assert_eq!(formation.lineup("shop").dynos.len(), 1);
    assert_eq!(formation.states(), ["shop web.1 up", "shop web.3 down"]);
    passes(31).await;
    assert_eq!(formation.states(), ["shop web.1 up"], "killed after its time");
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_dynos_of_an_app_that_is_gone_are_stopped() {
    let formation = adopt(&[web(1)], &[]);
    passes(1).await;
    assert_eq!(formation.states(), [""; 0]);
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_dismissed_dyno_used_is_booked_to_its_own_size() {
    for (size, apps) in [("eco", shop(0).to_vec()), ("eco", Vec::new()), ("gone-4x", Vec::new())] {
        let scripts = Scripts::new(&[Script::listens(1)]);
        let mut left = survivor(web(1), &scripts);
        left.order.identity.size = Some(size.into());
        let formation = Formation::start_after(vec![left], scripts, &apps);
        passes(1).await;
        let (usage, _) = formation.supervisor.take_usage();
        let mut seconds = BTreeMap::new();
        for ((_, payer), millis) in usage {
            *seconds.entry(payer.size.to_string()).or_default() += millis / 1000;
        }
        let used = seconds.remove(size).unwrap_or(0_u64);
        assert!((100..110).contains(&used) && seconds.is_empty(), "{size}: {used}, {seconds:?}");
        formation.supervisor.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_with_one_name_the_one_that_is_up_stays() {
    let successor = Left { release: 8, is_up: false, age: 1, ..web(1) };
    let going = Left { is_stopping: true, age: 50, ..web(1) };
    let formation = adopt(&[successor, going, web(1)], &shop(1));
    begins().await;
    assert_eq!(formation.lineup("shop").dynos.len(), 1);
    passes(1).await;
    let status = formation.supervisor.status();
    let ages = status.iter().map(|it| unix_millis() / 1000 - it.since).collect::<Vec<_>>();
    assert!(ages.len() == 1 && ages[0] >= 99, "{ages:?}");
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_exit_that_nobody_heard_is_a_crash() {
    let ended = Left { script: Script::listens(0).exits(0, Exit::Status(3)), ..web(1) };
    let formation = adopt(&[ended], &shop(1));
    let lineups = Lineups::of(&formation);
    passes(2).await;
    assert_eq!(formation.started(), 1);
    let ids = lineups.seen().into_iter().flatten().collect::<BTreeSet<_>>();
    assert_eq!(ids.len(), 1, "no request is sent to what has ended");
    assert_eq!(formation.states(), ["shop web.1 up"]);
    assert_eq!(formation.supervisor.status()[0].restarts, 1);
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_init_remembers_that_its_dyno_came_up() {
    let scripts = Scripts::new(&[Script::listens(1)]);
    let left =
        survivor(Left { is_up: false, age: 1, script: Script::listens(1), ..web(1) }, &scripts);
    let told = left.process.came_up.clone();
    let formation = Formation::start_after(vec![left], scripts, &shop(1));
    begins().await;
    assert!(!told.load(Ordering::Relaxed));
    passes(1).await;
    assert!(told.load(Ordering::Relaxed));
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_was_frozen_goes_on_before_it_is_routed_to_or_stopped() {
    let scripts = Scripts::new(&[Script::listens(1)]);
    let survivors = [web(1), web(2)].map(|left| survivor(left, &scripts));
    survivors.iter().for_each(|survivor| survivor.process.freeze());
    let formation = Formation::start_after(survivors.into(), scripts.clone(), &shop(1));
    begins().await;
    assert_eq!(scripts.frozen(), 0);
    assert_eq!(formation.states(), ["shop web.1 up"]);
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_one_off_goes_on_and_restarts_nothing() {
    let one_off = Left { dyno: ("run", 4711), command: "rake import", ..web(1) };
    let formation = adopt(&[web(1), one_off], &shop(1));
    passes(100).await;
    assert_eq!(formation.states(), ["shop run.4711 up", "shop web.1 up"]);
    assert_eq!(formation.started(), 0);
    let status = &formation.supervisor.status()[0];
    let shown = (status.command.as_deref(), status.size.as_deref());
    assert_eq!(shown, (Some("rake import"), Some("eco")));
    assert!(formation.supervisor.stop_dyno(&app_name("shop"), "run.4711").await);
    passes(1).await;
    assert_eq!(formation.states(), ["shop web.1 up"]);
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_one_off_that_has_lost_its_client_is_stopped() {
    let scripts = Scripts::new(&[Script::listens(1)]);
    let mut attached = survivor(Left { dyno: ("run", 4711), ..web(1) }, &scripts);
    attached.order.stdin = true;
    let formation = Formation::start_after(vec![attached], scripts, &shop(1));
    passes(2).await;
    assert_eq!(formation.states(), ["shop web.1 up"]);
    assert_eq!(formation.scripts.starts.lock().unwrap()[0].program.release, 1);
    formation.supervisor.stop().await;
}
