//! What is seen of an app's web dynos: how many are up, what they hold, who waits for them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::model::{DynoAddr, Target};
use crate::supervisor::autoscale::{AcceptQueues, Look, Seen};
use crate::supervisor::program::ProcessId;
use crate::table::{Dyno, Load, Roster};

/// What is looked at.
pub(crate) struct Observed<'a> {
    /// How many dynos there are to be.
    pub(crate) count: u32,
    /// Those that are up.
    pub(crate) up: &'a [(Arc<Dyno>, ProcessId)],
    pub(crate) roster: &'a Roster,
    pub(crate) load: &'a Load,
    pub(crate) target: Target,
}

/// Looks at it, at this time of any clock.
pub(crate) fn observe(observed: &Observed<'_>, queues: &mut AcceptQueues, at: Duration) -> Look {
    let Observed { count, up, roster, load, target } = observed;
    let mut seen = |(dyno, pid): &(Arc<Dyno>, ProcessId)| Seen {
        in_flight: dyno.in_flight().saturating_sub(dyno.lingering().load(Ordering::Relaxed)),
        queued: match target {
            Target::Queue(_) => match dyno.addr() {
                DynoAddr::Tcp(addr) => queues.waiting(pid, *addr),
                DynoAddr::Unix(_) => 0,
            },
            Target::P95(_) | Target::InFlight(_) => 0,
        },
    };
    let lineup = roster.lineup();
    let is_routable = |(dyno, _): &&(Arc<Dyno>, ProcessId)| {
        lineup.numbered(dyno.name().number).iter().any(|listed| listed.id() == dyno.id())
    };
    Look {
        at,
        count: *count,
        up: up.iter().filter(|(dyno, _)| dyno.share() == Dyno::FULL_SHARE).count() as u32,
        dynos: up.iter().filter(is_routable).map(&mut seen).collect(),
        held: roster.held().load(Ordering::Relaxed),
        pipes: load.pipes(),
        served: load.total(),
    }
}
