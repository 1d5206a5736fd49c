//! *Up*: what is done for a dyno meanwhile, and what interrupts it.
//!
//! Its health is asked after, its share of requests grows, and it is replaced when that was ordered, when it is
//! not well, or when it is old. To be replaced it waits for its turn, and goes on until it has it.

use std::fmt;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{self, Instant};

use crate::config::{HealthCheck, limits};
use crate::supervisor::dyno::freeze::Frost;
use crate::supervisor::dyno::{Call, Dyno, Ran};
use crate::supervisor::health::Unwell;
use crate::supervisor::metrics;
use crate::supervisor::place::{Orders, Place, Replace};
use crate::supervisor::running::Running;
use crate::supervisor::spawn::{Process, Spawn};
use crate::supervisor::turns::{Turn, Turns};
use crate::supervisor::watch::Watch;
use crate::table::Dyno as Record;

/// What interrupts a dyno that is up.
pub(super) enum Next {
    Exited,
    Stop,
    Sleep,
    /// By a process as it is ordered now; without a turn where it is not asked for.
    Replace(Why, Option<Turn>),
}

/// Why a dyno is replaced. Prints as the line that says so.
#[derive(Clone, Copy, Debug)]
pub(super) enum Why {
    Ordered,
    Old,
    Unwell { failures: u32 },
    OverQuota,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ordered => f.write_str("Restarting"),
            Self::Old => f.write_str("Cycling"),
            Self::OverQuota => f.write_str("Restarting: above its memory quota for too long"),
            Self::Unwell { failures } => {
                write!(f, "Restarting: not well {failures} times in a row")
            }
        }
    }
}

/// What is known of a dyno while it is up.
pub(super) struct Tending {
    /// From when its age counts.
    since: Instant,
    /// What part of its time it lives until it is replaced: those that were started together must not be
    /// replaced together.
    lifetime: f64,
    pulse: Pulse,
    /// Failed checks in a row.
    failures: u32,
    is_passed_over: bool,
    /// While its share grows.
    warming: Option<Warming>,
    pub(super) frost: Frost,
    /// When it has come up, where nothing else tells.
    settles_at: Option<Instant>,
}

/// When a dyno is asked how it is.
#[derive(Default)]
struct Pulse {
    next_check: Option<Instant>,
}

impl Pulse {
    /// When to ask next, which stands until the check has an outcome.
    fn next_check(&mut self, health: &HealthCheck, jitter: fn() -> f64) -> Instant {
        let wait = || health.interval.mul_f64(0.9 + 0.2 * jitter());
        *self.next_check.get_or_insert_with(|| Instant::now() + wait())
    }
}

/// How the share of a fresh dyno grows.
#[derive(Clone, Copy)]
struct Warming {
    full_at: Instant,
    next_step: Instant,
}

impl Tending {
    /// `slow_start`: over how long its share of requests grows.
    pub(super) fn begin(
        place: &Place,
        record: Option<&Record>,
        slow_start: Option<Duration>,
    ) -> Self {
        let since = Instant::now();
        // Nobody sends requests to a worker: it has no share that could grow.
        let warming = record.zip(slow_start).map(|(record, over)| {
            record.set_share(limits::SHARE_FIRST);
            Warming { full_at: since + over, next_step: since }
        });
        Self {
            since,
            lifetime: lifetime(place),
            pulse: Pulse::default(),
            failures: 0,
            is_passed_over: false,
            warming,
            frost: Frost::new(since),
            settles_at: None,
        }
    }

    /// It has come up once it has run for so long.
    pub(super) fn settle_after(&mut self, time: Duration) {
        self.settles_at = Some(Instant::now() + time);
    }

    /// It was to be replaced, and goes on.
    pub(super) fn begin_anew(&mut self, place: &Place) {
        (self.since, self.lifetime, self.failures) = (Instant::now(), lifetime(place), 0);
    }

    /// Gives the dyno the share that is due now, where it takes `over` in all. No such time: all of it.
    fn warm_up(&mut self, record: Option<&Record>, over: Option<Duration>) {
        let Some((warming, record)) = self.warming.as_mut().zip(record) else { return };
        let left = warming.full_at.saturating_duration_since(Instant::now());
        match over {
            Some(over) if !left.is_zero() => {
                let grown = 1.0 - (left.as_secs_f64() / over.as_secs_f64()).min(1.0);
                let share = (grown * f64::from(Record::FULL_SHARE)) as u32;
                record.set_share(share.max(limits::SHARE_FIRST));
                warming.next_step = Instant::now() + over / limits::SHARE_STEPS;
            }
            _ => {
                record.set_share(Record::FULL_SHARE);
                self.warming = None;
            }
        }
    }

    /// Why it is to be replaced now, but for its age.
    fn reason(
        &self,
        call: Option<&Call>,
        health: Option<&HealthCheck>,
        watch: &Watch,
    ) -> Option<Why> {
        let failures = self.failures;
        let bound = health.and_then(|health| health.restart_after);
        match (call, bound) {
            (Some(Call::Restart), _) => Some(Why::Ordered),
            (_, Some(bound)) if failures >= bound.get() => Some(Why::Unwell { failures }),
            _ => watch.is_due().then_some(Why::OverQuota),
        }
    }
}

/// From nine tenths of its time to all of it.
fn lifetime(place: &Place) -> f64 {
    0.9 + 0.1 * (place.jitter)()
}

impl<S: Spawn> Dyno<S> {
    /// Looks after a process that is up until something interrupts it.
    pub(super) async fn tend(
        &mut self,
        running: &Running<S::Process>,
        tending: &mut Tending,
    ) -> Next {
        loop {
            let orders = self.place.orders.borrow_and_update().clone();
            if Ran::of(&orders) == self.ran {
                // Whoever orders something else later wants to have it tried.
                self.tried = self.ran;
            }
            let call = self.call(&orders);
            match call {
                Some(Call::Stop) => return Next::Stop,
                Some(Call::Sleep) => return Next::Sleep,
                Some(Call::Restart) | None => {}
            }
            if let Some(next) = self.tend_as_ordered(running, tending, &orders, call).await {
                return next;
            }
        }
    }

    /// The same, until what is to be done is another: `None`. A check that takes longer than the frost and the
    /// share wait for is not begun anew for them.
    async fn tend_as_ordered(
        &mut self,
        running: &Running<S::Process>,
        tending: &mut Tending,
        orders: &Orders,
        call: Option<Call>,
    ) -> Option<Next> {
        let (record, is_frozen) = (running.record.as_deref(), tending.frost.is_frozen());
        let health = orders.upkeep.health.as_ref().filter(|_| record.is_some() && !is_frozen);
        if health.is_none() {
            self.put_back(running, tending);
        }
        // Who is passed over is asked how it is, and has to answer.
        let freeze_after = orders.upkeep.freeze_after.filter(|_| !tending.is_passed_over);
        let reason = tending.reason(call.as_ref(), health, &running.watch);
        let old_at = orders.upkeep.cycle.map(|time| tending.since + time.mul_f64(tending.lifetime));
        let jitter = self.place.jitter;
        let next_check = health.map(|health| (health, tending.pulse.next_check(health, jitter)));
        let mut check = pin!(check(&*running.process, next_check));
        let turns = self.place.turns.clone();
        let takes_turns = self.replacement() == Replace::Beside;
        loop {
            tokio::select! {
                biased;
                () = running.process.ended() => return Some(Next::Exited),
                changed = self.place.orders.changed() => {
                    return changed.is_err().then_some(Next::Stop);
                }
                // Whoever loses has no turn yet, and waits again.
                (why, turn) = to_be_replaced(&turns, takes_turns, reason, old_at) => {
                    return Some(Next::Replace(why, turn));
                }
                () = running.watch.due(), if !running.watch.is_due() => return None,
                () = tending.frost.until_due(record, freeze_after) => {
                    self.freeze_or_thaw(running, &mut tending.frost, freeze_after);
                    if tending.frost.is_frozen() != is_frozen {
                        return None;
                    }
                }
                () = until(tending.settles_at) => {
                    tending.settles_at = None;
                    self.tell_came_up();
                    running.process.forget_lines();
                }
                () = until_warmer(tending.warming) => tending.warm_up(record, orders.slow_start),
                (health, outcome) = &mut check => {
                    tending.pulse.next_check = None;
                    match outcome {
                        Ok(()) => self.put_back(running, tending),
                        Err(unwell) => self.note_failure(running, tending, health, &unwell),
                    }
                    return None;
                }
            }
        }
    }

    /// It is well, or nobody asks any more.
    fn put_back(&self, running: &Running<S::Process>, tending: &mut Tending) {
        tending.failures = 0;
        if std::mem::take(&mut tending.is_passed_over)
            && let (Some(entry), Some(record)) = (&self.entry, &running.record)
        {
            entry.up(record);
            self.place.say("Healthy again: it gets requests");
        }
    }

    fn note_failure(
        &self,
        running: &Running<S::Process>,
        tending: &mut Tending,
        health: &HealthCheck,
        unwell: &Unwell,
    ) {
        metrics::health_failed(&self.place.app, &self.place.dyno.process_type);
        tending.failures += 1;
        if tending.failures < health.unhealthy_after.get() || tending.is_passed_over {
            return;
        }
        let (Some(entry), Some(record)) = (&self.entry, &running.record) else { return };
        tending.is_passed_over = true;
        let has_requests = entry.unhealthy(record);
        let (path, times) = (&health.path, tending.failures);
        self.place.say(format_args!("Unhealthy: GET {path} {unwell}, {times} times in a row"));
        if has_requests {
            self.place.say("No dyno of the app is healthy: requests are sent to all that are up");
        }
    }
}

/// Asks the process how it is, at that time. Dropped before, nothing is known of it.
async fn check<'h>(
    process: &impl Process,
    next: Option<(&'h HealthCheck, Instant)>,
) -> (&'h HealthCheck, Result<(), Unwell>) {
    let Some((health, at)) = next else { return pending().await };
    time::sleep_until(at).await;
    (health, process.well(health).await)
}

/// Returns when it is time to look after the share of a fresh dyno again.
async fn until_warmer(warming: Option<Warming>) {
    until(warming.map(|warming| warming.next_step)).await;
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => time::sleep_until(time).await,
        None => pending().await,
    }
}

/// Returns once the dyno is to be replaced and has its turn, where an order waits for one.
async fn to_be_replaced(
    turns: &Arc<Turns>,
    takes_turns: bool,
    reason: Option<Why>,
    old_at: Option<Instant>,
) -> (Why, Option<Turn>) {
    match (reason, old_at) {
        (Some(Why::Ordered), _) if !takes_turns => (Why::Ordered, None),
        (Some(why), _) => (why, Some(turns.take().await)),
        (None, Some(old_at)) => {
            time::sleep_until(old_at).await;
            (Why::Old, Some(turns.take_alone().await))
        }
        (None, None) => pending().await,
    }
}
