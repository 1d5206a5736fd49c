//! The first web dyno of a release, and how long it has no more than its part of the requests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::print_duration;
use crate::model::{AppName, DynoName, Hundredths};
use crate::supervisor::manager::Formed;
use crate::supervisor::place::Replace;
use crate::supervisor::plan::Stand;
use crate::supervisor::releases::{Phase, Release};
use crate::telemetry::AppLog;

impl Formed {
    /// Whether a release is tried by a canary now.
    pub(super) fn has_canary(&self) -> bool {
        matches!(self.releases.phase, Phase::Canary(_))
    }

    /// The number of that release, and what all others run.
    pub(super) fn tried_by_canary(&self) -> Option<(u64, Arc<Release>)> {
        let earlier = self.releases.earlier.clone().filter(|_| self.has_canary())?;
        Some((self.releases.wanted.number, earlier))
    }

    /// Notes when the canary is up, and goes on with all dynos when its time is over, or when there is none.
    pub(super) fn follow_canary(
        &mut self,
        name: &AppName,
        stands: &BTreeMap<DynoName, Stand>,
        log: &AppLog,
        now: Duration,
    ) {
        let Phase::Canary(since) = self.releases.phase else { return };
        let number = self.releases.wanted.number;
        let say = |text: &str| {
            log.platform(name, &"rollout", &format_args!("Release v{number} {text}"));
        };
        let mut web = stands.iter().filter(|(name, _)| name.process_type.is_web());
        let told = web.clone().find(|(_, stand)| !matches!(stand, Stand::Outdated { .. }));
        let is_asleep = told.is_some_and(|(name, _)| self.is_asleep(&name.process_type));
        match (self.app.canary, told) {
            (Some(_), None) if web.any(|(_, stand)| *stand == Stand::Outdated { is_up: true }) => {
                self.releases.phase = Phase::Canary(None);
            }
            (Some(canary), Some((dyno, Stand::Changing))) if !is_asleep => match since {
                Some(since) if now >= since + canary.time => {
                    say("has stood its time as a canary: the others follow");
                    self.end_canary();
                }
                None if self.dynos.get(dyno).is_some_and(|living| living.is_ready) => {
                    let (share, time) = (canary.share, print_duration(canary.time));
                    say(&format!("has {share}% of the requests for {time}, by a canary of {dyno}"));
                    self.releases.begin_canary(canary, now);
                }
                Some(_) | None => self.follow_share(dyno, canary.share),
            },
            _ => self.end_canary(),
        }
    }

    /// The file may have another share for it by now.
    fn follow_share(&self, dyno: &DynoName, share: Hundredths) {
        let Some(living) = self.dynos.get(dyno) else { return };
        living.orders.send_if_modified(|orders| {
            let now = Replace::Canary(share);
            let is_other = matches!(orders.replace, Replace::Canary(_)) && orders.replace != now;
            if is_other {
                orders.replace = now;
            }
            is_other
        });
    }

    /// What the canary does then is what the strategy has.
    fn end_canary(&mut self) {
        self.releases.phase = Phase::Going;
        for (name, living) in &mut self.dynos {
            let replace = self.releases.replace(&name.process_type);
            let waits = living.orders.send_if_modified(|orders| {
                let waits = matches!(orders.replace, Replace::Canary(_));
                if waits {
                    orders.replace = replace;
                }
                waits
            });
            living.is_ready &= !waits;
        }
    }
}
