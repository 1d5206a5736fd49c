//! How everything ends: gracefully first, then now.

use std::future::Future;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Carried by every task of the control runtime. Cheap to clone.
#[derive(Clone, Default)]
pub struct Shutdown {
    graceful: CancellationToken,
    now: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// Spawns a task on the current runtime that [`finished`](Self::finished) waits for.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Asks everything to finish what it has and take nothing new.
    pub fn begin(&self) {
        self.graceful.cancel();
    }

    /// Asks everything to end at once; implies [`begin`](Self::begin).
    pub fn now(&self) {
        self.graceful.cancel();
        self.now.cancel();
    }

    /// Returns once the end has begun.
    pub async fn begun(&self) {
        self.graceful.cancelled().await;
    }

    /// Returns once everything must end at once.
    pub async fn forced(&self) {
        self.now.cancelled().await;
    }

    /// Whether the end has begun.
    pub fn is_begun(&self) -> bool {
        self.graceful.is_cancelled()
    }

    /// Waits for every spawned task. Call [`begin`](Self::begin) or [`now`](Self::now) first.
    pub async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
