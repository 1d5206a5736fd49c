//! The thread that owns the database, and how it is asked.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::config::limits;
use crate::model::Stated;
use crate::store::apps;
use crate::store::database::{self, StoreError};
use crate::store::sealed::{SealError, SealKey};

type Task = Box<dyn FnOnce(&mut Connection) + Send>;
type Answer<T> = oneshot::Sender<rusqlite::Result<T>>;

/// The database in the state directory.
const FILE: &str = "dynomesh.db";

/// The database. Cheap to clone; its thread ends with the last of them.
#[derive(Clone)]
pub struct Store {
    tasks: SyncSender<Task>,
    key: Arc<SealKey>,
}

/// What is remembered cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key of what is encrypted in it.
    #[error(transparent)]
    Key(#[from] SealError),
    /// Its thread.
    #[error("start the thread of the database: {0}")]
    Thread(#[from] io::Error),
}

impl Store {
    /// Where the database of a state directory is.
    pub(in crate::store) fn file_in(state_dir: &Path) -> PathBuf {
        state_dir.join(FILE)
    }

    /// Opens `dynomesh.db` in the state directory and starts its thread. Where there is none and none can be made it is
    /// said, and what should be remembered is until the end of this process.
    ///
    /// # Errors
    /// There is one that cannot be read: without what commands said, apps would be gone that people rely on.
    pub fn open(state_dir: &Path) -> Result<Self, OpenError> {
        let file = Self::file_in(state_dir);
        let opened = database::open(&file);
        let (connection, key) = match opened {
            Ok(connection) => (connection, SealKey::load_or_make(state_dir)?),
            Err(error) if file.exists() => return Err(error.into()),
            Err(error) => {
                tracing::error!("{error}; what commands say, and usage, is forgotten at the end");
                (database::in_memory()?, SealKey::passing())
            }
        };
        Ok(Self { tasks: serve(connection)?, key: Arc::new(key) })
    }

    /// What commands said, read beside a daemon that may be running: for `check`. Nothing is made or changed.
    pub fn peek(state_dir: &Path) -> Result<Stated, OpenError> {
        let file = Self::file_in(state_dir);
        if !file.exists() {
            return Ok(Stated::default());
        }
        let connection = database::open_to_read(&file)?;
        // Without the key what is not sealed can be read all the same; where something is, none opens it.
        let key = SealKey::load(state_dir)?.unwrap_or_else(SealKey::passing);
        let read = apps::read(&connection, &key);
        Ok(read.map_err(|source| StoreError::Database { path: file, source })?)
    }

    pub(in crate::store) fn key(&self) -> Arc<SealKey> {
        self.key.clone()
    }

    /// Has the thread do this, and waits for the result. It is done also where whoever asked has left.
    pub(in crate::store) async fn ask<T: Send + 'static>(
        &self,
        task: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, AskError> {
        self.queue(|answer| {
            Box::new(move |connection| {
                // Who asked may have left.
                let _ = answer.send(task(connection));
            })
        })
        .await
    }

    /// The same, but what nobody waits for any more is not begun: whoever has left was told that it failed.
    pub(in crate::store) async fn ask_while_waiting<T: Send + 'static>(
        &self,
        task: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, AskError> {
        self.queue(|answer| {
            Box::new(move |connection| {
                if !answer.is_closed() {
                    let _ = answer.send(task(connection));
                }
            })
        })
        .await
    }

    async fn queue<T>(&self, task: impl FnOnce(Answer<T>) -> Task) -> Result<T, AskError> {
        let (answer, answered) = oneshot::channel();
        match self.tasks.try_send(task(answer)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(AskError::Busy),
            Err(TrySendError::Disconnected(_)) => return Err(AskError::Gone),
        }
        answered.await.map_err(|_| AskError::Gone)?.map_err(AskError::Statement)
    }
}

fn serve(mut connection: Connection) -> io::Result<SyncSender<Task>> {
    let (tasks, waiting) = sync_channel::<Task>(limits::STORE_TASKS_MAX);
    thread::Builder::new().name("store".into()).spawn(move || {
        for task in waiting {
            task(&mut connection);
        }
    })?;
    Ok(tasks)
}

/// A question that the database did not answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// What SQLite says.
    #[error("{0}")]
    Statement(rusqlite::Error),
    /// The disk is far behind.
    #[error("{} tasks wait for the database", limits::STORE_TASKS_MAX)]
    Busy,
    /// The disk is stuck.
    #[error("the database has not answered within {} s", limits::STORE_WAIT.as_secs())]
    Silent,
    /// Its thread has ended, by a panic.
    #[error("the thread of the database is gone")]
    Gone,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::*;
    use crate::model::{AppName, StatedApp};
    use crate::store::commit::{Commit, new_id};
    use crate::store::releases::Maker;

    async fn say(store: &Store, app: StatedApp) {
        let maker = Maker { description: String::new(), user: String::new(), at: 7 };
        let changed = Some((AppName::parse("shop").unwrap(), Some(app)));
        let commit = Commit {
            changed,
            runs: BTreeMap::new(),
            maker,
            request: None,
            begun: None,
            back: None,
        };
        store.commit(commit).await.unwrap();
    }

    #[tokio::test]
    async fn without_the_key_only_what_is_sealed_stays_hidden() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Store::peek(dir.path()).unwrap(), Stated::default());
        let store = Store::open(dir.path()).unwrap();
        let mut app = StatedApp::new(new_id(), 7, true);
        say(&store, app.clone()).await;
        fs::remove_file(dir.path().join("store.key")).unwrap();
        assert_eq!(Store::peek(dir.path()).unwrap().apps.len(), 1);
        app.config_vars.insert("A".into(), "1".into());
        say(&store, app).await;
        let error = Store::peek(dir.path()).unwrap_err().to_string();
        assert!(error.contains("it was not encrypted with the key in store.key"), "{error}");
    }
    #[tokio::test]
    async fn what_is_under_way_is_done_whoever_waits() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let ((begun, mut begins), (go, gone)) =
            (tokio::sync::mpsc::channel(1), std::sync::mpsc::channel::<()>());
        let asked = store.ask_while_waiting(move |connection| {
            begun.blocking_send(()).unwrap();
            gone.recv().unwrap();
            connection.execute_batch("CREATE TABLE done (x)")
        });
        tokio::select! {
            biased;
            answer = asked => panic!("{answer:?}"),
            _ = begins.recv() => {}
        }
        go.send(()).unwrap();
        let done = "SELECT count(*) FROM sqlite_master WHERE name = 'done'";
        let count = move |connection: &mut Connection| -> rusqlite::Result<u32> {
            connection.query_row(done, (), |row| row.get(0))
        };
        assert_eq!(store.ask(count).await.unwrap(), 1);
    }
}
