//! What a command or a reload changes, in one transaction.

use std::collections::BTreeMap;

use rusqlite::{Connection, Transaction};
use tokio::time::timeout;

use crate::config::limits;
use crate::model::{AppName, Id, ReleaseFailure, Runs, Stated, StatedApp};
use crate::random;
use crate::store::handle::AskError;
use crate::store::releases::{Maker, go_back, number};
use crate::store::requests::remember;
use crate::store::sealed::SealKey;
use crate::store::{Store, apps};

/// What is to be remembered, all of it or nothing.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The app that a command spoke of, as it is now; `None`: it is gone.
    pub changed: Option<(AppName, Option<StatedApp>)>,
    /// What each app runs from now on.
    pub runs: BTreeMap<AppName, Runs>,
    /// Of the releases that come of it.
    pub maker: Maker,
    /// The release that was begun for the changed app before, by [`begin_release`](Store::begin_release).
    pub begun: Option<u64>,
    /// The release of the changed app that failed, and with which this goes back to another.
    pub back: Option<WentBack>,
    /// By which the request is known that wants it, if its client may repeat it.
    pub request: Option<String>,
}

/// An app goes back to what it ran before.
#[derive(Clone, Debug)]
pub struct WentBack {
    /// From this release.
    pub failed: u64,
    /// Why.
    pub failure: ReleaseFailure,
    /// To this one.
    pub to: u64,
}

/// What is remembered then.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    /// All that commands said.
    pub stated: Stated,
    /// The version of what each app runs.
    pub versions: BTreeMap<AppName, u64>,
    /// Those apps whose version is a new one, which is on its way.
    pub begun: Vec<AppName>,
}

impl Store {
    /// Remembers a change. Of one that was under way after [`limits::STORE_WAIT`], [`stated`](Self::stated) says whether it is
    /// remembered; one that was not under way by then never is.
    pub async fn commit(&self, commit: Commit) -> Result<Committed, AskError> {
        let key = self.key();
        let asked = self.ask_while_waiting(move |connection| write(connection, &key, &commit));
        timeout(limits::STORE_WAIT, asked).await.unwrap_or(Err(AskError::Silent))
    }

    /// Everything that commands said.
    pub async fn stated(&self) -> Result<Stated, AskError> {
        let key = self.key();
        self.ask(move |connection| apps::read(connection, &key)).await
    }
}

fn write(
    connection: &mut Connection,
    key: &SealKey,
    commit: &Commit,
) -> rusqlite::Result<Committed> {
    let transaction = connection.transaction()?;
    match &commit.changed {
        Some((name, Some(app))) => apps::put(&transaction, key, name, app)?,
        Some((name, None)) => {
            if let Some(id) = apps::id_of(&transaction, name)? {
                apps::remove(&transaction, id)?;
            }
        }
        None => {}
    }
    if let Some(request) = &commit.request {
        remember(&transaction, request, commit.maker.at)?;
    }
    let changed = commit.changed.as_ref().map(|(name, _)| name);
    if let (Some(back), Some(name)) = (&commit.back, changed)
        && let Some(id) = apps::id_of(&transaction, name)?
    {
        go_back(&transaction, id, back)?;
    }
    let (mut versions, mut begun) = (BTreeMap::new(), Vec::new());
    for (name, runs) in &commit.runs {
        let app = known(&transaction, key, name, commit.maker.at)?;
        let row = commit.begun.filter(|_| changed == Some(name));
        let numbered = number(&transaction, key, app, runs, &commit.maker, row)?;
        versions.insert(name.clone(), numbered.version);
        if numbered.is_begun {
            begun.push(name.clone());
        }
    }
    let stated = apps::read(&transaction, key)?;
    transaction.commit()?;
    Ok(Committed { stated, versions, begun })
}

/// The id of an app; one of the file is remembered when it first runs something.
fn known(
    transaction: &Transaction<'_>,
    key: &SealKey,
    name: &AppName,
    now: u64,
) -> rusqlite::Result<Id> {
    if let Some(id) = apps::id_of(transaction, name)? {
        return Ok(id);
    }
    let id = new_id();
    apps::put(transaction, key, name, &StatedApp::new(id, now, false))?;
    Ok(id)
}

/// An id that nothing else has.
pub fn new_id() -> Id {
    Id::of_random(random::secret())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(changed: Option<(AppName, Option<StatedApp>)>, running: &[&AppName]) -> Commit {
        let maker = Maker { description: "a test".into(), user: "me".into(), at: 7 };
        let runs = running.iter().map(|name| ((*name).clone(), Runs::default()));
        let (begun, back) = (None, None);
        Commit { changed, runs: runs.collect(), maker, begun, back, request: None }
    }

    #[tokio::test]
    async fn what_is_committed_is_there_after_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let [shop, blog] = ["shop", "blog"].map(|it| AppName::parse(it).unwrap());
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.stated().await.unwrap(), Stated::default());
        let made = StatedApp::new(new_id(), 1, true);
        let change = commit(Some((shop.clone(), Some(made.clone()))), &[&shop, &blog]);
        let committed = store.commit(change).await.unwrap();
        assert_eq!(committed.versions, BTreeMap::from([(shop.clone(), 1), (blog.clone(), 1)]));
        assert_eq!(committed.stated.apps[&shop], made);
        assert!(!committed.stated.apps[&blog].made);
        drop(store);

        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.stated().await.unwrap(), committed.stated);
        assert_eq!(store.releases(&shop).await.unwrap().len(), 1);
        let committed = store.commit(commit(Some((shop.clone(), None)), &[&blog])).await.unwrap();
        assert_eq!(committed.stated.apps.keys().collect::<Vec<_>>(), [&blog]);
        assert_eq!(store.releases(&shop).await.unwrap(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_that_nobody_waits_for_is_not_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let shop = AppName::parse("shop").unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut change = commit(Some((shop, Some(StatedApp::new(new_id(), 1, true)))), &[]);
        change.request = Some("once".into());
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let stuck = store.ask(move |_| Ok(gone.recv().is_ok()));
        let asked = async {
            let error = store.commit(change.clone()).await.unwrap_err();
            assert!(matches!(error, AskError::Silent), "{error}");
            go.send(()).unwrap();
        };
        assert!(tokio::join!(stuck, asked).0.unwrap());
        assert_eq!(store.stated().await.unwrap(), Stated::default());
        assert!(!store.was_done("once").await.unwrap(), "it may be asked for again");
        drop(store);

        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.stated().await.unwrap(), Stated::default());
    }

    #[tokio::test]
    async fn what_fails_leaves_what_was() {
        let dir = tempfile::tempdir().unwrap();
        let [shop, blog] = ["shop", "blog"].map(|it| AppName::parse(it).unwrap());
        let store = Store::open(dir.path()).unwrap();
        let made = StatedApp::new(new_id(), 1, true);
        store.commit(commit(Some((shop.clone(), Some(made.clone()))), &[])).await.unwrap();
        let before = store.stated().await.unwrap();
        // Another app of the same id cannot be; what comes after it is not written either.
        let mut twin =
            commit(Some((shop.clone(), Some(StatedApp::new(new_id(), 1, true)))), &[&blog]);
        assert!(store.commit(twin.clone()).await.is_err());
        twin.changed = None;
        assert_eq!(store.stated().await.unwrap(), before);
        store.commit(twin).await.unwrap();
    }
}
