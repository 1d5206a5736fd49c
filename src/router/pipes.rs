//! Which pipes a worker has, so that they hear of their dynos' ends.

use std::cell::RefCell;

use rustc_hash::FxHashMap;

use crate::router::deadlines::{Deadline, Deadlines};

/// The pipes of one worker, by the number of their deadline.
#[derive(Default)]
pub(crate) struct Pipes(RefCell<FxHashMap<u32, Piping>>);

struct Piping {
    dyno: u64,
    /// The dyno's time to finish is over.
    is_over: bool,
}

/// One of them, until it is dropped.
pub(crate) struct Ticket<'p> {
    pipes: &'p Pipes,
    number: u32,
}

impl Pipes {
    /// Adds the one of the task that has this deadline.
    pub(crate) fn enter(&self, deadline: &Deadline, dyno: u64) -> Ticket<'_> {
        let number = deadline.number();
        self.0.borrow_mut().insert(number, Piping { dyno, is_over: false });
        Ticket { pipes: self, number }
    }

    /// Wakes those of a dyno that drains, or whose time is over.
    pub(crate) fn tell(&self, dyno: u64, is_over: bool, deadlines: &Deadlines) {
        for (number, pipe) in self.0.borrow_mut().iter_mut().filter(|(_, pipe)| pipe.dyno == dyno) {
            pipe.is_over |= is_over;
            deadlines.wake(*number);
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.borrow().len()
    }
}

impl Ticket<'_> {
    /// Whether the dyno's time to finish is over.
    pub(crate) fn is_over(&self) -> bool {
        self.pipes.0.borrow().get(&self.number).is_some_and(|pipe| pipe.is_over)
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.pipes.0.borrow_mut().remove(&self.number);
    }
}
