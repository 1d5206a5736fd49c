//! Which requests linger on a worker, so that they can be ended from outside.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

/// The lingering requests of one worker, oldest first.
#[derive(Default)]
pub(crate) struct Lingers(RefCell<Vec<Rc<Ticket>>>);

/// One of them.
pub(crate) struct Ticket {
    dyno: u64,
    /// Why it must end, if somebody said so.
    ended: Cell<Option<&'static str>>,
    waker: RefCell<Option<Waker>>,
}

impl Lingers {
    /// Adds one.
    pub(crate) fn enter(&self, dyno: u64) -> Rc<Ticket> {
        let ticket = Rc::new(Ticket { dyno, ended: Cell::new(None), waker: RefCell::default() });
        self.0.borrow_mut().push(ticket.clone());
        ticket
    }

    /// Removes one.
    pub(crate) fn leave(&self, ticket: &Rc<Ticket>) {
        self.0.borrow_mut().retain(|it| !Rc::ptr_eq(it, ticket));
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// Ends those of one dyno.
    pub(crate) fn close(&self, dyno: u64, why: &'static str) {
        self.0
            .borrow()
            .iter()
            .filter(|ticket| ticket.dyno == dyno)
            .for_each(|ticket| ticket.end(why));
    }

    /// Ends all.
    pub(crate) fn close_all(&self, why: &'static str) {
        self.0.borrow().iter().for_each(|ticket| ticket.end(why));
    }

    /// Ends the one of a dyno that has lingered longest.
    pub(crate) fn close_oldest(&self, dyno: u64) {
        let tickets = self.0.borrow();
        if let Some(oldest) =
            tickets.iter().find(|ticket| ticket.dyno == dyno && ticket.ended.get().is_none())
        {
            oldest.end("limit");
        }
    }
}

impl Ticket {
    /// Why it must end, if somebody has said so; has the task woken when somebody does.
    pub(crate) fn ended(&self, waker: &Waker) -> Option<&'static str> {
        *self.waker.borrow_mut() = Some(waker.clone());
        self.ended.get()
    }

    /// Has it end.
    pub(crate) fn end(&self, why: &'static str) {
        self.ended.set(Some(why));
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}
