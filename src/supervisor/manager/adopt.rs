//! Dynos that an earlier daemon has left: each goes on in its place, or is stopped where it has none any more.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::{Config, ManagedApp, SupervisorTimeouts, limits};
use crate::init::Order;
use crate::model::{AppName, AppPolicy, Size, SizeName, Sizes};
use crate::supervisor::dyno::{Adopted, Dyno};
use crate::supervisor::manager::{Formed, Living, Manager, Means, managed};
use crate::supervisor::place::{Ended, Event, Orders, Place, Replace, State, WatchOrders};
use crate::supervisor::program::Program;
use crate::supervisor::releases::Release;
use crate::supervisor::running::Running;
use crate::supervisor::spawn::{Process, Spawn, digest_of};
use crate::supervisor::survivors::Survivor;
use crate::supervisor::turns::Turns;
use crate::telemetry::Stamp;
use crate::wall_clock::unix_millis;

impl<S: Spawn> Manager<S> {
    /// Takes over what lives. To be called before anything is started: what is missing is started afterwards, and
    /// what runs an earlier release is restarted, as after any change of the configuration.
    pub(super) fn adopt(&mut self, survivors: Vec<Survivor<S::Process>>, config: &Config) {
        let mut by_app = BTreeMap::<AppName, Vec<_>>::new();
        for survivor in survivors {
            by_app.entry(survivor.app.clone()).or_default().push(survivor);
        }
        for (name, survivors) in by_app {
            match managed(config, &name) {
                Some((app, policy)) => {
                    let survivors = self.adopt_app(&name, app, policy, survivors, &config.sizes);
                    survivors.into_iter().for_each(|it| self.dismiss(it, Some(app), &config.sizes));
                }
                None => {
                    survivors.into_iter().for_each(|it| self.dismiss(it, None, &config.sizes));
                }
            }
        }
    }

    /// Takes over those of one app; returns those that are not wanted.
    fn adopt_app(
        &mut self,
        name: &AppName,
        app: &ManagedApp,
        policy: &AppPolicy,
        survivors: Vec<Survivor<S::Process>>,
        sizes: &Sizes,
    ) -> Vec<Survivor<S::Process>> {
        let mut formed = Formed::new(app.clone());
        formed.follow(app, policy);
        let is_one_off = |survivor: &Survivor<_>| survivor.dyno.is_one_off();
        let (one_offs, mut survivors): (Vec<_>, Vec<_>) =
            survivors.into_iter().partition(is_one_off);
        if !survivors.is_empty() {
            let (newest, unchanged) = newest(&formed, &survivors);
            let up = survivors.iter().filter(|it| it.up_since.is_some() && !it.is_stopping);
            let up = up.map(|it| it.order.identity.release).collect::<Vec<_>>();
            formed.releases.go_on(app, newest, unchanged, &up);
        }
        // Two may have one name: a process and its successor. The better one is the dyno from here on.
        survivors.sort_by_key(|survivor| {
            let Survivor { is_stopping, up_since, order, .. } = survivor;
            (*is_stopping, up_since.is_none(), Reverse(order.identity.started))
        });
        let mut unwanted = Vec::new();
        for survivor in survivors {
            let wanted = formed.may_have(&survivor.dyno) && !survivor.is_stopping;
            let orders = formed.orders(&survivor.dyno.process_type);
            match orders {
                Some(orders) if wanted && !formed.dynos.contains_key(&survivor.dyno) => {
                    let dyno = survivor.dyno.clone();
                    let turns = formed.turns(&dyno.process_type);
                    let living = self.go_on(survivor, orders, turns);
                    formed.dynos.insert(dyno, living);
                }
                _ => unwanted.push(survivor),
            }
        }
        formed.count_found();
        let left = one_offs.into_iter().filter_map(|it| self.adopt_one_off(it, &formed, sizes));
        unwanted.extend(left);
        self.apps.insert(name.clone(), formed);
        unwanted
    }

    /// A dyno that is wanted.
    fn go_on(
        &mut self,
        survivor: Survivor<S::Process>,
        (release, mut orders): (Arc<Release>, Orders),
        turns: Arc<Turns>,
    ) -> Living {
        let told = release.numbered(survivor.order.identity.release);
        // Of the release that is wanted, but not as that is run now: of another size, say.
        let is_outdated = told.number == release.number
            && digest_of(&orders.program) != survivor.order.identity.program;
        orders.restart = u64::from(is_outdated);
        let release = told.number;
        // What it is told is what it does. If that is an earlier release, it is told otherwise right afterwards.
        orders.program = Arc::new(Program { release, ..(*orders.program).clone() });
        let boot = orders.timeouts.boot;
        let begun = (told.clone(), orders);
        let (place, mut living) = self.begin(&survivor.app, &survivor.dyno, begun, turns);
        living.runs = survivor.up_since.map(|_| told);
        living.state = survivor.up_since.map(|_| State::Up);
        let state = if survivor.up_since.is_some() { "up" } else { "starting" };
        place.say(format_args!("Adopted, {state} since {}", time_of(since(&survivor))));
        self.note_adopted(place.id, &survivor);
        let is_up = survivor.up_since.is_some();
        let running = self.running(survivor, &place, boot);
        let Means { spawn, ports, routes, .. } = &self.means;
        let dyno = Dyno::new(place, spawn.clone(), ports.clone(), routes.clone());
        self.means.shutdown.spawn(dyno.go_on(Adopted { running, release, is_up }));
        living
    }

    /// It was there before this daemon, and counts as such.
    pub(super) fn note_adopted(&self, id: u64, survivor: &Survivor<S::Process>) {
        self.means.board.was_there(id, since(survivor));
        self.means.meter.was_there(id, survivor.order.identity.started);
    }

    pub(super) fn running(
        &self,
        survivor: Survivor<S::Process>,
        place: &Place,
        boot: Duration,
    ) -> Running<S::Process> {
        let Survivor { process, dyno, order, .. } = survivor;
        let age = Duration::from_millis(unix_millis().saturating_sub(order.identity.started));
        let age = age.min(boot.saturating_sub(limits::ADOPTED_BOOT));
        let now = Instant::now();
        let port = order.identity.port.filter(|_| dyno.process_type.is_web());
        let web = port.map(|port| (port, self.means.ports.take(port)));
        let started = now.checked_sub(age).unwrap_or(now);
        let release = order.identity.release;
        Running::new(process, place, web, release, started, self.means.routes.clone())
    }

    /// A dyno that is not wanted: its app, its place or its name is not there for it. No request reaches it.
    fn dismiss(&mut self, survivor: Survivor<S::Process>, app: Option<&ManagedApp>, sizes: &Sizes) {
        let Survivor { app: name, dyno, order, .. } = &survivor;
        let size = size_of(order, sizes);
        let program = Program {
            release: order.identity.release,
            command: order.command.clone(),
            dir: order.dir.clone(),
            size,
            config_vars: Arc::default(),
        };
        let timeouts = app.map_or(SupervisorTimeouts::DEFAULT, |app| app.timeouts);
        let orders = Orders {
            program: Arc::new(program),
            timeouts,
            drain: Duration::ZERO,
            watch: WatchOrders::default(),
            upkeep: Arc::default(),
            slow_start: None,
            replace: Replace::Beside,
            keep_warm: None,
            restart: 0,
            asleep: false,
            stop: true,
        };
        let (place, orders) = self.place(name, dyno, orders, Arc::default());
        self.means.board.list(place.id, name.clone(), dyno.clone(), None);
        self.leaving.insert(place.id, orders);
        let started = time_of(order.identity.started);
        place.say(format_args!("Adopted to be stopped, started at {started}"));
        self.note_adopted(place.id, &survivor);
        let running = self.running(survivor, &place, timeouts.boot);
        // It may be frozen, and would hear nothing.
        running.process.thaw();
        self.means.shutdown.spawn(async move {
            let ended = Ended(place.clone());
            place.tell(Event::Entered(State::Stopping));
            running.terminate(&place).await;
            drop(ended);
        });
    }
}

/// The newest release that lives, and whether what that runs is what is wanted now.
fn newest<P>(formed: &Formed, survivors: &[Survivor<P>]) -> (u64, bool) {
    let newest =
        survivors.iter().map(|survivor| survivor.order.identity.release).max().unwrap_or(0);
    let of_newest = |it: &&Survivor<P>| it.order.identity.release == newest;
    let unchanged = survivors.iter().filter(of_newest).all(|survivor| {
        let orders = formed.orders(&survivor.dyno.process_type);
        let program = orders.map(|(_, orders)| digest_of(&orders.program));
        program.as_ref() == Some(&survivor.order.identity.program)
    });
    (newest, unchanged)
}

/// What a dyno that is not wanted is paid for as: what it was started as, also if there is no such size any more.
fn size_of(order: &Order, sizes: &Sizes) -> Arc<Size> {
    let name = order.identity.size.as_deref();
    if let Some(size) = name.and_then(|name| sizes.find(name)) {
        return size.clone();
    }
    let heroku = Sizes::heroku();
    let default = heroku.find(Sizes::DEFAULT);
    let default = default.expect("the size that holds by default is among Heroku's");
    match name.and_then(|name| SizeName::parse(name).ok()) {
        Some(name) => Arc::new(Size { name, ..Size::clone(default) }),
        None => default.clone(),
    }
}

/// Since when it is in its state, in milliseconds since 1970.
pub(super) fn since<P>(survivor: &Survivor<P>) -> u64 {
    survivor.up_since.unwrap_or(survivor.order.identity.started)
}

/// Milliseconds since 1970, as lines have time.
pub(super) fn time_of(millis: u64) -> String {
    let mut stamp = Vec::new();
    Stamp::default().write(&mut stamp, Duration::from_millis(millis));
    String::from_utf8_lossy(&stamp).into_owned()
}

#[cfg(test)]
mod tests; // on a paused clock
