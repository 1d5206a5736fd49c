//! Releases: what an app runs, numbered.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{Id, ProcessType};

/// What an app runs: a release has another one than the release before it. Its `Debug` shows no values of config vars.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Runs {
    /// What was deployed: the name of its slug.
    pub slug: Option<String>,
    /// The directory that the file names.
    pub dir: Option<String>,
    /// The Procfile: command by process type.
    pub commands: BTreeMap<ProcessType, String>,
    /// Its config vars, those of the file among them.
    pub config_vars: BTreeMap<String, String>,
}

impl fmt::Debug for Runs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config_vars: Vec<_> = self.config_vars.keys().collect();
        f.debug_struct("Runs")
            .field("slug", &self.slug)
            .field("dir", &self.dir)
            .field("commands", &self.commands)
            .field("config_vars", &config_vars)
            .finish()
    }
}

/// A release of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Its own, for programs.
    pub id: Id,
    /// `v7` is 7; from 1, without gaps.
    pub version: u64,
    /// What made it: `Set RACK_ENV config vars`.
    pub description: String,
    /// Who made it.
    pub user: String,
    /// What came of it.
    pub status: ReleaseStatus,
    /// Whether it is what the app runs now.
    pub current: bool,
    /// What it runs.
    pub runs: Runs,
    /// Why it failed, where that is known.
    pub failure: Option<ReleaseFailure>,
    /// Unix seconds.
    pub created_at: u64,
}

/// Why a release failed, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseFailure {
    /// Which dyno did not do what it should.
    pub dyno: String,
    /// What it did, as the rest of a sentence about it.
    pub reason: String,
    /// The last that it printed.
    pub last_lines: Vec<String>,
}

/// What came of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseStatus {
    /// It is on its way.
    Pending,
    /// The app runs it, or did.
    Succeeded,
    /// The app never ran it as a whole, for it does not work.
    Failed,
    /// The same, for another release came before it was there.
    Expired,
}

impl ReleaseStatus {
    /// As Heroku's Platform API has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Expired => "expired",
        }
    }

    /// What [`as_str`](Self::as_str) wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Pending, Self::Succeeded, Self::Failed, Self::Expired];
        all.into_iter().find(|it| it.as_str() == text)
    }
}
