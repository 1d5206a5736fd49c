//! Releases on their way, in each of the three manners, those that fail included.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Mutex;

use crate::config::Deploy;
use crate::model::{Guard, Hundredths};
use crate::supervisor::tests::*;
use crate::supervisor::{Failure, Outcome, Progress, Reason, Rollout, Which};
use crate::table::{Dyno, Notice, Subscriber, Tally};

/// An app whose dynos all run this.
pub(super) fn shop(command: &str, deploy: Deploy, formation: &[(&str, u32)]) -> AppSource {
    let AppSource::Managed(mut app) = managed(formation) else { unreachable!() };
    app.commands.values_mut().for_each(|it| *it = command.to_owned());
    app.deploy = deploy;
    AppSource::Managed(app)
}

fn numbered(source: AppSource, release: u64) -> AppSource {
    let AppSource::Managed(app) = source else { unreachable!() };
    AppSource::Managed(ManagedApp { release: Some(release), ..app })
}

pub(super) async fn up_with(source: AppSource) -> Formation {
    let formation = Formation::start(&[Script::listens(5)], &[("shop", source)]);
    passes(10).await;
    assert!(matches!(rollout(&formation).await.outcome, Some(Outcome::Done)));
    formation
}

pub(super) async fn rollout(formation: &Formation) -> Rollout {
    let followed = formation.supervisor.follow_rollout(&app_name("shop")).await;
    followed.unwrap().borrow().clone()
}

pub(super) fn failed(rollout: &Rollout) -> &Failure {
    match &rollout.outcome {
        Some(Outcome::Failed(failure)) => failure,
        outcome => panic!("{outcome:?}"),
    }
}

/// The releases that dynos are up with, as far as their last starts tell.
pub(super) fn commands(formation: &Formation, from: usize) -> Vec<String> {
    let starts = formation.scripts.starts.lock().unwrap();
    starts[from..]
        .iter()
        .map(|it| format!("{} {} v{}", it.dyno, it.program.command, it.program.release))
        .collect()
}

/// The fewest dynos that were routable in any tenth of a second of so many seconds.
pub(super) async fn fewest(formation: &Formation, secs: u64) -> usize {
    let mut fewest = usize::MAX;
    for _ in 0..secs * 10 {
        fewest = fewest.min(formation.lineup("shop").dynos.len());
        time::sleep(Duration::from_millis(100)).await;
    }
    fewest
}

/// Every line-up that was ever published, as the records in it.
#[derive(Default)]
pub(in crate::supervisor) struct Lineups {
    publisher: Mutex<Option<Arc<Publisher>>>,
    seen: Mutex<Vec<BTreeSet<u64>>>,
}

impl Lineups {
    pub(in crate::supervisor) fn of(formation: &Formation) -> Arc<Self> {
        let lineups = Arc::new(Self::default());
        *lineups.publisher.lock().unwrap() = Some(formation.publisher.clone());
        formation.publisher.subscribe(lineups.clone());
        lineups
    }

    /// One after the other, without repetitions.
    pub(in crate::supervisor) fn seen(&self) -> Vec<BTreeSet<u64>> {
        let mut seen = self.seen.lock().unwrap().clone();
        seen.dedup();
        seen
    }
}

impl Subscriber for Lineups {
    fn notify(&self, notice: Notice) {
        if matches!(notice, Notice::Lineup) {
            let publisher = self.publisher.lock().unwrap().clone().unwrap();
            let lineup = publisher.table().apps()[0].roster.lineup().clone();
            let ids = lineup.dynos.iter().map(|dyno| dyno.id()).collect();
            self.seen.lock().unwrap().push(ids);
        }
    }
}

// ---- rolling -----------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_release_that_crashes_at_boot_reaches_a_quarter_and_the_others_serve_on() {
    use Deploy::Rolling;
    let formation = up_with(shop("old", Rolling, &[("web", 8)])).await;
    let before = formation.lineup("shop");
    formation.scripts.plan(&[Script::never_listens().exits(1, Exit::Status(3))]);
    formation.supervisor.apply(&Arc::new(config(&[("shop", shop("new", Rolling, &[("web", 8)]))])));
    assert_eq!(fewest(&formation, 500).await, 8);
    let now = rollout(&formation).await;
    let failure = failed(&now);
    assert_eq!((now.release, &failure.reason), (2, &Reason::Exited(Exit::Status(3))));
    assert_eq!(failure.last_lines, ["the last line"]);
    assert_eq!(formation.started(), 8 + 2, "no other dyno tries it, and none tries it twice");
    let ids = |lineup: &Lineup| lineup.dynos.iter().map(|dyno| dyno.id()).collect::<Vec<_>>();
    assert_eq!(ids(&formation.lineup("shop")), ids(&before));

    // The same once more is no reason to try again; what was before has not gone.
    let (new, old) = (shop("new", Rolling, &[("web", 9)]), shop("old", Rolling, &[("web", 9)]));
    formation.scripts.plan(&[Script::listens(5)]);
    formation.apply(&[("shop", new)]).await;
    passes(100).await;
    assert_eq!(commands(&formation, 10), ["web.9 old v1"], "who comes now is of what serves");
    formation.apply(&[("shop", old)]).await;
    passes(100).await;
    assert_eq!(formation.started(), 11);
    let now = rollout(&formation).await;
    assert_eq!((now.release, now.outcome), (1, Some(Outcome::Done)));
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_release_that_fails_in_its_second_quarter_goes_no_further_and_comes_back_without_a_gap() {
    use Deploy::Rolling;
    let formation = up_with(shop("old", Rolling, &[("web", 8)])).await;
    let (good, bad) = (Script::listens(5), Script::never_listens());
    formation.scripts.plan(&[good, good, bad]);
    formation.supervisor.apply(&Arc::new(config(&[("shop", shop("new", Rolling, &[("web", 8)]))])));
    assert_eq!(fewest(&formation, 200).await, 8);
    let now = rollout(&formation).await;
    assert_eq!(failed(&now).reason, Reason::BootTimeout { secs: 60 });
    assert_eq!(now.up.iter().map(ToString::to_string).collect::<Vec<_>>(), ["web.1", "web.2"]);
    let web = &now.types[&ProcessType::web()];
    assert_eq!(*web, Progress { wanted: 8, up: 2 });
    assert_eq!(formation.started(), 8 + 4);

    // One of those that were not replaced crashes: it comes back as what it was.
    formation.scripts.plan(&[good]);
    formation.supervisor.apply(&Arc::new(config(&[("shop", shop("old", Rolling, &[("web", 8)]))])));
    assert_eq!(fewest(&formation, 100).await, 8);
    assert_eq!(commands(&formation, 12), ["web.1 old v1", "web.2 old v1"]);
    assert_eq!(rollout(&formation).await.outcome, Some(Outcome::Done));
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_release_that_cannot_be_started_fails() {
    use Deploy::Rolling;
    let formation = up_with(shop("old", Rolling, &[("web", 2)])).await;
    formation.scripts.plan(&[Script::fails()]);
    formation.apply(&[("shop", shop("new", Rolling, &[("web", 2)]))]).await;
    let now = rollout(&formation).await;
    let Reason::NotStarted(why) = &failed(&now).reason else { panic!("{now:?}") };
    assert_eq!(why, "the app's directory / is not there");
    // What it failed for is mended: whoever restarts the app has it tried again.
    formation.scripts.plan(&[Script::listens(1)]);
    assert!(formation.supervisor.restart(&app_name("shop"), Which::All).await);
    assert_eq!(fewest(&formation, 20).await, 2);
    assert_eq!(commands(&formation, 2), ["web.1 new v2", "web.2 new v2"]);
    assert_eq!(rollout(&formation).await.outcome, Some(Outcome::Done));
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn workers_that_end_at_once_fail_a_release_and_are_what_they_were() {
    use Deploy::Rolling;
    let formation = up_with(shop("old", Rolling, &[("worker", 8)])).await;
    let crash = Script {
        exits: Some((Duration::from_millis(300), Exit::Signal(11))),
        ..Script::listens(0)
    };
    formation.scripts.plan(&[crash, crash, Script::listens(0)]);
    formation.apply(&[("shop", shop("new", Rolling, &[("worker", 8)]))]).await;
    passes(100).await;
    assert_eq!(failed(&rollout(&formation).await).reason, Reason::Exited(Exit::Signal(11)));
    let last = commands(&formation, formation.started() - 2);
    assert!(last.iter().all(|start| start.ends_with("old v1")), "{last:?}");
    assert!(formation.states().iter().all(|state| state.ends_with(" up")));
    assert!(formation.started() <= 8 + 2 + 2, "{:?}", commands(&formation, 8));
    formation.supervisor.stop().await;
}

/// Nothing that came before serves: there is nothing to go back to, and dynos are started until they come up.
#[tokio::test(start_paused = true)]
async fn a_first_release_is_tried_until_it_comes_up() {
    let crash = Script::never_listens().exits(1, Exit::Status(1));
    let scripts = [crash, crash, crash, Script::listens(1)];
    let source = shop("first", Deploy::Rolling, &[("web", 1)]);
    let formation = Formation::start(&scripts, &[("shop", source)]);
    passes(2).await;
    assert_eq!(failed(&rollout(&formation).await).reason, Reason::Exited(Exit::Status(1)));
    passes(60).await;
    assert_eq!(formation.states(), ["shop web.1 up"]);
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_release_that_comes_before_the_last_one_is_there_takes_its_place() {
    use Deploy::Rolling;
    let formation = up_with(shop("old", Rolling, &[("web", 4)])).await;
    formation.apply(&[("shop", shop("second", Rolling, &[("web", 4)]))]).await;
    let second = formation.supervisor.follow_rollout(&app_name("shop")).await.unwrap();
    passes(7).await;
    formation
        .supervisor
        .apply(&Arc::new(config(&[("shop", shop("third", Rolling, &[("web", 4)]))])));
    assert_eq!(fewest(&formation, 60).await, 4);
    assert_eq!(second.borrow().outcome, Some(Outcome::Superseded { by: 3 }));
    let now = rollout(&formation).await;
    assert_eq!((now.release, now.outcome), (3, Some(Outcome::Done)));
    let last = commands(&formation, formation.started() - 4);
    assert!(last.iter().all(|start| start.ends_with("third v3")), "{last:?}");
    assert!(formation.supervisor.follow_rollout(&app_name("nobody")).await.is_none());
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_numbers_the_releases_is_believed() {
    use Deploy::Rolling;
    let source = |command, release| numbered(shop(command, Rolling, &[("web", 1)]), release);
    let formation = up_with(source("same", 41)).await;
    // A rollback runs what ran before, and is a release of its own.
    formation.apply(&[("shop", source("same", 44))]).await;
    passes(20).await;
    assert_eq!(commands(&formation, 0), ["web.1 same v41", "web.1 same v44"]);
    formation.apply(&[("shop", source("other", 44))]).await;
    passes(20).await;
    assert_eq!(commands(&formation, 2), ["web.1 other v45"], "no number stands for two things");
    formation.supervisor.stop().await;
}

/// What a release does not have any more goes when it has proven itself, and stays if it fails.
#[tokio::test(start_paused = true)]
async fn a_type_that_is_gone_lasts_until_the_release_is_up() {
    use Deploy::Rolling;
    for (script, expected) in [(Script::listens(5), 1), (Script::fails(), 2)] {
        let formation = up_with(shop("old", Rolling, &[("web", 1), ("worker", 1)])).await;
        formation.scripts.plan(&[script]);
        formation.apply(&[("shop", shop("new", Rolling, &[("web", 1)]))]).await;
        assert_eq!(formation.states().len(), 2);
        passes(20).await;
        assert_eq!(formation.states().len(), expected, "{:?}", formation.states());
        formation.supervisor.stop().await;
    }
}

// ---- preboot -----------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn preboot_switches_all_web_dynos_by_one_line_up() {
    use Deploy::Preboot;
    let types = [("web", 4), ("worker", 3)];
    let formation = up_with(shop("old", Preboot, &types)).await;
    let lineups = Lineups::of(&formation);
    let slow = Script::listens(20);
    formation.scripts.plan(&[Script::listens(3), slow, Script::listens(5)]);
    formation.supervisor.apply(&Arc::new(config(&[("shop", shop("new", Preboot, &types))])));
    passes(15).await;
    assert_eq!(formation.scripts.living(), 4 + 3 + 4, "all of them beside the old ones");
    assert_eq!(commands(&formation, 7).len(), 4, "workers wait for them");
    passes(10).await;
    let seen = lineups.seen();
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert_eq!((seen[0].len(), seen[1].len()), (4, 4));
    assert!(seen[0].is_disjoint(&seen[1]));
    assert_eq!(formation.scripts.living(), 4 + 3);
    assert_eq!(commands(&formation, 11).len(), 3);
    let now = rollout(&formation).await;
    assert_eq!((now.release, now.outcome, now.up.len()), (2, Some(Outcome::Done), 7));
    // Afterwards a restart is what it always is.
    formation.supervisor.restart(&app_name("shop"), Which::All).await;
    assert_eq!(fewest(&formation, 100).await, 4);
    assert_eq!(formation.started(), 14 + 7);
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn preboot_that_fails_leaves_the_old_ones_alone() {
    use Deploy::Preboot;
    let good = Script::listens(1);
    let dies_while_it_waits = Script::listens(1).exits(10, Exit::Status(7));
    for bad in [Script::fails(), Script::never_listens(), dies_while_it_waits] {
        let formation = up_with(shop("old", Preboot, &[("web", 3), ("worker", 1)])).await;
        let lineups = Lineups::of(&formation);
        formation.scripts.plan(&[good, bad, Script::listens(30), good]);
        let new = shop("new", Preboot, &[("web", 3), ("worker", 1)]);
        formation.apply(&[("shop", new)]).await;
        passes(100).await;
        failed(&rollout(&formation).await);
        assert!(lineups.seen().len() <= 1, "{:?}", lineups.seen());
        assert_eq!(formation.lineup("shop").dynos.len(), 3);
        assert_eq!(formation.scripts.living(), 4, "the new ones are gone");
        assert!(formation.started() <= 4 + 3);
        formation.supervisor.stop().await;
    }
}

/// One of the old ones crashes while the new ones boot: requests go to the others until the switch.
#[tokio::test(start_paused = true)]
async fn a_crash_before_the_switch_does_not_bring_the_new_one_in_early() {
    use Deploy::Preboot;
    let dies = Script::listens(5).exits(15, Exit::Status(1));
    let source = shop("old", Preboot, &[("web", 3)]);
    let formation = Formation::start(&[dies, Script::listens(5)], &[("shop", source)]);
    passes(10).await;
    let lineups = Lineups::of(&formation);
    formation.scripts.plan(&[Script::listens(1), Script::listens(1), Script::listens(30)]);
    formation.apply(&[("shop", shop("new", Preboot, &[("web", 3)]))]).await;
    passes(60).await;
    let seen = lineups.seen().iter().map(BTreeSet::len).collect::<Vec<_>>();
    assert_eq!(seen, [3, 2, 3]);
    assert_eq!(rollout(&formation).await.outcome, Some(Outcome::Done));
    formation.supervisor.stop().await;
}

// ---- restart -----------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn restart_stops_all_before_it_starts_any_and_holds_requests() {
    use Deploy::Restart;
    let types = [("web", 3), ("worker", 1)];
    let formation = up_with(shop("old", Restart, &types)).await;
    let lease = formation.lineup("shop").dynos[0].lease().unwrap();
    formation.apply(&[("shop", shop("new", Restart, &types))]).await;
    assert_eq!(formation.lineup("shop").standing, Standing::Starting);
    passes(3).await;
    assert_eq!(lease.dyno().exit(), None, "it finishes what it holds");
    drop(lease);
    passes(20).await;
    assert_eq!(formation.lineup("shop").dynos.len(), 3);
    assert_eq!(formation.scripts.living(), 4);
    assert_eq!(rollout(&formation).await.outcome, Some(Outcome::Done));
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn restart_that_fails_brings_the_old_ones_back() {
    use Deploy::Restart;
    let formation = up_with(shop("old", Restart, &[("web", 2)])).await;
    let crash = Script::never_listens().exits(2, Exit::Status(1));
    formation.scripts.plan(&[crash, crash, Script::listens(5)]);
    formation.apply(&[("shop", shop("new", Restart, &[("web", 2)]))]).await;
    passes(30).await;
    failed(&rollout(&formation).await);
    let last = commands(&formation, 4).into_iter().collect::<BTreeSet<_>>();
    assert_eq!(last.into_iter().collect::<Vec<_>>(), ["web.1 old v1", "web.2 old v1"]);
    assert_eq!(formation.lineup("shop").dynos.len(), 2);
    formation.supervisor.stop().await;
}

/// The release reaches dynos that sleep at their next start, and nobody waits for them then.
#[tokio::test(start_paused = true)]
async fn an_app_that_sleeps_wakes_with_the_release() {
    for deploy in [Deploy::Rolling, Deploy::Preboot, Deploy::Restart] {
        let sleepy = |command: &str| {
            let AppSource::Managed(mut app) = sleepy(&[("web", 2)], true) else { unreachable!() };
            app.commands.insert(ProcessType::web(), command.into());
            app.deploy = deploy;
            AppSource::Managed(app)
        };
        let formation = Formation::start(&[Script::listens(1)], &[("shop", sleepy("old"))]);
        passes(100).await;
        formation.apply(&[("shop", sleepy("new"))]).await;
        assert_eq!(rollout(&formation).await.outcome, Some(Outcome::Done));
        assert_eq!(formation.lineup("shop").standing, Standing::Asleep);
        formation.publisher.table().apps()[0].roster.bell().ring();
        passes(5).await;
        assert_eq!(commands(&formation, 2), ["web.1 new v2", "web.2 new v2"]);
        assert_eq!(formation.lineup("shop").dynos.len(), 2, "{deploy:?}");
        // Awake, and told of a release and not to sleep any more.
        passes(100).await;
        let awake = shop("third", deploy, &[("web", 2)]);
        formation.apply(&[("shop", awake)]).await;
        passes(20).await;
        assert_eq!(formation.lineup("shop").dynos.len(), 2, "{deploy:?}");
        formation.supervisor.stop().await;
    }
}

// ---- guard -------------------------------------------------------------------------------------------------

/// The same, judged by its requests.
pub(super) fn guarded(source: AppSource) -> AppSource {
    let AppSource::Managed(app) = source else { unreachable!() };
    let guard = Guard {
        errors: Hundredths(500),
        p95: Some(Hundredths(300)),
        within: Duration::from_secs(120),
        requests: NonZeroU32::new(20).unwrap(),
    };
    AppSource::Managed(ManagedApp { guard: Some(guard), ..app })
}

/// So many requests to each dyno of the line-up, where those of the new releases fail them if `new_fails`. Which are new
/// is told by the tally that the old ones share.
fn ask(formation: &Formation, old: &Arc<Tally>, requests: usize, new_fails: bool) {
    for dyno in formation.lineup("shop").all() {
        let tally = dyno.tally().expect("there is a guard");
        let fails = new_fails && !Arc::ptr_eq(tally, old);
        (0..requests).for_each(|_| tally.count(0, Duration::from_millis(10), fails));
    }
}

/// The same each second for so long.
pub(super) async fn asked(formation: &Formation, old: &Arc<Tally>, secs: u64, new_fails: bool) {
    for _ in 0..secs {
        ask(formation, old, 10, new_fails);
        time::sleep(Duration::from_secs(1)).await;
    }
}

/// How many dynos of the line-up count for this.
pub(super) fn of_release(formation: &Formation, tally: &Arc<Tally>) -> usize {
    let lineup = formation.lineup("shop");
    let of_it = |dyno: &&Arc<Dyno>| dyno.tally().is_some_and(|it| Arc::ptr_eq(it, tally));
    lineup.dynos.iter().filter(of_it).count()
}

/// A shop whose old release has a minute of requests behind it, and the tally of that.
pub(super) async fn asked_with(deploy: Deploy, types: &[(&str, u32)]) -> (Formation, Arc<Tally>) {
    let formation = up_with(guarded(shop("old", deploy, types))).await;
    let old = formation.lineup("shop").dynos[0].tally().unwrap().clone();
    asked(&formation, &old, 60, false).await;
    (formation, old)
}

#[tokio::test(start_paused = true)]
async fn a_release_that_fails_requests_goes_back_before_the_rest_has_it() {
    use Deploy::Rolling;
    let types = [("web", 8), ("worker", 1)];
    let (formation, old) = asked_with(Rolling, &types).await;
    formation.apply(&[("shop", guarded(shop("new", Rolling, &types)))]).await;
    asked(&formation, &old, 5, true).await;
    assert_eq!(of_release(&formation, &old), 6, "a quarter has it");
    asked(&formation, &old, 30, true).await;
    let now = rollout(&formation).await;
    let failure = failed(&now);
    assert_eq!((now.release, failure.dyno.as_str()), (2, "web"));
    let Reason::Worse(worse) = &failure.reason else { panic!("{failure:?}") };
    assert_eq!((worse.standing, worse.before.failed, worse.now.failed), (1, 0, worse.now.requests));
    assert_eq!(of_release(&formation, &old), 8);
    let last = commands(&formation, formation.started() - 3).into_iter().collect::<BTreeSet<_>>();
    let expected = ["web.1 old v1", "web.2 old v1", "worker.1 old v1"];
    assert_eq!(last.into_iter().collect::<Vec<_>>(), expected);
    assert_eq!(formation.started(), 9 + 3 + 3);

    // The same once more is no reason to try again, and what was before is what runs.
    formation.apply(&[("shop", guarded(shop("new", Rolling, &types)))]).await;
    formation.apply(&[("shop", guarded(shop("old", Rolling, &types)))]).await;
    passes(30).await;
    assert_eq!(formation.started(), 15);
    let now = rollout(&formation).await;
    assert_eq!((now.release, now.outcome), (1, Some(Outcome::Done)));
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_release_that_fails_requests_once_it_is_there_goes_back_without_a_gap() {
    for deploy in [Deploy::Rolling, Deploy::Preboot, Deploy::Restart] {
        let (formation, old) = asked_with(deploy, &[("web", 4)]).await;
        formation.apply(&[("shop", guarded(shop("new", deploy, &[("web", 4)])))]).await;
        asked(&formation, &old, 100, false).await;
        let now = rollout(&formation).await;
        assert_eq!((now.outcome, of_release(&formation, &old)), (None, 0), "{deploy:?}");
        assert!(now.guarded_for.is_some());
        asked(&formation, &old, 10, true).await;
        assert_eq!(fewest(&formation, 60).await, 4, "{deploy:?}");
        failed(&rollout(&formation).await);
        assert_eq!(of_release(&formation, &old), 4, "{deploy:?}");
        formation.supervisor.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_release_that_stands_its_guard_is_done_when_the_time_is_over() {
    use Deploy::Rolling;
    let (formation, old) = asked_with(Rolling, &[("web", 1)]).await;
    formation.apply(&[("shop", guarded(shop("new", Rolling, &[("web", 1)])))]).await;
    asked(&formation, &old, 110, false).await;
    assert_eq!(rollout(&formation).await.outcome, None);
    asked(&formation, &old, 30, false).await;
    assert_eq!(rollout(&formation).await.outcome, Some(Outcome::Done));
    // From here on it is no business of the guard.
    asked(&formation, &old, 200, true).await;
    assert_eq!(commands(&formation, 1), ["web.1 new v2"]);
    formation.supervisor.stop().await;
}

/// The rest waits for requests only where there were some, and not for ever.
#[tokio::test(start_paused = true)]
async fn without_requests_the_rest_follows_after_a_quarter_of_the_time() {
    use Deploy::Rolling;
    let (formation, old) = asked_with(Rolling, &[("web", 4)]).await;
    formation.apply(&[("shop", guarded(shop("new", Rolling, &[("web", 4)])))]).await;
    passes(30).await;
    assert_eq!(of_release(&formation, &old), 3);
    passes(30).await;
    assert_eq!(of_release(&formation, &old), 0);
    passes(120).await;
    assert_eq!(rollout(&formation).await.outcome, Some(Outcome::Done));
    // Nobody has asked this one, so nobody waits to see whether anybody asks the next.
    formation.apply(&[("shop", guarded(shop("third", Rolling, &[("web", 4)])))]).await;
    passes(30).await;
    assert_eq!(rollout(&formation).await.types[&ProcessType::web()].up, 4);
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_releases_the_next_takes_the_one_before_as_it_is() {
    use Deploy::Rolling;
    let (formation, old) = asked_with(Rolling, &[("web", 2)]).await;
    formation.apply(&[("shop", guarded(shop("second", Rolling, &[("web", 2)])))]).await;
    asked(&formation, &old, 60, false).await;
    let second = formation.supervisor.follow_rollout(&app_name("shop")).await.unwrap();
    assert_eq!((second.borrow().release, &second.borrow().outcome), (2, &None));
    let tally = formation.lineup("shop").dynos[0].tally().unwrap().clone();
    formation.apply(&[("shop", guarded(shop("third", Rolling, &[("web", 2)])))]).await;
    assert_eq!(second.borrow().outcome, Some(Outcome::Done));
    // It is what the third one is compared with, and goes back to.
    asked(&formation, &tally, 60, true).await;
    let now = rollout(&formation).await;
    assert_eq!((now.release, &failed(&now).dyno), (3, &"web".to_owned()));
    assert_eq!(of_release(&formation, &tally), 2);
    let last = commands(&formation, formation.started() - 1);
    assert!(last[0].ends_with("second v2"), "{last:?}");
    formation.supervisor.stop().await;
}

/// A dyno that has come up with a release and does so no more is a reason to go back, too.
#[tokio::test(start_paused = true)]
async fn a_release_that_comes_up_once_and_never_again_goes_back() {
    use Deploy::Rolling;
    let (formation, old) = asked_with(Rolling, &[("web", 1)]).await;
    let dies = Script::listens(5).exits(30, Exit::Status(1));
    let never = Script::never_listens().exits(1, Exit::Status(1));
    formation.scripts.plan(&[dies, never, Script::listens(5)]);
    formation.apply(&[("shop", guarded(shop("new", Rolling, &[("web", 1)])))]).await;
    passes(60).await;
    assert_eq!(failed(&rollout(&formation).await).reason, Reason::Exited(Exit::Status(1)));
    assert_eq!(of_release(&formation, &old), 1);
    formation.supervisor.stop().await;
}

// ---- warm --------------------------------------------------------------------------------------------------

/// The same, which keeps what it replaces for a minute.
fn warm(source: AppSource) -> AppSource {
    let AppSource::Managed(app) = source else { unreachable!() };
    AppSource::Managed(ManagedApp { keep_warm: Some(Duration::from_secs(60)), ..app })
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_warm_is_back_without_a_boot() {
    for deploy in [Deploy::Rolling, Deploy::Preboot] {
        let app = |command: &str| warm(shop(command, deploy, &[("web", 4), ("worker", 1)]));
        let formation = up_with(app("old")).await;
        let of = |formation: &Formation| {
            let lineup = formation.lineup("shop");
            lineup.dynos.iter().map(|dyno| dyno.addr().to_string()).collect::<BTreeSet<_>>()
        };
        let old = of(&formation);
        formation.apply(&[("shop", app("new"))]).await;
        passes(40).await;
        assert_eq!(rollout(&formation).await.outcome, Some(Outcome::Done));
        assert!(of(&formation).is_disjoint(&old));
        assert_eq!(formation.scripts.living(), 5 + 4, "web dynos alone are kept");
        let started = formation.started();

        formation.supervisor.apply(&Arc::new(config(&[("shop", app("old"))])));
        time::sleep(Duration::from_millis(100)).await;
        assert_eq!(of(&formation), old, "{deploy:?}");
        passes(1).await;
        assert_eq!(formation.started(), started + 1, "the worker alone boots");
        let now = rollout(&formation).await;
        assert_eq!((now.release, now.outcome), (3, Some(Outcome::Done)));
        // What they were called back for is not kept.
        assert_eq!(formation.scripts.living(), 5);
        passes(100).await;
        assert_eq!(of(&formation), old);
        formation.supervisor.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_warm_ends_with_its_time_with_another_release_and_with_its_dyno() {
    let app = |command: &str, web| warm(shop(command, Deploy::Rolling, &[("web", web)]));
    let formation = up_with(app("first", 2)).await;
    formation.apply(&[("shop", app("second", 2))]).await;
    passes(20).await;
    assert_eq!(formation.scripts.living(), 2 + 2);
    formation.apply(&[("shop", app("third", 2))]).await;
    passes(20).await;
    assert_eq!(formation.scripts.living(), 2 + 2, "those of the first are gone");
    formation.apply(&[("shop", app("third", 1))]).await;
    passes(1).await;
    assert_eq!(formation.scripts.living(), 1 + 1, "it goes with its dyno");
    formation.supervisor.restart(&app_name("shop"), Which::All).await;
    passes(20).await;
    assert_eq!(formation.scripts.living(), 1 + 1, "a restart is no release");
    passes(60).await;
    assert_eq!(formation.scripts.living(), 1);
    formation.apply(&[("shop", app("fourth", 1))]).await;
    passes(20).await;
    assert_eq!(formation.scripts.living(), 1 + 1);
    formation.supervisor.stop().await;
    assert_eq!(formation.scripts.living(), 0);
}

/// What it held when it left the line-up is finished, also if it is back and goes again meanwhile.
#[tokio::test(start_paused = true)]
async fn a_request_outlives_the_going_and_coming_of_its_dyno() {
    let app = |command: &str| warm(shop(command, Deploy::Rolling, &[("web", 1)]));
    let formation = up_with(app("old")).await;
    let lease = formation.lineup("shop").dynos[0].lease().unwrap();
    formation.apply(&[("shop", app("new"))]).await;
    passes(10).await;
    formation.apply(&[("shop", app("old"))]).await;
    let back = formation.lineup("shop").dynos[0].clone();
    assert_eq!((back.addr(), back.in_flight()), (lease.dyno().addr(), 0));
    assert_ne!(back.id(), lease.dyno().id());
    let AppSource::Managed(cold) = app("third") else { unreachable!() };
    let cold = AppSource::Managed(ManagedApp { keep_warm: None, ..cold });
    formation.apply(&[("shop", cold)]).await;
    passes(100).await;
    assert_eq!(lease.dyno().exit(), None, "it finishes what it holds");
    assert_eq!(formation.scripts.living(), 2);
    drop(lease);
    passes(1).await;
    assert_eq!(formation.scripts.living(), 1);
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_dies_while_it_is_warm_is_started_anew() {
    let app = |command: &str| warm(shop(command, Deploy::Rolling, &[("web", 1)]));
    let dies = Script::listens(5).exits(30, Exit::Status(1));
    let formation = Formation::start(&[dies, Script::listens(5)], &[("shop", app("old"))]);
    passes(10).await;
    formation.apply(&[("shop", app("new"))]).await;
    passes(30).await;
    assert_eq!(formation.scripts.living(), 1);
    formation.apply(&[("shop", app("old"))]).await;
    passes(10).await;
    assert_eq!(commands(&formation, 2), ["web.1 old v3"]);
    assert_eq!(formation.lineup("shop").dynos.len(), 1);
    formation.supervisor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_guard_goes_back_to_what_is_warm_and_keeps_nothing_of_what_failed() {
    let app = |command: &str| warm(guarded(shop(command, Deploy::Preboot, &[("web", 4)])));
    let formation = up_with(app("old")).await;
    let old = formation.lineup("shop").dynos[0].tally().unwrap().clone();
    asked(&formation, &old, 60, false).await;
    formation.apply(&[("shop", app("new"))]).await;
    passes(10).await;
    assert_eq!((of_release(&formation, &old), formation.scripts.living()), (0, 8));
    asked(&formation, &old, 4, true).await;
    assert_eq!(of_release(&formation, &old), 4);
    assert_eq!((formation.started(), formation.scripts.living()), (8, 4));
    formation.supervisor.stop().await;
}
