//! What dynos used is booked now and then, so that little is forgotten when the daemon is killed; and eco dynos
//! are told when their hours of the month are used up.

use std::sync::Arc;

use tokio::time::{MissedTickBehavior, interval};

use crate::config::limits;
use crate::control::{self, Running};
use crate::model::{EcoHours, Month, Usage};
use crate::shutdown::Shutdown;
use crate::store::Store;
use crate::wall_clock;

/// Books until the shutdown begins; the end of the daemon books the rest.
pub(in crate::daemon) async fn keep_books(running: Arc<Running>, shutdown: Shutdown) {
    let mut clock = interval(limits::BOOK_EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut eco = EcoHours::default();
    loop {
        tokio::select! {
            _ = clock.tick() => {}
            () = shutdown.begun() => return,
        }
        // Not broken off: what was taken of the meter is either booked or given back.
        control::book(&running.supervisor, &running.store).await;
        eco = look_at_eco_hours(&running, eco).await;
    }
}

/// What is booked of this month, and how the eco dynos' hours stand. `None`: it cannot be read, as the booking says.
pub(in crate::daemon) async fn eco_hours(store: &Store) -> Option<(Usage, EcoHours)> {
    let usage = store.usage(Month::of(wall_clock::unix())).await.ok()?;
    let hours = EcoHours::of(&usage, limits::ECO_HOURS, limits::ECO_HOURS_LOW);
    Some((usage, hours))
}

/// How the eco dynos' hours stand; a change is said and acted upon.
async fn look_at_eco_hours(running: &Running, before: EcoHours) -> EcoHours {
    let Some((usage, hours)) = eco_hours(&running.store).await else { return before };
    if hours == before {
        return hours;
    }
    running.supervisor.set_eco_used_up(hours == EcoHours::UsedUp);
    let (used, whole) = (EcoHours::used(&usage) / 3_600_000, limits::ECO_HOURS);
    match hours {
        EcoHours::Left => tracing::info!("eco dynos: a new month, with {whole} hours"),
        EcoHours::Low => tracing::warn!("eco dynos: {used} of this month's {whole} hours are used"),
        EcoHours::UsedUp => tracing::warn!(
            "eco dynos: this month's {whole} hours are used up; they sleep until the next one (H82)"
        ),
    }
    hours
}
