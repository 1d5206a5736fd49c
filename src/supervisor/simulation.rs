//! Any order of reloads, crashes, boots and requests against the real manager and real lives, with scripted
//! processes on a paused clock. What must hold is checked after each step and at the end.
//!
//! proptest draws the steps, shrinks what fails and prints it; keep that as a named test in `tests.rs`.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::{self, Instant};

use crate::config::{AppSource, Deploy, HealthCheck, ManagedApp, Upkeep, limits};
use crate::model::{Canary, Exit, Guard, Hundredths, ProcessType};
use crate::supervisor::scripted::Script;
use crate::supervisor::tests::{Formation, config, external, managed, passes};
use crate::table::{Lease, Standing};

#[derive(Clone, Debug)]
enum Step {
    /// The configuration becomes this; `None` removes the app.
    Reload(Option<Wanted>),
    /// Processes that start from now on do this.
    Plan(Script),
    /// So much time passes.
    Pass(u16),
    /// A request is sent, if there is a dyno; where it sleeps, it is woken.
    Lease,
    /// The oldest request ends.
    Return,
}

#[derive(Clone, Copy, Debug)]
enum Wanted {
    /// `tended`: it sleeps, its dynos are asked how they are, frozen, cycled and slow to start.
    Managed {
        web: u32,
        worker: u32,
        command: u8,
        tended: bool,
        deploy: Deploy,
        guarded: bool,
        canary: bool,
    },
    External(u8),
}

impl Wanted {
    fn source(self) -> AppSource {
        match self {
            Self::External(1) => external(&["127.0.0.1:5001"]),
            Self::External(_) => external(&["127.0.0.1:5001", "127.0.0.1:5002"]),
            Self::Managed { web, worker, command, tended, deploy, guarded, canary } => {
                let AppSource::Managed(mut app) = managed(&[("web", web), ("worker", worker)])
                else {
                    unreachable!("managed makes managed apps")
                };
                app.commands.insert(ProcessType::web(), format!("command {command}"));
                app.deploy = deploy;
                app.guard = guarded.then_some(GUARD);
                app.keep_warm = (guarded && deploy != Deploy::Restart).then_some(GUARD.within);
                app.canary = (canary && deploy != Deploy::Restart).then_some(CANARY);
                if tended {
                    tend(&mut app);
                }
                AppSource::Managed(app)
            }
        }
    }
}

/// One that some requests are enough for.
const GUARD: Guard = Guard {
    errors: Hundredths(500),
    p95: None,
    within: Duration::from_secs(40),
    requests: NonZeroU32::new(3).expect("3 is not 0"),
};

const CANARY: Canary = Canary { share: Hundredths(1000), time: Duration::from_secs(30) };

fn tend(app: &mut ManagedApp) {
    let failures = |number| NonZeroU32::new(number).expect("it is not 0");
    let health = HealthCheck {
        path: "/up".into(),
        interval: Duration::from_secs(7),
        timeout: Duration::from_secs(5),
        unhealthy_after: failures(2),
        restart_after: Some(failures(4)),
    };
    app.upkeep = Arc::new(Upkeep {
        health: Some(health),
        cycle: Some(Duration::from_secs(80)),
        freeze_after: Some(Duration::from_secs(15)),
    });
    for size in app.sizes.values_mut() {
        Arc::make_mut(size).sleep_after = Some(Duration::from_secs(60));
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let deploy = prop::sample::select(vec![Deploy::Rolling, Deploy::Preboot, Deploy::Restart]);
    let managed = (0u32..4, 0u32..3, 0u8..3, prop::bool::ANY, deploy, any::<[bool; 2]>());
    let managed = managed.prop_map(|(web, worker, command, tended, deploy, [guarded, canary])| {
        Wanted::Managed { web, worker, command, tended, deploy, guarded, canary }
    });
    let wanted = prop_oneof![4 => managed, 1 => (1u8..3).prop_map(Wanted::External)];
    let script = (
        prop::option::weighted(0.8, 0u64..70),
        prop::option::weighted(0.5, (0u64..100, 0i32..3)),
        prop::option::weighted(0.8, 0u64..40),
        prop::bool::weighted(0.1),
        prop::option::weighted(0.5, (0u64..100, 0u64..100)),
        prop::bool::ANY,
    );
    let script = script.prop_map(|(listens, exits, heeds_sigterm, fails, unwell, hangs)| Script {
        listens: listens.map(Duration::from_secs),
        exits: exits.map(|(after, status)| (Duration::from_secs(after), Exit::Status(status))),
        heeds_sigterm: heeds_sigterm.map(Duration::from_secs),
        fails,
        panics: false,
        unwell: unwell
            .map(|(from, lasts)| (Duration::from_secs(from), Duration::from_secs(from + lasts))),
        hangs,
        takes: None,
    });
    prop_oneof![
        3 => prop::option::weighted(0.9, wanted).prop_map(Step::Reload),
        3 => script.prop_map(Step::Plan),
        5 => (0u16..120).prop_map(Step::Pass),
        3 => Just(Step::Lease),
        2 => Just(Step::Return),
    ]
}

/// Of every dyno that requests may be sent to: it gives leases, and its process has not ended.
fn check_lineup(formation: &Formation) {
    for app in formation.publisher.table().apps() {
        let lineup = app.roster.lineup();
        assert_eq!(lineup.standing == Standing::Up, !lineup.dynos.is_empty());
        for dyno in lineup.all() {
            assert!(!dyno.is_closed(), "{dyno:?} is closed and in the line-up");
            assert_eq!(dyno.exit(), None, "{dyno:?} has exited and is in the line-up");
        }
    }
}

fn lease(formation: &Formation) -> Option<Lease> {
    let table = formation.publisher.table();
    let roster = &table.apps().first()?.roster;
    let lineup = roster.lineup().clone();
    if lineup.standing == Standing::Asleep {
        roster.bell().ring();
    }
    let dyno = lineup.all().last()?;
    if let Some(tally) = dyno.tally() {
        // Some dynos fail all that they are asked.
        (0..5).for_each(|_| tally.count(0, Duration::from_millis(1), dyno.id() % 3 == 0));
    }
    dyno.lease()
}

async fn simulate(steps: Vec<Step>) {
    let formation = Formation::start(&[Script::listens(1)], &[]);
    let mut wanted = None;
    let mut leases = Vec::new();
    for step in steps {
        match step {
            Step::Reload(now) => {
                wanted = now;
                apply(&formation, wanted);
            }
            Step::Plan(script) => formation.scripts.plan(&[script]),
            Step::Pass(secs) => passes(secs.into()).await,
            Step::Lease => leases.extend(lease(&formation)),
            Step::Return => drop((!leases.is_empty()).then(|| leases.remove(0))),
        }
        check_lineup(&formation);
    }

    // Once all is well and quiet, what is wanted is what is: a new release of it replaces every process that
    // was told to crash later.
    formation.scripts.plan(&[Script::listens(1)]);
    leases.clear();
    passes(1000).await;
    if let Some(Wanted::Managed { web, worker, deploy, guarded, canary, .. }) = wanted {
        let calm =
            Wanted::Managed { web, worker, command: 9, tended: false, deploy, guarded, canary };
        apply(&formation, Some(calm));
        passes(1000).await;
        let names = |of: &'static str, count| {
            (1..=count).map(move |number| format!("app {of}.{number} up"))
        };
        let expected = names("web", web).chain(names("worker", worker)).collect::<Vec<_>>();
        assert_eq!(formation.states(), expected);
    }

    // And the end takes no longer than the slowest may.
    let began = Instant::now();
    formation.supervisor.stop().await;
    assert!(began.elapsed() <= Duration::from_secs(31) + limits::KILL_WAIT);
    assert!(formation.states().iter().all(|state| state.ends_with(" external")));
    assert!(formation.scripts.ports.lock().unwrap().is_empty(), "a process outlived the stop");
    formation.shutdown.begin();
    time::timeout(Duration::from_secs(1), formation.shutdown.finished()).await.unwrap();
}

fn apply(formation: &Formation, wanted: Option<Wanted>) {
    let apps = wanted.map(|wanted| ("app", wanted.source()));
    formation.supervisor.apply(&Arc::new(config(apps.as_slice())));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_requests_go_to_living_dynos_and_all_comes_to_what_is_wanted(
        steps in prop::collection::vec(any_step(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(simulate(steps));
    }
}
