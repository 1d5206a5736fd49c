//! Looks every 20 s at what a process takes: says R14 and R15, ends whoever takes twice its quota, and tells the
//! figures.
//!
//! Only where the process is in a control group: where nothing holds it to its size, nothing is said of it either.

use std::sync::{Arc, Weak};

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{self, Instant, MissedTickBehavior};

use crate::config::limits;
use crate::supervisor::cgroup::{Memory, Usage};
use crate::supervisor::figures::DynoUsage;
use crate::supervisor::load::Load;
use crate::supervisor::metrics;
use crate::supervisor::place::{Event, Place};
use crate::supervisor::spawn::Process;

/// The watch over one process. Ends when it is dropped.
pub(crate) struct Watch {
    noted: Arc<watch::Sender<Noted>>,
    looking: Option<AbortHandle>,
}

/// What was seen of the process so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Noted {
    /// Since when it has been above its quota at each look.
    above_since: Option<Instant>,
    /// For longer than it may: it is to be replaced.
    is_due: bool,
    /// R15 was said.
    is_vast: bool,
}

impl Watch {
    /// Begins to look at a process of the dyno of this place.
    pub(crate) fn start<P: Process>(process: &Arc<P>, place: &Place) -> Self {
        let noted = Arc::new(watch::Sender::default());
        let looking = process.is_counted().then(|| {
            let look = look(Arc::downgrade(process), place.clone(), noted.clone());
            place.shutdown.spawn(look).abort_handle()
        });
        Self { noted, looking }
    }

    /// Whether the process has been above its quota for so long that it is to be replaced.
    pub(crate) fn is_due(&self) -> bool {
        self.noted.borrow().is_due
    }

    /// Returns once [`is_due`](Self::is_due) holds.
    pub(crate) async fn due(&self) {
        // Never an error: the sender is in our hands.
        let _ = self.noted.subscribe().wait_for(|noted| noted.is_due).await;
    }

    /// The process was to be replaced, and goes on: its time counts anew.
    pub(crate) fn begin_anew(&self) {
        self.noted.send_modify(|noted| (noted.above_since, noted.is_due) = (None, false));
    }

    /// After the process's end: says what the kernel killed it for, if it was that and nobody has said it.
    pub(crate) async fn conclude(&self, process: &impl Process, place: &Place) {
        let usage = process.usage().await;
        let Some(Usage { memory: Some(memory), oom_kills, .. }) = usage else { return };
        if oom_kills > 0 && !self.noted.borrow().is_vast {
            metrics::oom_kills(&place.app, &place.dyno.process_type, oom_kills);
            // It had all that it may have, when it wanted more.
            say_vast(place, 2 * memory.quota, memory.quota);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(looking) = &self.looking {
            looking.abort();
        }
    }
}

async fn look<P: Process>(process: Weak<P>, place: Place, noted: Arc<watch::Sender<Noted>>) {
    let mut load = Load::default();
    let mut last = Instant::now();
    // Dynos that were started together are not looked at together.
    let first = last + limits::METRICS_TICK.mul_f64((place.jitter)());
    let mut ticks = time::interval_at(first, limits::METRICS_TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(process) = process.upgrade() else { return };
        let Some(usage) = process.usage().await else { continue };
        load.sample(process.runnable().await, last.elapsed());
        last = Instant::now();
        tell(&*process, &place, &usage, load);
        let Some(memory) = &usage.memory else { continue };
        let quota = memory.quota;
        // The kernel may have killed only one of its processes, and a dyno with one process less is none.
        if usage.oom_kills > 0 || memory.charged() >= 2 * quota {
            noted.send_modify(|noted| noted.is_vast = true);
            metrics::oom_kills(&place.app, &place.dyno.process_type, usage.oom_kills);
            say_vast(&place, memory.charged().max(2 * quota), quota);
            process.kill();
            return;
        }
        note(&noted, &place, memory.charged(), quota);
    }
}

/// Says and writes down whether the dyno is above its quota.
fn note(noted: &watch::Sender<Noted>, place: &Place, charged: u64, quota: u64) {
    let above = charged > quota;
    if above {
        metrics::error(&place.app, "R14");
        place.say(memory_line(charged, quota));
        place.say("Error R14 (Memory quota exceeded)");
    }
    let bound = place.orders.borrow().watch.recycle_on_r14;
    noted.send_if_modified(|noted| {
        let since = above.then(|| noted.above_since.unwrap_or_else(Instant::now));
        let is_due = since.zip(bound).is_some_and(|(since, bound)| since.elapsed() >= bound);
        let before = *noted;
        (noted.above_since, noted.is_due) = (since, is_due);
        *noted != before
    });
}

fn say_vast(place: &Place, charged: u64, quota: u64) {
    metrics::error(&place.app, "R15");
    place.say(memory_line(charged, quota));
    place.say("Error R15 (Memory quota vastly exceeded)");
    place.say("Stopping process with SIGKILL");
}

/// `Process running mem=1060M(207.0%)`
fn memory_line(charged: u64, quota: u64) -> String {
    let percent = charged as f64 * 100.0 / quota as f64;
    format!("Process running mem={}M({percent:.1}%)", charged >> 20)
}

/// Tells the figures: to whoever asks for metrics, and where it is wanted as lines.
fn tell(process: &impl Process, place: &Place, usage: &Usage, load: Load) {
    if place.orders.borrow().watch.say_metrics {
        let source = format!("source={} dyno=heroku.{}.{}", place.dyno, place.app, process.id());
        place.say(format_args!("{source} {}", load_samples(load)));
        if let Some(memory) = &usage.memory {
            place.say(format_args!("{source} {}", memory_samples(memory)));
        }
    }
    let usage = Box::new(DynoUsage::new(usage, load));
    place.tell(Event::Took { pid: process.pid(), usage });
}

fn load_samples(Load([one, five, fifteen]): Load) -> String {
    format!(
        "sample#load_avg_1m={one:.2} sample#load_avg_5m={five:.2} sample#load_avg_15m={fifteen:.2}"
    )
}

fn memory_samples(memory: &Memory) -> String {
    let megabytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let sizes = [
        ("total", memory.total()),
        ("rss", memory.rss),
        ("cache", memory.cache),
        ("swap", memory.swap),
    ];
    let mut samples = sizes
        .map(|(name, bytes)| format!("sample#memory_{name}={:.2}MB", megabytes(bytes)))
        .to_vec();
    if let Some((incoming, outgoing)) = memory.paged {
        samples.push(format!("sample#memory_pgpgin={incoming}pages"));
        samples.push(format!("sample#memory_pgpgout={outgoing}pages"));
    }
    samples.push(format!("sample#memory_quota={:.2}MB", megabytes(memory.quota)));
    samples.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    // The examples of Heroku's own pages.
    #[test]
    fn lines_are_herokus() {
        assert_eq!(memory_line(1060 * MB, 512 * MB), "Process running mem=1060M(207.0%)");
        assert_eq!(
            load_samples(Load([2.46, 1.06, 0.994])),
            "sample#load_avg_1m=2.46 sample#load_avg_5m=1.06 sample#load_avg_15m=0.99"
        );
        let memory = Memory {
            rss: 18_891_162 * 10,
            cache: 400_000,
            shared: 0,
            swap: 0,
            quota: 512 * MB,
            paged: Some((84_329, 38_140)),
        };
        assert_eq!(
            memory_samples(&memory),
            "sample#memory_total=180.54MB sample#memory_rss=180.16MB sample#memory_cache=0.38MB sample#memory_swap=0.00MB sample#memory_pgpgin=84329pages sample#memory_pgpgout=38140pages sample#memory_quota=512.00MB"
        );
    }

    #[test]
    fn a_host_that_does_not_count_pages_says_nothing_of_them() {
        let samples = memory_samples(&Memory { rss: MB, quota: 512 * MB, ..Memory::default() });
        assert!(samples.ends_with("swap=0.00MB sample#memory_quota=512.00MB"), "{samples}");
    }
}
