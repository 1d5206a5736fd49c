//! A copy of the database, made while the daemon writes it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use crate::store::Store;
use crate::store::database::{StoreError, open_to_copy};

/// How long the copy waits for a database that is being opened or closed.
const WAIT: Duration = Duration::from_secs(10);

/// There is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is nothing to copy.
    #[error("there is no {}: nothing was remembered yet", .0.display())]
    Missing(PathBuf),
    /// It would be written over what is copied.
    #[error("{} is the database itself", .0.display())]
    Itself(PathBuf),
    /// The database cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The copy cannot be written.
    #[error("write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// SQLite could not copy.
    #[error("copy to {}: {source}", path.display())]
    Copy {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// What was copied is not whole.
    #[error("the copy is damaged, and so perhaps is the database: {0}")]
    Damaged(String),
}

impl Store {
    /// Copies the database of a state directory as it is at one moment, beside whoever writes it, to a file for its owner
    /// alone. What was there is replaced in one step, and stays where it fails. Blocks on the disk.
    pub fn back_up(state_dir: &Path, to: &Path) -> Result<(), BackupError> {
        let from = Self::file_in(state_dir);
        if !from.exists() {
            return Err(BackupError::Missing(from));
        }
        let same = |path: &Path| fs::canonicalize(path).ok();
        if same(to).is_some_and(|it| Some(it) == same(&from)) {
            return Err(BackupError::Itself(to.to_owned()));
        }
        let source = open_to_copy(&from, WAIT)?;
        let mut name = to.as_os_str().to_owned();
        name.push(".new");
        let draft = PathBuf::from(name);
        let copied = copy(&source, &draft).and_then(|()| put(&draft, to));
        if copied.is_err() {
            // What cannot be removed either is said by what went wrong before.
            let _ = fs::remove_file(&draft);
        }
        copied
    }
}

fn copy(source: &Connection, draft: &Path) -> Result<(), BackupError> {
    let unwritten = |source| BackupError::Write { path: draft.to_owned(), source };
    match fs::remove_file(draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unwritten(error)),
        _ => {}
    }
    // SQLite would make it for everybody to read.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft).map_err(unwritten)?;
    let failed = |source| BackupError::Copy { path: draft.to_owned(), source };
    let mut target = Connection::open(draft).map_err(failed)?;
    let backup = Backup::new(source, &mut target).map_err(failed)?;
    // All at once: a copy in pieces begins anew with each commit. Commits go on meanwhile, into the log.
    match backup.step(-1).map_err(failed)? {
        StepResult::Done => {}
        other => return Err(BackupError::Damaged(format!("{other:?}"))),
    }
    drop(backup);
    // One file is easier to carry than one with its log.
    target.pragma_update(None, "journal_mode", "DELETE").map_err(failed)?;
    let verdict: String =
        target.pragma_query_value(None, "quick_check", |row| row.get(0)).map_err(failed)?;
    match verdict.as_str() {
        "ok" => Ok(()),
        _ => Err(BackupError::Damaged(verdict)),
    }
}

fn put(draft: &Path, to: &Path) -> Result<(), BackupError> {
    let put = || {
        File::open(draft)?.sync_all()?;
        fs::rename(draft, to)?;
        let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty());
        File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
    };
    put().map_err(|source| BackupError::Write { path: to.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::model::Scope;

    async fn make(store: &Store, name: &str) -> String {
        store.make_token(name.into(), Scope::Read, 1).await.unwrap().1
    }

    #[tokio::test]
    async fn a_copy_has_what_was_committed_and_goes_on_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let store = Store::open(&state).unwrap();
        let before = make(&store, "before").await;
        let copy = dir.path().join("copy.db");
        fs::write(&copy, "an older one").unwrap();
        Store::back_up(&state, &copy).unwrap();
        let after = make(&store, "after").await;
        assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
        let names = fs::read_dir(dir.path()).unwrap().map(|it| it.unwrap().file_name());
        let mut names: Vec<_> = names.collect();
        names.sort();
        assert_eq!(names, ["copy.db", "state"], "nothing else is left");

        let restored = dir.path().join("restored");
        fs::create_dir(&restored).unwrap();
        fs::rename(&copy, Store::file_in(&restored)).unwrap();
        fs::copy(state.join("store.key"), restored.join("store.key")).unwrap();
        let copied = Store::open(&restored).unwrap();
        assert_eq!(copied.scope_of(&before).await.unwrap(), Some(Scope::Read));
        assert_eq!(copied.scope_of(&after).await.unwrap(), None);
        make(&copied, "later").await;
        assert_eq!(store.tokens().await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn what_fails_leaves_what_was() {
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("copy.db");
        let missing = Store::back_up(dir.path(), &copy).unwrap_err().to_string();
        assert!(missing.ends_with("dynomesh.db: nothing was remembered yet"), "{missing}");
        let _store = Store::open(dir.path()).unwrap();
        let file = Store::file_in(dir.path());
        let itself = Store::back_up(dir.path(), &file).unwrap_err().to_string();
        assert!(itself.ends_with("dynomesh.db is the database itself"), "{itself}");
        let nowhere = Store::back_up(dir.path(), &dir.path().join("none/copy.db"));
        assert!(nowhere.unwrap_err().to_string().starts_with("write "));
        // A directory is not replaced by a file.
        fs::create_dir(&copy).unwrap();
        assert!(Store::back_up(dir.path(), &copy).is_err());
        assert!(!dir.path().join("copy.db.new").exists());
    }
}
