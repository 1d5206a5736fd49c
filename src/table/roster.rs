//! An app's dynos, as the router may use them now.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use arc_swap::{ArcSwap, Guard};

use crate::model::Hundredths;
use crate::table::{Doorbell, Dyno, Ring};

/// One app's dynos. It lives as long as the app's name is known, across reloads, so that requests that wait
/// see the dynos that a later configuration brings up.
pub struct Roster {
    lineup: ArcSwap<Lineup>,
    held: AtomicU32,
    bell: Doorbell,
}

/// The dynos that requests may be sent to, and why there are none if there are none.
#[derive(Clone, Debug)]
pub struct Lineup {
    /// Routable web dynos: up, and not draining. In the order of their names.
    pub dynos: Vec<Arc<Dyno>>,
    /// One more, of a release that is on its way, for a part of the requests.
    pub canary: Option<Canary>,
    /// Which of the dynos that there should be a client belongs to, where the app wants that.
    pub ring: Option<Arc<Ring>>,
    /// How the app's web dynos stand; what a request is told when `dynos` is empty.
    pub standing: Standing,
}

/// A dyno beside those that share the requests, with a share of its own.
#[derive(Clone, Debug)]
pub struct Canary {
    /// Its record; one of `dynos` has the same name.
    pub dyno: Arc<Dyno>,
    /// Its part of all requests, in percent.
    pub share: Hundredths,
}

/// How an app's web dynos stand; each has its own answer where none is up (Heroku: Error Codes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Some dyno is up.
    Up,
    /// None is up, at least one is starting: requests are held.
    Starting,
    /// All that could be up sleep: requests ring the bell and are held.
    Asleep,
    /// They may not run any more this month (H82).
    OutOfHours,
    /// Every web dyno is crashed (H10).
    Crashed,
    /// No web dyno is wanted (H14).
    NoWeb,
    /// The app has never had a release (H81).
    Blank,
}

impl Lineup {
    /// All dynos that requests may be sent to.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Dyno>> {
        self.dynos.iter().chain(self.canary.iter().map(|canary| &canary.dyno))
    }

    /// Whether this is the record of the canary.
    pub fn is_canary(&self, dyno: &Dyno) -> bool {
        self.canary.as_ref().is_some_and(|canary| canary.dyno.id() == dyno.id())
    }

    /// The records of one web dyno: none if it is not up, two while it is being replaced.
    pub fn numbered(&self, number: u32) -> &[Arc<Dyno>] {
        let begin = self.dynos.partition_point(|dyno| dyno.name().number < number);
        let count = self.dynos[begin..].partition_point(|dyno| dyno.name().number == number);
        &self.dynos[begin..begin + count]
    }
}

impl Roster {
    /// A roster with no dyno yet.
    pub fn new(standing: Standing) -> Arc<Self> {
        let lineup =
            ArcSwap::from_pointee(Lineup { dynos: Vec::new(), canary: None, ring: None, standing });
        Arc::new(Self { lineup, held: AtomicU32::new(0), bell: Doorbell::default() })
    }

    /// The dynos as of now. Hold it for a moment only.
    pub fn lineup(&self) -> Guard<Arc<Lineup>> {
        self.lineup.load()
    }

    /// Requests of this app for which there is no dyno, over all workers.
    pub fn held(&self) -> &AtomicU32 {
        &self.held
    }

    /// Wakes the app's dynos where they sleep.
    pub fn bell(&self) -> &Doorbell {
        &self.bell
    }

    /// Puts a new line-up in place. Only [`Publisher`](crate::table::Publisher) calls it: the workers must be told.
    pub(in crate::table) fn replace(&self, lineup: Lineup) {
        self.lineup.store(Arc::new(lineup));
    }
}
