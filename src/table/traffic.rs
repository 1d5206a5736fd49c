//! What an app is asked at the moment, counted over all workers against its limits.
//!
//! There is a counter only for a limit that is set, and no lock in any. The app as a whole is counted exactly;
//! its clients, of whom there may be millions, in sketches of a fixed size (count-min, from pingora-limits),
//! which never count too little, and too much only where clients happen to share all their counters.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use pingora_limits::estimator::Estimator;
use pingora_limits::inflight::{Guard, Inflight};

use crate::config::limits::{SKETCH_COUNTERS, SKETCH_ROWS};
use crate::model::{ClientNet, TrafficLimits};

/// An app's limits, each with what is counted against it. Made by whoever publishes: sketches are tables.
pub struct Traffic {
    /// Requests in a second.
    pub requests: Option<Limited<Rate>>,
    /// Client connections that have had a request and are still open.
    pub connections: Option<Limited<Count>>,
    /// Requests at one time.
    pub in_flight: Option<Limited<Count>>,
    /// Requests of one client in a second.
    pub client_requests: Option<Limited<ClientRate>>,
    /// Connections of one client that have had a request and are still open.
    pub client_connections: Option<Limited<ClientCount>>,
    /// Requests of one client at one time.
    pub client_in_flight: Option<Limited<ClientCount>>,
}

/// A limit, and what is counted against it.
pub struct Limited<C> {
    max: u32,
    counter: Arc<C>,
}

impl Traffic {
    /// The limits of an app and of each of its clients; `None` if there are none. What was counted before goes
    /// on against the new limits.
    pub fn of(app: &TrafficLimits, client: &TrafficLimits, before: Option<&Self>) -> Option<Self> {
        let none = TrafficLimits::default();
        if (app, client) == (&none, &none) {
            return None;
        }
        Some(Self {
            requests: limited(app.requests_per_second, before, |it| it.requests.as_ref()),
            connections: limited(app.connections, before, |it| it.connections.as_ref()),
            in_flight: limited(app.in_flight, before, |it| it.in_flight.as_ref()),
            client_requests: limited(client.requests_per_second, before, |it| {
                it.client_requests.as_ref()
            }),
            client_connections: limited(client.connections, before, |it| {
                it.client_connections.as_ref()
            }),
            client_in_flight: limited(client.in_flight, before, |it| it.client_in_flight.as_ref()),
        })
    }
}

fn limited<C: Default>(
    max: Option<NonZeroU32>,
    before: Option<&Traffic>,
    field: impl Fn(&Traffic) -> Option<&Limited<C>>,
) -> Option<Limited<C>> {
    let counter =
        || before.and_then(field).map_or_else(Arc::default, |before| before.counter.clone());
    max.map(|max| Limited { max: max.get(), counter: counter() })
}

// ---- at one time ------------------------------------------------------------------------------------------

/// How many there are at one time.
#[derive(Default)]
pub struct Count(AtomicU32);

/// One of them, counted until it is dropped, also when a panic unwinds.
pub struct Slot(Arc<Count>);

impl Limited<Count> {
    /// One more, if the limit allows it.
    pub fn take(&self) -> Option<Slot> {
        let more = |count| (count < self.max).then(|| count + 1);
        let taken = self.counter.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.is_ok().then(|| Slot(self.counter.clone()))
    }

    /// Whether the slot counts here.
    pub fn counts(&self, slot: &Slot) -> bool {
        Arc::ptr_eq(&self.counter, &slot.0)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many each client has at one time: 256 KiB, however many clients there are.
pub struct ClientCount(Inflight);

/// One of them, counted until it is dropped, also when a panic unwinds.
pub struct ClientSlot {
    counter: Arc<ClientCount>,
    #[expect(dead_code, reason = "its drop is what counts")]
    guard: Guard,
}

impl Default for ClientCount {
    fn default() -> Self {
        Self(Inflight::new())
    }
}

impl Limited<ClientCount> {
    /// One more of this client's, if the limit allows it.
    pub fn take(&self, client: ClientNet) -> Option<ClientSlot> {
        let (guard, count) = self.counter.0.incr(client, 1);
        // One too many is given back by its drop.
        (count <= self.max as isize).then(|| ClientSlot { counter: self.counter.clone(), guard })
    }

    /// Whether the slot counts here.
    pub fn counts(&self, slot: &ClientSlot) -> bool {
        Arc::ptr_eq(&self.counter, &slot.counter)
    }
}

// ---- in a second ------------------------------------------------------------------------------------------

/// Whether one more fits into the second that ends now: what this second of the clock has had, and of the one
/// before it the part that is less than a second ago, as if it had come evenly. Whoever was quiet for two
/// seconds has the whole limit at once.
fn fits(before: u64, current: u64, micros: u32, max: u32) -> bool {
    const SECOND: u64 = 1_000_000;
    before * (SECOND - u64::from(micros)) + current * SECOND < u64::from(max) * SECOND
}

/// How many came in a second. Those that were refused do not count, so that whoever keeps asking is served at
/// the rate of the limit.
///
/// Two words, for the even and the odd seconds of the router's clock: the second above, the count below.
#[derive(Default)]
pub struct Rate([AtomicU64; 2]);

impl Limited<Rate> {
    /// One more, if the limit allows it. `now`: of the router's clock.
    pub fn take(&self, now: Duration) -> bool {
        let second = now.as_secs() as u32;
        let words = &self.counter.0;
        let last = second.wrapping_sub(1);
        let before = count_in(words[at(last)].load(Ordering::Relaxed), last);
        let more = |word: u64| {
            // A worker may have read its clock before others wrote: the word's second is never turned back.
            let second = second.max((word >> 32) as u32);
            let count = count_in(word, second);
            let fits = fits(before, count, now.subsec_micros(), self.max);
            fits.then(|| u64::from(second) << 32 | (count + 1))
        };
        words[at(second)].fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

/// What a word says of a second.
fn count_in(word: u64, second: u32) -> u64 {
    if (word >> 32) as u32 == second { word & u64::from(u32::MAX) } else { 0 }
}

fn at(second: u32) -> usize {
    second as usize % 2
}

/// How many of each client came in a second: 256 KiB, however many clients there are. Refused ones as in [`Rate`].
///
/// Not pingora-limits' own rate, which reads a clock of its own, and takes a thread whose clock is a little
/// behind at the turn of a second for one that is ages ahead.
pub struct ClientRate {
    /// For the even and the odd seconds of the router's clock.
    sketches: [Estimator; 2],
    /// The second that counts now.
    second: AtomicU32,
    /// The second that somebody is making ready to count, or the same.
    next: AtomicU32,
}

impl Default for ClientRate {
    fn default() -> Self {
        let sketch = || Estimator::new(SKETCH_ROWS, SKETCH_COUNTERS);
        Self { sketches: [sketch(), sketch()], second: AtomicU32::new(0), next: AtomicU32::new(0) }
    }
}

impl Limited<ClientRate> {
    /// One more of this client's, if the limit allows it; when several workers ask at once, each may let one
    /// through beyond it. `now`: of the router's clock.
    pub fn take(&self, client: ClientNet, now: Duration) -> bool {
        let ClientRate { sketches, .. } = &*self.counter;
        let wanted = now.as_secs() as u32;
        let second = self.counter.turn_to(wanted);
        let micros = match wanted.checked_sub(second) {
            Some(0) => now.subsec_micros(),
            // Another worker is making this second ready, for some microseconds: it is still the end of the
            // one before, or the first since there was any at all.
            Some(1) => 999_999,
            Some(_) => return true,
            // Other clocks are ahead.
            None => 0,
        };
        let count = |second| sketches[at(second)].get(client).max(0) as u64;
        let fits = fits(count(second.wrapping_sub(1)), count(second), micros, self.max);
        if fits {
            sketches[at(second)].incr(client, 1);
        }
        fits
    }
}

impl ClientRate {
    /// Makes a second the one that counts, and returns the one that does.
    fn turn_to(&self, wanted: u32) -> u32 {
        let second = self.second.load(Ordering::Acquire);
        let is_next = |next: u32| {
            self.next.compare_exchange(second, next, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        if wanted <= second || !is_next(wanted) {
            return second;
        }
        // One thread at a time comes here. What others count meanwhile belongs to the second that ends.
        self.sketches[at(wanted)].reset();
        if wanted - second > 1 {
            self.sketches[at(second)].reset();
            self.sketches[at(wanted.wrapping_sub(1))].reset();
        }
        self.second.store(wanted, Ordering::Release);
        wanted
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn limit<C: Default>(max: u32) -> Limited<C> {
        Limited { max, counter: Arc::default() }
    }

    fn client(number: u32) -> ClientNet {
        ClientNet::from(std::net::IpAddr::from(number.to_be_bytes()))
    }

    #[test]
    fn a_count_gives_back_once_and_reaches_its_limit_exactly() {
        let limit = limit::<Count>(2);
        let (one, two) = (limit.take().unwrap(), limit.take().unwrap());
        assert!(limit.take().is_none());
        drop(one);
        let _three = limit.take().unwrap();
        assert!(limit.take().is_none());
        assert!(limit.counts(&two) && !self::limit::<Count>(2).counts(&two));
    }

    #[test]
    fn clients_count_apart() {
        let limit = limit::<ClientCount>(2);
        let _others: Vec<_> = (10..20).map(|it| limit.take(client(it)).unwrap()).collect();
        let (one, _two) = (limit.take(client(1)).unwrap(), limit.take(client(1)).unwrap());
        assert!(limit.take(client(1)).is_none());
        // The one that was refused is not counted any more.
        drop(one);
        assert!(limit.take(client(1)).is_some());
    }

    #[test]
    fn what_was_counted_goes_on_under_another_limit() {
        let max = |max| TrafficLimits { in_flight: NonZeroU32::new(max), ..Default::default() };
        let of = |app, client, before| Traffic::of(&max(app), &max(client), before);
        let first = of(1, 0, None).unwrap();
        let slot = first.in_flight.as_ref().unwrap().take().unwrap();
        assert!(first.client_in_flight.is_none());
        let second = of(2, 1, Some(&first)).unwrap();
        let in_flight = second.in_flight.as_ref().unwrap();
        assert!(in_flight.counts(&slot));
        let more = in_flight.take();
        assert!(more.is_some() && in_flight.take().is_none());
        assert!(second.client_in_flight.is_some());
        assert!(of(0, 0, Some(&second)).is_none());
    }

    /// Takes one at this moment.
    type Take = Box<dyn Fn(Duration) -> bool>;

    /// Both kinds of rate with this limit.
    fn rates(max: u32) -> [(&'static str, Take); 2] {
        let (app, clients) = (limit::<Rate>(max), limit::<ClientRate>(max));
        [
            ("app", Box::new(move |now| app.take(now))),
            ("client", Box::new(move |now| clients.take(client(1), now))),
        ]
    }

    #[test]
    fn a_burst_after_a_pause_has_the_whole_limit() {
        for (kind, take) in rates(5) {
            for start in [1.0, 3.99, 6.0, 8.0, 100.9] {
                let now = Duration::from_secs_f64(start);
                let taken = (0..50).filter(|_| take(now)).count();
                assert_eq!(taken, 5, "{kind} at {start}");
            }
        }
    }

    #[test]
    fn whoever_keeps_asking_is_served_at_the_limit() {
        for (kind, take) in rates(10) {
            let asked = (0..20_000).map(|millis| Duration::from_millis(1000 + millis));
            let taken = asked.filter(|now| take(*now)).count();
            assert!((190..=210).contains(&taken), "{kind}: {taken} in 20 s");
        }
    }

    #[test]
    fn a_clock_that_is_behind_turns_nothing_back() {
        for (kind, take) in rates(3) {
            let (now, behind) = (Duration::from_millis(5100), Duration::from_millis(3900));
            assert!(take(now) && take(now) && take(now), "{kind}");
            assert!(!take(now), "{kind}");
            take(behind);
            assert!(!take(now), "{kind} after a clock behind");
        }
    }

    #[test]
    fn many_clients_are_hardly_ever_taken_for_one_another() {
        let limit = limit::<ClientRate>(2);
        let now = Duration::from_secs(9);
        let refused =
            (0..1000).flat_map(|it| [it, it]).filter(|it| !limit.take(client(*it), now)).count();
        // One in 400 is expected among the last of them, none among the first.
        assert!(refused < 20, "{refused} of 2000");
    }

    proptest! {
        // Each case makes two sketches.
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_second_never_has_twice_the_limit_and_a_quiet_one_is_not_refused(
            max in 1_u32..20,
            gaps in prop::collection::vec(prop_oneof![0_u64..50, 0_u64..2500], 1..200),
        ) {
            for (kind, take) in rates(max) {
                let mut now = Duration::from_secs(3);
                let mut taken = VecDeque::new();
                for gap in &gaps {
                    now += Duration::from_millis(*gap);
                    let last = |seconds| {
                        let after = now.saturating_sub(Duration::from_secs(seconds));
                        taken.iter().filter(|it| **it > after).count() as u32
                    };
                    let (last_second, last_two) = (last(1), last(2));
                    let took = take(now);
                    prop_assert!(took || last_two >= max, "{kind}: refused after {last_two}");
                    prop_assert!(!took || last_second < 2 * max, "{kind}: {last_second} before");
                    if took {
                        taken.push_back(now);
                    }
                }
            }
        }
    }
}
