//! The ports that web dynos are told to listen on: lent one at a time, never twice, and given back when
//! the process is gone.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

/// The ports that are free to lend, the one that waited longest first: somebody may still be about to talk to
/// a port that was just given back. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Ports {
    free: Arc<Mutex<VecDeque<u16>>>,
}

/// A port that is lent; given back on drop.
pub(crate) struct LentPort {
    port: u16,
    ports: Ports,
}

impl Ports {
    /// Lends from these.
    pub(crate) fn new(range: impl IntoIterator<Item = u16>) -> Self {
        Self { free: Arc::new(Mutex::new(range.into_iter().collect())) }
    }

    /// A port that nobody listens on. `None`: none is left.
    pub(crate) fn lend(&self) -> Option<LentPort> {
        let tries = self.free().len();
        for _ in 0..tries {
            // Not held while the kernel is asked: `lend` is called seldom, but others may.
            let port = self.free().pop_front()?;
            if nobody_listens(port) {
                return Some(LentPort { port, ports: self.clone() });
            }
            self.free().push_back(port);
        }
        None
    }

    /// This port, which somebody has been using since before. `None`: it is not among those that are free to lend.
    pub(crate) fn take(&self, port: u16) -> Option<LentPort> {
        let mut free = self.free();
        let at = free.iter().position(|it| *it == port)?;
        free.remove(at);
        drop(free);
        Some(LentPort { port, ports: self.clone() })
    }

    /// Never lends this port: whoever may be using it is nobody's dyno.
    pub(crate) fn keep(&self, port: u16) {
        self.free().retain(|it| *it != port);
    }

    fn free(&self) -> std::sync::MutexGuard<'_, VecDeque<u16>> {
        // Nothing panics while this lock is held, so poison says nothing.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LentPort {
    /// The number.
    pub(crate) fn number(&self) -> u16 {
        self.port
    }
}

impl Drop for LentPort {
    fn drop(&mut self) {
        self.ports.free().push_back(self.port);
    }
}

/// On any address: a listener on one of them is in the way of an app that listens on all.
fn nobody_listens(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_lent_once_and_a_returned_one_last() {
        let ports = Ports::new(29_100..29_103);
        let first = ports.lend().unwrap();
        let second = ports.lend().unwrap();
        assert_eq!((first.number(), second.number()), (29_100, 29_101));
        drop(first);
        let third = ports.lend().unwrap();
        assert_eq!(third.number(), 29_102);
        let again = ports.lend().unwrap();
        assert_eq!(again.number(), 29_100);
        assert!(ports.lend().is_none());
    }

    #[test]
    fn a_port_that_was_taken_is_not_lent_until_it_is_given_back() {
        let ports = Ports::new(29_120..29_123);
        let taken = ports.take(29_120).unwrap();
        assert!(ports.take(29_120).is_none() && ports.take(1).is_none());
        ports.keep(29_122);
        let lent = ports.lend().unwrap();
        assert_eq!(lent.number(), 29_121);
        assert!(ports.lend().is_none());
        drop(taken);
        assert_eq!(ports.lend().unwrap().number(), 29_120);
    }

    #[test]
    fn a_port_that_somebody_else_listens_on_is_passed_over() {
        for address in ["127.0.0.1:29110", "0.0.0.0:29110"] {
            let taken = TcpListener::bind(address).unwrap();
            let ports = Ports::new(29_110..29_112);
            assert_eq!(ports.lend().unwrap().number(), 29_111);
            drop(taken);
        }
    }
}
