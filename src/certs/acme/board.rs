//! How each name stands, for people: the manager writes it down, anybody may ask.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// How a name stands, in the words of Heroku's `certs:auto` (Heroku: Automated Certificate Management).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AcmeState {
    /// A certificate is to be ordered, or the server is to see that the name is ours.
    #[default]
    Waiting,
    /// The server has seen it, and issues the certificate.
    Verified,
    /// The certificate is served.
    Ok,
    /// The last order failed. A certificate from before is served until it expires.
    Failing {
        /// Of what, mostly in the server's words.
        reason: String,
    },
}

/// How a name stands, for people and for `/debug/certs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AcmeStatus {
    /// The domain.
    pub name: String,
    /// `Waiting`, `Verified`, `OK`, `Failing`.
    pub state: &'static str,
    /// Of what it fails.
    pub reason: Option<String>,
    /// When the certificate that is served expires, in Unix seconds.
    pub expires: Option<u64>,
}

/// Every name that is wanted. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Board {
    names: Arc<Mutex<BTreeMap<Box<str>, Listed>>>,
}

#[derive(Default)]
struct Listed {
    state: AcmeState,
    not_after: Option<SystemTime>,
}

impl Listed {
    fn status(&self, name: &str) -> AcmeStatus {
        let reason = match &self.state {
            AcmeState::Failing { reason } => Some(reason.clone()),
            _ => None,
        };
        let expires = self.not_after.and_then(|it| it.duration_since(UNIX_EPOCH).ok());
        let expires = expires.map(|it| it.as_secs());
        AcmeStatus { name: name.into(), state: self.state.word(), reason, expires }
    }
}

impl AcmeState {
    /// Every word that a state can be.
    pub const WORDS: [&'static str; 4] = ["Waiting", "Verified", "OK", "Failing"];

    /// Its word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Waiting => "Waiting",
            Self::Verified => "Verified",
            Self::Ok => "OK",
            Self::Failing { .. } => "Failing",
        }
    }
}

impl fmt::Display for AcmeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failing { reason } => write!(f, "{}: {reason}", self.word()),
            state => f.write_str(state.word()),
        }
    }
}

impl Board {
    /// Lists a name, and the certificate that it has.
    pub(crate) fn list(&self, name: &str, not_after: Option<SystemTime>) {
        let mut names = self.names();
        let listed = names.entry(name.into()).or_default();
        if not_after.is_some() {
            listed.not_after = not_after;
        }
        drop(names);
        self.enter(name, if not_after.is_some() { AcmeState::Ok } else { AcmeState::Waiting });
    }

    /// Says a change of state, once.
    pub(crate) fn enter(&self, name: &str, state: AcmeState) {
        let mut names = self.names();
        let Some(listed) = names.get_mut(name) else { return };
        if listed.state == state {
            return;
        }
        match &state {
            AcmeState::Failing { .. } => tracing::warn!("certificate of {name}: {state}"),
            _ => tracing::info!("certificate of {name}: {state}"),
        }
        listed.state = state;
    }

    /// Lists these names and no others.
    pub(crate) fn keep(&self, wanted: impl Fn(&str) -> bool) {
        self.names().retain(|name, _| wanted(name));
    }

    /// Every name in order.
    pub(crate) fn states(&self) -> Vec<AcmeStatus> {
        let names = self.names();
        names.iter().map(|(name, listed)| listed.status(name)).collect()
    }

    fn names(&self) -> MutexGuard<'_, BTreeMap<Box<str>, Listed>> {
        // Nothing panics while this lock is held, so poison says nothing.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
