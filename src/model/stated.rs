//! What commands said of the apps. It holds where the configuration file says nothing, and outlives the daemon.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

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
    /// `ps:autoscale:enable`: that the number of web dynos follows the requests.
    pub autoscale: Option<StatedAutoscale>,
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
    /// `certs:add`, in that order.
    pub certificates: Vec<StatedCertificate>,
    /// `addons:create`: what is its own, in that order.
    pub addons: Vec<StatedAddon>,
    /// `addons:create`, `addons:attach`, in that order; no name twice.
    pub attachments: Vec<StatedAttachment>,
}

/// Between which bounds a command has the number of web dynos follow the requests, and by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatedAutoscale {
    /// Never fewer; at least 1.
    pub min: u32,
    /// Never more; at least `min`.
    pub max: u32,
    /// At most one request in twenty takes the dyno longer than this: whole milliseconds.
    pub p95: Duration,
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

/// A resource outside that a command named: a database, a mail server. Its `Debug` does not show where it is, for there may
/// be a password in that.
#[derive(Clone, PartialEq, Eq)]
pub struct StatedAddon {
    /// Its own, for programs.
    pub id: Id,
    /// By which commands mean it; no other has it.
    pub name: String,
    /// What it is: `redis`, or with what Heroku would call a plan, `redis:local`.
    pub plan: String,
    /// Where it is.
    pub url: String,
    /// Since when, in Unix seconds.
    pub created_at: u64,
}

impl StatedAddon {
    /// `redis` of `redis:local`.
    pub fn service(&self) -> &str {
        self.plan.split(':').next().unwrap_or_default()
    }
}

impl fmt::Debug for StatedAddon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatedAddon")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("plan", &self.plan)
            .field("created_at", &self.created_at)
            .finish_non_exhaustive()
    }
}

/// An add-on, of this app or another, that an app is told of by a config var.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatedAttachment {
    /// Its own, for programs.
    pub id: Id,
    /// `REDIS`
    pub name: String,
    /// Which add-on.
    pub addon: Id,
    /// Since when, in Unix seconds.
    pub created_at: u64,
}

impl StatedAttachment {
    /// The config var that has the add-on's URL: `REDIS_URL`.
    pub fn var(&self) -> String {
        format!("{}_URL", self.name)
    }
}

impl Stated {
    /// All add-ons, with the apps whose they are.
    pub fn addons(&self) -> impl Iterator<Item = (&AppName, &StatedAddon)> {
        self.apps.iter().flat_map(|(name, app)| app.addons.iter().map(move |it| (name, it)))
    }

    /// The config vars that an app has by its attachments. One whose add-on is no more stands for none.
    pub fn attached(&self, app: &AppName) -> BTreeMap<String, String> {
        let attachments = self.apps.get(app).into_iter().flat_map(|it| &it.attachments);
        let var = |it: &StatedAttachment| {
            let (_, addon) = self.addons().find(|(_, addon)| addon.id == it.addon)?;
            Some((it.var(), addon.url.clone()))
        };
        attachments.filter_map(var).collect()
    }
}

/// A certificate that a command gave to an app: what Heroku calls an SNI endpoint. Its `Debug` shows no key.
#[derive(Clone, PartialEq, Eq)]
pub struct StatedCertificate {
    /// Its own, for programs.
    pub id: Id,
    /// By which commands mean it.
    pub name: String,
    /// PEM: the certificate itself, then those between it and a root.
    pub chain: String,
    /// PEM.
    pub key: String,
    /// The names that it is for; none twice.
    pub names: Vec<Domain>,
    /// The app's domains for which it was chosen before others that are for them, too.
    pub chosen_for: Vec<Domain>,
    /// Whether the system's roots led to it when it was added.
    pub is_trusted: bool,
    /// Since when, in Unix seconds.
    pub created_at: u64,
    /// When its chain and key were exchanged last, in Unix seconds.
    pub updated_at: u64,
}

impl StatedCertificate {
    /// Whether clients would accept it for all of a domain: one label stands for `*.` (RFC 9525 §6.3).
    pub fn is_for(&self, domain: &Domain) -> bool {
        let above = match domain {
            Domain::Exact(name) => name.split_once('.').map(|(_, above)| above),
            Domain::Wildcard(_) => None,
        };
        let wildcard = above.map(|above| Domain::Wildcard(above.into()));
        self.names.iter().any(|name| name == domain || Some(name) == wildcard.as_ref())
    }
}

impl fmt::Debug for StatedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatedCertificate")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("names", &self.names)
            .field("chosen_for", &self.chosen_for)
            .field("is_trusted", &self.is_trusted)
            .field("created_at", &self.created_at)
            .field("updated_at", &self.updated_at)
            .finish_non_exhaustive()
    }
}

/// Which of an app's certificates is shown for a domain of it: the one that was chosen, else the newest of those that are
/// for it.
pub fn certificate_of<'a>(
    certificates: &'a [StatedCertificate],
    domain: &Domain,
) -> Option<&'a StatedCertificate> {
    let of_it = || certificates.iter().filter(|it| it.is_for(domain));
    of_it().find(|it| it.chosen_for.contains(domain)).or_else(|| of_it().next_back())
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
            autoscale: None,
            sizes: BTreeMap::new(),
            config_vars: BTreeMap::new(),
            slug: None,
            drains: Vec::new(),
            features: BTreeMap::new(),
            certificates: Vec::new(),
            addons: Vec::new(),
            attachments: Vec::new(),
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
            .field("autoscale", &self.autoscale)
            .field("sizes", &self.sizes)
            .field("config_vars", &config_vars)
            .field("slug", &self.slug)
            .field("drains", &self.drains)
            .field("features", &self.features)
            .field("certificates", &self.certificates)
            .field("addons", &self.addons)
            .field("attachments", &self.attachments)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_certificate_of_a_domain_is_shown_and_else_the_newest() {
        let domains = |texts: &[&str]| texts.iter().map(|it| Domain::parse(it).unwrap()).collect();
        let certificate = |name: &str, names: &[&str], chosen_for: &[&str]| StatedCertificate {
            id: Id::of_random([1; 16]),
            name: name.into(),
            chain: String::new(),
            key: "secret".into(),
            names: domains(names),
            chosen_for: domains(chosen_for),
            is_trusted: false,
            created_at: 0,
            updated_at: 0,
        };
        let certificates = [
            certificate("first", &["*.a.test", "b.test"], &["x.a.test", "c.test"]),
            certificate("second", &["*.a.test", "a.test"], &[]),
        ];
        let check = |domain: &str, expected: Option<&str>| {
            let found = certificate_of(&certificates, &Domain::parse(domain).unwrap());
            assert_eq!(found.map(|it| it.name.as_str()), expected, "{domain}");
        };
        check("a.test", Some("second"));
        check("b.test", Some("first"));
        check("*.a.test", Some("second"));
        check("x.a.test", Some("first"));
        check("y.a.test", Some("second"));
        // One label only; and to be chosen is not to be accepted.
        check("z.y.a.test", None);
        check("*.test", None);
        check("c.test", None);
        assert!(!format!("{certificates:?}").contains("secret"));
    }
}
