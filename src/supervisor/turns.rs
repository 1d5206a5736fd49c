//! How many dynos of one process type are replaced at a time: a quarter of them, rounded up, so that neither
//! the machine boots all of them at once nor a release that does not work reaches all workers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::supervisor::plan::quarter;

/// The turns of one process type of an app.
#[derive(Default)]
pub(crate) struct Turns {
    room: Mutex<Room>,
    freed: Notify,
}

#[derive(Default)]
struct Room {
    dynos: u32,
    taken: u32,
}

impl Turns {
    /// Says how many dynos there are to be.
    pub(crate) fn set_dynos(&self, dynos: u32) {
        self.room().dynos = dynos;
        self.freed.notify_waiters();
    }

    /// Waits for a turn.
    pub(crate) async fn take(self: &Arc<Self>) -> Turn {
        self.take_where(|room| room.taken < quarter(room.dynos)).await
    }

    /// Waits for a turn while nobody else has one.
    pub(crate) async fn take_alone(self: &Arc<Self>) -> Turn {
        self.take_where(|room| room.taken == 0).await
    }

    async fn take_where(self: &Arc<Self>, is_free: impl Fn(&Room) -> bool) -> Turn {
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            // From here on, so that none is freed between the look and the wait.
            freed.as_mut().enable();
            {
                let mut room = self.room();
                if is_free(&room) {
                    room.taken += 1;
                    return Turn(self.clone());
                }
            }
            freed.await;
        }
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        // Nothing panics while this lock is held, so poison says nothing.
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One dyno's turn to be replaced, given back on drop.
pub(crate) struct Turn(Arc<Turns>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.room().taken -= 1;
        self.0.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    async fn count(turns: &Arc<Turns>) -> usize {
        let mut taken = Vec::new();
        while let Ok(turn) = timeout(Duration::ZERO, turns.take()).await {
            taken.push(turn);
        }
        taken.len()
    }

    #[tokio::test]
    async fn a_quarter_rounded_up_is_replaced_at_a_time() {
        let turns = Arc::new(Turns::default());
        for (dynos, expected) in [(0, 1), (1, 1), (4, 1), (5, 2), (8, 2), (9, 3), (200, 50)] {
            turns.set_dynos(dynos);
            assert_eq!(count(&turns).await, expected, "of {dynos}");
        }
    }

    #[tokio::test]
    async fn a_turn_that_is_given_back_goes_to_who_waits() {
        let turns = Arc::new(Turns::default());
        turns.set_dynos(8);
        let alone = turns.take_alone().await;
        let second = turns.take().await;
        assert!(timeout(Duration::ZERO, turns.take_alone()).await.is_err());
        let waiting = async { tokio::join!(turns.take_alone(), async { drop((alone, second)) }) };
        timeout(Duration::from_secs(10), waiting).await.unwrap();
    }
}
