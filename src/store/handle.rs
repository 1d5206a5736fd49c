//! The thread that owns the database, and how it is asked.

use std::io;
use std::path::Path;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::config::limits;
use crate::store::database;

type Task = Box<dyn FnOnce(&mut Connection) + Send>;

/// The database. Cheap to clone; its thread ends with the last of them.
#[derive(Clone)]
pub struct Store {
    tasks: SyncSender<Task>,
}

impl Store {
    /// Opens `dynomesh.db` in the state directory and starts its thread. Where it cannot be opened it is said,
    /// and what should be remembered is until the end of this process.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let connection = database::open(&state_dir.join("dynomesh.db")).or_else(|error| {
            tracing::error!("{error}; usage and the runs of jobs are forgotten at the end");
            database::in_memory()
        });
        Self::serve(connection.map_err(io::Error::other)?)
    }

    fn serve(mut connection: Connection) -> io::Result<Self> {
        let (tasks, waiting) = sync_channel::<Task>(limits::STORE_TASKS_MAX);
        thread::Builder::new().name("store".into()).spawn(move || {
            for task in waiting {
                task(&mut connection);
            }
        })?;
        Ok(Self { tasks })
    }

    /// Has the thread do this, and waits for the result.
    pub(in crate::store) async fn ask<T: Send + 'static>(
        &self,
        task: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, AskError> {
        let (answer, answered) = oneshot::channel();
        let task: Task = Box::new(move |connection| {
            // Who asked may have left.
            let _ = answer.send(task(connection));
        });
        match self.tasks.try_send(task) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(AskError::Busy),
            Err(TrySendError::Disconnected(_)) => return Err(AskError::Gone),
        }
        answered.await.map_err(|_| AskError::Gone)?.map_err(AskError::Statement)
    }
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
    /// Its thread has ended, by a panic.
    #[error("the thread of the database is gone")]
    Gone,
}
