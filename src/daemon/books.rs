//! What dynos used is booked now and then, so that little is forgotten when the daemon is killed.

use std::sync::Arc;

use tokio::time::{MissedTickBehavior, interval};

use crate::config::limits;
use crate::control::{self, Running};
use crate::shutdown::Shutdown;

/// Books until the shutdown begins; the end of the daemon books the rest.
pub(in crate::daemon) async fn keep_books(running: Arc<Running>, shutdown: Shutdown) {
    let mut clock = interval(limits::BOOK_EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = clock.tick() => {}
            () = shutdown.begun() => return,
        }
        // Not broken off: what was taken of the meter is either booked or given back.
        control::book(&running.supervisor, &running.store).await;
    }
}
