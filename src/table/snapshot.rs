//! Which app a host belongs to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustc_hash::FxHashMap;

use crate::model::{AppName, AppPolicy, Domain, Host, ListenerPolicy};
use crate::table::{Load, Roster, Traffic};

/// A number for an app's name, unique in this daemon's life; the router keys its counters by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AppId(u32);

impl AppId {
    /// A number that no other app has.
    pub fn fresh() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// One app as the router sees it. An exchange keeps the one it was admitted with until its end.
pub struct App {
    /// The number that stays with the app's name.
    pub id: AppId,
    /// The app's name.
    pub name: AppName,
    /// What the file says of it.
    pub policy: AppPolicy,
    /// Its dynos; shared with the app's earlier and later forms.
    pub roster: Arc<Roster>,
    /// Its limits, where it has any; what is counted against them is shared with its earlier and later forms.
    pub traffic: Option<Arc<Traffic>>,
    /// How long its requests take, where its number of dynos follows that; counted on over its forms, too.
    pub load: Option<Arc<Load>>,
}

/// An immutable snapshot: every app, and the domains that lead to them.
pub struct Table {
    version: u64,
    listener: ListenerPolicy,
    exact: FxHashMap<Box<str>, Arc<App>>,
    wildcard: FxHashMap<Box<str>, Arc<App>>,
    machine: Option<Arc<App>>,
    apps: Vec<Arc<App>>,
}

/// What a [`Table`] is made from.
pub struct Routes {
    /// Grows with each table that is published.
    pub version: u64,
    /// What holds before an app is known.
    pub listener: ListenerPolicy,
    /// Every app with its own domains. The caller has made sure that no domain is named twice.
    pub apps: Vec<(Arc<App>, Vec<Domain>)>,
    /// `localhost`: each app answers at `NAME.localhost` too.
    pub domain: Box<str>,
    /// The app that answers at the domain itself and at the machine's bare addresses.
    pub default_app: Option<AppName>,
}

impl Table {
    /// Indexes the routes. A domain that an app names wins over another app's `NAME.domain`.
    pub fn new(routes: Routes) -> Self {
        let Routes { version, listener, apps, domain, default_app } = routes;
        let mut exact = FxHashMap::default();
        let mut wildcard = FxHashMap::default();
        let machine =
            default_app.and_then(|name| apps.iter().find(|(app, _)| app.name == name).cloned());
        if let Some((app, _)) = &machine {
            exact.insert(domain.clone(), app.clone());
        }
        for (app, _) in &apps {
            exact.insert(format!("{}.{domain}", app.name).into(), app.clone());
        }
        for (app, domains) in &apps {
            for domain in domains {
                match domain {
                    Domain::Exact(name) => exact.insert(name.clone(), app.clone()),
                    Domain::Wildcard(name) => wildcard.insert(name.clone(), app.clone()),
                };
            }
        }
        let machine = machine.map(|(app, _)| app);
        let apps = apps.into_iter().map(|(app, _)| app).collect();
        Self { version, listener, exact, wildcard, machine, apps }
    }

    /// The app that a host belongs to: exact before wildcard, the longest wildcard first.
    pub fn find(&self, host: &Host<'_>) -> Option<&Arc<App>> {
        let Host::Name(name) = host else { return self.machine.as_ref() };
        if let Some(app) = self.exact.get(&**name) {
            return Some(app);
        }
        if self.wildcard.is_empty() {
            return None;
        }
        let dots = name.bytes().enumerate().filter(|(_, byte)| *byte == b'.');
        dots.map(|(at, _)| &name[at + 1..]).find_map(|parent| self.wildcard.get(parent))
    }

    /// Every app, in the order of the file.
    pub fn apps(&self) -> &[Arc<App>] {
        &self.apps
    }

    /// What holds for client connections before an app is known.
    pub fn listener(&self) -> &ListenerPolicy {
        &self.listener
    }

    /// Grows with each table that is published.
    pub fn version(&self) -> u64 {
        self.version
    }
}
