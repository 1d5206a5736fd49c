//! What a group takes, as values, whichever interface told it.

use std::time::Duration;

/// What the processes of a group take, and have taken. What the host does not tell is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) memory: Option<Memory>,
    /// Processes that the kernel killed because the group was at its limit.
    pub(crate) oom_kills: u64,
    /// Of all CPUs together, since the group was made.
    pub(crate) cpu: Option<Duration>,
    /// How long the group would have run, had its quota not been used up.
    pub(crate) throttled: Option<Duration>,
    /// Processes and threads.
    pub(crate) tasks: Option<u64>,
}

/// Bytes of memory that a group takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Its processes' own.
    pub(crate) rss: u64,
    /// Pages of files, [`shared`](Self::shared) among them.
    pub(crate) cache: u64,
    /// Pages of files that are on no disk: tmpfs, shared memory.
    pub(crate) shared: u64,
    /// Swapped out.
    pub(crate) swap: u64,
    /// What counts before R14: half of the limit at which the kernel kills.
    pub(crate) quota: u64,
    /// Pages that came in and went out since the group was made. Only v1 counts them.
    pub(crate) paged: Option<(u64, u64)>,
}

impl Memory {
    /// All of it, as Heroku's `memory_total` has it.
    pub(crate) fn total(&self) -> u64 {
        self.rss + self.cache + self.swap
    }

    /// What counts against the quota: the cache of files on disks does not, because the kernel takes it back
    /// before anybody has to die for it.
    pub(crate) fn charged(&self) -> u64 {
        self.rss + self.shared + self.swap
    }
}
