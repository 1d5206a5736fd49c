//! Whether a release is worse than the one before it, by what the dynos of both have answered. Pure: told the time,
//! and does nothing.
//!
//! While both serve, they are compared over the same time, in which whatever else goes wrong befalls both. Where the
//! earlier one has answered too little in it, it is what it answered in its last time that counts.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::config::limits;
use crate::model::Guard;
use crate::table::{Answered, Tally};

/// Watches over the releases of one app.
pub(crate) struct Watch {
    rules: Guard,
    standing: Counted,
    /// What the standing release had answered at these times, the oldest first; none while another one is on trial.
    marks: VecDeque<(Duration, Answered)>,
    trial: Option<Trial>,
}

/// A release, and what its dynos answer.
#[derive(Clone)]
pub(crate) struct Counted {
    /// 7 is `v7`.
    pub(crate) release: u64,
    pub(crate) tally: Arc<Tally>,
}

/// A release that has not stood the test yet.
struct Trial {
    of: Counted,
    /// What its dynos had answered before, if it is tried again.
    from: Answered,
    /// Whether those of the standing one were asked enough to say what is to be expected.
    is_asked: bool,
    /// Since its first dyno is up: when that was, and what the standing one had answered then.
    up: Option<(Duration, Answered)>,
    /// Since when all of its dynos are up.
    arrived: Option<Duration>,
    /// It has been judged once, and was good.
    is_good: bool,
}

impl Watch {
    pub(crate) fn new(rules: Guard, standing: Counted, now: Duration) -> Self {
        // All that its dynos have answered so far is of its last time, for a while.
        let marks = VecDeque::from([(now, Answered::default())]);
        Self { rules, standing, marks, trial: None }
    }

    /// Takes over which release stands, and which is on trial.
    pub(crate) fn follow(
        &mut self,
        rules: Guard,
        standing: Counted,
        on_trial: Option<Counted>,
        now: Duration,
    ) {
        if standing.release != self.standing.release {
            *self = Self::new(rules, standing, now);
        }
        self.rules = rules;
        match (on_trial, &self.trial) {
            (Some(of), Some(trial)) if of.release == trial.of.release => {}
            (Some(of), _) => self.begin(of),
            (None, _) => self.trial = None,
        }
    }

    fn begin(&mut self, of: Counted) {
        let is_asked = self.before().requests() >= self.rules.requests.get();
        let from = of.tally.total();
        self.trial = Some(Trial { of, from, is_asked, up: None, arrived: None, is_good: false });
    }

    /// What the standing release has answered in its last time.
    fn before(&self) -> Answered {
        let total = self.standing.tally.total();
        self.marks.front().map_or_else(|| total.clone(), |(_, mark)| total.since(mark))
    }

    /// Whether a release is on trial.
    pub(crate) fn is_trying(&self) -> bool {
        self.trial.is_some()
    }

    /// Whether the rest of the dynos waits until those that have the release were judged: for as long as there may be
    /// requests to judge them by, and no longer than a quarter of the whole time.
    pub(crate) fn holds(&self, now: Duration) -> bool {
        self.trial.as_ref().is_some_and(|trial| {
            let is_over =
                trial.up.as_ref().is_some_and(|(at, _)| now >= *at + self.rules.within / 4);
            trial.is_asked && !trial.is_good && !is_over
        })
    }

    /// All dynos of the release on trial are up. How long it is on trial yet; `None`: not any more.
    pub(crate) fn arrive(&mut self, now: Duration) -> Option<Duration> {
        let trial = self.trial.as_mut()?;
        let until = *trial.arrived.get_or_insert(now) + self.rules.within;
        until.checked_sub(now).filter(|left| !left.is_zero())
    }

    /// Looks at what there is now. `is_up`: a dyno of the release on trial is. Returns what is wrong with it.
    pub(crate) fn look(&mut self, is_up: bool, now: Duration) -> Option<Compared> {
        let total = self.standing.tally.total();
        let Some(trial) = &mut self.trial else {
            self.mark(total, now);
            return None;
        };
        if is_up {
            trial.up.get_or_insert((now, total));
        }
        let compared = self.compare()?;
        let is_worse = judge(&self.rules, &compared.before, &compared.now);
        let is_judged = compared.now.requests() >= self.rules.requests.get();
        if let Some(trial) = self.trial.as_mut().filter(|_| is_judged) {
            trial.is_good = !is_worse;
        }
        is_worse.then(|| compared.outward(self))
    }

    /// Forgets what was answered before its last time, of which there are never more than five parts of four.
    fn mark(&mut self, total: Answered, now: Duration) {
        let within = self.rules.within;
        let is_due = self.marks.back().is_none_or(|(at, _)| now >= *at + within / 4);
        if is_due {
            self.marks.push_back((now, total));
        }
        while self.marks.get(1).is_some_and(|(at, _)| now >= *at + within) {
            self.marks.pop_front();
        }
    }

    /// The figures of the release on trial, and those of the standing one.
    pub(crate) fn figures(&self) -> Option<Compared> {
        Some(self.compare()?.outward(self))
    }

    fn compare(&self) -> Option<Both> {
        let Trial { of, from, up, .. } = self.trial.as_ref()?;
        let (_, at_first) = up.as_ref()?;
        let beside = self.standing.tally.total().since(at_first);
        let is_enough = beside.requests() >= self.rules.requests.get();
        let before = if is_enough { beside } else { self.before() };
        Some(Both { before, now: of.tally.total().since(from) })
    }
}

/// What two releases have answered.
struct Both {
    before: Answered,
    now: Answered,
}

impl Both {
    fn outward(&self, watch: &Watch) -> Compared {
        Compared {
            rules: watch.rules,
            standing: watch.standing.release,
            before: Figures::of(&self.before),
            now: Figures::of(&self.now),
        }
    }
}

/// The figures of a release, beside those of the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// How much worse it may be.
    pub rules: Guard,
    /// The number of the one before it.
    pub standing: u64,
    /// What that has answered.
    pub before: Figures,
    /// What it has answered.
    pub now: Figures,
}

/// What the dynos of a release have answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Requests that have ended.
    pub requests: u32,
    /// Those of them that a dyno failed.
    pub failed: u32,
    /// What at most a twentieth of them took longer at the dyno. Absent: there are none.
    pub p95: Option<Duration>,
}

impl Figures {
    fn of(answered: &Answered) -> Self {
        Self { requests: answered.requests(), failed: answered.failed(), p95: answered.p95() }
    }
}

/// `errors=4.2% p95=132ms requests=310`
impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "errors={:.1}% p95=", 100.0 * share(self.failed, self.requests))?;
        match self.p95 {
            Some(p95) => write!(f, "{}ms", p95.as_millis())?,
            None => f.write_str("-")?,
        }
        write!(f, " requests={}", self.requests)
    }
}

/// `errors=4.2% p95=132ms requests=310, v7: errors=0.0% p95=98ms requests=801`
impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rules: _, standing, before, now } = self;
        write!(f, "{now}, v{standing}: {before}")
    }
}

/// Whether a release is worse by more than it may be, and more than chance would have it.
fn judge(rules: &Guard, before: &Answered, now: &Answered) -> bool {
    let (least, requests) = (rules.requests.get(), now.requests());
    if requests < least {
        return false;
    }
    // Of one that nobody asked, nobody knows an error.
    let allowed = share(before.failed(), before.requests()) + rules.errors.value() / 100.0;
    if is_beyond(now.failed(), requests, allowed) {
        return true;
    }
    let p95 = before.p95().filter(|_| before.requests() >= least);
    rules.p95.zip(p95).is_some_and(|(times, p95)| {
        let longest = p95.mul_f64(times.value()).max(p95 + limits::GUARD_P95_LEAST);
        is_beyond(now.longer_than(longest), requests, SLOW)
    })
}

/// The share of requests that a p95 leaves to take as long as they like.
const SLOW: f64 = 0.05;

fn share(some: u32, all: u32) -> f64 {
    f64::from(some) / f64::from(all.max(1))
}

/// Whether so many of all are more than this share, for certain: the lower bound of Wilson's score interval. Looked at each
/// second for minutes, one error in a hundred chances would be met too often with less than [`CERTAINTY`].
fn is_beyond(some: u32, all: u32, allowed: f64) -> bool {
    let (found, all) = (share(some, all), f64::from(all.max(1)));
    let square = CERTAINTY * CERTAINTY;
    let spread = (found * (1.0 - found) / all + square / (4.0 * all * all)).sqrt();
    let least = (found + square / (2.0 * all) - CERTAINTY * spread) / (1.0 + square / all);
    least > allowed
}

/// In standard deviations: beyond this lies one chance in 740.
const CERTAINTY: f64 = 3.0;

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;
    use crate::model::Hundredths;

    const RULES: Guard = Guard {
        errors: Hundredths(500),
        p95: Some(Hundredths(300)),
        within: Duration::from_secs(120),
        requests: NonZeroU32::new(20).unwrap(),
    };

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn counted(release: u64) -> Counted {
        Counted { release, tally: Tally::new(1) }
    }

    /// So many requests, of which so many failed, and which took so long.
    fn serve(of: &Counted, requests: u32, failed: u32, millis: u64) {
        (0..requests).for_each(|it| of.tally.count(0, Duration::from_millis(millis), it < failed));
    }

    fn answered(requests: u32, failed: u32, millis: u64) -> Answered {
        let of = counted(1);
        serve(&of, requests, failed, millis);
        of.tally.total()
    }

    #[track_caller]
    fn check(before: (u32, u32, u64), now: (u32, u32, u64), expected: bool) {
        let [before, now] = [before, now].map(|it| answered(it.0, it.1, it.2));
        assert_eq!(judge(&RULES, &before, &now), expected);
    }

    #[test]
    fn errors_are_compared_with_those_before() {
        check((1000, 0, 10), (20, 20, 10), true);
        check((1000, 0, 10), (19, 19, 10), false);
        check((1000, 1000, 10), (20, 20, 10), false);
        check((1000, 300, 10), (1000, 320, 10), false);
        check((1000, 300, 10), (1000, 450, 10), true);
        // Nobody asked the one before.
        check((0, 0, 0), (20, 20, 10), true);
        check((0, 0, 0), (20, 0, 10), false);
    }

    #[test]
    fn a_few_errors_may_be_chance() {
        check((1000, 0, 10), (20, 2, 10), false);
        check((1000, 0, 10), (1000, 100, 10), true);
        check((1000, 0, 10), (1000, 49, 10), false);
    }

    #[test]
    fn slow_is_who_takes_so_many_times_as_long() {
        check((1000, 0, 100), (100, 0, 400), true);
        check((1000, 0, 100), (100, 0, 250), false);
        check((19, 0, 100), (100, 0, 400), false);
        // Some milliseconds are nothing, however many times as long they are.
        check((1000, 0, 1), (100, 0, 8), false);
        check((1000, 0, 1), (100, 0, 20), true);
    }

    fn on_trial(standing: &Counted, of: &Counted) -> Watch {
        let mut watch = Watch::new(RULES, standing.clone(), secs(0));
        watch.follow(RULES, standing.clone(), Some(of.clone()), secs(0));
        watch
    }

    #[test]
    fn whatever_befalls_both_is_no_fault_of_the_release() {
        let (old, new) = (counted(1), counted(2));
        serve(&old, 1000, 0, 10);
        let mut watch = on_trial(&old, &new);
        assert_eq!(watch.look(true, secs(1)), None);
        serve(&old, 100, 90, 10);
        serve(&new, 100, 90, 10);
        assert_eq!(watch.look(true, secs(2)), None, "their database is gone");
        serve(&old, 1000, 0, 10);
        serve(&new, 1000, 900, 10);
        let worse = watch.look(true, secs(3)).unwrap();
        let expected =
            "errors=90.0% p95=10ms requests=1100, v1: errors=8.2% p95=10ms requests=1100";
        assert_eq!(worse.to_string(), expected);
    }

    #[test]
    fn without_requests_at_the_same_time_the_last_time_counts() {
        let (old, new) = (counted(1), counted(2));
        let mut watch = Watch::new(RULES, old.clone(), secs(0));
        serve(&old, 100, 100, 10);
        for at in 1..400 {
            assert_eq!(watch.look(false, secs(at)), None);
            serve(&old, 1, 0, 10);
        }
        watch.follow(RULES, old.clone(), Some(new.clone()), secs(400));
        serve(&new, 20, 20, 10);
        assert_eq!(watch.look(false, secs(401)), None, "no dyno of it is up");
        let worse = watch.look(true, secs(402)).unwrap();
        assert_eq!((worse.before.failed, worse.now.failed), (0, 20));
        assert!((120..=151).contains(&worse.before.requests), "{worse}");
    }

    #[test]
    fn the_rest_waits_until_the_first_are_judged_or_the_time_is_over() {
        let (old, new) = (counted(1), counted(2));
        serve(&old, 20, 0, 10);
        let mut watch = on_trial(&old, &new);
        assert!(watch.holds(secs(1000)), "nothing is up");
        assert_eq!(watch.look(true, secs(1000)), None);
        assert!(watch.holds(secs(1029)));
        assert!(!watch.holds(secs(1030)));
        serve(&new, 20, 0, 10);
        assert_eq!(watch.look(true, secs(1001)), None);
        assert!(!watch.holds(secs(1001)));
        let idle = on_trial(&counted(1), &counted(2));
        assert!(!idle.holds(secs(0)), "nobody would ask the first");
    }

    #[test]
    fn a_trial_ends_some_time_after_the_arrival() {
        let mut watch = on_trial(&counted(1), &counted(2));
        assert_eq!(watch.arrive(secs(50)), Some(secs(120)));
        assert_eq!(watch.arrive(secs(100)), Some(secs(70)));
        assert_eq!(watch.arrive(secs(170)), None);
        watch.follow(RULES, counted(2), None, secs(171));
        assert!(!watch.is_trying());
        assert_eq!(watch.arrive(secs(171)), None);
    }

    proptest! {
        #[test]
        fn who_is_as_good_as_before_is_never_judged_worse(
            requests in 1_u32..500, failed in 0_u32..500, millis in 0_u64..2000,
        ) {
            let answered = answered(requests, failed.min(requests), millis);
            prop_assert!(!judge(&RULES, &answered, &answered));
        }

        #[test]
        fn who_fails_more_is_not_judged_better(failed in 0_u32..200, more in 0_u32..200) {
            let before = answered(1000, 10, 10);
            let judged = |failed: u32| judge(&RULES, &before, &answered(200, failed.min(200), 10));
            prop_assert!(!judged(failed) || judged(failed + more));
        }
    }
}
