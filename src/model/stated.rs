//! What commands said of the apps. It holds where the configuration file says nothing, and outlives the daemon.

use std::collections::BTreeMap;
use std::fmt;

use crate::model::{AppName, Domain, DrainUrl, Id, ProcessType};

/// Everything that commands said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stated {
    /// Of each app of which they said anything.
    pub apps: BTreeMap<AppName, StatedApp>,
}

/// What commands said of one app. Its `Debug` shows no values of config vars.
#[derive(Clone, PartialEq)]
pub struct StatedApp {
    /// The app's, for programs.
    pub id: Id,
    /// Since when it is known, in Unix seconds.
    pub created_at: u64,
    /// Whether a command made it. Otherwise it is the file's, and gone from here on when it is gone there.
    pub made: bool,
    /// `maintenance:on`, `maintenance:off`
    pub maintenance: Option<bool>,
    /// `domains:add`, in that order.
    pub domains: Vec<StatedDomain>,
    /// `ps:scale`: how many dynos of a process type there should be.
    pub formation: BTreeMap<ProcessType, u32>,
    /// `ps:type`: the name of a process type's size.
    pub sizes: BTreeMap<ProcessType, String>,
    /// `config:set`
    pub config_vars: BTreeMap<String, String>,
    /// What was deployed: the name of its slug.
    pub slug: Option<String>,
    /// `drains:add`, in that order.
    pub drains: Vec<StatedDrain>,
    /// `features:enable`, `features:disable`
    pub features: BTreeMap<Feature, bool>,
}

/// A domain that a command gave to an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatedDomain {
    /// Its own, for programs.
    pub id: Id,
    /// The domain.
    pub domain: Domain,
    /// Since when, in Unix seconds.
    pub created_at: u64,
}

/// A drain that a command gave to an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatedDrain {
    /// Where to.
    pub url: DrainUrl,
    /// Since when, in Unix seconds.
    pub created_at: u64,
}

/// What Heroku calls features: settings that are on or off (Heroku: Preboot; Session Affinity).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// All new web dynos boot beside the old ones: `deploy = "preboot"`.
    Preboot,
    /// A client's requests go to one dyno: `affinity = "cookie"`.
    SessionAffinity,
}

impl Feature {
    /// All that there are, in the order of their names.
    pub const ALL: [Self; 2] = [Self::SessionAffinity, Self::Preboot];

    /// As Heroku names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Preboot => "preboot",
            Self::SessionAffinity => "http-session-affinity",
        }
    }

    /// The one of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == name)
    }
}

impl StatedApp {
    /// An app of which nothing is said yet.
    pub fn new(id: Id, created_at: u64, made: bool) -> Self {
        Self {
            id,
            created_at,
            made,
            maintenance: None,
            domains: Vec::new(),
            formation: BTreeMap::new(),
            sizes: BTreeMap::new(),
            config_vars: BTreeMap::new(),
            slug: None,
            drains: Vec::new(),
            features: BTreeMap::new(),
        }
    }
}

impl fmt::Debug for StatedApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config_vars: Vec<_> = self.config_vars.keys().collect();
        f.debug_struct("StatedApp")
            .field("id", &self.id)
            .field("created_at", &self.created_at)
            .field("made", &self.made)
            .field("maintenance", &self.maintenance)
            .field("domains", &self.domains)
            .field("formation", &self.formation)
            .field("sizes", &self.sizes)
            .field("config_vars", &config_vars)
            .field("slug", &self.slug)
            .field("drains", &self.drains)
            .field("features", &self.features)
            .finish()
    }
}
