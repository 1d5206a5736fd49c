//! How a request wakes an app that sleeps, and a dyno that is frozen.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Rung by requests, heard by the supervisor. However many ring, it is heard once.
#[derive(Default)]
pub struct Doorbell {
    rung: AtomicBool,
    heard: Notify,
}

impl Doorbell {
    /// Rings. Only the first of many does more than look.
    pub fn ring(&self) {
        if !self.rung.load(Ordering::Relaxed) && !self.rung.swap(true, Ordering::AcqRel) {
            self.heard.notify_one();
        }
    }

    /// Forgets that it was rung.
    pub fn hush(&self) {
        self.rung.store(false, Ordering::Release);
    }

    /// Returns once it was rung, and forgets it. One waiter at a time.
    pub async fn rung(&self) {
        while !self.rung.load(Ordering::Acquire) {
            self.heard.notified().await;
        }
        self.hush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn many_rings_are_heard_once_and_a_later_one_again() {
        let bell = Doorbell::default();
        let is_heard =
            async || tokio::time::timeout(std::time::Duration::ZERO, bell.rung()).await.is_ok();
        assert!(!is_heard().await);
        bell.ring();
        bell.ring();
        assert!(is_heard().await);
        assert!(!is_heard().await);
        bell.ring();
        assert!(is_heard().await);
    }
}
