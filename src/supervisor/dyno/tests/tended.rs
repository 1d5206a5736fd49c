//! Lives that are looked after: health, age, the share of a fresh dyno, frost and sleep.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::time;

use crate::config::HealthCheck;
use crate::model::Exit;
use crate::supervisor::dyno::tests::{Stage, secs};
use crate::supervisor::place::Orders;
use crate::supervisor::scripted::Script;
use crate::table::Standing;

// ---- sleep -------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_dyno_falls_asleep_and_wakes_in_herokus_words() {
    let stage = Stage::new("web", &[Script::listens(0), Script::listens(2)]);
    stage.at(10).await;
    stage.order(|orders| orders.asleep = true);
    stage.at(20).await;
    assert_eq!(stage.standing(), (0, Standing::Asleep));
    stage.order(|orders| orders.asleep = false);
    stage.at(21).await;
    assert_eq!(stage.standing(), (0, Standing::Starting));
    stage.at(23).await;
    assert_eq!(stage.standing(), (1, Standing::Up));
    stage.stop();
    let said = stage.end().await;
    assert_eq!(
        said[2..9],
        [
            "Idling",
            "State changed from up to down",
            "Stopping all processes with SIGTERM",
            "Process exited with status 143",
            "Unidling",
            "State changed from down to starting",
            "Starting process with command `run v1`",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_there_when_its_dyno_falls_asleep_is_finished_and_nobody_waits_for_it() {
    let stage = Stage::new("web", &[Script::listens(0)]);
    stage.at(10).await;
    let lease = stage.lease();
    stage.order(|orders| orders.asleep = true);
    stage.at(12).await;
    assert_eq!((lease.dyno().is_closed(), lease.dyno().exit()), (true, None));
    stage.order(|orders| orders.asleep = false);
    stage.at(13).await;
    assert_eq!(stage.standing(), (1, Standing::Up));
    assert_eq!(lease.dyno().exit(), None);
    let old = lease.dyno().clone();
    drop(lease);
    stage.at(14).await;
    assert_eq!(old.exit(), Some(Exit::Signal(15)));
    stage.stop();
    stage.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_wakes_waits_for_its_earlier_process() {
    let slow = Script { heeds_sigterm: Some(secs(5)), ..Script::listens(0) };
    let stage = Stage::new("worker", &[slow]);
    stage.at(1).await;
    stage.order(|orders| orders.asleep = true);
    stage.at(2).await;
    stage.order(|orders| orders.asleep = false);
    stage.at(9).await;
    stage.stop();
    let said = stage.end().await;
    let at = |line: &str| said.iter().rposition(|it| it.starts_with(line)).unwrap();
    let exited = said.iter().position(|it| it.starts_with("Process exited")).unwrap();
    assert!(exited < at("Unidling") && at("Unidling") < at("Starting process"), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn whatever_a_dyno_does_it_falls_asleep() {
    let crash = Script::never_listens().exits(1, Exit::Status(1));
    for (scripts, at) in [
        (vec![Script::listens(50)], 5),
        (vec![crash, crash], 5),
        (vec![Script::listens(0), Script::listens(50)], 5),
    ] {
        let stage = Stage::new("web", &scripts);
        stage.at(3).await;
        if scripts.len() == 2 && scripts[0].listens.is_some() {
            stage.restart(2);
        }
        stage.at(at).await;
        stage.order(|orders| orders.asleep = true);
        stage.at(at + 1).await;
        assert_eq!(stage.standing(), (0, Standing::Asleep), "{scripts:?}");
        stage.stop();
        let began = stage.began;
        stage.end().await;
        assert_eq!(began.elapsed().as_secs(), at + 1);
    }
}

// ---- health ------------------------------------------------------------------------------------------------

fn health(orders: &mut Orders) {
    Arc::make_mut(&mut orders.upkeep).health = Some(HealthCheck {
        path: "/up".into(),
        interval: secs(10),
        timeout: secs(5),
        unhealthy_after: NonZeroU32::new(3).unwrap(),
        restart_after: NonZeroU32::new(6),
    });
}

#[tokio::test(start_paused = true)]
async fn a_web_dyno_is_up_when_it_is_well() {
    let stage = Stage::new("web", &[Script::listens(1).unwell(0, 20)]);
    stage.order(health);
    stage.at(19).await;
    assert_eq!(stage.standing(), (0, Standing::Starting));
    stage.at(21).await;
    assert_eq!(stage.standing(), (1, Standing::Up));
    stage.stop();
    stage.end().await;

    let stage = Stage::new("web", &[Script::listens(1).unwell(0, 100)]);
    stage.order(health);
    stage.at(61).await;
    stage.stop();
    let said = stage.end().await;
    assert_eq!(
        said[1],
        "Error R10 (Boot timeout) -> Web process failed to answer GET /up with 2xx or 3xx within 60 seconds of launch"
    );
}

/// Checks fail from 100 s on: the third of them at 120 s to 131 s, the sixth by 164 s.
#[tokio::test(start_paused = true)]
async fn a_dyno_that_is_unwell_for_long_is_replaced() {
    let stage = Stage::new("web", &[Script::listens(0).unwell(100, 1000), Script::listens(5)]);
    stage.order(health);
    stage.at(1).await;
    let old = stage.lease().dyno().id();
    stage.at(145).await;
    assert_eq!(stage.lease().dyno().id(), old, "there is no other, so it goes on getting requests");
    stage.at(170).await;
    assert_ne!(stage.lease().dyno().id(), old);
    stage.stop();
    let said = stage.end().await;
    assert_eq!(
        said[2..6],
        [
            "Unhealthy: GET /up was answered 503, 3 times in a row",
            "No dyno of the app is healthy: requests are sent to all that are up",
            "Restarting: not well 6 times in a row",
            "Starting process with command `run v1`",
        ]
    );
}

/// The frost is looked after every three seconds here, the share every four; a check takes five.
#[tokio::test(start_paused = true)]
async fn a_dyno_that_hangs_is_noticed_whatever_else_is_done_for_it() {
    let changes: [fn(&mut Orders); 2] = [
        |orders| Arc::make_mut(&mut orders.upkeep).freeze_after = Some(secs(60)),
        |orders| orders.slow_start = Some(secs(80)),
    ];
    for change in changes {
        let stage = Stage::new("web", &[Script::listens(0).hangs(1, 1000)]);
        stage.order(health);
        stage.order(change);
        stage.at(1).await;
        let _lease = stage.lease();
        stage.at(50).await;
        stage.shutdown.now();
        stage.stop();
        let said = stage.end().await;
        assert_eq!(said[2], "Unhealthy: GET /up was not answered in time, 3 times in a row");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dyno_that_is_well_again_says_so_and_so_does_one_that_nobody_asks_any_more() {
    for forgotten in [false, true] {
        let until = if forgotten { 1000 } else { 140 };
        let stage = Stage::new("web", &[Script::listens(0).unwell(100, until)]);
        stage.order(health);
        stage.at(139).await;
        if forgotten {
            stage.order(|orders| orders.upkeep = Arc::default());
        }
        stage.at(155).await;
        stage.stop();
        let said = stage.end().await;
        assert_eq!(said[4], "Healthy again: it gets requests", "{said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_frail_but_living_dyno_is_not_passed_over() {
    // Two failures at most, then well again.
    let stage = Stage::new("web", &[Script::listens(0).unwell(100, 119)]);
    stage.order(health);
    stage.at(300).await;
    stage.stop();
    let said = stage.end().await;
    assert!(!said.iter().any(|line| line.starts_with("Unhealthy")), "{said:?}");
}

// ---- age, and the share of a fresh dyno --------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_dyno_is_cycled_when_it_is_old_and_a_restart_makes_it_young() {
    let hour = 3600;
    let stage = Stage::new("web", &[Script::listens(0)]);
    stage.order(|orders| Arc::make_mut(&mut orders.upkeep).cycle = Some(secs(hour)));
    stage.at(hour / 2).await;
    stage.order(|orders| orders.restart += 1);
    stage.at(hour / 2 + 1).await;
    let young = stage.lease().dyno().id();
    stage.at(hour + hour / 4).await;
    assert_eq!(stage.lease().dyno().id(), young);
    stage.at(hour + hour / 2 + 1).await;
    assert_ne!(stage.lease().dyno().id(), young);
    stage.stop();
    let said = stage.end().await;
    let of_note = said.iter().filter(|line| ["Cycling", "Restarting"].contains(&line.as_str()));
    assert_eq!(of_note.collect::<Vec<_>>(), ["Restarting", "Cycling"]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_is_cycled_by_a_stop_and_a_start() {
    let stage = Stage::new("worker", &[Script::listens(0)]);
    stage.order(|orders| Arc::make_mut(&mut orders.upkeep).cycle = Some(secs(100)));
    stage.at(101).await;
    stage.stop();
    let said = stage.end().await;
    assert_eq!(
        said[2..6],
        [
            "Cycling",
            "State changed from up to starting",
            "Stopping all processes with SIGTERM",
            "Process exited with status 143",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn the_share_of_a_fresh_dyno_grows() {
    let stage = Stage::new("web", &[Script::listens(1)]);
    stage.order(|orders| orders.slow_start = Some(secs(20)));
    let mut shares = Vec::new();
    for second in [1, 6, 11, 16, 22] {
        stage.at(second).await;
        shares.push(stage.lease().dyno().share());
    }
    assert!(shares.is_sorted() && shares[0] <= 100, "{shares:?}");
    assert!((400..=600).contains(&shares[2]), "{shares:?}");
    assert_eq!(shares[4], 1000);
    stage.stop();
    stage.end().await;
}

/// Where it were looked after without a pause, the clock here would stand still.
#[tokio::test(start_paused = true)]
async fn a_worker_has_no_share_that_could_grow() {
    let stage = Stage::new("worker", &[Script::listens(0)]);
    stage.order(|orders| orders.slow_start = Some(secs(20)));
    stage.at(10).await;
    stage.stop();
    let said = stage.end().await;
    assert_eq!(said[1], "State changed from starting to up");
}

#[tokio::test(start_paused = true)]
async fn without_a_slow_start_a_dyno_has_its_share_at_once() {
    let stage = Stage::new("web", &[Script::listens(1)]);
    stage.at(1).await;
    assert_eq!(stage.lease().dyno().share(), 1000);
    stage.stop();
    stage.end().await;
}

// ---- frozen ------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn an_idle_dyno_is_frozen_and_the_next_request_has_it_go_on() {
    let stage = Stage::new("web", &[Script::listens(0)]);
    stage.order(|orders| Arc::make_mut(&mut orders.upkeep).freeze_after = Some(secs(60)));
    stage.at(50).await;
    let lease = stage.lease();
    stage.at(500).await;
    drop(lease);
    stage.at(550).await;
    assert_eq!(stage.scripts.frozen(), 0, "in use until a moment ago");
    stage.at(565).await;
    assert_eq!(stage.scripts.frozen(), 1);
    assert_eq!(stage.standing(), (1, Standing::Up));
    let lease = stage.lease();
    time::sleep(Duration::from_millis(1)).await;
    assert_eq!(stage.scripts.frozen(), 0);
    stage.at(1000).await;
    assert_eq!(stage.scripts.frozen(), 0, "never with a request in flight");
    drop(lease);
    stage.at(1070).await;
    assert_eq!(stage.scripts.frozen(), 1);
    stage.order(|orders| orders.upkeep = Arc::default());
    stage.at(1071).await;
    assert_eq!(stage.scripts.frozen(), 0);
    stage.stop();
    let said = stage.end().await;
    assert_eq!(said[2..6], ["Freezing", "Thawing", "Freezing", "Thawing"]);
}

/// The scripted process asserts that nobody who is frozen is asked to end, or how it is.
#[tokio::test(start_paused = true)]
async fn a_frozen_dyno_goes_on_before_it_is_stopped_replaced_or_put_to_sleep() {
    let changes: [fn(&mut Orders); 3] =
        [|orders| orders.stop = true, |orders| orders.restart += 1, |orders| orders.asleep = true];
    for change in changes {
        let stage = Stage::new("web", &[Script::listens(0)]);
        stage.order(health);
        stage.order(|orders| Arc::make_mut(&mut orders.upkeep).freeze_after = Some(secs(60)));
        stage.at(70).await;
        assert_eq!(stage.scripts.frozen(), 1);
        stage.order(change);
        stage.at(71).await;
        assert_eq!(stage.scripts.frozen(), 0);
        stage.stop();
        stage.end().await;
    }
}

/// It gets no requests, so that it would never be set going.
#[tokio::test(start_paused = true)]
async fn who_is_passed_over_is_not_frozen() {
    let stage = Stage::new("web", &[Script::listens(0).unwell(20, 1000)]);
    stage.order(health);
    stage.order(|orders| {
        let upkeep = Arc::make_mut(&mut orders.upkeep);
        upkeep.freeze_after = Some(secs(60));
        upkeep.health.as_mut().unwrap().restart_after = None;
    });
    stage.at(500).await;
    assert_eq!(stage.scripts.frozen(), 0);
    stage.stop();
    stage.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_adopted_dyno_is_warm() {
    let stage = Stage::adopting(&[Script::listens(0)], true);
    stage.order(|orders| orders.slow_start = Some(secs(20)));
    stage.at(0).await;
    assert_eq!(stage.lease().dyno().share(), 1000);
    stage.stop();
    stage.end().await;
}
