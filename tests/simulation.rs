//! Numbers of dynos that follow simulated traffic: what is decided, and how the dynos then do.
//!
//! The decisions are the real ones (`supervisor/autoscale/decide.rs`), and so are the counters that they are made
//! from. Dynos, requests and the clock are simulated: hours in a second, the same at each run.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::num::NonZeroU32;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use dynomesh::model::{Autoscale, Target};
use dynomesh::supervisor::{Autoscaler, Look, Seen, Shortfall, Verdict};
use dynomesh::table::Load;
use proptest::prelude::*;

const MINUTE: f64 = 60.0;
const HOUR: f64 = 60.0 * MINUTE;
/// Between two looks, in seconds; the manager's.
const LOOK: f64 = 0.5;
/// After so many seconds the router gives a request up (H12).
const FIRST_BYTE: f64 = 30.0;

// ---- what dynos are like ------------------------------------------------------------------------------------

/// A dyno works on two requests at a time, each of 200 ms on the average: ten in a second are all that it can do.
const THREADS: usize = 2;
const SERVICE: f64 = 0.2;
const CAPACITY: f64 = THREADS as f64 / SERVICE;

/// What is kept for such dynos. Alone on a dyno, one request in twenty takes 600 ms.
fn targets() -> [Target; 3] {
    [
        Target::P95(Duration::from_millis(1200)),
        Target::InFlight(NonZeroU32::new(3).unwrap()),
        Target::Queue(Duration::from_millis(150)),
    ]
}

fn rules(target: Target) -> Autoscale {
    let secs = Duration::from_secs;
    Autoscale { min: 1, max: 20, target, up_after: secs(10), down_after: secs(300) }
}

/// Requests in a second at a time, in seconds.
type Traffic = fn(f64) -> f64;

/// A scene: what comes, and how dynos are. Times are seconds.
struct Scene {
    traffic: Traffic,
    /// How many times as long as usual a request takes, at a time, on a dyno of this age, with so many at work.
    slowness: fn(f64, f64, usize) -> f64,
    /// Which number is stuck at a time: it takes requests, and ends none.
    stuck: fn(f64, u32) -> bool,
    /// Whether dynos are drawn at random alone, as Heroku does; else the less loaded one of two.
    random: bool,
    boot: f64,
    begins_with: u32,
    lasts: f64,
}

impl Scene {
    fn of(traffic: Traffic) -> Self {
        Self {
            traffic,
            slowness: |_, _, _| 1.0,
            stuck: |_, _| false,
            random: false,
            boot: 5.0,
            begins_with: 1,
            lasts: 2.0 * HOUR,
        }
    }

    fn play(&self, rules: Autoscale, seed: u64) -> Played {
        World::new(self, rules, seed).run()
    }
}

// ---- what became of it --------------------------------------------------------------------------------------

#[derive(Debug, Default)]
struct Played {
    /// How many there were to be, from when on.
    counts: Vec<(f64, u32)>,
    /// Why nothing was done, when.
    missed: Vec<(f64, Shortfall)>,
    requests: u32,
    failed: u32,
    /// Of each minute: requests, and those that took longer than a second and a half.
    minutes: Vec<(u32, u32)>,
}

impl Played {
    fn at(&self, time: f64) -> u32 {
        self.counts.iter().take_while(|(since, _)| *since <= time).last().unwrap().1
    }

    fn most(&self) -> u32 {
        self.counts.iter().map(|(_, count)| *count).max().unwrap()
    }

    fn last(&self) -> u32 {
        self.counts.last().unwrap().1
    }

    /// How often it turned from growing to shrinking, or the other way.
    fn turns(&self) -> usize {
        let steps: Vec<_> = self.counts.windows(2).map(|it| it[1].1 > it[0].1).collect();
        steps.windows(2).filter(|it| it[0] != it[1]).count()
    }

    /// The share of the requests of a time that took longer than a second and a half.
    fn slow(&self, from: f64, until: f64) -> f64 {
        let minutes = &self.minutes[(from / MINUTE) as usize..(until / MINUTE) as usize];
        let (all, slow) = minutes.iter().fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
        f64::from(slow) / f64::from(all.max(1))
    }
}

// ---- the world ------------------------------------------------------------------------------------------------

/// A time in microseconds, so that it has an order.
type Micros = u64;

fn micros(seconds: f64) -> Micros {
    (seconds * 1e6) as Micros
}

fn seconds(micros: Micros) -> f64 {
    micros as f64 / 1e6
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Look,
    Arrive,
    /// Of this request, on this dyno.
    Done(usize, usize),
    TimedOut(usize),
}

struct Request {
    arrived: Micros,
    dyno: usize,
    is_over: bool,
}

struct Dyno {
    number: u32,
    up_from: Micros,
    is_leaving: bool,
    busy: usize,
    waiting: VecDeque<usize>,
    /// Whose client is still there.
    in_flight: u32,
}

struct World<'a> {
    scene: &'a Scene,
    /// The most that comes in a second.
    most: f64,
    scaler: Autoscaler,
    load: Arc<Load>,
    now: Micros,
    events: BinaryHeap<Reverse<(Micros, usize, Event)>>,
    scheduled: usize,
    dynos: Vec<Dyno>,
    requests: Vec<Request>,
    random: Random,
    played: Played,
}

impl<'a> World<'a> {
    fn new(scene: &'a Scene, rules: Autoscale, seed: u64) -> Self {
        let times = (0..scene.lasts as u32).map(|time| (scene.traffic)(f64::from(time)));
        let mut world = Self {
            scene,
            most: times.fold(0.0, f64::max),
            scaler: Autoscaler::new(rules),
            load: Load::new(1),
            now: 0,
            events: BinaryHeap::new(),
            scheduled: 0,
            dynos: Vec::new(),
            requests: Vec::new(),
            random: Random(seed * 2 + 1),
            played: Played::default(),
        };
        (1..=scene.begins_with).for_each(|number| world.start(number, 0.0));
        world.played.counts.push((0.0, scene.begins_with));
        world.played.minutes = vec![(0, 0); (scene.lasts / MINUTE) as usize + 2];
        world.after(0.0, Event::Look);
        world.after(0.0, Event::Arrive);
        world
    }

    fn run(mut self) -> Played {
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            if at > micros(self.scene.lasts) {
                break;
            }
            self.now = at;
            match event {
                Event::Look => self.look(),
                Event::Arrive => self.arrive(),
                Event::Done(request, dyno) => self.done(request, dyno),
                Event::TimedOut(request) => self.end(request, false),
            }
        }
        self.played
    }

    fn after(&mut self, wait: f64, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((self.now + micros(wait), self.scheduled, event)));
    }

    fn start(&mut self, number: u32, boot: f64) {
        let up_from = self.now + micros(boot);
        let waiting = VecDeque::new();
        let dyno = Dyno { number, up_from, is_leaving: false, busy: 0, waiting, in_flight: 0 };
        self.dynos.push(dyno);
    }

    fn up(&self) -> Vec<usize> {
        let is_up = |it: &usize| !self.dynos[*it].is_leaving && self.dynos[*it].up_from <= self.now;
        (0..self.dynos.len()).filter(is_up).collect()
    }

    fn look(&mut self) {
        self.after(LOOK, Event::Look);
        let count = self.played.last();
        let up = self.up();
        let seen = |it: &usize| Seen {
            in_flight: self.dynos[*it].in_flight,
            queued: self.dynos[*it].waiting.len() as u32,
        };
        let look = Look {
            at: Duration::from_micros(self.now),
            count,
            up: up.len() as u32,
            dynos: up.iter().map(seen).collect(),
            held: 0,
            pipes: 0,
            served: self.load.total(),
        };
        match self.scaler.look(&look) {
            Some(Verdict::Scale { to, .. }) => self.scale(to),
            Some(Verdict::Missed { why, .. }) => self.played.missed.push((seconds(self.now), why)),
            None => {}
        }
    }

    fn scale(&mut self, to: u32) {
        let count = self.played.last();
        self.played.counts.push((seconds(self.now), to));
        if to > count {
            self.start(to, self.scene.boot);
        } else {
            let highest =
                self.dynos.iter_mut().filter(|it| !it.is_leaving).max_by_key(|it| it.number);
            highest.unwrap().is_leaving = true;
        }
    }

    fn arrive(&mut self) {
        let time = seconds(self.now);
        // A Poisson process whose rate changes, thinned out of one that does not.
        let wait = self.random.exponential(1.0 / self.most);
        self.after(wait, Event::Arrive);
        if self.random.fraction() * self.most > (self.scene.traffic)(time) {
            return;
        }
        let up = self.up();
        let draw = |random: &mut Random| up[(random.fraction() * up.len() as f64) as usize];
        let one = draw(&mut self.random);
        let mut other = draw(&mut self.random);
        while other == one && up.len() > 1 {
            other = draw(&mut self.random);
        }
        let held = |it: usize| self.dynos[it].busy + self.dynos[it].waiting.len();
        let dyno = if self.scene.random || held(one) <= held(other) { one } else { other };
        let request = self.requests.len();
        self.requests.push(Request { arrived: self.now, dyno, is_over: false });
        self.dynos[dyno].in_flight += 1;
        self.dynos[dyno].waiting.push_back(request);
        self.after(FIRST_BYTE, Event::TimedOut(request));
        self.work(dyno);
    }

    /// A dyno takes on what it can.
    fn work(&mut self, at: usize) {
        let time = seconds(self.now);
        if (self.scene.stuck)(time, self.dynos[at].number) {
            return;
        }
        while self.dynos[at].busy < THREADS {
            let Some(request) = self.dynos[at].waiting.pop_front() else { return };
            self.dynos[at].busy += 1;
            let age = time - seconds(self.dynos[at].up_from);
            let at_work = self.dynos.iter().map(|it| it.busy).sum();
            let slowness = (self.scene.slowness)(time, age, at_work);
            let takes = self.random.exponential(SERVICE * slowness);
            self.after(takes, Event::Done(request, at));
        }
    }

    fn done(&mut self, request: usize, at: usize) {
        if (self.scene.stuck)(seconds(self.now), self.dynos[at].number) {
            return;
        }
        self.dynos[at].busy -= 1;
        if self.requests[request].is_over {
            self.load.late(0);
        }
        self.end(request, true);
        self.work(at);
    }

    /// The client has its answer.
    fn end(&mut self, request: usize, answered: bool) {
        let Request { arrived, dyno, is_over } = &mut self.requests[request];
        if std::mem::replace(is_over, true) {
            return;
        }
        self.dynos[*dyno].in_flight -= 1;
        let took = Duration::from_micros(self.now - *arrived);
        self.load.count(0, Duration::ZERO, Some(took), answered);
        self.played.requests += 1;
        self.played.failed += u32::from(!answered);
        let minute = &mut self.played.minutes[(seconds(*arrived) / MINUTE) as usize];
        minute.0 += 1;
        minute.1 += u32::from(took > Duration::from_millis(1500));
    }
}

/// splitmix64
struct Random(u64);

impl Random {
    fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.fraction()).ln()
    }
}

/// Plays a scene with each target, several times.
fn each_target(scene: &Scene, check: impl Fn(Target, &Played)) {
    for target in targets() {
        for seed in 1..=2 {
            let played = scene.play(rules(target), seed);
            println!("{target}, seed {seed}: {:?} {:?}", played.counts, played.missed);
            check(target, &played);
        }
    }
}

// ---- scenes ---------------------------------------------------------------------------------------------------

#[test]
fn a_flash_crowd_is_met_within_minutes_and_forgotten_within_the_hour() {
    const CROWD: f64 = 60.0;
    let crowd =
        |time: f64| if (10.0 * MINUTE..30.0 * MINUTE).contains(&time) { CROWD } else { 2.0 };
    let scene = Scene::of(crowd);
    each_target(&scene, |target, played| {
        let needed = (CROWD / CAPACITY) as u32;
        assert!(played.most() > needed, "{target}: {CROWD} in a second keep {needed} dynos busy");
        assert!(played.most() <= needed + 4, "{target}: {} dynos", played.most());
        let (up, _) = played.counts.iter().find(|(_, count)| *count == played.most()).unwrap();
        assert!(*up < 15.0 * MINUTE, "{target}: up for the crowd at {up} s");
        assert!(played.slow(18.0 * MINUTE, 30.0 * MINUTE) < 0.05, "{target}: it is served well");
        assert_eq!(played.turns(), 1, "{target}: up, then down");
        assert_eq!(played.last(), 1, "{target}: back to little");
    });
}

#[test]
fn what_comes_steadily_is_left_alone() {
    let cases: [(u32, Traffic); 4] = [(1, |_| 3.0), (3, |_| 15.0), (4, |_| 24.0), (2, |_| 14.0)];
    for (begins_with, traffic) in cases {
        let scene = Scene { begins_with, ..Scene::of(traffic) };
        each_target(&scene, |target, played| {
            let needed = (traffic(0.0) / CAPACITY).ceil() as u32;
            assert!(played.turns() <= 4, "{target}, {begins_with}: {} turns", played.turns());
            assert!(played.most() <= needed.max(begins_with) + 3, "{target}, {begins_with}");
            assert!(played.last() >= needed, "{target}, {begins_with}");
        });
    }
}

#[test]
fn waves_are_followed_without_ripples() {
    const PERIOD: f64 = 1.5 * HOUR;
    let wave = |time: f64| 30.0 - 27.0 * (time / PERIOD * std::f64::consts::TAU).cos();
    let scene = Scene { lasts: 2.0 * PERIOD, ..Scene::of(wave) };
    each_target(&scene, |target, played| {
        assert!(played.turns() <= 5, "{target}: {} turns in two waves", played.turns());
        assert!((6..=9).contains(&played.most()), "{target}: {} dynos", played.most());
        assert!(played.at(PERIOD * 1.1) <= 4, "{target}: {} between", played.at(PERIOD * 1.1));
        assert!(played.slow(HOUR / 2.0, 2.0 * PERIOD) < 0.05, "{target}");
    });
}

/// Hundreds of requests a minute to the site of the World Cup of 1998 (the Internet Traffic Archive's traces of it), on
/// 10 June from 15:00 to 18:30 UTC: the first match, which begins at 15:30 and ends at 17:20.
static WORLD_CUP: LazyLock<Vec<f64>> = LazyLock::new(|| {
    let minutes = include_str!("recorded/world_cup_1998.txt").split_whitespace();
    minutes.map(|minute| 100.0 * minute.parse::<f64>().unwrap()).collect()
});

/// One request in 36 of those, which is 60 a second at the most.
fn first_match(time: f64) -> f64 {
    WORLD_CUP[((time / MINUTE) as usize).min(WORLD_CUP.len() - 1)] / MINUTE / 36.0
}

#[test]
fn a_recorded_evening_is_followed() {
    let lasts = WORLD_CUP.len() as f64 * MINUTE;
    let scene = Scene { lasts, begins_with: 3, ..Scene::of(first_match) };
    each_target(&scene, |target, played| {
        assert!((6..=9).contains(&played.most()), "{target}: {} dynos", played.most());
        assert!(played.turns() <= 5, "{target}: {} turns", played.turns());
        assert!(played.last() <= 5, "{target}: {} in the end", played.last());
        let slow = played.slow(0.0, lasts);
        assert!(slow < 0.05, "{target}: {slow} are slow");
        assert_eq!(played.failed, 0, "{target}");
    });
}

#[test]
fn dynos_that_get_slower_are_joined_by_others() {
    // Twice as slow after two hours.
    let leak = |_, age: f64, _| 1.0 + age / (2.0 * HOUR);
    let scene = Scene { slowness: leak, begins_with: 2, ..Scene::of(|_| 12.0) };
    each_target(&scene, |target, played| {
        assert!(played.turns() <= 4, "{target}: {} turns", played.turns());
        assert!((3..=8).contains(&played.most()), "{target}: {} dynos", played.most());
        assert_eq!(played.failed, 0, "{target}");
    });
}

#[test]
fn one_that_is_stuck_brings_no_crowd_of_others() {
    let stuck = |time: f64, number| number == 2 && time > 20.0 * MINUTE;
    for random in [false, true] {
        let scene = Scene { stuck, random, begins_with: 4, ..Scene::of(|_| 20.0) };
        each_target(&scene, |target, played| {
            assert!(played.most() <= 8, "{target}, random {random}: {} dynos", played.most());
            assert!(played.turns() <= 4, "{target}, random {random}: {} turns", played.turns());
        });
    }
}

#[test]
fn a_database_that_is_slow_is_not_asked_by_ever_more_dynos() {
    // What all dynos together get done does not grow with their number.
    let database = |time: f64, _, at_work: usize| {
        if time > 10.0 * MINUTE { 2.0 * at_work as f64 } else { 1.0 }
    };
    let scene = Scene { slowness: database, begins_with: 3, ..Scene::of(|_| 12.0) };
    for target in [targets()[0], targets()[2]] {
        for seed in 1..=3 {
            let played = scene.play(rules(target), seed);
            println!("{target}, seed {seed}: {:?} {:?}", played.counts, played.missed);
            assert!(played.most() <= 6, "{target}: {:?}", played.counts);
            let no_use = played.missed.iter().any(|(_, why)| *why == Shortfall::NoUse);
            assert!(no_use, "{target}: and it is said: {:?}", played.missed);
        }
    }
}

#[test]
fn nothing_that_is_not_answered_looks_like_nothing_to_do() {
    // All of them hang for a quarter of an hour, and then go on. The clients leave long before.
    let stuck = |time: f64, _| (20.0 * MINUTE..35.0 * MINUTE).contains(&time);
    let scene = Scene { stuck, begins_with: 4, lasts: 34.0 * MINUTE, ..Scene::of(|_| 25.0) };
    each_target(&scene, |target, played| {
        let before = played.at(20.0 * MINUTE);
        assert!(played.at(34.0 * MINUTE) >= before, "{target}: {:?}", played.counts);
    });
}

#[test]
fn dynos_that_boot_are_waited_for() {
    let crowd = |time: f64| if time > MINUTE { 30.0 } else { 3.0 };
    let scene = Scene { boot: 90.0, ..Scene::of(crowd) };
    each_target(&scene, |target, played| {
        for steps in played.counts.windows(3) {
            let [before, one, other] = steps else { unreachable!() };
            if before.1 < one.1 && one.1 < other.1 {
                assert!(other.0 - one.0 >= 100.0, "{target}: {:?}", played.counts);
            }
        }
    });
}

#[test]
fn the_most_is_the_most_and_it_is_said_once() {
    let scene = Scene { lasts: HOUR, ..Scene::of(|_| 60.0) };
    for target in targets() {
        let played = scene.play(Autoscale { max: 3, ..rules(target) }, 1);
        assert_eq!(played.most(), 3, "{target}");
        assert_eq!(played.missed.len(), 1, "{target}: {:?}", played.missed);
        assert_eq!(played.missed[0].1, Shortfall::AtMax);
    }
}

/// Pipes never end, so there is nothing to be seen of them but that they are there.
#[test]
fn pipes_are_requests_in_flight_and_nothing_else() {
    for (target, expected) in targets().into_iter().zip([None, Some(4), None]) {
        let mut scaler = Autoscaler::new(rules(target));
        let served = Load::new(1).total();
        let mut steps = (0..30_u64).map(|second| {
            let dynos = vec![Seen { in_flight: 50, queued: 0 }; 3];
            let at = Duration::from_secs(second);
            let served = served.clone();
            scaler.look(&Look { at, count: 3, up: 3, dynos, held: 0, pipes: 150, served })
        });
        let to = steps.find_map(|step| match step? {
            Verdict::Scale { to, .. } => Some(to),
            Verdict::Missed { .. } => None,
        });
        assert_eq!(to, expected, "{target}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever is seen: one at a time, within the bounds, and not sooner than it was said.
    #[test]
    fn steps_are_single_bounded_and_apart(
        looks in prop::collection::vec((0_u32..60, 0_u32..20, 0_u32..3, 0_u64..2000, 1_u32..60), 1..400),
        target in 0_usize..3,
    ) {
        let rules = Autoscale { min: 2, max: 5, ..rules(targets()[target]) };
        let mut scaler = Autoscaler::new(rules);
        let load = Load::new(1);
        let (mut at, mut count, mut changed) = (Duration::ZERO, 3, Duration::ZERO);
        for (in_flight, queued, missing, millis, times) in looks {
            for _ in 0..times {
                at += Duration::from_millis(500);
                load.count(0, Duration::ZERO, Some(Duration::from_millis(millis)), true);
                let up = count - missing.min(count);
                let dynos = vec![Seen { in_flight, queued }; up as usize];
                let served = load.total();
                let look = Look { at, count, up, dynos, held: 0, pipes: 0, served };
                let Some(Verdict::Scale { to, .. }) = scaler.look(&look) else { continue };
                prop_assert_eq!(missing, 0);
                prop_assert_eq!(to.abs_diff(count), 1);
                prop_assert!((2..=5).contains(&to));
                let after = if to > count { rules.up_after } else { rules.down_after };
                prop_assert!(at - changed >= after);
                (count, changed) = (to, at);
            }
        }
    }
}
