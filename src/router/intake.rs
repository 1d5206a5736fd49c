//! Whose turn it is on a worker: what has begun goes before what has not.
//!
//! The kernel says which sockets have something in the order in which it came. With thousands of clients asking at
//! once an answer would stand behind all of their requests, each of which would be sent meanwhile, over thousands of
//! connections to the dynos. So only a few requests begin between two looks at the sockets, and the others are left in
//! their sockets until the worker has nothing else to do. It never waits for that: a dyno that is slow holds up
//! nobody else.

use std::array;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::task::Waker;

use crate::config::limits::INTAKE;

/// The intake of one worker. Shared with its runtime, which says when there is nothing else to do, and may ask for
/// locks; nobody else does.
#[derive(Default)]
pub(crate) struct Intake(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    /// Requests that began since the last look at the sockets.
    begun: usize,
    waiting: VecDeque<Waker>,
}

impl Intake {
    /// Whether a request may begin now. If not, `waker` is woken when it is to ask again.
    pub(crate) fn may_begin(&self, waker: &Waker) -> bool {
        self.with(|queue| {
            let may = queue.begun < INTAKE;
            if may {
                queue.begun += 1;
            } else {
                queue.waiting.push_back(waker.clone());
            }
            may
        })
    }

    /// The worker has done all that there was to do, and is about to look at its sockets: calls the next ones, first
    /// come first served. They run, and ask, before whatever that look shows.
    pub(crate) fn call(&self) {
        let called: [_; INTAKE] = self.with(|queue| {
            queue.begun = 0;
            array::from_fn(|_| queue.waiting.pop_front())
        });
        called.into_iter().flatten().for_each(Waker::wake);
    }

    fn with<T>(&self, act: impl FnOnce(&mut Queue) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Calls(AtomicUsize);

    impl Wake for Calls {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many of so many requests may begin at once; the calls of the others are counted.
    fn ask(intake: &Intake, requests: usize, calls: &Arc<Calls>) -> usize {
        let waker = Waker::from(calls.clone());
        (0..requests).filter(|_| intake.may_begin(&waker)).count()
    }

    #[test]
    fn a_few_begin_and_the_others_are_called_in_their_order() {
        let (intake, early, late) = (Intake::default(), Arc::new(Calls::default()), Arc::default());
        assert_eq!(ask(&intake, INTAKE + 3, &early), INTAKE);
        assert_eq!(ask(&intake, INTAKE, &late), 0);
        let calls = |of: &Arc<Calls>| of.0.load(Ordering::Relaxed);
        assert_eq!((calls(&early), calls(&late)), (0, 0));
        intake.call();
        assert_eq!((calls(&early), calls(&late)), (3, INTAKE - 3));
        assert_eq!(ask(&intake, INTAKE, &late), INTAKE, "those who were called begin");
        intake.call();
        assert_eq!((calls(&early), calls(&late)), (3, INTAKE));
    }

    #[test]
    fn each_look_at_the_sockets_gives_turns_anew() {
        let (intake, calls) = (Intake::default(), Arc::default());
        for _ in 0..3 {
            intake.call();
            assert_eq!(ask(&intake, INTAKE, &calls), INTAKE);
        }
    }
}
