//! What a dyno takes of memory: told of, killed, replaced.

use crate::model::Exit;
use crate::supervisor::cgroup::{Memory, Usage};
use crate::supervisor::dyno::tests::{Stage, check, secs};
use crate::supervisor::place::{Event, State};
use crate::supervisor::scripted::Script;
use crate::table::Standing;

fn memory(megabytes: u64) -> Usage {
    let memory = Memory { rss: megabytes << 20, quota: 512 << 20, ..Memory::default() };
    Usage { memory: Some(memory), ..Usage::default() }
}

/// A look after each half of the 20 seconds: here, all dynos have the same luck.
#[tokio::test(start_paused = true)]
async fn a_dyno_above_its_memory_is_told_of_at_each_look_and_killed_at_twice_of_it() {
    use State::*;
    let grows = Script::listens(0).takes(|secs| memory(500 + secs));
    let hog = Script::listens(0).takes(|secs| memory(if secs < 60 { 600 } else { 1060 }));
    let states = [(0, Starting), (0, Up), (70, Crashed), (70, Starting), (70, Up)];
    let end = [(81, Draining), (81, Stopping)];
    let said = check("worker", &[hog, grows], 81, &[&states[..], &end[..]].concat()).await;
    let r14 = ["Process running mem=600M(117.2%)", "Error R14 (Memory quota exceeded)"];
    let r15 = [
        "Process running mem=1060M(207.0%)",
        "Error R15 (Memory quota vastly exceeded)",
        "Stopping process with SIGKILL",
        "Process exited with status 137",
        "State changed from up to crashed",
    ];
    let start = ["Starting process with command `run v1`", "State changed from starting to up"];
    let expected = [&start[..], &r14, &r14, &r14, &r15].concat();
    assert_eq!(said[..expected.len()], expected, "{said:#?}");
    let later: Vec<&String> =
        said[expected.len()..].iter().filter(|it| it.contains("mem")).collect();
    // Of its successor at 10 s nothing is said, because 510 MB are below the quota.
    assert_eq!(later, [] as [&str; 0], "{said:#?}");
}

/// The kernel is faster than any look.
#[tokio::test(start_paused = true)]
async fn a_dyno_that_the_kernel_killed_for_its_memory_is_r15() {
    let hog = Script::listens(0)
        .exits(5, Exit::Signal(9))
        .takes(|secs| Usage { oom_kills: u64::from(secs >= 5), ..memory(3) });
    let mut stage = Stage::new("worker", &[hog, Script::listens(0)]);
    stage.at(6).await;
    stage.stop();
    while stage.events.recv().await.is_some_and(|(_, event)| !matches!(event, Event::Ended)) {}
    let said = stage.end().await;
    assert_eq!(
        said[2..7],
        [
            "Process running mem=1024M(200.0%)",
            "Error R15 (Memory quota vastly exceeded)",
            "Stopping process with SIGKILL",
            "Process exited with status 137",
            "State changed from up to crashed",
        ],
        "{said:#?}"
    );
}

#[tokio::test(start_paused = true)]
async fn runtime_metrics_are_said_where_they_are_wanted() {
    let mut stage = Stage::new("worker", &[Script::listens(0).takes(|_| memory(180))]);
    stage.at(15).await;
    stage.orders.send_modify(|orders| orders.watch.say_metrics = true);
    stage.at(35).await;
    stage.stop();
    let mut took = Vec::new();
    while let Some((_, event)) = stage.events.recv().await {
        match event {
            Event::Took { pid, usage } => took.push((pid.get(), usage.rss, usage.quota)),
            Event::Ended => break,
            _ => {}
        }
    }
    assert_eq!(took, [(Some(1), Some(180 << 20), Some(512 << 20)); 2]);
    let said = stage.end().await;
    assert_eq!(
        said[2..4],
        [
            "source=worker.1 dyno=heroku.shop.0-1 sample#load_avg_1m=0.39 sample#load_avg_5m=0.10 sample#load_avg_15m=0.03",
            "source=worker.1 dyno=heroku.shop.0-1 sample#memory_total=180.00MB sample#memory_rss=180.00MB sample#memory_cache=0.00MB sample#memory_swap=0.00MB sample#memory_quota=512.00MB",
        ],
        "{said:#?}"
    );
}

/// Its successor boots first; the time above the quota counts from the first look that saw it.
#[tokio::test(start_paused = true)]
async fn a_dyno_above_its_memory_for_long_is_replaced_gently() {
    let hog = Script::listens(1).takes(|_| memory(600));
    let stage = Stage::new("web", &[hog, Script::listens(5).takes(|_| memory(100))]);
    stage.order(|orders| orders.watch.recycle_on_r14 = Some(secs(60)));
    let lease = {
        stage.at(69).await;
        stage.lease()
    };
    stage.at(74).await;
    assert!(!lease.dyno().is_closed(), "looks at 10, 30, 50 and 70 s: its successor boots");
    stage.at(76).await;
    assert!(lease.dyno().is_closed());
    assert_eq!(stage.standing(), (1, Standing::Up));
    drop(lease);
    stage.at(200).await;
    stage.stop();
    let said = stage.end().await;
    let why = "Restarting: above its memory quota for too long";
    assert_eq!(said.iter().filter(|line| *line == why).count(), 1, "{said:#?}");
    let times = said.iter().filter(|line| line.contains("Error R14")).count();
    assert_eq!(times, 4, "and none of its successor: {said:#?}");
}

/// Where no successor comes up, the time counts anew: not one boot after the other.
#[tokio::test(start_paused = true)]
async fn a_dyno_whose_successor_does_not_come_up_goes_on_above_its_memory() {
    let hog = Script::listens(1).takes(|_| memory(600));
    let stage = Stage::new("web", &[hog, Script::never_listens().exits(1, Exit::Status(1))]);
    stage.order(|orders| orders.watch.recycle_on_r14 = Some(secs(60)));
    stage.at(200).await;
    assert_eq!(stage.standing(), (1, Standing::Up));
    stage.stop();
    let said = stage.end().await;
    // At 70 s and, counted from the look at 90 s, at 150 s.
    let starts = said.iter().filter(|line| line.starts_with("Starting process")).count();
    assert_eq!(starts, 3, "{said:#?}");
}
