//! Every interleaving of workers that lease a dyno and the supervisor that closes it.
//!
//! What must hold: once the supervisor has seen the word drained it stops the process, and no worker may then
//! hold a lease (a lost request); and it must see it drained, however the threads fall (a dyno that never
//! stops). `src/table/lease.rs` itself is compiled here, against loom's atomics.

use std::panic::{AssertUnwindSafe, catch_unwind};

use loom::model;
use loom::model::Builder;
use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use loom::sync::{Arc, Notify};
use loom::thread;

use crate::lease::{LeaseWord, Take};

#[path = "../src/table/lease.rs"]
pub mod lease;

pub mod table {
    //! As much of the house as `lease.rs` sees.

    pub mod atomic {
        //! loom's atomics in place of the standard library's.

        pub(crate) use loom::sync::atomic::{AtomicU32, Ordering};
    }
}

/// One dyno, and what stands around its word.
struct Dyno {
    in_table: AtomicBool,
    word: LeaseWord,
    bell: Notify,
    stopped: AtomicBool,
}

impl Dyno {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            in_table: AtomicBool::new(true),
            word: LeaseWord::new(),
            bell: Notify::new(),
            stopped: AtomicBool::new(false),
        })
    }

    /// A worker with one request. Whether it was served here; if not, the worker picks another dyno.
    fn serve(&self, rings_when_refused: bool) -> bool {
        if !self.in_table.load(Ordering::Acquire) {
            return false;
        }
        match self.word.take() {
            Take::Granted | Take::Frozen { .. } => {
                assert!(self.word.held() > 0);
                assert!(!self.stopped.load(Ordering::Acquire), "stopped with a request on its way");
                if self.word.give_back() {
                    self.bell.notify();
                }
                true
            }
            Take::Refused { rings } => {
                assert!(self.word.is_closed());
                if rings && rings_when_refused {
                    self.bell.notify();
                }
                false
            }
        }
    }

    /// The supervisor: publish, close, wait, stop.
    fn drain(&self) {
        self.in_table.store(false, Ordering::Release);
        self.word.close();
        while !self.word.is_drained() {
            self.bell.wait();
        }
        self.stopped.store(true, Ordering::Release);
    }
}

/// Runs workers against a supervisor that drains; the last of the threads is this one.
fn drain_against(workers: usize, rings_when_refused: bool) {
    let dyno = Dyno::new();
    let serve = |_| {
        let dyno = dyno.clone();
        thread::spawn(move || dyno.serve(rings_when_refused))
    };
    let workers = (0..workers).map(serve).collect::<Vec<_>>();
    dyno.drain();
    for worker in workers {
        worker.join().expect("no worker panicked");
    }
    assert!(dyno.word.is_drained());
}

#[test]
fn a_closed_word_loses_no_request_and_no_ring() {
    model(|| drain_against(1, true));
    // Two workers have too many interleavings to walk them all. loom's authors saw that bugs need two or
    // three switches at the wrong moment, hardly ever more.
    let mut bounded = Builder::new();
    bounded.preemption_bound = Some(3);
    bounded.check(|| drain_against(2, true));
}

#[test]
fn a_worker_that_takes_twice_meets_the_same_word() {
    model(|| {
        let dyno = Dyno::new();
        let worker = {
            let dyno = dyno.clone();
            thread::spawn(move || (dyno.serve(true), dyno.serve(true)))
        };
        dyno.drain();
        let (first, second) = worker.join().unwrap();
        assert!(first || !second, "closed for good, and yet a lease was given after a refusal");
    });
}

/// Why the failing path of `take` rings: its short-lived count may be the one that the closer saw when it
/// went to sleep.
#[test]
fn the_model_finds_the_ring_that_a_refusal_must_not_keep_to_itself() {
    let lost = catch_unwind(AssertUnwindSafe(|| model(|| drain_against(2, false))));
    assert!(lost.is_err(), "no interleaving left the supervisor asleep");
}

/// Why there is a word at all: "publish a table without the dyno, then wait until nothing is leased" loses
/// the request of a worker that has read the old table and not counted itself yet.
#[test]
fn the_model_finds_the_request_that_a_bare_count_loses() {
    fn naive() {
        let shared = Arc::new((AtomicBool::new(true), AtomicU32::new(0), AtomicBool::new(false)));
        let worker = {
            let shared = shared.clone();
            thread::spawn(move || {
                let (in_table, count, stopped) = &*shared;
                if in_table.load(Ordering::SeqCst) {
                    count.fetch_add(1, Ordering::SeqCst);
                    assert!(!stopped.load(Ordering::SeqCst), "stopped with a request on its way");
                    count.fetch_sub(1, Ordering::SeqCst);
                }
            })
        };
        let (in_table, count, stopped) = &*shared;
        in_table.store(false, Ordering::SeqCst);
        while count.load(Ordering::SeqCst) != 0 {
            thread::yield_now();
        }
        stopped.store(true, Ordering::SeqCst);
        worker.join().expect("no worker panicked");
    }
    let lost = catch_unwind(AssertUnwindSafe(|| model(naive)));
    assert!(lost.is_err(), "no interleaving lost the request");
}

/// A process is stopped only while it holds no request, and whoever sends one to a process that is stopped, or
/// about to be, rings.
#[test]
fn a_frozen_word_is_rung_for_each_request_that_finds_it() {
    fn freeze_against(workers: usize) {
        let shared = Arc::new((LeaseWord::new(), AtomicBool::new(false), AtomicBool::new(false)));
        let request = |_| {
            let shared = shared.clone();
            thread::spawn(move || {
                let (word, stopped, rung) = &*shared;
                let take = word.take();
                match take {
                    Take::Granted => {
                        assert!(!stopped.load(Ordering::SeqCst), "stopped with a request in hand");
                    }
                    Take::Frozen { rings: true } => rung.store(true, Ordering::SeqCst),
                    Take::Frozen { rings: false } => {}
                    Take::Refused { .. } => panic!("nobody closes it"),
                }
                assert!(!word.give_back());
                matches!(take, Take::Frozen { .. })
            })
        };
        let workers: Vec<_> = (0..workers).map(request).collect();
        let (word, stopped, rung) = &*shared;
        if word.freeze() {
            stopped.store(true, Ordering::SeqCst);
        }
        let found: Vec<_> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
        assert_eq!(found.contains(&true), rung.load(Ordering::SeqCst));
        word.thaw();
        assert_eq!((word.held(), word.take()), (0, Take::Granted));
    }
    model(|| freeze_against(1));
    let mut bounded = Builder::new();
    bounded.preemption_bound = Some(3);
    bounded.check(|| freeze_against(2));
}
