//! Whether a request notices that the table is replaced: the slowest look-ups, of which criterion says nothing.
//!
//! A reader does what a worker does (it holds the snapshot, and takes the new one when it is told) and times each
//! look-up with its lease: undisturbed, and while a publisher beside it replaces the whole table of 100,000
//! domains × 1,000,000 dynos. Each look-up is timed twice, by the clock and by the processor time of the reader's
//! thread: where the cores have something else to do, the first has the kernel's turns of milliseconds in it, and
//! the second alone tells what the look-up itself cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dynomesh::model::Host;
use dynomesh::table::{Notice, Publisher, Roster, Standing, Subscriber, Table};
use micro::{app, domain, lineup, routes};
use rustix::time::{ClockId, clock_gettime};

const DOMAINS: usize = 100_000;
const DYNOS_EACH: u32 = 10;
const REPLACEMENTS: usize = 10;
/// Enough for half a minute.
const LOOK_UPS_MAX: usize = 1 << 23;

fn main() {
    let rosters: Vec<Arc<Roster>> = (0..DOMAINS).map(|_| Roster::new(Standing::NoWeb)).collect();
    let table = || {
        let apps = rosters.iter().cloned().enumerate().map(|(number, roster)| app(number, roster));
        Table::new(routes(apps.collect()))
    };
    let publisher = Publisher::new(table());
    for roster in &rosters {
        publisher.publish_lineup(roster, lineup(DYNOS_EACH));
    }
    let hosts: Vec<String> = (0..DOMAINS).map(domain).collect();

    let pause = || thread::sleep(Duration::from_secs(2));
    tell("undisturbed", look_up_during(&publisher, &hosts, pause));
    let replace = || (0..REPLACEMENTS).for_each(|_| publisher.publish(table()));
    let label = format!("while the table is replaced {REPLACEMENTS} times");
    tell(&label, look_up_during(&publisher, &hosts, replace));
}

/// What the look-ups took, in nanoseconds, over all tables that were seen.
struct Seen {
    by_clock: Vec<u32>,
    by_processor: Vec<u32>,
    tables: usize,
}

/// Looks hosts up until the deed is done.
fn look_up_during(publisher: &Publisher, hosts: &[String], deed: impl FnOnce()) -> Seen {
    let told = Arc::new(Told::default());
    publisher.subscribe(told.clone());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| read(publisher, hosts, &told, &done));
        deed();
        done.store(true, Ordering::Relaxed);
        reader.join().expect("the reader does not panic")
    })
}

fn read(publisher: &Publisher, hosts: &[String], told: &Told, done: &AtomicBool) -> Seen {
    // Written to, so that no look-up pays for the kernel's first page of it.
    let (mut by_clock, mut by_processor) = (vec![1; LOOK_UPS_MAX], vec![1; LOOK_UPS_MAX]);
    let (mut tables, mut count) = (1, 0);
    let mut table = publisher.table();
    while !done.load(Ordering::Relaxed) && count < LOOK_UPS_MAX {
        // A prime step visits all of them in an order that no prefetcher follows.
        let host = &hosts[count * 7_919 % hosts.len()];
        let (began, used) = (Instant::now(), processor_nanos());
        if told.0.swap(false, Ordering::Acquire) {
            table = publisher.table();
            tables += 1;
        }
        let host = Host::parse(host).expect("a good host");
        let app = table.find(&host).expect("it is there");
        let lease = app.roster.lineup().dynos[0].lease();
        assert!(lease.is_some(), "the dyno is up");
        drop(lease);
        by_processor[count] = u32::try_from(processor_nanos() - used).unwrap_or(u32::MAX);
        by_clock[count] = u32::try_from(began.elapsed().as_nanos()).unwrap_or(u32::MAX);
        count += 1;
    }
    by_clock.truncate(count);
    by_processor.truncate(count);
    Seen { by_clock, by_processor, tables }
}

/// The processor time of this thread so far.
fn processor_nanos() -> i64 {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    used.tv_sec * 1_000_000_000 + used.tv_nsec
}

fn tell(label: &str, seen: Seen) {
    println!("{label}: {} look-ups in {} tables", seen.by_clock.len(), seen.tables);
    for (clock, mut nanos) in
        [("by the clock", seen.by_clock), ("by processor time", seen.by_processor)]
    {
        nanos.sort_unstable();
        let at = |share: f64| f64::from(nanos[((nanos.len() - 1) as f64 * share) as usize]) / 1e3;
        println!(
            "  {clock}: p50 {:.1} µs, p99.9 {:.1} µs, p99.999 {:.0} µs, slowest {:.0} µs",
            at(0.5),
            at(0.999),
            at(0.99999),
            at(1.0),
        );
    }
}

/// A worker's mailbox, with the one message that matters here.
#[derive(Default)]
struct Told(AtomicBool);

impl Subscriber for Told {
    fn notify(&self, notice: Notice) {
        if matches!(notice, Notice::Table) {
            self.0.store(true, Ordering::Release);
        }
    }
}
