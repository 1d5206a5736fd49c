//! What is looked at each second: workers that do not answer, tables that can be freed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::control::Running;
use crate::shutdown::Shutdown;

const EACH: Duration = Duration::from_secs(1);
/// The metrics crate keeps every sample of a histogram until it is told to sum them up.
const UPKEEP_EVERY: u64 = 5;

/// Looks each second, until the shutdown begins.
pub(in crate::daemon) async fn watch(running: Arc<Running>, shutdown: Shutdown) {
    tokio::select! {
        () = look(&running) => {}
        () = shutdown.begun() => {}
    }
}

async fn look(running: &Running) {
    let mut clock = interval(EACH);
    // A second that took longer than a second is not made up for.
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stalls = Stalls::default();
    for second in 0u64.. {
        clock.tick().await;
        running.publisher.bury();
        if second.is_multiple_of(UPKEEP_EVERY) {
            running.recorded.run_upkeep();
        }
        let stalled = running.router.stalled_workers();
        stalls.say(&stalled);
        running.note_stalled(stalled);
    }
}

/// Which workers are known to be stalled: each stall is said once, and its end.
#[derive(Default)]
struct Stalls(Vec<usize>);

impl Stalls {
    fn say(&mut self, stalled: &[(usize, f64)]) {
        let (began, ended) = self.changes(stalled);
        for (worker, seconds) in began {
            tracing::error!("worker {worker} has not answered for {seconds:.1} s");
        }
        for worker in ended {
            tracing::info!("worker {worker} answers again");
        }
    }

    fn changes(&mut self, stalled: &[(usize, f64)]) -> (Vec<(usize, f64)>, Vec<usize>) {
        let began =
            stalled.iter().copied().filter(|(worker, _)| !self.0.contains(worker)).collect();
        let now: Vec<usize> = stalled.iter().map(|(worker, _)| *worker).collect();
        let ended = self.0.iter().copied().filter(|worker| !now.contains(worker)).collect();
        self.0 = now;
        (began, ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_said_once_and_its_end_too() {
        let mut stalls = Stalls::default();
        assert_eq!(stalls.changes(&[]), (vec![], vec![]));
        assert_eq!(stalls.changes(&[(1, 2.1)]), (vec![(1, 2.1)], vec![]));
        assert_eq!(stalls.changes(&[(0, 2.0), (1, 3.1)]), (vec![(0, 2.0)], vec![]));
        assert_eq!(stalls.changes(&[(0, 3.0)]), (vec![], vec![1]));
        assert_eq!(stalls.changes(&[]), (vec![], vec![0]));
    }
}
