//! What is known of every dyno, for people: the manager writes it down, anybody may ask.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::model::{AppName, DynoName, DynoState, SizeName};
use crate::supervisor::figures::DynoUsage;
use crate::supervisor::metrics;
use crate::supervisor::place::{Event, State};
use crate::supervisor::program::ProcessId;
use crate::table::Dyno;
use crate::wall_clock;

/// What the supervisor knows of one dyno, for people and for `/debug/dynos`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DynoStatus {
    /// The app.
    pub app: String,
    /// `web.1`
    pub dyno: String,
    /// What a one-off dyno runs; a formation's runs what the Procfile says.
    pub command: Option<String>,
    /// The size of a one-off dyno; a formation's has what the file says.
    pub size: Option<String>,
    /// `starting`, `up`, `idle`, `crashed`, `down`; `external` where somebody else runs it.
    pub state: String,
    /// Unix seconds since when.
    pub since: u64,
    /// The operating system's number of its process, where it runs.
    pub pid: Option<u32>,
    /// Where it accepts connections.
    pub addr: Option<String>,
    /// Requests in flight, lingering ones included.
    pub in_flight: u32,
    /// Of those, requests whose client was answered or has left.
    pub lingering: u32,
    /// Milliseconds of quarantine left: not known here, the router's clock tick at its end.
    pub quarantined_until: u32,
    /// Starts after a crash.
    pub restarts: u32,
    /// The number of the release that has come up in it last.
    pub release: Option<u64>,
    /// What its processes take, where they are in a control group.
    pub usage: Option<DynoUsage>,
}

/// Every dyno that lives, those that are finishing included. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Board {
    dynos: Arc<Mutex<BTreeMap<u64, Listed>>>,
}

struct Listed {
    app: AppName,
    dyno: DynoName,
    one_off: Option<(String, SizeName)>,
    state: Option<State>,
    since: u64,
    /// It was there before this daemon: since when its first state holds.
    before: Option<u64>,
    pid: ProcessId,
    record: Option<Arc<Dyno>>,
    restarts: u32,
    release: Option<u64>,
    usage: Option<Box<DynoUsage>>,
}

impl Board {
    /// Lists a dyno that is about to live; a one-off with its command and its size.
    pub(crate) fn list(
        &self,
        id: u64,
        app: AppName,
        dyno: DynoName,
        one_off: Option<(String, SizeName)>,
    ) {
        let listed = Listed {
            app,
            dyno,
            one_off,
            state: None,
            since: wall_clock::unix(),
            before: None,
            pid: ProcessId::default(),
            record: None,
            restarts: 0,
            release: None,
            usage: None,
        };
        self.dynos().insert(id, listed);
    }

    /// A dyno that is listed has been there since then, in milliseconds since 1970.
    pub(crate) fn was_there(&self, id: u64, since: u64) {
        if let Some(listed) = self.dynos().get_mut(&id) {
            listed.before = Some(since / 1000);
        }
    }

    /// Writes down what happened to a dyno.
    pub(crate) fn note(&self, id: u64, event: &Event) {
        let mut dynos = self.dynos();
        match event {
            Event::Ended => {
                if let Some(gone) = dynos.remove(&id) {
                    gone.count(-1.0);
                }
            }
            Event::Entered(state) => {
                if let Some(listed) = dynos.get_mut(&id) {
                    listed.enter(*state);
                }
            }
            Event::Started { pid, record } => {
                if let Some(listed) = dynos.get_mut(&id) {
                    // Who is up and has another process has been replaced; one that is adopted has none yet.
                    let before = listed.pid.get();
                    if listed.state == Some(State::Up) && before.is_some() && before != pid.get() {
                        listed.since = wall_clock::unix();
                    }
                    (listed.pid, listed.record, listed.usage) = (pid.clone(), record.clone(), None);
                }
            }
            Event::CameUp { release } => {
                if let Some(listed) = dynos.get_mut(&id) {
                    listed.release = Some(*release);
                }
            }
            Event::Ready { .. } | Event::Failed { .. } => {}
            Event::Took { pid, usage } => {
                // One that is leaving, or that may become the dyno, does not count.
                let is_the_one = |it: &&mut Listed| it.pid.get() == pid.get();
                if let Some(listed) = dynos.get_mut(&id).filter(is_the_one) {
                    listed.usage = Some(usage.clone());
                }
            }
        }
    }

    /// The record of a dyno with its process, where it is up and requests may be sent to it.
    pub(crate) fn record_if_up(&self, id: u64) -> Option<(Arc<Dyno>, ProcessId)> {
        let dynos = self.dynos();
        let listed = dynos.get(&id).filter(|listed| listed.state == Some(State::Up))?;
        Some((listed.record.clone()?, listed.pid.clone()))
    }

    /// Every dyno by app and name.
    pub(crate) fn status(&self, external: Vec<(AppName, Arc<Dyno>)>) -> Vec<DynoStatus> {
        let listed = self.dynos();
        let mut all = listed.values().map(Listed::status).collect::<Vec<_>>();
        all.extend(external.iter().map(|(app, dyno)| external_status(app, dyno)));
        all.sort_by(|one, other| (&one.app, &one.dyno).cmp(&(&other.app, &other.dyno)));
        all
    }

    fn dynos(&self) -> MutexGuard<'_, BTreeMap<u64, Listed>> {
        // Nothing panics while this lock is held, so poison says nothing.
        self.dynos.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listed {
    fn enter(&mut self, state: State) {
        if (self.state, state) == (Some(State::Crashed), State::Starting) {
            self.restarts += 1;
        }
        if matches!(state, State::Crashed | State::Asleep) {
            (self.pid, self.record, self.usage) = (ProcessId::default(), None, None);
        }
        if self.state.map(State::outward) != Some(state.outward()) {
            self.count(-1.0);
            self.state = Some(state);
            self.count(1.0);
            self.since = self.before.take().unwrap_or_else(wall_clock::unix);
        }
        self.state = Some(state);
    }

    fn count(&self, change: f64) {
        if let Some(state) = self.state {
            metrics::dynos(&self.app, &self.dyno.process_type, state.outward(), change);
        }
    }

    fn status(&self) -> DynoStatus {
        let state = self.state.map_or(DynoState::Starting, State::outward);
        let record = self.record.as_deref();
        DynoStatus {
            app: self.app.to_string(),
            dyno: self.dyno.to_string(),
            command: self.one_off.as_ref().map(|(command, _)| command.clone()),
            size: self.one_off.as_ref().map(|(_, size)| size.to_string()),
            state: state.to_string(),
            since: self.since,
            pid: self.pid.get(),
            addr: record.map(|record| record.addr().to_string()),
            in_flight: record.map_or(0, Dyno::in_flight),
            lingering: record.map_or(0, |record| record.lingering().load(Ordering::Relaxed)),
            quarantined_until: record.map_or(0, Dyno::quarantined_until),
            restarts: self.restarts,
            release: self.release,
            usage: self.usage.as_deref().cloned(),
        }
    }
}

fn external_status(app: &AppName, dyno: &Dyno) -> DynoStatus {
    DynoStatus {
        app: app.to_string(),
        dyno: dyno.name().to_string(),
        command: None,
        size: None,
        state: "external".into(),
        since: 0,
        pid: None,
        addr: Some(dyno.addr().to_string()),
        in_flight: dyno.in_flight(),
        lingering: dyno.lingering().load(Ordering::Relaxed),
        quarantined_until: dyno.quarantined_until(),
        restarts: 0,
        release: None,
        usage: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ProcessType;

    #[test]
    fn who_is_replaced_is_as_old_as_its_new_process() {
        let board = Board::default();
        let web = DynoName { process_type: ProcessType::web(), number: 1 };
        board.list(1, AppName::parse("shop").unwrap(), web, None);
        board.was_there(1, 5_000);
        let started = |number| {
            let pid = ProcessId::default();
            pid.set(number);
            Event::Started { pid, record: None }
        };
        let since = || board.status(vec![]).remove(0).since;
        board.note(1, &Event::Entered(State::Up));
        board.note(1, &started(7));
        board.note(1, &started(7));
        assert_eq!(since(), 5);
        board.note(1, &started(8));
        board.note(1, &Event::Entered(State::Up));
        assert!(since() > 5);
    }
}
