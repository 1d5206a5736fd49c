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
            Target::Queue(_) => queued(dyno, pid, queues),
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

/// Those that wait until the dyno's app accepts them; none, as far as the kernel tells.
fn queued(dyno: &Dyno, pid: &ProcessId, queues: &mut AcceptQueues) -> u32 {
    let DynoAddr::Tcp(addr) = dyno.addr() else { return 0 };
    let waiting = match pid.get() {
        // It has a network of its own.
        Some(pid) if !addr.ip().is_loopback() => AcceptQueues::waiting_in(pid, *addr),
        _ => queues.waiting(*addr),
    };
    match waiting {
        Ok(waiting) => waiting.unwrap_or(0),
        Err(error) => {
            queues.complain(&error);
            0
        }
    }
}
