//! One deadline per connection, and whom to wake when dynos change: numbers in one list, looked at once per
//! tick.
//!
//! A tokio timer per request costs up to one eventfd write and one spurious wake each; a store costs nothing.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::Waker;

use crate::router::clock::Tick;

/// No deadline.
const NEVER: Tick = Tick::MAX;
/// The deadline has passed and its task was woken.
const DUE: Tick = 0;

/// The deadlines of one worker.
#[derive(Default)]
pub(crate) struct Deadlines {
    slots: RefCell<Slots>,
}

#[derive(Default)]
struct Slots {
    at: Vec<Tick>,
    /// Whose tasks wait for a change of dynos.
    waiting: Vec<bool>,
    wakers: Vec<Option<Waker>>,
    free: Vec<u32>,
}

impl Deadlines {
    /// A slot for one task, without a deadline yet.
    pub(crate) fn slot(self: &Rc<Self>) -> Deadline {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.free.pop().unwrap_or_else(|| {
            slots.at.push(NEVER);
            slots.waiting.push(false);
            slots.wakers.push(None);
            slots.at.len() as u32 - 1
        });
        Deadline { list: self.clone(), slot }
    }

    /// Wakes every task whose deadline has passed.
    pub(crate) fn pass(&self, now: Tick) {
        let slots = &mut *self.slots.borrow_mut();
        for (at, waker) in slots.at.iter_mut().zip(&slots.wakers) {
            if *at <= now && *at != DUE {
                *at = DUE;
                waker.iter().for_each(Waker::wake_by_ref);
            }
        }
    }

    /// Wakes every task that waits for a change of dynos.
    pub(crate) fn wake_waiting(&self) {
        let slots = self.slots.borrow();
        let waiting = slots.waiting.iter().zip(&slots.wakers).filter(|(waiting, _)| **waiting);
        waiting.filter_map(|(_, waker)| waker.as_ref()).for_each(Waker::wake_by_ref);
    }

    /// Wakes the task that has this one.
    pub(crate) fn wake(&self, number: u32) {
        let slots = self.slots.borrow();
        slots.wakers.get(number as usize).into_iter().flatten().for_each(Waker::wake_by_ref);
    }

    /// How many tasks wait for a change of dynos.
    pub(crate) fn waiting(&self) -> usize {
        self.slots.borrow().waiting.iter().filter(|waiting| **waiting).count()
    }

    /// Wakes every task, so that it sees what has changed on its worker.
    pub(crate) fn wake_all(&self) {
        self.slots.borrow().wakers.iter().flatten().for_each(Waker::wake_by_ref);
    }
}

/// The deadline of one task; freed on drop.
pub(crate) struct Deadline {
    list: Rc<Deadlines>,
    slot: u32,
}

impl Deadline {
    /// Says whom to wake: the task that polls. What it is told first holds, since a slot has one task.
    pub(crate) fn attach(&self, waker: &Waker) {
        let slots = &mut *self.list.slots.borrow_mut();
        slots.wakers[self.slot as usize].get_or_insert_with(|| waker.clone());
    }

    /// Its number among the worker's, until it is dropped.
    pub(crate) fn number(&self) -> u32 {
        self.slot
    }

    /// Replaces the deadline.
    pub(crate) fn set(&self, at: Tick) {
        self.list.slots.borrow_mut().at[self.slot as usize] = at.max(DUE + 1);
    }

    /// Has the deadline be no later than this.
    pub(crate) fn bring_forward(&self, at: Tick) {
        let deadline = &mut self.list.slots.borrow_mut().at[self.slot as usize];
        *deadline = at.min(*deadline);
    }

    /// Has the task woken at each change of dynos, or no more.
    pub(crate) fn wait_for_changes(&self, waiting: bool) {
        self.list.slots.borrow_mut().waiting[self.slot as usize] = waiting;
    }

    /// Whether the deadline that was last set has passed.
    pub(crate) fn is_due(&self) -> bool {
        self.list.slots.borrow().at[self.slot as usize] == DUE
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let slots = &mut *self.list.slots.borrow_mut();
        slots.at[self.slot as usize] = NEVER;
        slots.waiting[self.slot as usize] = false;
        slots.wakers[self.slot as usize] = None;
        slots.free.push(self.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_due_once_its_tick_has_come_and_until_it_is_replaced() {
        let list = Rc::new(Deadlines::default());
        let deadline = list.slot();
        assert!(!deadline.is_due());
        deadline.set(5);
        list.pass(4);
        assert!(!deadline.is_due());
        list.pass(5);
        assert!(deadline.is_due());
        list.pass(6);
        assert!(deadline.is_due());
        deadline.set(9);
        assert!(!deadline.is_due());
        deadline.bring_forward(12);
        list.pass(8);
        assert!(!deadline.is_due());
        deadline.bring_forward(8);
        list.pass(8);
        assert!(deadline.is_due());
        deadline.bring_forward(20);
        assert!(deadline.is_due(), "what has passed does not come back");
        drop(deadline);
        let again = list.slot();
        list.pass(100);
        assert!(!again.is_due(), "a slot used again has no deadline");
    }
}
