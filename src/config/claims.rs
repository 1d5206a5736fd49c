//! Which app a domain belongs to: each name at most one.

use std::collections::BTreeMap;

use crate::config::findings::{COMMAND, Findings};
use crate::model::{AppName, Domain};

/// The domains taken so far.
pub(crate) struct Claims {
    by_domain: BTreeMap<Domain, Claim>,
}

struct Claim {
    app: AppName,
    by: By,
}

/// Who says that a domain is an app's.
#[derive(Clone, Copy)]
enum By {
    /// Nobody has to: it is the app's own name.
    Name,
    /// This line of the file.
    Line(usize),
    /// `domains:add`
    Command,
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
        let claim = |app: &AppName| Claim { app: app.clone(), by: By::Name };
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
        let by = if at == COMMAND { By::Command } else { By::Line(findings.line(at)) };
        let Some(taken) = self.by_domain.get_mut(domain) else {
            self.by_domain.insert(domain.clone(), Claim { app: app.clone(), by });
            return true;
        };
        let own = taken.app == *app;
        let whose = match taken.by {
            // An app may say that its own name is its own.
            By::Name if own => {
                taken.by = by;
                return true;
            }
            // The file may say what a command has said before: from now on it decides.
            By::Line(_) if own && at == COMMAND => return false,
            By::Name => format!("{domain} is the name that apps.{} has of itself", taken.app),
            By::Line(first) if own => format!("{domain} stands on line {first} already"),
            By::Line(first) => format!("{domain} belongs to apps.{} (line {first})", taken.app),
            By::Command if own => format!("{domain} is the app's already"),
            By::Command => format!("{domain} belongs to the app {} (domains:add)", taken.app),
        };
        findings.problem(at, format!("apps.{app}.domains"), whose);
        false
    }
}
