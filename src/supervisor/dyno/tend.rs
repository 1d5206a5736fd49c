//! *Up*: what is done for a dyno meanwhile, and what interrupts it.
//!
//! Its health is asked after, its share of requests grows, and it is replaced when that was ordered, when it is
//! not well, or when it is old. To be replaced it waits for its turn, and goes on until it has it.

use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{self, Instant};

use crate::config::{HealthCheck, limits};
use crate::model::Exit;
use crate::supervisor::dyno::freeze::Frost;
use crate::supervisor::dyno::{Call, Dyno};
use crate::supervisor::health::Unwell;
use crate::supervisor::metrics;
use crate::supervisor::place::Place;
use crate::supervisor::running::Running;
use crate::supervisor::spawn::{Process, Spawn};
use crate::supervisor::turns::{Turn, Turns};
use crate::supervisor::watch::Watch;
use crate::table::Dyno as Record;

/// What interrupts a dyno that is up.
pub(super) enum Next {
    Exited(Exit),
    Stop,
    Sleep,
    Replace(Why, Turn),
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
}

/// When a dyno is asked how it is.
#[derive(Default)]
struct Pulse {
    next_check: Option<Instant>,
}

impl Pulse {
    /// Asks the process how it is when it is time to. Dropped before, it asks again.
    async fn check(
        &mut self,
        process: &impl Process,
        health: Option<&HealthCheck>,
        jitter: fn() -> f64,
    ) -> Result<(), Unwell> {
        let Some(health) = health else { return pending().await };
        let wait = || health.interval.mul_f64(0.9 + 0.2 * jitter());
        let at = *self.next_check.get_or_insert_with(|| Instant::now() + wait());
        time::sleep_until(at).await;
        let outcome = process.well(health).await;
        self.next_check = Some(Instant::now() + wait());
        outcome
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
        }
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
            let call = Call::of(&orders, self.ran);
            match call {
                Some(Call::Stop) => return Next::Stop,
                Some(Call::Sleep) => return Next::Sleep,
                Some(Call::Restart) | None => {}
            }
            let asked = running.record.is_some() && !tending.frost.is_frozen();
            let health = orders.upkeep.health.as_ref().filter(|_| asked);
            if health.is_none() {
                self.put_back(running, tending);
            }
            // Who is passed over is asked how it is, and has to answer.
            let freeze_after = orders.upkeep.freeze_after.filter(|_| !tending.is_passed_over);
            let reason = tending.reason(call.as_ref(), health, &running.watch);
            let old_at =
                orders.upkeep.cycle.map(|time| tending.since + time.mul_f64(tending.lifetime));
            let (turns, jitter, warming) =
                (self.place.turns.clone(), self.place.jitter, tending.warming);
            tokio::select! {
                biased;
                exit = running.process.exited() => return Next::Exited(exit),
                changed = self.place.orders.changed() => if changed.is_err() {
                    return Next::Stop;
                },
                // Whoever loses has no turn yet, and waits again.
                (why, turn) = to_be_replaced(&turns, reason, old_at) => {
                    return Next::Replace(why, turn);
                }
                () = running.watch.due(), if !running.watch.is_due() => {}
                () = tending.frost.until_due(running.record.as_deref(), freeze_after) => {
                    self.freeze_or_thaw(running, &mut tending.frost, freeze_after);
                }
                () = until_warmer(warming) => {
                    tending.warm_up(running.record.as_deref(), orders.slow_start);
                }
                outcome = tending.pulse.check(&*running.process, health, jitter) => match (outcome, health) {
                    (Ok(()), _) => self.put_back(running, tending),
                    (Err(unwell), Some(health)) => self.note_failure(running, tending, health, &unwell),
                    (Err(_), None) => {}
                },
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

/// Returns when it is time to look after the share of a fresh dyno again.
async fn until_warmer(warming: Option<Warming>) {
    match warming {
        Some(warming) => time::sleep_until(warming.next_step).await,
        None => pending().await,
    }
}

/// Returns once the dyno is to be replaced and has its turn.
async fn to_be_replaced(
    turns: &Arc<Turns>,
    reason: Option<Why>,
    old_at: Option<Instant>,
) -> (Why, Turn) {
    match (reason, old_at) {
        (Some(why), _) => (why, turns.take().await),
        (None, Some(old_at)) => {
            time::sleep_until(old_at).await;
            (Why::Old, turns.take_alone().await)
        }
        (None, None) => pending().await,
    }
}
