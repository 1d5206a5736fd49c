//! How long dynos ran. A dyno counts from its first start to its end, but not while it waits crashed or asleep;
//! the process that succeeds another one's place counts as the same dyno.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{Month, Payer, SizeName, Usage};
use crate::supervisor::place::{Event, State};
use crate::wall_clock::unix_millis;

/// Counts what dynos use until somebody takes it to book it. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Meter {
    counts: Arc<Mutex<Counts>>,
}

#[derive(Default)]
struct Counts {
    dynos: BTreeMap<u64, Metered>,
    /// Of dynos that are gone or wait, or since the last settlement.
    used: Usage,
    /// The Unix millisecond up to which an earlier daemon has booked.
    booked_until: u64,
}

struct Metered {
    payer: Payer,
    /// From when on it is still to be counted; `None` while it waits.
    since: Option<Instant>,
}

impl Meter {
    /// Where an earlier daemon has booked up to this Unix millisecond.
    pub(crate) fn after(booked_until: u64) -> Self {
        let meter = Self::default();
        meter.counts().booked_until = booked_until;
        meter
    }

    /// A dyno that is about to live. It counts from its first event on.
    pub(crate) fn list(&self, id: u64, payer: Payer) {
        self.counts().dynos.insert(id, Metered { payer, since: None });
    }

    /// A dyno of an earlier daemon goes on, with a process that was started at this Unix millisecond. What that
    /// daemon has booked of it is not counted again.
    pub(crate) fn was_there(&self, id: u64, started: u64) {
        let mut counts = self.counts();
        let from = started.max(counts.booked_until);
        let age = Duration::from_millis(unix_millis().saturating_sub(from));
        if let Some(metered) = counts.dynos.get_mut(&id) {
            let now = Instant::now();
            metered.since = Some(now.checked_sub(age).unwrap_or(now));
        }
    }

    /// The dyno is of this size from now on.
    pub(crate) fn resize(&self, id: u64, size: &SizeName) {
        let mut counts = self.counts();
        let runs = counts.dynos.get(&id).is_some_and(|metered| metered.since.is_some());
        counts.run(id, runs);
        if let Some(metered) = counts.dynos.get_mut(&id) {
            metered.payer.size = size.clone();
        }
    }

    /// Hears what happened to a dyno.
    pub(crate) fn note(&self, id: u64, event: &Event) {
        let mut counts = self.counts();
        match event {
            Event::Entered(state) => counts.run(id, runs(*state)),
            Event::Started { .. }
            | Event::Took { .. }
            | Event::Ready { .. }
            | Event::CameUp { .. }
            | Event::Failed { .. } => {}
            Event::Ended => {
                counts.run(id, false);
                counts.dynos.remove(&id);
            }
        }
    }

    /// What was used since the last call, and the Unix millisecond of this one.
    pub(crate) fn take(&self) -> (Usage, u64) {
        let mut counts = self.counts();
        let running: Vec<u64> =
            counts.dynos.iter().filter_map(|(id, metered)| metered.since.map(|_| *id)).collect();
        for id in running {
            counts.run(id, true);
        }
        (std::mem::take(&mut counts.used), unix_millis())
    }

    /// What was taken and could not be booked: it comes again with the next call.
    pub(crate) fn give_back(&self, usage: Usage) {
        let mut counts = self.counts();
        for (key, millis) in usage {
            *counts.used.entry(key).or_default() += millis;
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Nothing panics while this lock is held, so poison says nothing.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    /// Counts a dyno up to now, and on from now if it runs.
    fn run(&mut self, id: u64, runs: bool) {
        let Some(metered) = self.dynos.get_mut(&id) else { return };
        let now = Instant::now();
        let since = std::mem::replace(&mut metered.since, runs.then_some(now));
        let Some(since) = since else { return };
        // How long is the monotonic clock's, which month the wall's.
        let millis = u64::try_from((now - since).as_millis()).unwrap_or(u64::MAX);
        let end = unix_millis();
        for (month, millis) in by_month(end.saturating_sub(millis), end) {
            *self.used.entry((month, metered.payer.clone())).or_default() += millis;
        }
    }
}

/// Whether a dyno in this state has a process, or is getting one.
fn runs(state: State) -> bool {
    match state {
        State::Starting | State::Up | State::Draining | State::Stopping => true,
        State::Asleep | State::Crashed => false,
    }
}

/// What of a span of Unix milliseconds lies in which month.
fn by_month(begin: u64, end: u64) -> Vec<(Month, u64)> {
    let mut spans = Vec::new();
    let mut from = begin;
    while from < end {
        let month = Month::of(from / 1000);
        let to = end.min(month.end() * 1000);
        spans.push((month, to - from));
        from = to;
    }
    spans
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::time;

    use super::*;
    use crate::model::ProcessType;
    use crate::supervisor::tests::app_name;

    fn web() -> Payer {
        Payer { app: app_name("shop"), process_type: ProcessType::web(), size: size("basic") }
    }

    fn size(name: &str) -> SizeName {
        SizeName::parse(name).unwrap()
    }

    fn total(meter: &Meter) -> u64 {
        meter.take().0.values().sum()
    }

    #[tokio::test(start_paused = true)]
    async fn a_dyno_counts_while_it_runs() {
        let meter = Meter::default();
        meter.list(1, web());
        let enter = |state| meter.note(1, &Event::Entered(state));
        let sleep = |secs| time::sleep(Duration::from_secs(secs));
        sleep(1).await;
        enter(State::Starting);
        sleep(2).await;
        enter(State::Up);
        sleep(4).await;
        assert_eq!(total(&meter), 6_000);
        assert_eq!(total(&meter), 0);
        sleep(8).await;
        enter(State::Crashed);
        sleep(16).await;
        enter(State::Asleep);
        sleep(256).await;
        enter(State::Starting);
        sleep(32).await;
        enter(State::Stopping);
        sleep(64).await;
        meter.note(1, &Event::Ended);
        sleep(128).await;
        assert_eq!(total(&meter), 8_000 + 32_000 + 64_000);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_booked_comes_again() {
        let meter = Meter::default();
        meter.list(1, web());
        meter.note(1, &Event::Entered(State::Up));
        time::sleep(Duration::from_secs(1)).await;
        meter.give_back(meter.take().0);
        time::sleep(Duration::from_secs(1)).await;
        assert_eq!(total(&meter), 2_000);
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_earlier_daemon_has_booked_is_not_counted_again() {
        let now = unix_millis();
        // Dynos that began before the other's last booking, and after it, and what both use here.
        for (started, expected) in [(now - 60_000, 20_000), (now - 5_000, 5_000)] {
            let meter = Meter::after(now - 20_000);
            meter.list(1, web());
            meter.was_there(1, started);
            meter.note(1, &Event::Entered(State::Up));
            time::sleep(Duration::from_secs(7)).await;
            let used = total(&meter);
            // The wall clock goes on beside the paused one.
            assert!((expected + 7_000..expected + 8_000).contains(&used), "{used}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_size_counts_apart() {
        let meter = Meter::default();
        meter.list(1, web());
        meter.note(1, &Event::Entered(State::Up));
        time::sleep(Duration::from_secs(1)).await;
        meter.resize(1, &size("eco"));
        time::sleep(Duration::from_secs(2)).await;
        let used = meter.take().0;
        let of = |name: &str| -> u64 {
            used.iter().filter(|((_, it), _)| it.size == size(name)).map(|it| *it.1).sum()
        };
        assert_eq!((of("basic"), of("eco")), (1_000, 2_000));
    }

    #[tokio::test(start_paused = true)]
    async fn two_dynos_count_twice_and_to_their_payers() {
        let meter = Meter::default();
        let worker = Payer { process_type: ProcessType::parse("worker").unwrap(), ..web() };
        for (id, payer) in [(1, web()), (2, web()), (3, worker.clone())] {
            meter.list(id, payer);
            meter.note(id, &Event::Entered(State::Starting));
        }
        time::sleep(Duration::from_secs(3)).await;
        let used = meter.take().0;
        let of = |payer: &Payer| -> u64 {
            used.iter().filter(|((_, it), _)| it == payer).map(|(_, millis)| *millis).sum()
        };
        assert_eq!((of(&web()), of(&worker)), (6_000, 3_000));
    }

    proptest! {
        #[test]
        fn months_divide_a_span(begin in 0_u64..4_000_000_000_000, length in 0_u64..9_000_000_000) {
            let spans = by_month(begin, begin + length);
            prop_assert_eq!(spans.iter().map(|(_, millis)| millis).sum::<u64>(), length);
            prop_assert!(spans.is_sorted_by(|one, other| one.0 < other.0));
            let whole = |month: Month| (month.end() - month.begin()) * 1000;
            let fit = spans.iter().all(|(month, millis)| (1..=whole(*month)).contains(millis));
            prop_assert!(fit);
        }
    }
}
