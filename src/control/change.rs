//! What commands may change of what commands said: one change at a time, by the loop that also reloads the file.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use crate::config::{AppConfig, Config};
use crate::control::Running;
use crate::control::problem::Problem;
use crate::model::{AppName, Release, Stated, StatedApp};
use crate::store::WentBack;

/// A command that changes something, and who waits for it.
pub struct ChangeRequest {
    /// What it wants.
    pub change: Change,
    /// Who gave it.
    pub caller: Caller,
    /// Whether it takes up a release that is there already.
    pub step: Step,
    /// Told once it is in force, or that nothing was changed.
    pub done: oneshot::Sender<Result<(), Problem>>,
}

/// Where a change stands in the life of a release.
#[derive(Clone, Debug)]
pub enum Step {
    /// At its beginning.
    New,
    /// Its release command has been run.
    Prepared {
        /// Its version.
        version: u64,
    },
    /// It has failed, and another one is gone back to.
    Back(WentBack),
}

/// Who gave a command, and by which request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// An address, as Heroku has them for users.
    pub user: String,
    /// By which a repetition of the request is known; its effect is had once.
    pub request: Option<String>,
}

/// Makes of what holds what a command wants, or says why not. Blocks on nothing.
pub type Change = Box<dyn FnOnce(&Config, &Stated) -> Result<Changed, Problem> + Send>;

/// What a command wants.
#[derive(Clone, Debug, PartialEq)]
pub struct Changed {
    /// Of which app.
    pub app: AppName,
    /// All that commands say of it then; `None`: it is no more.
    pub now: Option<StatedApp>,
    /// What its release says, if there has to be one: `Set RACK_ENV config vars`.
    pub description: String,
}

/// The config vars that commands say of an app which goes back to a release. What the file says of them stays as it is, and
/// what add-ons do: kept here, it would outlive them.
pub fn config_vars_of(
    to: &Release,
    app: &AppConfig,
    attached: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let by_command = |name: &str| {
        app.said.line(&format!("config.{name}")).is_none() && !attached.contains_key(name)
    };
    let vars = to.runs.config_vars.iter().filter(|(name, _)| by_command(name));
    vars.map(|(name, value)| (name.clone(), value.clone())).collect()
}

impl Running {
    /// Has a change put in force, and waits for it.
    pub(in crate::control) async fn change(
        &self,
        caller: Caller,
        change: impl FnOnce(&Config, &Stated) -> Result<Changed, Problem> + Send + 'static,
    ) -> Result<(), Problem> {
        self.step(caller, Step::New, change).await
    }

    /// The same, of a release that is there already.
    pub async fn step(
        &self,
        caller: Caller,
        step: Step,
        change: impl FnOnce(&Config, &Stated) -> Result<Changed, Problem> + Send + 'static,
    ) -> Result<(), Problem> {
        let (done, outcome) = oneshot::channel();
        let request = ChangeRequest { change: Box::new(change), caller, step, done };
        let stopping = || Problem::unavailable("dynomesh is stopping");
        self.changes.send(request).await.map_err(|_| stopping())?;
        outcome.await.map_err(|_| stopping())?
    }

    /// Whether what this caller's request wants was done before, perhaps by another daemon.
    pub(in crate::control) async fn was_done(&self, caller: &Caller) -> Result<bool, Problem> {
        let Some(request) = &caller.request else { return Ok(false) };
        let was_done = self.store.was_done(request).await;
        was_done.map_err(|error| Problem::internal(format!("What was done before: {error}")))
    }
}
