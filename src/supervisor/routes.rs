//! What the route table says: which app a domain leads to (from the configuration), and which dynos an
//! app has (from their lives). The only file of the supervisor that publishes.
//!
//! Lives change an app's line-up from their own task, in the moment in which they learn something; the
//! configuration changes the whole table. One lock puts these in order; nothing waits while it is held.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time;

use crate::config::{AppConfig, AppSource, Config};
use crate::model::{Affinity, AppName, AppPolicy, DynoAddr, DynoName, Hundredths, ProcessType};
use crate::shutdown::Shutdown;
use crate::table::{
    App, AppId, Canary, Dyno, Lineup, Load, Place, Publisher, Ring, Roster, Routes as TableRoutes,
    Standing, Table, Tally, Traffic,
};

/// Owns what the table is made from.
pub(crate) struct Routes {
    publisher: Arc<Publisher>,
    known: Mutex<Known>,
}

struct Known {
    version: u64,
    /// Of the router. As many as there were cores at the start, where the file says nothing else.
    workers: usize,
    next_entry: u64,
    /// Every app that was ever configured: a name keeps its number and roster, so that counters go on and
    /// requests that wait see the dynos that a later configuration brings up.
    apps: BTreeMap<AppName, KnownApp>,
}

struct KnownApp {
    id: AppId,
    roster: Arc<Roster>,
    wanted: Wanted,
    /// Web dynos that dynomesh runs.
    entries: BTreeMap<u64, Standpoint>,
    /// Their successors that are ready and wait for each other.
    ready: BTreeMap<u64, Arc<Dyno>>,
    /// One of their successors that gets a part of the requests, and whose.
    canary: Option<(u64, Canary)>,
    /// Dynos that somebody else runs.
    external: Vec<Arc<Dyno>>,
    /// The dynos that it should have, where its clients belong to one each.
    places: Vec<Place>,
    /// Made of them, or of what they were a moment ago.
    ring: Option<Arc<Ring>>,
    /// Its limits, where it has any.
    traffic: Option<Arc<Traffic>>,
    /// How long its requests take, where its number of dynos follows that.
    load: Option<Arc<Load>>,
    /// Whether its releases are judged by what they answer.
    is_guarded: bool,
    /// What its releases answer, by their numbers; gone with the last that counts there or reads it.
    tallies: BTreeMap<u64, Weak<Tally>>,
    /// How long one of those may finish what it holds once it has gone from the configuration.
    drain: Duration,
    /// Its web dynos sleep because their hours of this month are used up.
    out_of_hours: bool,
}

/// What the configuration wants of an app's web dynos.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Some,
    None,
    Release,
}

/// How one web dyno stands.
enum Standpoint {
    Starting,
    Up(Arc<Dyno>),
    /// Up, and not well.
    Unhealthy(Arc<Dyno>),
    Crashed,
    Asleep,
}

impl Standpoint {
    fn is_up(&self, dyno: &Arc<Dyno>) -> bool {
        matches!(self, Self::Up(up) if up.id() == dyno.id())
    }
}

impl Routes {
    /// Makes the first table.
    pub(crate) fn new(config: &Config) -> (Arc<Self>, Arc<Publisher>) {
        let workers = config.router.workers;
        let mut known = Known { version: 0, workers, next_entry: 0, apps: BTreeMap::new() };
        let table = known.table(config);
        let publisher = Publisher::new(table);
        let routes = Self { publisher: publisher.clone(), known: Mutex::new(known) };
        // The first configuration takes nothing away.
        let _ = routes.follow_sources(config);
        routes.make_rings();
        (Arc::new(routes), publisher)
    }

    /// Publishes the table of a new configuration. External dynos follow at once, managed ones by their lives.
    pub(crate) fn apply(self: &Arc<Self>, config: &Config, shutdown: &Shutdown) {
        let table = self.known().table(config);
        self.publisher.publish(table);
        for (dyno, drain) in self.follow_sources(config) {
            shutdown.spawn(self.clone().see_off(dyno, drain, shutdown.clone()));
        }
        let routes = self.clone();
        shutdown.spawn(async move {
            // A panic has been logged, and leaves clients with their old rings.
            let _ = spawn_blocking(move || routes.make_rings()).await;
        });
    }

    /// Makes those rings anew whose dynos are others than before, one after the other and without the lock: for
    /// a thousand dynos it takes 15 ms, in which a dyno that crashes must leave the table. Meanwhile requests go
    /// along the old one.
    fn make_rings(&self) {
        let outdated: Vec<_> = {
            let known = self.known();
            let outdated = known.apps.iter().filter(|(_, app)| app.is_ring_outdated());
            outdated.map(|(name, app)| (name.clone(), app.places.clone())).collect()
        };
        for (name, places) in outdated {
            let ring = Ring::new(places).map(Arc::new);
            let mut known = self.known();
            let Some(app) = known.apps.get_mut(&name) else { continue };
            // A later configuration may have come first.
            if ring.as_ref().is_some_and(|ring| ring.places() == app.places) {
                app.ring = ring;
                self.publisher.publish_lineup(&app.roster, app.lineup());
            }
        }
    }

    /// Lets an external dyno that is out of the line-up finish what it holds, lingering requests included, and
    /// has the rest cut. Nobody waits for it to stop its process; a stop of the daemon ends the wait.
    async fn see_off(self: Arc<Self>, dyno: Arc<Dyno>, drain: Duration, shutdown: Shutdown) {
        tokio::select! {
            () = dyno.drained() => {}
            () = time::sleep(drain) => dyno.give_up(),
            () = shutdown.begun() => {}
        }
        drop(self.publisher.gone(&dyno));
    }

    /// The dynos that somebody else runs.
    pub(crate) fn external(&self) -> Vec<(AppName, Arc<Dyno>)> {
        let known = self.known();
        let of_app = |(name, app): (&AppName, &KnownApp)| {
            app.external.iter().map(|dyno| (name.clone(), dyno.clone())).collect::<Vec<_>>()
        };
        known.apps.iter().flat_map(of_app).collect()
    }

    /// A place in the line-up for one web dyno; it begins as starting.
    pub(crate) fn enter(self: &Arc<Self>, app: &AppName) -> Entry {
        let id = {
            let mut known = self.known();
            known.next_entry += 1;
            known.next_entry
        };
        let entry = Entry { routes: self.clone(), app: app.clone(), id };
        entry.starting();
        entry
    }

    /// Has a record, which is out of the line-up, take no more requests and finish those that it holds.
    pub(crate) fn close(&self, dyno: &Arc<Dyno>) {
        self.publisher.close(dyno);
    }

    /// Tells the workers that a record, which is out of the line-up and closed, is gone for good.
    pub(crate) fn gone(&self, dyno: &Arc<Dyno>) -> crate::table::Acknowledged {
        self.publisher.gone(dyno)
    }

    /// Brings what is wanted and the external dynos of each app to what the configuration says. Returns the
    /// dynos that it has no more, out of the line-up and closed, with their time to finish.
    fn follow_sources(&self, config: &Config) -> Vec<(Arc<Dyno>, Duration)> {
        let mut known = self.known();
        let mut gone = Vec::new();
        for (name, app) in &mut known.apps {
            let wanted_app = config.apps.get(name);
            let source = wanted_app.map(|app| &app.source);
            app.wanted = wanted(source);
            let addresses = match source {
                Some(AppSource::External(addresses)) => addresses.as_slice(),
                _ => &[],
            };
            let removed = app.follow_addresses(addresses);
            app.follow_places(wanted_app);
            self.publisher.publish_lineup(&app.roster, app.lineup());
            removed.iter().for_each(|dyno| self.publisher.close(dyno));
            gone.extend(removed.into_iter().map(|dyno| (dyno, app.drain)));
            if let Some(app_now) = wanted_app {
                app.drain = app_now.policy.timeouts.drain;
            }
        }
        gone
    }

    /// How long an app's requests take; `None` where its number of dynos does not follow that.
    pub(crate) fn load(&self, app: &AppName) -> Option<Arc<Load>> {
        self.known().apps.get(app)?.load.clone()
    }

    /// What the dynos of a release answer, as far as they were started since this was asked first. `None`: no guard
    /// judges the app's releases by it.
    pub(crate) fn tally(&self, app: &AppName, release: u64) -> Option<Arc<Tally>> {
        let mut known = self.known();
        let workers = known.workers;
        let app = known.apps.get_mut(app).filter(|app| app.is_guarded)?;
        if let Some(tally) = app.tallies.get(&release).and_then(Weak::upgrade) {
            return Some(tally);
        }
        let tally = Tally::new(workers);
        app.tallies.retain(|_, it| it.strong_count() > 0);
        app.tallies.insert(release, Arc::downgrade(&tally));
        Some(tally)
    }

    /// Says whether an app's web dynos, where they sleep, can be woken this month.
    pub(crate) fn set_out_of_hours(&self, app: &AppName, out_of_hours: bool) {
        if let Some(app) =
            self.known().apps.get_mut(app).filter(|app| app.out_of_hours != out_of_hours)
        {
            app.out_of_hours = out_of_hours;
            self.publisher.publish_lineup(&app.roster, app.lineup());
        }
    }

    /// An app's dynos, as the router sees them. `None`: there never was such an app.
    pub(crate) fn roster(&self, app: &AppName) -> Option<Arc<Roster>> {
        self.known().apps.get(app).map(|app| app.roster.clone())
    }

    /// Puts all successors that are ready in the places of their predecessors, by one line-up. `false`: they are
    /// not as many as that, and nothing has changed.
    pub(crate) fn switch(&self, app: &AppName, count: usize) -> bool {
        let mut known = self.known();
        let Some(app) = known.apps.get_mut(app).filter(|app| app.ready.len() == count) else {
            return false;
        };
        if count > 0 {
            let ready = std::mem::take(&mut app.ready);
            app.entries.extend(ready.into_iter().map(|(id, dyno)| (id, Standpoint::Up(dyno))));
            app.canary = None;
            self.publisher.publish_lineup(&app.roster, app.lineup());
        }
        true
    }

    fn change(&self, app: &AppName, change: impl FnOnce(&mut KnownApp)) {
        let mut known = self.known();
        if let Some(app) = known.apps.get_mut(app) {
            change(app);
            self.publisher.publish_lineup(&app.roster, app.lineup());
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing panics while this lock is held, so poison says nothing.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn table(&mut self, config: &Config) -> Table {
        self.version += 1;
        for (_, gone) in self.apps.iter_mut().filter(|(name, _)| !config.apps.contains_key(name)) {
            (gone.traffic, gone.load, gone.is_guarded) = (None, None, false);
        }
        let apps = config.apps.iter().map(|(name, app)| {
            let known = self
                .apps
                .entry(name.clone())
                .or_insert_with(|| KnownApp::new(wanted(Some(&app.source))));
            let AppPolicy { limits, client_limits, .. } = &app.policy;
            known.traffic =
                Traffic::of(limits, client_limits, known.traffic.as_deref()).map(Arc::new);
            known.load = is_autoscaled(&app.source)
                .then(|| known.load.take().unwrap_or_else(|| Load::new(self.workers)));
            known.is_guarded =
                matches!(&app.source, AppSource::Managed(app) if app.guard.is_some());
            let routed = App {
                id: known.id,
                name: name.clone(),
                policy: app.policy.clone(),
                roster: known.roster.clone(),
                traffic: known.traffic.clone(),
                load: known.load.clone(),
            };
            (Arc::new(routed), app.domains.clone())
        });
        Table::new(TableRoutes {
            version: self.version,
            listener: config.router.listener.clone(),
            apps: apps.collect(),
            domain: config.router.domain.clone(),
            default_app: config.router.default_app.clone(),
        })
    }
}

impl KnownApp {
    fn new(wanted: Wanted) -> Self {
        let mut app = Self {
            id: AppId::fresh(),
            roster: Roster::new(Standing::Blank),
            wanted,
            entries: BTreeMap::new(),
            ready: BTreeMap::new(),
            canary: None,
            external: Vec::new(),
            places: Vec::new(),
            ring: None,
            traffic: None,
            load: None,
            is_guarded: false,
            tallies: BTreeMap::new(),
            drain: Duration::ZERO,
            out_of_hours: false,
        };
        app.roster = Roster::new(app.lineup().standing);
        app
    }

    /// Keeps the records of addresses that stay, makes records for new ones, and returns those that went.
    fn follow_addresses(&mut self, addresses: &[DynoAddr]) -> Vec<Arc<Dyno>> {
        let (mut kept, removed): (Vec<_>, Vec<_>) = std::mem::take(&mut self.external)
            .into_iter()
            .partition(|dyno| addresses.contains(dyno.addr()));
        for addr in addresses {
            if !kept.iter().any(|dyno| dyno.addr() == addr) {
                let number = lowest_free(&kept);
                kept.push(Dyno::new(web(number), addr.clone(), false));
            }
        }
        self.external = kept;
        removed
    }

    /// Dynos that somebody else runs have their place by their address, since their number is ours alone.
    fn follow_places(&mut self, wanted: Option<&AppConfig>) {
        let wanted = wanted.filter(|app| app.policy.affinity == Affinity::Address);
        self.places = match wanted.map(|app| &app.source) {
            Some(AppSource::Managed(app)) => {
                let process_type = ProcessType::web();
                // All that there may be, so that scaling makes no other ring: who is not there is passed over.
                let most = app.autoscale.get(&process_type).map(|rules| rules.max);
                let count = most.or(app.formation.get(&process_type).copied()).unwrap_or(0);
                let place = |number| Place { label: web(number).to_string(), number };
                (1..=count).map(place).collect()
            }
            Some(AppSource::External(_)) => {
                let dynos = self.external.iter();
                let place = |dyno: &Arc<Dyno>| Place {
                    label: dyno.addr().to_string(),
                    number: dyno.name().number,
                };
                dynos.map(place).collect()
            }
            Some(AppSource::Blank) | None => Vec::new(),
        };
        if self.places.is_empty() {
            self.ring = None;
        }
    }

    /// No other record waits for the place of this entry.
    fn forget_successor(&mut self, entry: u64) {
        self.ready.remove(&entry);
        self.canary.take_if(|(of, _)| *of == entry);
    }

    fn is_ring_outdated(&self) -> bool {
        self.ring.as_ref().map_or(&[][..], |ring| ring.places()) != self.places
    }

    fn lineup(&self) -> Lineup {
        let up = self.entries.values().filter_map(|entry| match entry {
            Standpoint::Up(dyno) => Some(dyno.clone()),
            _ => None,
        });
        let mut dynos = self.external.iter().cloned().chain(up).collect::<Vec<_>>();
        if dynos.is_empty() {
            // Those that are not well may answer some requests; nobody else would answer any.
            dynos.extend(self.entries.values().filter_map(|entry| match entry {
                Standpoint::Unhealthy(dyno) => Some(dyno.clone()),
                _ => None,
            }));
        }
        let mut canary = self.canary.as_ref().map(|(_, canary)| canary.clone());
        if dynos.is_empty() {
            // It is better than none.
            dynos.extend(canary.take().map(|canary| canary.dyno));
        }
        dynos.sort_by(|one, other| (one.name(), one.id()).cmp(&(other.name(), other.id())));
        let standing = if dynos.is_empty() { self.standing_without_dynos() } else { Standing::Up };
        Lineup { dynos, canary, ring: self.ring.clone(), standing }
    }

    fn standing_without_dynos(&self) -> Standing {
        match self.wanted {
            Wanted::Release => Standing::Blank,
            Wanted::None => Standing::NoWeb,
            // No entry at all: their lives are about to begin.
            Wanted::Some if self.entries.is_empty() => Standing::Starting,
            Wanted::Some if self.has(|entry| matches!(entry, Standpoint::Starting)) => {
                Standing::Starting
            }
            Wanted::Some if self.has(|entry| matches!(entry, Standpoint::Asleep)) => {
                if self.out_of_hours { Standing::OutOfHours } else { Standing::Asleep }
            }
            Wanted::Some => Standing::Crashed,
        }
    }

    fn has(&self, is: impl FnMut(&Standpoint) -> bool) -> bool {
        self.entries.values().any(is)
    }
}

fn wanted(source: Option<&AppSource>) -> Wanted {
    match source {
        Some(AppSource::Managed(app))
            if app.formation.get(&ProcessType::web()).is_some_and(|count| *count > 0) =>
        {
            Wanted::Some
        }
        Some(AppSource::External(_)) => Wanted::Some,
        Some(AppSource::Managed(_)) | None => Wanted::None,
        Some(AppSource::Blank) => Wanted::Release,
    }
}

fn is_autoscaled(source: &AppSource) -> bool {
    matches!(source, AppSource::Managed(app) if !app.autoscale.is_empty())
}

/// `web.NUMBER`
fn web(number: u32) -> DynoName {
    DynoName { process_type: ProcessType::web(), number }
}

fn lowest_free(dynos: &[Arc<Dyno>]) -> u32 {
    (1..).find(|number| dynos.iter().all(|dyno| dyno.name().number != *number)).unwrap_or(u32::MAX)
}

/// One web dyno's place in its app's line-up. Each change is published before the call returns.
pub(crate) struct Entry {
    routes: Arc<Routes>,
    app: AppName,
    id: u64,
}

impl Entry {
    /// No request can be sent here yet, but soon.
    pub(crate) fn starting(&self) {
        self.stand(Standpoint::Starting);
    }

    /// The same, unless requests are sent to this record, which took the dyno's place meanwhile.
    pub(crate) fn starting_but_for(&self, dyno: &Arc<Dyno>) {
        self.routes.change(&self.app, |app| {
            if !app.entries.get(&self.id).is_some_and(|entry| entry.is_up(dyno)) {
                app.entries.insert(self.id, Standpoint::Starting);
            }
        });
    }

    /// Requests are sent to this record from now on, in place of an earlier one of the same dyno.
    pub(crate) fn up(&self, dyno: &Arc<Dyno>) {
        if self.is_up(dyno) {
            return;
        }
        self.routes.change(&self.app, |app| {
            app.entries.insert(self.id, Standpoint::Up(dyno.clone()));
            app.forget_successor(self.id);
        });
    }

    /// Whether requests are sent to this record.
    pub(crate) fn is_up(&self, dyno: &Arc<Dyno>) -> bool {
        let known = self.routes.known();
        let entry = known.apps.get(&self.app).and_then(|app| app.entries.get(&self.id));
        entry.is_some_and(|entry| entry.is_up(dyno))
    }

    /// This record could take the place of the dyno's, as soon as those of all the others can
    /// ([`switch`](Routes::switch)).
    pub(crate) fn ready(&self, dyno: &Arc<Dyno>) {
        if let Some(app) = self.routes.known().apps.get_mut(&self.app)
            && !app.entries.get(&self.id).is_some_and(|entry| entry.is_up(dyno))
        {
            app.ready.insert(self.id, dyno.clone());
        }
    }

    /// This record gets this part of the requests, in percent, beside the dyno's own; one of an app at a time.
    pub(crate) fn canary(&self, dyno: &Arc<Dyno>, share: Hundredths) {
        self.routes.change(&self.app, |app| {
            app.canary = Some((self.id, Canary { dyno: dyno.clone(), share }));
        });
    }

    /// Whether it was said of it that it is ready, or that it is the canary.
    pub(crate) fn waits(&self, dyno: &Arc<Dyno>) -> bool {
        let known = self.routes.known();
        let Some(app) = known.apps.get(&self.app) else { return false };
        let canary = app.canary.iter().map(|(_, canary)| &canary.dyno);
        app.ready.get(&self.id).into_iter().chain(canary).any(|waits| waits.id() == dyno.id())
    }

    /// It does not wait any more. `false`: it has the place.
    pub(crate) fn withdraw(&self, dyno: &Arc<Dyno>) -> bool {
        self.routes.change(&self.app, |app| app.forget_successor(self.id));
        !self.is_up(dyno)
    }

    /// Requests are sent elsewhere, if there is any dyno that is well. Its record stays open. Whether it gets
    /// requests all the same.
    pub(crate) fn unhealthy(&self, dyno: &Arc<Dyno>) -> bool {
        self.stand(Standpoint::Unhealthy(dyno.clone()));
        self.routes.roster(&self.app).is_some_and(|roster| {
            roster.lineup().dynos.iter().any(|listed| listed.id() == dyno.id())
        })
    }

    /// No request can be sent here until one wakes it.
    pub(crate) fn asleep(&self) {
        self.stand(Standpoint::Asleep);
    }

    /// No request can be sent here, and not soon.
    pub(crate) fn crashed(&self) {
        self.stand(Standpoint::Crashed);
    }

    /// No request is sent here any more.
    pub(crate) fn leave(&self) {
        self.routes.change(&self.app, |app| {
            app.entries.remove(&self.id);
            app.forget_successor(self.id);
        });
    }

    fn stand(&self, standpoint: Standpoint) {
        self.routes.change(&self.app, |app| _ = app.entries.insert(self.id, standpoint));
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.leave();
    }
}
