//! An app as a verb finds it, and how a verb changes what commands say of it.
//!
//! What the file says, the file decides: a command that would change it is refused, naming file and line.

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::config::{AppConfig, AppSource, Config};
use crate::control::dynos::{find_app, name_of};
use crate::control::{Caller, Changed, Problem, Running};
use crate::model::{AppName, Domain, Id, Stated, StatedApp};
use crate::store::new_id;
use crate::wall_clock;

/// An app at one moment, and all that holds beside it.
#[derive(Clone, Copy)]
pub(in crate::control) struct AppScene<'a> {
    /// The configuration in force.
    pub(in crate::control) config: &'a Config,
    /// What commands said.
    pub(in crate::control) stated: &'a Stated,
    /// The app's name.
    pub(in crate::control) name: &'a AppName,
    /// What the configuration says of it.
    pub(in crate::control) app: &'a AppConfig,
}

/// Shows something of an app, which is named in a path by its name or its id.
pub(in crate::control) fn show_app<T>(
    running: &Running,
    which: &str,
    show: impl FnOnce(&AppScene<'_>) -> T,
) -> Result<T, Problem> {
    let (config, stated) = (running.config.load(), running.stated.load());
    let name = name_of(&stated, which).ok_or_else(|| Problem::no_app(which))?;
    Ok(show(&AppScene::of(&config, &stated, &name)?))
}

/// Has what commands say of an app changed. The change returns what the release says that may come of it, as
/// Heroku's does; the name of the app is returned, by which it is shown then.
pub(in crate::control) async fn change_app(
    running: &Running,
    caller: Caller,
    which: &str,
    change: impl FnOnce(&AppScene<'_>, &mut StatedApp) -> Result<String, Problem> + Send + 'static,
) -> Result<AppName, Problem> {
    let (name, _) = find_app(running, which)?;
    let of = name.clone();
    let change = move |config: &Config, stated: &Stated| {
        let scene = AppScene::of(config, stated, &of)?;
        let mut now = scene
            .known()
            .cloned()
            .unwrap_or_else(|| StatedApp::new(new_id(), wall_clock::unix(), false));
        let description = change(&scene, &mut now)?;
        Ok(Changed { app: of, now: Some(now), description })
    };
    running.change(caller, change).await?;
    Ok(name)
}

impl<'a> AppScene<'a> {
    /// The app of this name.
    pub(in crate::control) fn of(
        config: &'a Config,
        stated: &'a Stated,
        name: &'a AppName,
    ) -> Result<Self, Problem> {
        let app = config.apps.get(name).ok_or_else(|| Problem::no_app(name.as_str()))?;
        Ok(Self { config, stated, name, app })
    }

    /// What commands said of it, if anything.
    pub(in crate::control) fn known(&self) -> Option<&'a StatedApp> {
        self.stated.apps.get(self.name)
    }

    /// The app where something else names whose it is.
    pub(in crate::control) fn named(&self) -> Value {
        json!({ "id": self.known().map(|it| it.id.to_string()), "name": self.name.as_str() })
    }

    /// Where it answers: its own name first, then the others.
    pub(in crate::control) fn domains(&self) -> Vec<Domain> {
        let own = Domain::Exact(format!("{}.{}", self.name, self.config.router.domain).into());
        let others = self.app.domains.iter().filter(|it| **it != own);
        std::iter::once(own.clone()).chain(others.cloned()).collect()
    }

    /// By what programs know a domain of it: that of a command has a number of its own, that of the file one that is
    /// made of the names.
    pub(in crate::control) fn domain_id(&self, domain: &Domain) -> String {
        let stated = self.known().and_then(|it| it.domains.iter().find(|it| it.domain == *domain));
        let id = stated.map_or_else(
            || {
                let digest = digest(&SHA256, format!("{}\0{domain}", self.name).as_bytes());
                let (id, _) = digest.as_ref().split_first_chunk().expect("a digest has 32 bytes");
                Id::of_bytes(*id)
            },
            |it| it.id,
        );
        id.to_string()
    }

    /// Refuses to change what the file says of the app under this key.
    pub(in crate::control) fn refuse_said(&self, key: &str, what: &str) -> Result<(), Problem> {
        match self.app.said.line(key) {
            None => Ok(()),
            Some(line) => Err(Problem {
                id: "fixed_by_file",
                ..Problem::invalid(format!(
                    "{what} is fixed by {}:{line}. Change it there, and run dynomesh reload.",
                    self.config.file.display()
                ))
            }),
        }
    }

    /// Refuses what only an app can have whose dynos dynomesh runs.
    pub(in crate::control) fn refuse_external(&self) -> Result<(), Problem> {
        match self.app.source {
            AppSource::External(_) => Err(Problem::invalid(format!(
                "Somebody else runs the dynos of {}: they have no config vars, no formation and no releases here.",
                self.name
            ))),
            AppSource::Managed(_) | AppSource::Blank => Ok(()),
        }
    }
}
