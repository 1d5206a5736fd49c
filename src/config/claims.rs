//! Which app a domain belongs to: each name at most one.

use std::collections::BTreeMap;

use crate::config::findings::Findings;
use crate::model::{AppName, Domain};

/// The domains taken so far.
pub(crate) struct Claims {
    by_domain: BTreeMap<Domain, Claim>,
}

struct Claim {
    app: AppName,
    /// The line that says so; none for the names that an app has by being one.
    line: Option<usize>,
}

impl Claims {
    /// `NAME.domain` belongs to each app before anybody asks, the domain itself to the default app.
    pub(crate) fn new<'a>(
        domain: &str,
        default_app: Option<&AppName>,
        apps: impl Iterator<Item = &'a AppName>,
    ) -> Self {
        let own = apps.map(|app| (Domain::Exact(format!("{app}.{domain}").into()), app));
        let default = default_app.map(|app| (Domain::Exact(domain.into()), app));
        let claim = |app: &AppName| Claim { app: app.clone(), line: None };
        Self { by_domain: own.chain(default).map(|(domain, app)| (domain, claim(app))).collect() }
    }

    /// Gives a domain to an app, or notes whose it is already. `true` where it is the app's only now.
    pub(crate) fn claim(
        &mut self,
        findings: &mut Findings<'_>,
        at: usize,
        app: &AppName,
        domain: &Domain,
    ) -> bool {
        let line = Some(findings.line(at));
        let Some(taken) = self.by_domain.get_mut(domain) else {
            self.by_domain.insert(domain.clone(), Claim { app: app.clone(), line });
            return true;
        };
        let whose = match taken.line {
            // An app may say that its own name is its own.
            None if taken.app == *app => {
                taken.line = line;
                return true;
            }
            None => format!("{} is the name that apps.{} has of itself", domain, taken.app),
            Some(first) if taken.app == *app => format!("{domain} stands on line {first} already"),
            Some(first) => format!("{domain} belongs to apps.{} (line {first})", taken.app),
        };
        findings.problem(at, format!("apps.{app}.domains"), whose);
        false
    }
}
