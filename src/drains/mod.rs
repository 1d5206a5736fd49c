//! Log drains: an app's log, sent elsewhere as it comes.
//!
//! Each drain reads the log book at its own pace and holds one batch. What it cannot send is tried again; what the
//! book has let go meanwhile is lost to this drain alone, counted, and said in its own stream (L10).

mod format; // lines as the other side wants them. Pure
mod outlet; // the connection to it
mod feed; // the life of one drain

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::model::{AppName, DrainUrl};
use crate::shutdown::Shutdown;
use crate::telemetry::{From, LogBook};

use feed::Feed;

pub use format::token;

/// All drains of all apps.
pub struct Drains {
    book: LogBook,
    shutdown: Shutdown,
    /// PEM: whom to trust beside the system's.
    ca_file: Arc<Mutex<Option<PathBuf>>>,
    running: Mutex<BTreeMap<(AppName, DrainUrl), CancellationToken>>,
}

impl Drains {
    /// None yet.
    pub fn new(book: &LogBook) -> Self {
        feed::describe();
        Self {
            book: book.clone(),
            shutdown: Shutdown::default(),
            ca_file: Arc::default(),
            running: Mutex::default(),
        }
    }

    /// Trusts these certificates beside those of the system, from the next connection on.
    pub fn trust(&self, ca_file: Option<PathBuf>) {
        *self.ca_file.lock().unwrap_or_else(PoisonError::into_inner) = ca_file;
    }

    /// Has exactly these drains. One that was there goes on where it is; a new one begins with what comes. Call it
    /// inside a runtime.
    pub fn apply(&self, wanted: &BTreeMap<AppName, Vec<DrainUrl>>) {
        let wanted = wanted.iter().flat_map(|(app, urls)| urls.iter().map(move |url| (app, url)));
        let mut before = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *running)
        };
        let mut after = BTreeMap::new();
        for (app, url) in wanted {
            let key = (app.clone(), url.clone());
            let removed = before.remove(&key).unwrap_or_else(|| self.begin(app, url));
            after.insert(key, removed);
        }
        before.values().for_each(CancellationToken::cancel);
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = after;
    }

    fn begin(&self, app: &AppName, url: &DrainUrl) -> CancellationToken {
        let removed = CancellationToken::new();
        let follower = self.book.follow(app, From::End);
        let feed = Feed::new(app.clone(), url.clone(), follower, self.ca_file.clone());
        self.shutdown.spawn(feed.run(removed.clone(), self.shutdown.clone()));
        removed
    }

    /// Sends what was logged up to now, within a bound, and ends them all.
    pub async fn finish(&self) {
        self.book.settled().await;
        self.shutdown.begin();
        self.shutdown.finished().await;
    }
}
