//! Releases that begin with a canary.

use std::collections::BTreeSet;

use crate::config::Deploy::{self, Preboot, Rolling};
use crate::model::{Canary, Hundredths};
use crate::supervisor::tests::rollouts::*;
use crate::supervisor::tests::*;
use crate::supervisor::{Outcome, Reason, Which};

const CANARY: Canary = Canary { share: Hundredths(500), time: Duration::from_secs(60) };

/// An app whose dynos all run this, and whose releases begin with a canary.
fn canaried(command: &str, deploy: Deploy, web: u32) -> AppSource {
    let AppSource::Managed(app) = shop(command, deploy, &[("web", web), ("worker", 1)]) else {
        unreachable!()
    };
    AppSource::Managed(ManagedApp { canary: Some(CANARY), ..app })
}

/// Such an app whose newest release has its canary up.
async fn with_canary(deploy: Deploy, web: u32) -> Formation {
    let formation = up_with(canaried("old", deploy, web)).await;
    formation.apply(&[("shop", canaried("new", deploy, web))]).await;
    passes(6).await;
    assert_eq!(canary_of(&formation), Some(Hundredths(500)));
    formation
}

fn canary_of(formation: &Formation) -> Option<Hundredths> {
    formation.lineup("shop").canary.as_ref().map(|canary| canary.share)
}

#[tokio::test(start_paused = true)]
async fn a_canary_has_its_part_beside_all_others_and_they_follow_after_its_time() {
    for (web, deploy) in [(1, Rolling), (4, Rolling), (1, Preboot), (4, Preboot)] {
        let formation = with_canary(deploy, web).await;
        let lineups = Lineups::of(&formation);
        let old: BTreeSet<_> = formation.lineup("shop").dynos.iter().map(|it| it.id()).collect();
        assert_eq!(old.len(), web as usize);
        assert_eq!(commands(&formation, web as usize + 1), ["web.1 new v2"]);
        assert_eq!(rollout(&formation).await.canary, Some(CANARY));
        passes(50).await;
        assert_eq!(formation.started(), web as usize + 2, "nobody follows before its time");
        assert_eq!(fewest(&formation, 60).await, web as usize);
        assert_eq!(canary_of(&formation), None);
        assert_eq!(rollout(&formation).await.outcome, Some(Outcome::Done));
        assert_eq!(formation.started(), 2 * (web as usize + 1), "each has its successor, once");
        let all_switch_at_once = lineups.seen().iter().all(|it| *it == old || it.is_disjoint(&old));
        assert!(deploy == Rolling || all_switch_at_once, "{:?}", lineups.seen());
        formation.supervisor.stop().await;
    }
}

/// The switch of `preboot` takes the canary along: until then it has its part, and no more.
#[tokio::test(start_paused = true)]
async fn a_canary_keeps_its_part_until_all_others_can_switch() {
    let formation = with_canary(Preboot, 3).await;
    formation.scripts.plan(&[Script::listens(20)]);
    passes(60).await;
    assert_eq!(formation.started(), 4 + 3);
    assert_eq!(canary_of(&formation), Some(Hundredths(500)));
    passes(30).await;
    assert_eq!(canary_of(&formation), None);
    assert_eq!(rollout(&formation).await.outcome, Some(Outcome::Done));
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_crashes_takes_nothing_with_it() {
    for (web, deploy) in [(1, Rolling), (3, Preboot)] {
        let formation = up_with(canaried("old", deploy, web)).await;
        let old = formation.lineup("shop").dynos.clone();
        formation.scripts.plan(&[Script::listens(1).exits(30, Exit::Status(7))]);
        formation.apply(&[("shop", canaried("new", deploy, web))]).await;
        passes(20).await;
        assert!(canary_of(&formation).is_some());
        passes(100).await;
        assert_eq!(failed(&rollout(&formation).await).reason, Reason::Exited(Exit::Status(7)));
        assert_eq!(canary_of(&formation), None);
        let now = formation.lineup("shop").dynos.clone();
        assert!(old.iter().zip(&now).all(|(old, now)| Arc::ptr_eq(old, now)));
        assert_eq!(formation.started(), web as usize + 2);
        formation.supervisor.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_does_not_come_up_is_none() {
    let formation = up_with(canaried("old", Rolling, 2)).await;
    formation.scripts.plan(&[Script::never_listens()]);
    formation.apply(&[("shop", canaried("new", Rolling, 2))]).await;
    passes(100).await;
    assert!(matches!(failed(&rollout(&formation).await).reason, Reason::BootTimeout { .. }));
    assert_eq!((canary_of(&formation), formation.lineup("shop").dynos.len()), (None, 2));
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_guard_judges_the_canary_and_no_other_dyno_meets_what_is_worse() {
    let source = |command| guarded(canaried(command, Rolling, 4));
    let formation = up_with(source("old")).await;
    let old = formation.lineup("shop").dynos[0].tally().unwrap().clone();
    asked(&formation, &old, 60, false).await;
    formation.apply(&[("shop", source("new"))]).await;
    asked(&formation, &old, 20, true).await;
    assert!(matches!(failed(&rollout(&formation).await).reason, Reason::Worse(_)));
    assert_eq!((canary_of(&formation), of_release(&formation, &old)), (None, 4));
    assert_eq!(commands(&formation, 5), ["web.1 new v2"]);
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_up_just_before_needs_no_canary() {
    let formation = with_canary(Rolling, 2).await;
    passes(100).await;
    formation.apply(&[("shop", canaried("old", Rolling, 2))]).await;
    passes(30).await;
    let now = rollout(&formation).await;
    assert_eq!((now.release, now.canary, now.outcome), (3, None, Some(Outcome::Done)));
    // Nor does a release that takes the place of one whose canary is still up, if it is what all others run.
    formation.apply(&[("shop", canaried("third", Rolling, 2))]).await;
    passes(10).await;
    assert!(canary_of(&formation).is_some());
    formation.apply(&[("shop", canaried("old", Rolling, 2))]).await;
    passes(10).await;
    let now = rollout(&formation).await;
    assert_eq!((now.release, now.canary, now.outcome), (3, None, Some(Outcome::Done)));
    assert_eq!(canary_of(&formation), None);
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_third_release_has_a_canary_of_its_own() {
    let formation = with_canary(Rolling, 2).await;
    let second = formation.lineup("shop").canary.clone().unwrap();
    formation.apply(&[("shop", canaried("third", Rolling, 2))]).await;
    passes(10).await;
    let third = formation.lineup("shop").canary.clone().unwrap();
    assert_ne!(second.dyno.id(), third.dyno.id());
    assert_eq!(commands(&formation, 4), ["web.1 third v3"]);
    passes(100).await;
    assert_eq!(rollout(&formation).await.outcome, Some(Outcome::Done));
    formation.supervisor.stop().await;
}

/// Whoever comes or comes back while a canary is tried runs what all others run.
#[tokio::test(start_paused = true)]
async fn what_happens_meanwhile_brings_the_release_to_nobody_else() {
    let formation = with_canary(Rolling, 2).await;
    formation.apply(&[("shop", canaried("new", Rolling, 4))]).await;
    passes(10).await;
    assert_eq!(commands(&formation, 4), ["web.3 old v1", "web.4 old v1"]);
    formation.supervisor.restart(&app_name("shop"), Which::All).await;
    passes(30).await;
    let last = commands(&formation, 6).into_iter().filter(|it| it.contains("new"));
    assert_eq!(last.collect::<Vec<_>>(), ["web.1 new v2"], "the canary, which is of web.1");
    assert_eq!(formation.lineup("shop").dynos.len(), 4);
    assert!(canary_of(&formation).is_some());
    passes(100).await;
    assert_eq!(rollout(&formation).await.outcome, Some(Outcome::Done));
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_canary_whose_predecessor_crashes_keeps_its_part_while_there_are_others() {
    let dies = Script::listens(5).exits(30, Exit::Status(1));
    let source = |command| canaried(command, Rolling, 2);
    let formation = Formation::start(&[dies, Script::listens(5)], &[("shop", source("old"))]);
    passes(10).await;
    formation.apply(&[("shop", source("new"))]).await;
    passes(25).await;
    let lineup = formation.lineup("shop");
    assert_eq!((lineup.dynos.len(), canary_of(&formation)), (1, Some(Hundredths(500))));
    passes(60).await;
    assert_eq!(rollout(&formation).await.outcome, Some(Outcome::Done));
    assert_eq!(formation.states().len(), 3);
    formation.supervisor.stop().await;
}

/// Alone, it is better than none.
#[tokio::test(start_paused = true)]
async fn a_canary_has_all_requests_where_nobody_else_is_up() {
    let dies = Script::listens(5).exits(30, Exit::Status(1));
    let source = |command| canaried(command, Rolling, 1);
    let formation = Formation::start(&[dies, Script::listens(5)], &[("shop", source("old"))]);
    passes(10).await;
    formation.apply(&[("shop", source("new"))]).await;
    passes(5).await;
    let canary = formation.lineup("shop").canary.clone().unwrap();
    passes(20).await;
    let lineup = formation.lineup("shop");
    assert_eq!((lineup.dynos.len(), lineup.dynos[0].id()), (1, canary.dyno.id()));
    passes(60).await;
    assert_eq!(rollout(&formation).await.outcome, Some(Outcome::Done));
    formation.supervisor.stop().await;
}

/// Then it has what it has until it is finished, like any other dyno that goes.
#[tokio::test(start_paused = true)]
async fn a_canary_that_is_all_there_is_finishes_what_it_holds() {
    let dies = Script::listens(5).exits(30, Exit::Status(1));
    let source = |command| canaried(command, Rolling, 1);
    let formation = Formation::start(&[dies, Script::listens(5)], &[("shop", source("old"))]);
    passes(10).await;
    formation.apply(&[("shop", source("new"))]).await;
    passes(25).await;
    let canary = formation.lineup("shop").dynos[0].clone();
    let lease = canary.lease().unwrap();
    formation.supervisor.restart(&app_name("shop"), Which::All).await;
    passes(3).await;
    assert!(canary.is_closed());
    assert_eq!(canary.exit(), None, "it is not told to end");
    drop(lease);
    passes(1).await;
    assert!(canary.exit().is_some());
    formation.supervisor.stop().await;
}

/// A canary whose predecessor has gone waits for nothing once there is another release.
#[tokio::test(start_paused = true)]
async fn of_what_is_superseded_no_canary_is_left() {
    let dies = Script::listens(5).exits(30, Exit::Status(1));
    let source = |command| canaried(command, Rolling, 2);
    let formation = Formation::start(&[dies, Script::listens(5)], &[("shop", source("old"))]);
    passes(10).await;
    formation.apply(&[("shop", source("second"))]).await;
    passes(25).await;
    assert_eq!(formation.lineup("shop").dynos.len(), 1);
    formation.scripts.plan(&[Script::listens(5)]);
    formation.apply(&[("shop", source("third"))]).await;
    passes(20).await;
    assert_eq!(formation.lineup("shop").dynos.len(), 2, "web.1 is what it was");
    let last = commands(&formation, 4);
    assert!(last.contains(&"web.1 old v1".to_owned()), "{last:?}");
    passes(100).await;
    assert_eq!(rollout(&formation).await.outcome, Some(Outcome::Done));
    assert_eq!(commands(&formation, 3).iter().filter(|it| it.contains("second")).count(), 1);
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn another_share_holds_at_once() {
    let formation = with_canary(Rolling, 2).await;
    let AppSource::Managed(app) = canaried("new", Rolling, 2) else { unreachable!() };
    let canary = Some(Canary { share: Hundredths(100), ..CANARY });
    formation.apply(&[("shop", AppSource::Managed(ManagedApp { canary, ..app }))]).await;
    assert_eq!(canary_of(&formation), Some(Hundredths(100)));
    passes(100).await;
    assert_eq!(rollout(&formation).await.outcome, Some(Outcome::Done));
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_canary_any_more_the_others_follow_at_once() {
    let formation = with_canary(Rolling, 2).await;
    let AppSource::Managed(app) = canaried("new", Rolling, 2) else { unreachable!() };
    let source = AppSource::Managed(ManagedApp { canary: None, ..app });
    formation.apply(&[("shop", source)]).await;
    passes(20).await;
    assert_eq!(rollout(&formation).await.outcome, Some(Outcome::Done));
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_tried_where_no_web_dyno_could_be_compared() {
    let formation = up_with(canaried("old", Rolling, 0)).await;
    formation.apply(&[("shop", canaried("new", Rolling, 0))]).await;
    passes(20).await;
    let now = rollout(&formation).await;
    assert_eq!((now.release, now.canary, now.outcome), (2, None, Some(Outcome::Done)));
    formation.supervisor.stop().await;
}
