//! What a dyno takes, as it is shown: plain numbers.

use std::time::Duration;

use serde::Serialize;

use crate::supervisor::cgroup::Usage;
use crate::supervisor::load::Load;

/// What a dyno took when it was last looked at. What the host does not tell is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DynoUsage {
    /// Bytes of its processes' own memory.
    pub rss: Option<u64>,
    /// Bytes of files' pages.
    pub cache: Option<u64>,
    /// Bytes that are swapped out.
    pub swap: Option<u64>,
    /// Bytes that it may take before R14.
    pub quota: Option<u64>,
    /// Seconds of CPU since its process was started.
    pub cpu_seconds: Option<f64>,
    /// Seconds for which its CPU quota held it up.
    pub throttled_seconds: Option<f64>,
    /// Processes and threads.
    pub tasks: Option<u64>,
    /// Runnable tasks, averaged over 1, 5 and 15 minutes.
    pub load: [f64; 3],
}

impl DynoUsage {
    pub(crate) fn new(usage: &Usage, load: Load) -> Self {
        let memory = usage.memory;
        Self {
            rss: memory.map(|it| it.rss),
            cache: memory.map(|it| it.cache),
            swap: memory.map(|it| it.swap),
            quota: memory.map(|it| it.quota),
            cpu_seconds: usage.cpu.as_ref().map(Duration::as_secs_f64),
            throttled_seconds: usage.throttled.as_ref().map(Duration::as_secs_f64),
            tasks: usage.tasks,
            load: load.0,
        }
    }
}
