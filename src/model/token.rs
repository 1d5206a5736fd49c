//! Who may ask over the network, and for what.

use crate::model::Id;

/// A token, without its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its own.
    pub id: Id,
    /// What it is for, in its maker's words.
    pub description: String,
    /// What its bearer may do.
    pub scope: Scope,
    /// Unix seconds.
    pub created_at: u64,
}

/// What the bearer of a token may do; each may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Look, but not at config vars.
    Read,
    /// Everything about apps that are there.
    Operate,
    /// Everything.
    Admin,
}

impl Scope {
    /// In one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }

    /// What [`as_str`](Self::as_str) wrote.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Read, Self::Operate, Self::Admin].into_iter().find(|it| it.as_str() == text)
    }
}
