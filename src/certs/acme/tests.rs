//! The manager's life, on a paused clock, with an authority that follows a script.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::certs::acme::board::{AcmeStatus, Board};
use crate::certs::acme::manager::{Manager, Means};
use crate::certs::acme::scripted::{Script, Scripted, issue, issue_from, wall};
use crate::certs::acme::store::Store;
use crate::certs::acme::wanted::{Proof, Wanted};
use crate::certs::fixture::Fixture;
use crate::certs::{Certs, Source};
use crate::config::limits;
use crate::shutdown::Shutdown;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const ACME: &str = "directory = \"https://ca.example/dir\"\nagree_to_terms = true\n";

struct Life {
    fixture: Fixture,
    certs: Arc<Certs>,
    authority: Scripted,
    board: Board,
    wanted: watch::Sender<Option<Arc<Wanted>>>,
    shutdown: Shutdown,
    task: JoinHandle<()>,
}

impl Life {
    async fn start(names: &[&str], authority: &Scripted) -> Self {
        Self::start_in(Fixture::new(), names, authority).await
    }

    /// Starts where somebody may have been before.
    async fn start_in(fixture: Fixture, names: &[&str], authority: &Scripted) -> Self {
        wall();
        let certs = fixture.certs("");
        let board = Board::default();
        let scripted = authority.clone();
        let means = Means {
            certs: certs.clone(),
            state_dir: fixture.path("state"),
            board: board.clone(),
            authority: Box::new(move |_, _| scripted.clone()),
            now: wall,
            random: || 0.5,
        };
        let first = wanted(&fixture, ACME, names);
        let (wanted, changes) = watch::channel(first.clone());
        let shutdown = Shutdown::default();
        let mut manager = Manager::new(means);
        manager.apply(first).await;
        let task = shutdown.spawn(manager.run(changes, shutdown.clone()));
        Self { fixture, certs, authority: authority.clone(), board, wanted, shutdown, task }
    }

    fn apply(&self, acme: &str, names: &[&str]) {
        self.wanted.send_replace(wanted(&self.fixture, acme, names));
    }

    fn store(&self) -> Store {
        Store::of(&self.fixture.path("state"), "https://ca.example/dir")
    }

    /// Each name with its state, and for how many days, rounded, its certificate still holds.
    fn states(&self) -> Vec<(String, String, Option<u64>)> {
        let now = wall().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let state = |status: AcmeStatus| {
            let state = match status.reason {
                Some(reason) => format!("{}: {reason}", status.state),
                None => status.state.to_owned(),
            };
            let days = |expires: u64| (expires + 43_200).saturating_sub(now) / 86_400;
            (status.name, state, status.expires.map(days))
        };
        self.board.states().into_iter().map(state).collect()
    }

    #[track_caller]
    fn expect(&self, expected: &[(&str, &str, Option<u64>)]) {
        let states = self.states();
        let states = states.iter().map(|(name, state, days)| (&**name, &**state, *days));
        assert_eq!(states.collect::<Vec<_>>(), expected);
    }

    /// The names that are served with a certificate of ACME's.
    fn served(&self) -> Vec<String> {
        let reports = self.certs.report().into_iter().filter(|it| it.source == Source::Acme);
        let mut names = reports.map(|report| report.name).collect::<Vec<_>>();
        names.sort();
        names
    }
}

fn wanted(fixture: &Fixture, acme: &str, names: &[&str]) -> Option<Arc<Wanted>> {
    let acme = if acme.is_empty() { String::new() } else { format!("[acme]\n{acme}\n") };
    let config = fixture
        .config(&format!("{acme}[apps.shop]\ndynos = [\"127.0.0.1:1\"]\ndomains = {names:?}\n"));
    Wanted::of(&config, |_| false).map(Arc::new)
}

fn minutes(times: &[Duration]) -> Vec<u64> {
    times.iter().map(|time| time.as_secs() / 60).collect()
}

#[tokio::test(start_paused = true)]
async fn a_name_gets_a_certificate() {
    let ca = Scripted::default();
    ca.plan("shop.example", &[Script::Issues(90, 5 * MINUTE)]);
    let life = Life::start(&["shop.example"], &ca).await;
    life.expect(&[("shop.example", "Waiting", None)]);
    sleep(MINUTE).await;
    life.expect(&[("shop.example", "Verified", None)]);
    assert!(life.served().is_empty());
    sleep(5 * MINUTE).await;
    life.expect(&[("shop.example", "OK", Some(90))]);
    assert_eq!(life.served(), ["shop.example"]);
    assert!(life.store().certificate("shop.example", wall()).is_some());
}

#[tokio::test(start_paused = true)]
async fn failures_wait_longer_each_time_and_try_the_other_proof() {
    let ca = Scripted::default();
    let fails = Script::Fails("no such name", None);
    ca.plan("shop.example", &[fails, fails, fails, fails, Script::Issues(90, MINUTE), fails]);
    let life = Life::start(&["shop.example"], &ca).await;
    sleep(MINUTE / 2).await;
    life.expect(&[("shop.example", "Failing: no such name", None)]);
    sleep(20 * MINUTE).await;
    life.expect(&[("shop.example", "OK", Some(90))]);
    assert_eq!(minutes(&ca.times("shop.example")), [0, 1, 3, 7, 15]);
    let proofs = ca.begun().into_iter().map(|it| it.proof).collect::<Vec<_>>();
    let (tls, http) = (Proof::TlsAlpn01, Proof::Http01);
    assert_eq!(proofs, [tls, http, tls, http, tls]);
    // The renewal fails: what worked is tried first, and the waits begin anew.
    sleep(60 * DAY).await;
    let renewal = ca.times("shop.example");
    assert_eq!(minutes(&[renewal[6] - renewal[5]]), [1]);
    assert_eq!(ca.begun()[5].proof, tls);
    life.expect(&[("shop.example", "Failing: no such name", Some(30))]);
    assert_eq!(life.served(), ["shop.example"]);
}

#[tokio::test(start_paused = true)]
async fn the_server_is_left_alone_for_as_long_as_it_asks() {
    let ca = Scripted::default();
    let limited = Script::Fails("too many", Some(10 * HOUR));
    ca.plan("shop.example", &[limited, Script::Issues(90, MINUTE)]);
    let life = Life::start(&["shop.example"], &ca).await;
    sleep(12 * HOUR).await;
    life.expect(&[("shop.example", "OK", Some(90))]);
    assert_eq!(minutes(&ca.times("shop.example")), [0, 10 * 60 + 30]);
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_renewed_a_month_before_its_end() {
    let ca = Scripted::default();
    ca.plan("short.example", &[Script::Issues(6, Duration::ZERO)]);
    let life = Life::start(&["shop.example", "short.example"], &ca).await;
    sleep(59 * DAY - 2 * HOUR).await;
    let days =
        |name| ca.times(name).iter().map(|it| (it.as_secs() + 60) / 8640).collect::<Vec<_>>();
    // In tenths of days. The jitter of these tests is half of what it may be: a twentieth of the lead.
    assert_eq!(days("shop.example"), [0, 585]);
    assert_eq!(days("short.example")[..4], [0, 39, 78, 117]);
    life.expect(&[("shop.example", "OK", Some(90)), ("short.example", "OK", Some(6))]);
}

#[tokio::test(start_paused = true)]
async fn few_orders_run_at_once_and_never_two_of_a_name() {
    let names = (0..30).map(|number| format!("shop{number}.example")).collect::<Vec<_>>();
    let ca = Scripted::default();
    for name in &names {
        ca.plan(name, &[Script::Issues(90, MINUTE)]);
    }
    ca.plan(&names[3], &[Script::Fails("no", None)]);
    let names = names.iter().map(String::as_str).collect::<Vec<_>>();
    let life = Life::start(&names, &ca).await;
    sleep(10 * MINUTE).await;
    assert_eq!(ca.at_once(), limits::ACME_ORDERS);
    let states = life.states();
    assert_eq!(states.iter().filter(|(_, state, _)| state == "OK").count(), 29, "{states:?}");
}

/// Four orders take all places; when they are through, those wait that were due before and those that were not.
#[tokio::test(start_paused = true)]
async fn who_has_a_certificate_to_lose_goes_first() {
    let names = ["a.example", "b.example", "c.example", "d.example"];
    let (new, later, sooner) = ("e.example", "x.example", "y.example");
    let fixture = Fixture::new();
    let store = Store::of(&fixture.path("state"), "https://ca.example/dir");
    for (name, left) in [(later, 2 * HOUR), (sooner, HOUR)] {
        let issued = issue_from(name, SystemTime::now() - (90 * DAY - left), 90 * DAY);
        store.save_certificate(name, &issued).unwrap();
    }
    let ca = Scripted::default();
    for name in names {
        ca.plan(name, &[Script::Hangs(DAY)]);
    }
    let names = [&names[..], &[new, later, sooner]].concat();
    let _life = Life::start_in(fixture, &names, &ca).await;
    sleep(limits::ACME_ORDER + MINUTE / 4).await;
    let begun = ca.begun().into_iter().map(|it| it.name).collect::<Vec<_>>();
    assert_eq!(begun[4..], [sooner, later, new]);
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_served_at_once_and_nobody_is_asked() {
    let fixture = Fixture::new();
    let store = Store::of(&fixture.path("state"), "https://ca.example/dir");
    store.save_certificate("shop.example", &issue("shop.example", 90)).unwrap();
    store.save_certificate("gone.example", &issue("gone.example", 90)).unwrap();
    let ca = Scripted::default();
    let life = Life::start_in(fixture, &["shop.example"], &ca).await;
    assert_eq!(life.served(), ["shop.example"]);
    life.expect(&[("shop.example", "OK", Some(90))]);
    sleep(58 * DAY).await;
    assert!(ca.begun().is_empty());
    sleep(DAY).await;
    assert_eq!(ca.begun().len(), 1);
}

/// A machine without a clock of its own starts in the past, and hears the time a little later.
#[tokio::test(start_paused = true)]
async fn what_is_kept_for_later_is_found_when_its_time_has_come() {
    let fixture = Fixture::new();
    let store = Store::of(&fixture.path("state"), "https://ca.example/dir");
    let issued = issue_from("shop.example", SystemTime::now() + 5 * MINUTE, 90 * DAY);
    store.save_certificate("shop.example", &issued).unwrap();
    let ca = Scripted::default();
    ca.plan("shop.example", &[Script::Fails("the server's certificate is not valid yet", None)]);
    let life = Life::start_in(fixture, &["shop.example"], &ca).await;
    sleep(10 * MINUTE).await;
    life.expect(&[("shop.example", "OK", Some(90))]);
    assert_eq!(minutes(&ca.times("shop.example")), [0, 1, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_went_is_ordered_no_more() {
    let ca = Scripted::default();
    ca.plan("late.example", &[Script::Issues(90, 5 * MINUTE)]);
    let life = Life::start(&["shop.example", "late.example"], &ca).await;
    sleep(MINUTE).await;
    assert_eq!((life.served(), ca.running()), (vec!["shop.example".into()], 1));
    life.apply(ACME, &["new.example"]);
    sleep(MINUTE).await;
    life.expect(&[("new.example", "OK", Some(90))]);
    assert_eq!((life.served(), ca.running()), (vec!["new.example".into()], 0));
    // Its file stays, so that a name that comes back needs no order.
    assert!(life.store().certificate("shop.example", wall()).is_some());
    life.apply(ACME, &["shop.example"]);
    sleep(MINUTE).await;
    assert_eq!(life.served(), ["shop.example"]);
    assert_eq!(ca.times("shop.example").len(), 1);
}

/// The order of the name that went is stuck in a step; the name that came back waits for its end.
#[tokio::test(start_paused = true)]
async fn a_name_that_comes_back_has_no_second_order_beside_the_first() {
    let ca = Scripted::default();
    ca.plan("shop.example", &[Script::Hangs(5 * MINUTE), Script::Issues(90, Duration::ZERO)]);
    let life = Life::start(&["shop.example"], &ca).await;
    sleep(MINUTE).await;
    life.apply(ACME, &[]);
    sleep(MINUTE).await;
    life.apply(ACME, &["shop.example"]);
    sleep(10 * MINUTE).await;
    assert_eq!(minutes(&ca.times("shop.example")), [0, 5]);
    life.expect(&[("shop.example", "OK", Some(90))]);
}

#[tokio::test(start_paused = true)]
async fn what_an_order_for_an_earlier_wish_says_is_not_heard() {
    let ca = Scripted::default();
    ca.plan("shop.example", &[Script::Hangs(5 * MINUTE), Script::Hangs(HOUR)]);
    let life = Life::start(&["shop.example"], &ca).await;
    sleep(MINUTE).await;
    life.apply(&ACME.replace("ca.example", "other.example"), &["shop.example"]);
    sleep(5 * MINUTE).await;
    assert_eq!(minutes(&ca.times("shop.example")), [0, 5]);
    life.expect(&[("shop.example", "Waiting", None)]);
}

#[tokio::test(start_paused = true)]
async fn without_acme_everything_stops() {
    let ca = Scripted::default();
    ca.plan("late.example", &[Script::Issues(90, 5 * MINUTE)]);
    let life = Life::start(&["shop.example", "late.example"], &ca).await;
    sleep(MINUTE).await;
    life.apply("", &[]);
    sleep(MINUTE).await;
    life.expect(&[]);
    assert_eq!((life.served().len(), ca.running()), (0, 0));
    sleep(100 * DAY).await;
    assert_eq!(ca.begun().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn another_server_is_asked_anew_while_the_old_certificate_is_served() {
    let ca = Scripted::default();
    let life = Life::start(&["shop.example"], &ca).await;
    sleep(MINUTE).await;
    life.expect(&[("shop.example", "OK", Some(90))]);
    ca.plan("shop.example", &[Script::Fails("not yet", None), Script::Issues(30, MINUTE)]);
    life.apply(&ACME.replace("ca.example", "other.example"), &["shop.example"]);
    sleep(MINUTE / 2).await;
    life.expect(&[("shop.example", "Failing: not yet", Some(90))]);
    assert_eq!(life.served(), ["shop.example"]);
    // What the file says anew is tried at once, whatever failed before.
    life.apply(&(ACME.to_owned() + "contact = [\"mailto:a@b.example\"]"), &["shop.example"]);
    sleep(MINUTE / 4).await;
    life.expect(&[("shop.example", "OK", Some(90))]);
    assert_eq!(ca.begun().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_changes_nothing_for_a_name_leaves_its_wait() {
    let ca = Scripted::default();
    ca.plan("shop.example", &[Script::Fails("no", None)]);
    let life = Life::start(&["shop.example"], &ca).await;
    for _ in 0..9 {
        sleep(MINUTE / 10).await;
        life.apply(ACME, &["shop.example", "other.example"]);
    }
    sleep(MINUTE / 20).await;
    assert_eq!(ca.times("shop.example").len(), 1);
    sleep(MINUTE / 10).await;
    assert_eq!(ca.times("shop.example").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn renew_before_is_taken_over_by_a_reload() {
    let ca = Scripted::default();
    let life = Life::start(&["shop.example"], &ca).await;
    sleep(DAY).await;
    life.apply(&(ACME.to_owned() + "renew_before = \"10d\""), &["shop.example"]);
    sleep(78 * DAY).await;
    assert_eq!(ca.begun().len(), 1);
    sleep(DAY).await;
    assert_eq!(ca.begun().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_certificate_for_others_is_a_failure() {
    let ca = Scripted::default();
    ca.plan("shop.example", &[Script::IssuesForOthers]);
    let life = Life::start(&["shop.example"], &ca).await;
    sleep(MINUTE / 2).await;
    let reason = "Failing: the certificate that was issued is not for shop.example";
    life.expect(&[("shop.example", reason, None)]);
    assert!(life.served().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_order_that_hangs_or_panics_is_a_failure_and_others_go_on() {
    let ca = Scripted::default();
    ca.plan("hangs.example", &[Script::Hangs(DAY)]);
    ca.plan("panics.example", &[Script::Panics]);
    let names = ["hangs.example", "panics.example", "shop.example"];
    let life = Life::start(&names, &ca).await;
    sleep(limits::ACME_ORDER + MINUTE / 2).await;
    let states = life.states();
    assert!(states[0].1.contains("took longer than 600s"), "{states:?}");
    assert!(states[1].1.contains("panicked"), "{states:?}");
    assert_eq!(states[2].1, "OK");
    // Four more, after 1, 2, 4 and 8 minutes of waiting.
    assert_eq!(ca.times("panics.example").len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_breaks_orders_off() {
    let ca = Scripted::default();
    ca.plan("shop.example", &[Script::Hangs(DAY)]);
    let life = Life::start(&["shop.example"], &ca).await;
    sleep(MINUTE).await;
    assert_eq!(ca.running(), 1);
    life.shutdown.begin();
    life.task.await.unwrap();
    assert_eq!(life.authority.running(), 0);
}
