//! *Up, and stopped where it is*: a web dyno that gets no requests takes no time of the processor.
//!
//! It stays in the line-up. The kernel takes what is sent to it, and the lease word says to whoever sends it that
//! the process has to be set going.

use std::future::pending;
use std::time::Duration;

use tokio::time::{self, Instant};

use crate::config::limits;
use crate::supervisor::dyno::Dyno;
use crate::supervisor::running::Running;
use crate::supervisor::spawn::{Process, Spawn};
use crate::table::Dyno as Record;

/// What is known of a dyno's idleness.
pub(super) struct Frost {
    is_frozen: bool,
    /// Its record's number at the last look.
    uses: u32,
    quiet_since: Instant,
    next_look: Instant,
}

impl Frost {
    pub(super) fn new(now: Instant) -> Self {
        Self { is_frozen: false, uses: 0, quiet_since: now, next_look: now }
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.is_frozen
    }

    /// Returns when there may be something to do. Dropped before, nothing is lost.
    pub(super) async fn until_due(&self, record: Option<&Record>, after: Option<Duration>) {
        match (record, after) {
            (Some(record), Some(_)) if self.is_frozen => record.called().await,
            (Some(_), Some(_)) => time::sleep_until(self.next_look).await,
            // It is not to be frozen any more.
            (Some(_), None) if self.is_frozen => {}
            _ => pending().await,
        }
    }

    /// Whether it has been quiet for so long.
    fn is_quiet(&mut self, record: &Record, after: Duration) -> bool {
        let now = Instant::now();
        self.next_look = now + (after / 20).clamp(limits::IDLE_LOOK_MIN, limits::IDLE_LOOK_MAX);
        let uses = record.uses();
        if std::mem::replace(&mut self.uses, uses) != uses || record.in_flight() > 0 {
            self.quiet_since = now;
        }
        now - self.quiet_since >= after
    }
}

impl<S: Spawn> Dyno<S> {
    pub(super) fn freeze_or_thaw(
        &self,
        running: &Running<S::Process>,
        frost: &mut Frost,
        after: Option<Duration>,
    ) {
        let Some(record) = &running.record else { return };
        if frost.is_frozen {
            self.thaw(running, frost);
        } else if let Some(after) = after
            && frost.is_quiet(record, after)
            // A request that comes from here on calls.
            && record.freeze()
        {
            running.process.freeze();
            frost.is_frozen = true;
            self.place.say("Freezing");
        }
    }

    pub(super) fn thaw(&self, running: &Running<S::Process>, frost: &mut Frost) {
        let Some(record) = &running.record else { return };
        if std::mem::take(&mut frost.is_frozen) {
            // Before anything is said: a request waits.
            running.process.thaw();
            record.thaw();
            (frost.quiet_since, frost.next_look) = (Instant::now(), Instant::now());
            self.place.say("Thawing");
        }
    }
}
