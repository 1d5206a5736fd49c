//! Pipelines: apps of one code base, one stage after another.

use crate::model::{AppName, Id};

/// A pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pipeline {
    /// Its own, for programs.
    pub id: Id,
    /// By which commands mean it; no other has it.
    pub name: String,
    /// Since when, in Unix seconds.
    pub created_at: u64,
}

/// An app's place in a pipeline. It has at most one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coupling {
    /// Its own, for programs.
    pub id: Id,
    /// In which pipeline.
    pub pipeline: Id,
    /// The app's id.
    pub app: Id,
    /// The app's name.
    pub name: AppName,
    /// At which stage.
    pub stage: Stage,
    /// Since when, in Unix seconds.
    pub created_at: u64,
}

/// How far the code of an app has come, in that order (Heroku: Pipelines).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Somebody looks at it.
    Review,
    /// It is being written.
    Development,
    /// It is being tried.
    Staging,
    /// People use it.
    Production,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Review, Self::Development, Self::Staging, Self::Production];

    /// As Heroku's Platform API has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Review => "review",
            Self::Development => "development",
            Self::Staging => "staging",
            Self::Production => "production",
        }
    }

    /// The stage of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == name)
    }
}
