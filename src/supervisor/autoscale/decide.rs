//! Whether there is to be a dyno more or one fewer. Pure: looks with their times in, at most one step out.
//!
//! ARCHITECTURE.md, "Autoscaling", has the rules and what they are for.

use std::fmt;
use std::time::Duration;

use crate::model::{Autoscale, Target};
use crate::table::Served;

/// By so much more than a target a figure has to be for one judgement; over twice the time by half of it, and so on.
const DOUBT: f64 = 0.5;
/// Requests in a judgement below which its p95 is one slow request, and says nothing.
const REQUESTS_MIN: u32 = 20;
/// The share of a target, and of what dynos could bear, that one dyno fewer may come to.
const LOW: f64 = 0.8;
/// For so many times as long as it takes to take a dyno away it is remembered what dynos could not bear.
const MEMORY: u32 = 12;
/// A dyno has a say in the requests in flight of up to so many times its target.
const SAY: u32 = 2;
/// Somebody waits in an accept queue at one look in so many at least, or nobody does.
const QUEUED_LOOKS: f64 = 4.0;
/// Of half as many more dynos, and so many at least, it is asked of what use they were.
const STEPS_ON_TRIAL: u32 = 2;
/// The least part of the use that they should be of: a third, whatever else goes on at the same time.
const USE: f64 = 1.0 / 3.0;
/// More is asked, where so many times the requests come; and dynos catch up that answer so many times what comes.
const GROWN: f64 = 1.25;
/// A removal that had to be undone doubles the time until the next one, up to so many times of it.
const PATIENCE_MAX: u32 = 8;

/// What is seen of the dynos of a process type at one moment.
#[derive(Clone, Debug)]
pub struct Look {
    /// When, since any moment of one's choice.
    pub at: Duration,
    /// How many there are to be.
    pub count: u32,
    /// How many of them are up, and have got warm.
    pub up: u32,
    /// Those that requests are sent to.
    pub dynos: Vec<Seen>,
    /// Requests for which there is no dyno.
    pub held: u32,
    /// Requests in flight that have become pipes.
    pub pipes: u32,
    /// What has ended so far.
    pub served: Served,
}

/// What is seen of one dyno.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Requests that it holds, pipes included, and whose clients are still there.
    pub in_flight: u32,
    /// Connections that its listening socket has not accepted.
    pub queued: u32,
}

/// What there is to do.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// There are to be so many dynos: one more, or one fewer.
    Scale {
        /// So many.
        to: u32,
        /// Why.
        judged: Judged,
    },
    /// The target is missed, and nothing is done about it. Said once, until it is met.
    Missed {
        /// Why nothing is done.
        why: Shortfall,
        /// By how much.
        judged: Judged,
    },
}

/// Why a target is missed without another dyno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortfall {
    /// There may be no more.
    AtMax,
    /// The last ones were of no use.
    NoUse,
}

/// The figures of a judgement.
#[derive(Clone, Debug)]
pub struct Judged {
    /// Over so much time.
    over: Duration,
    /// How many dynos there were that requests were sent to.
    dynos: u32,
    target: Target,
    /// Requests in flight and held, on the average.
    in_flight: f64,
    /// Of those, each dyno's own up to [`SAY`] times the target.
    heard: f64,
    /// Of those, pipes.
    pipes: f64,
    held: f64,
    /// Requests that have come, in a second.
    asked: f64,
    /// Requests that have ended, in a second.
    rate: f64,
    /// Of those, that were answered.
    answered: f64,
    p95: Option<Duration>,
    queue: Duration,
}

/// The decisions for the dynos of one process type.
#[derive(Debug)]
pub struct Autoscaler {
    rules: Autoscale,
    seen: Option<Windows>,
    /// Since when the target is met.
    met_since: Option<Duration>,
    /// Where the dynos began that have to prove their use.
    trial: Option<Trial>,
    strain: Option<Strain>,
    /// When the last dyno was taken away, unless one was added since.
    removed: Option<Duration>,
    /// How many times `down_after` it takes to take one away.
    patience: u32,
    /// Whether it was said that the target is missed.
    is_said: bool,
}

/// What is seen of the load.
#[derive(Debug)]
struct Windows {
    /// Since the last judgement that was clear.
    recent: Interval,
    /// For how many times `up_after` that is.
    parts: u32,
    /// Since one dyno fewer would do.
    calm: Interval,
}

/// What dynos could not bear.
#[derive(Debug)]
struct Strain {
    at: Duration,
    /// Requests that each of them answered in a second.
    answered: f64,
}

/// How things were before some dynos were added.
#[derive(Debug)]
struct Trial {
    dynos: u32,
    excess: f64,
    asked: f64,
    answered: f64,
    /// They were of no use.
    has_failed: bool,
}

impl Autoscaler {
    /// Has seen nothing yet.
    pub fn new(rules: Autoscale) -> Self {
        Self {
            rules,
            seen: None,
            met_since: None,
            trial: None,
            strain: None,
            removed: None,
            patience: 1,
            is_said: false,
        }
    }

    /// By what it decides.
    pub fn rules(&self) -> &Autoscale {
        &self.rules
    }

    /// Decides by other rules from now on.
    pub fn set_rules(&mut self, rules: Autoscale) {
        if self.rules != rules {
            *self = Self::new(rules);
        }
    }

    /// Forgets what it has seen of the load: it says nothing of what comes.
    pub fn rest(&mut self) {
        self.seen = None;
    }

    /// Takes in what is seen now, not earlier than the last time. Whoever is told of another number sees to it at once.
    pub fn look(&mut self, look: &Look) -> Option<Verdict> {
        // Whatever is not up is either coming up, which may be all that is missing, or cannot, and more of it could
        // not either.
        if look.up != look.count || look.dynos.is_empty() {
            self.rest();
            return None;
        }
        let Some(seen) = &mut self.seen else {
            self.seen = Some(Windows::begin(look));
            return None;
        };
        seen.recent.add(look, self.rules.target);
        seen.calm.add(look, self.rules.target);
        if look.at.saturating_sub(seen.recent.since) < self.rules.up_after * seen.parts {
            return None;
        }
        let recent = seen.recent.judge(look, self.rules.target);
        let calm = seen.calm.judge(look, self.rules.target);
        if recent.excess() > 1.0 + DOUBT / f64::from(seen.parts) {
            seen.begin_anew(look);
            self.met_since = None;
            return self.up(look, recent);
        }
        if recent.excess() > 1.0 {
            // By less than may be chance: it is looked at for longer.
            seen.parts += 1;
            return None;
        }
        (seen.recent, seen.parts) = (Interval::begin(look), 1);
        self.follow(look);
        self.down(look, calm)
    }

    /// The target is met.
    fn follow(&mut self, look: &Look) {
        let since = *self.met_since.get_or_insert(look.at);
        if look.at.saturating_sub(since) >= self.rules.down_after {
            self.trial = None;
            self.is_said = false;
        }
    }

    fn up(&mut self, look: &Look, judged: Judged) -> Option<Verdict> {
        let answered = judged.answered / f64::from(judged.dynos);
        self.strain = Some(Strain { at: look.at, answered });
        if judged.catches_up() {
            return None;
        }
        let why = if look.count >= self.rules.max {
            Some(Shortfall::AtMax)
        } else {
            (!self.is_of_use(&judged)).then_some(Shortfall::NoUse)
        };
        if let Some(why) = why {
            let is_said = std::mem::replace(&mut self.is_said, true);
            return (!is_said).then_some(Verdict::Missed { why, judged });
        }
        let undone = self.removed.take().map(|removed| look.at.saturating_sub(removed));
        if undone.is_some_and(|after| after <= self.rules.down_after * self.patience * 2) {
            self.patience = (self.patience * 2).min(PATIENCE_MAX);
        }
        self.rest();
        Some(Verdict::Scale { to: look.count + 1, judged })
    }

    fn down(&mut self, look: &Look, calm: Judged) -> Option<Verdict> {
        if !calm.is_low(look) || !self.could_bear(look, &calm) {
            self.seen.as_mut()?.calm = Interval::begin(look);
            return None;
        }
        if calm.over < self.rules.down_after * self.patience || look.count <= self.rules.min {
            return None;
        }
        if self.removed.replace(look.at).is_some() {
            // The one before it stands.
            self.patience = (self.patience / 2).max(1);
        }
        self.rest();
        Some(Verdict::Scale { to: look.count - 1, judged: calm })
    }

    /// Whether one dyno fewer would have less to answer than what was too much of late.
    fn could_bear(&self, look: &Look, judged: &Judged) -> bool {
        // What dynos hold is told apart from what they can bear by the target itself.
        let of_time = !matches!(judged.target, Target::InFlight(_));
        let memory = self.rules.down_after * MEMORY * self.patience;
        let is_fresh = |it: &&Strain| look.at.saturating_sub(it.at) < memory;
        let strain = self.strain.as_ref().filter(|_| of_time).filter(is_fresh);
        let fewer = f64::from(look.count) - 1.0;
        strain.is_none_or(|strain| judged.rate <= strain.answered * LOW * fewer)
    }

    /// Whether the dynos that were added since the target is missed have brought the figure down, or have had more
    /// requests answered, as far as can be told by now; or else there is more to do than before.
    fn is_of_use(&mut self, judged: &Judged) -> bool {
        // More dynos always hold fewer requests each.
        if matches!(judged.target, Target::InFlight(_)) {
            return true;
        }
        let now = Trial::begin(judged);
        let Some(before) = &self.trial else {
            self.trial = Some(now);
            return true;
        };
        let has_grown = now.asked >= before.asked * GROWN + judged.chance(now.asked);
        if now.dynos < before.enough_to_tell() && !before.has_failed {
            return true;
        }
        let is_of_use = has_grown || !before.has_failed && now.is_better(before);
        if is_of_use {
            self.trial = Some(now);
        } else if let Some(trial) = &mut self.trial {
            // Asked again and again, chance would say otherwise some day.
            trial.has_failed = true;
        }
        is_of_use
    }
}

impl Trial {
    fn begin(judged: &Judged) -> Self {
        let Judged { dynos, asked, answered, .. } = *judged;
        Self { dynos, excess: judged.excess(), asked, answered, has_failed: false }
    }

    /// How many dynos must be there until their use can be told from chance.
    fn enough_to_tell(&self) -> u32 {
        self.dynos + self.dynos.div_ceil(2).max(STEPS_ON_TRIAL)
    }

    /// Whether what more dynos there are since then has been of use.
    fn is_better(&self, before: &Self) -> bool {
        let more = f64::from(self.dynos) / f64::from(before.dynos);
        self.excess <= before.excess * (1.0 - (1.0 - 1.0 / more) * USE)
            || self.answered >= before.answered * (1.0 + (more - 1.0) * USE)
    }
}

impl Windows {
    fn begin(look: &Look) -> Self {
        Self { recent: Interval::begin(look), parts: 1, calm: Interval::begin(look) }
    }

    fn begin_anew(&mut self, look: &Look) {
        *self = Self::begin(look);
    }
}

/// What is seen over a time.
#[derive(Debug)]
struct Interval {
    since: Duration,
    served: Served,
    /// Requests in flight that are no pipes, at the begin.
    open: i64,
    looks: u32,
    in_flight: u64,
    heard: u64,
    pipes: u64,
    held: u64,
    queued: u64,
}

impl Interval {
    fn begin(look: &Look) -> Self {
        Self {
            since: look.at,
            served: look.served.clone(),
            open: look.open(),
            looks: 0,
            in_flight: 0,
            heard: 0,
            pipes: 0,
            held: 0,
            queued: 0,
        }
    }

    fn add(&mut self, look: &Look, target: Target) {
        let most = match target {
            Target::InFlight(requests) => requests.get().saturating_mul(SAY),
            Target::P95(_) | Target::Queue(_) => u32::MAX,
        };
        let heard = |it: &Seen| u64::from(it.in_flight.min(most));
        self.looks += 1;
        self.in_flight += look.in_flight();
        self.heard += look.dynos.iter().map(heard).sum::<u64>() + u64::from(look.held);
        self.pipes += u64::from(look.pipes);
        self.held += u64::from(look.held);
        // Half of the dynos have as many waiting, or more: one that is stuck is not all of them.
        let mut queued: Vec<_> = look.dynos.iter().map(|it| it.queued).collect();
        queued.sort_unstable();
        self.queued += queued.get((queued.len() - 1) / 2).copied().map_or(0, u64::from);
    }

    fn judge(&self, look: &Look, target: Target) -> Judged {
        let mean = |sum: u64| sum as f64 / f64::from(self.looks);
        let over = look.at.saturating_sub(self.since);
        let served = look.served.since(&self.served);
        let rate = f64::from(served.requests()) / over.as_secs_f64();
        let dynos = look.dynos.len() as u32;
        let p95 = served.service_p95().filter(|_| served.requests() >= REQUESTS_MIN);
        Judged {
            over,
            dynos,
            target,
            in_flight: mean(self.in_flight),
            heard: mean(self.heard),
            pipes: mean(self.pipes),
            held: mean(self.held),
            asked: rate + (look.open() - self.open) as f64 / over.as_secs_f64(),
            rate,
            answered: f64::from(served.answered()) / over.as_secs_f64(),
            p95,
            queue: queue(&served, rate.max(1.0 / over.as_secs_f64()), mean(self.queued), dynos),
        }
    }
}

/// How long requests waited until their dyno had accepted them: for a connection, and in its accept queue. By Little's
/// law the latter is how many wait there, over how many come in a second.
fn queue(served: &Served, rate: f64, queued: f64, dynos: u32) -> Duration {
    let connecting = served.wait_p95().unwrap_or_default();
    if queued * QUEUED_LOOKS < 1.0 {
        return connecting;
    }
    connecting + Duration::from_secs_f64(queued * f64::from(dynos) / rate)
}

impl Look {
    /// Requests in flight that end as others do.
    fn open(&self) -> i64 {
        self.in_flight().cast_signed() - i64::from(self.pipes)
    }

    fn in_flight(&self) -> u64 {
        self.dynos.iter().map(|it| u64::from(it.in_flight)).sum::<u64>() + u64::from(self.held)
    }
}

impl Judged {
    /// The figure of the target as a multiple of it; 0 where too little is known.
    fn excess(&self) -> f64 {
        match self.target {
            Target::P95(time) => self.p95.map_or(0.0, |p95| p95.as_secs_f64() / time.as_secs_f64()),
            Target::InFlight(requests) => {
                self.heard / f64::from(self.dynos) / f64::from(requests.get())
            }
            Target::Queue(time) => self.queue.as_secs_f64() / time.as_secs_f64(),
        }
    }

    /// Whether what has piled up is being worked off.
    fn catches_up(&self) -> bool {
        self.answered >= self.asked * GROWN
    }

    /// By how much so many requests in a second may be others than they were by chance alone.
    fn chance(&self, rate: f64) -> f64 {
        2.0 * (rate / self.over.as_secs_f64()).sqrt()
    }

    /// Whether one dyno fewer would do.
    fn is_low(&self, look: &Look) -> bool {
        let fewer = f64::from(look.count) - 1.0;
        let in_flight = self.in_flight - self.pipes;
        let is_low = match self.target {
            Target::InFlight(requests) => {
                let room = f64::from(requests.get()) * fewer;
                self.in_flight <= room * LOW && look.in_flight() as f64 <= room
            }
            // By Little's law, this is what would be in flight if every request took as long as it may. What is more
            // has not ended, and its time is not known.
            Target::P95(time) => {
                self.excess() <= LOW && in_flight <= 1.0 + self.rate * time.as_secs_f64()
            }
            Target::Queue(_) => self.excess() <= LOW && (in_flight < 1.0 || self.answered > 0.0),
        };
        is_low && look.held == 0 && look.dynos.len() == look.count as usize
    }
}

/// `target="in_flight 20" in_flight=24.1 p95=132ms queue=4ms held=0 rate=81.2 over=10s`; requests in flight are those
/// of a dyno, on the average.
impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let in_flight = self.in_flight / f64::from(self.dynos);
        write!(f, "target=\"{}\" in_flight={in_flight:.1} p95=", self.target)?;
        match self.p95 {
            Some(p95) => write!(f, "{}ms", p95.as_millis())?,
            None => f.write_str("-")?,
        }
        let Self { queue, held, rate, over, .. } = self;
        let (queue, over) = (queue.as_millis(), over.as_secs_f64());
        write!(f, " queue={queue}ms held={held:.0} rate={rate:.1} over={over:.0}s")
    }
}
