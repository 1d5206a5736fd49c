//! A life that a defect of ours has ended: its dyno comes back like one that crashed.

use tokio::time::{self, Instant};

use crate::model::AppName;
use crate::random;
use crate::supervisor::cool_off::CoolOff;
use crate::supervisor::manager::{Formed, Manager};
use crate::supervisor::metrics;
use crate::supervisor::spawn::Spawn;

/// Those of one dyno.
#[derive(Default)]
pub(super) struct Defects {
    cool_off: CoolOff,
    last: Option<Instant>,
}

impl<S: Spawn> Manager<S> {
    /// Has the dyno of this life begin another one once it has cooled off. What was left of its process is killed
    /// with the life.
    pub(super) fn replace_later(&mut self, id: u64) {
        let of_app = |(app, formed): (&AppName, &Formed)| {
            let dyno = formed.dynos.iter().find(|(_, living)| living.id == id);
            dyno.map(|(dyno, _)| (app.clone(), dyno.clone()))
        };
        let Some((app, dyno)) = self.apps.iter().find_map(of_app) else { return };
        let Some(formed) = self.apps.get_mut(&app) else { return };
        formed.dynos.remove(&dyno);
        let timeouts = formed.app.timeouts;
        let Defects { cool_off, last } = formed.defects.entry(dyno.clone()).or_default();
        let lived = last.replace(Instant::now()).map(|last| last.elapsed()).unwrap_or_default();
        let wait = cool_off.after_crash(lived, &timeouts, random::fraction());
        metrics::defect(&app, &dyno.process_type);
        tracing::error!(app = %app, "{dyno}: a defect has ended it; it begins anew in {wait:.0?}");
        let (lacking, shutdown) = (self.lacking.clone(), self.means.shutdown.clone());
        self.means.shutdown.spawn(async move {
            tokio::select! {
                // Nobody hears it at the very end.
                () = time::sleep(wait) => drop(lacking.send(app)),
                () = shutdown.begun() => {}
            }
        });
    }
}
