//! One deadline per connection: numbers in one list, looked at once per tick.
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
    wakers: Vec<Option<Waker>>,
    /// Whose task is woken when a dyno changes, too.
    watching: Vec<bool>,
    free: Vec<u32>,
}

impl Deadlines {
    /// A slot for one task, without a deadline yet.
    pub(crate) fn slot(self: &Rc<Self>) -> Deadline {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.free.pop().unwrap_or_else(|| {
            slots.at.push(NEVER);
            slots.wakers.push(None);
            slots.watching.push(false);
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

    /// Wakes every task that watches for changes; each says so again if it still does.
    pub(crate) fn wake_watching(&self) {
        let slots = &mut *self.slots.borrow_mut();
        for (watching, waker) in slots.watching.iter_mut().zip(&slots.wakers) {
            if std::mem::take(watching) {
                waker.iter().for_each(Waker::wake_by_ref);
            }
        }
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
    /// Says whom to wake. Once per task, on its first poll.
    pub(crate) fn attach(&self, waker: &Waker) {
        self.list.slots.borrow_mut().wakers[self.slot as usize] = Some(waker.clone());
    }

    /// Replaces the deadline.
    pub(crate) fn set(&self, at: Tick) {
        self.list.slots.borrow_mut().at[self.slot as usize] = at.max(DUE + 1);
    }

    /// Has the task woken at the next change of dynos. A mark in the task's own slot and not a waker in a
    /// list: with every connect that has to wait a moment, a list would grow until a dyno changes.
    pub(crate) fn watch_changes(&self) {
        self.list.slots.borrow_mut().watching[self.slot as usize] = true;
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
        slots.wakers[self.slot as usize] = None;
        slots.watching[self.slot as usize] = false;
        slots.free.push(self.slot);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

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
        drop(deadline);
        let again = list.slot();
        list.pass(100);
        assert!(!again.is_due(), "a slot used again has no deadline");
    }
    #[test]
    fn a_task_is_woken_once_for_each_time_that_it_watches() {
        #[derive(Default)]
        struct Count(AtomicU32);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let (list, count) = (Rc::new(Deadlines::default()), Arc::new(Count::default()));
        let deadline = list.slot();
        deadline.attach(&count.clone().into());
        for (watches, expected) in [(0, 0), (1, 1), (0, 1), (3, 2)] {
            (0..watches).for_each(|_| deadline.watch_changes());
            list.wake_watching();
            assert_eq!(count.0.load(Ordering::Relaxed), expected);
        }
        deadline.watch_changes();
        drop(deadline);
        list.wake_watching();
        assert_eq!(count.0.load(Ordering::Relaxed), 2, "a task that has ended is woken no more");
    }
}
