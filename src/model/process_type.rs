//! Process types and formations.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A named command of an app: `web`, `worker`. Heroku's strict key rule:
/// `[a-z0-9]([a-z0-9-]*[a-z0-9])?`, at most 63 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessType(Arc<str>);

impl ProcessType {
    /// Parses a name; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let well_formed = text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if text.is_empty() || !well_formed || text.starts_with('-') || text.ends_with('-') {
            return Err(
                "a process type has lower-case letters, digits and dashes, and neither begins nor ends with a dash",
            );
        }
        if text.len() > 63 {
            return Err("a process type has at most 63 characters");
        }
        Ok(Self(text.into()))
    }

    /// The one process type that the router sends requests to.
    pub fn web() -> Self {
        Self("web".into())
    }

    /// Whether the router sends requests to it.
    pub fn is_web(&self) -> bool {
        &*self.0 == "web"
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProcessType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How many dynos of each process type are wanted.
pub type Formation = BTreeMap<ProcessType, u32>;
