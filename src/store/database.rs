//! Opening the database, and the steps from one schema to the next.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags};

use crate::private_file;

/// Each takes the schema one step further; its place, from 1, is the schema's version. What was once shipped
/// is never changed.
const STEPS: [&str; 5] = [
    "
    CREATE TABLE usage (
        month INTEGER NOT NULL,       -- its first Unix second, UTC
        app TEXT NOT NULL,
        process_type TEXT NOT NULL,
        size TEXT NOT NULL,
        millis INTEGER NOT NULL,
        PRIMARY KEY (month, app, process_type, size)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE booked (             -- one row: the Unix millisecond up to which usage is booked
        row INTEGER PRIMARY KEY CHECK (row = 1),
        until INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE job_runs (
        app TEXT NOT NULL,
        job TEXT NOT NULL,
        last INTEGER NOT NULL,        -- the Unix second for which it was started last
        PRIMARY KEY (app, job)
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE apps (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        created_at INTEGER NOT NULL,  -- here and below: Unix seconds
        made INTEGER NOT NULL,        -- whether a command made it; otherwise it is the file's
        maintenance INTEGER,          -- NULL: no command said
        slug TEXT,
        release INTEGER               -- the version of what it runs; NULL: none yet
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE domains (
        id TEXT PRIMARY KEY,
        app TEXT NOT NULL REFERENCES apps ON DELETE CASCADE,
        place INTEGER NOT NULL,       -- in the order in which they were added
        domain TEXT NOT NULL,
        created_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX domains_of_app ON domains (app, place);

    CREATE TABLE formations (
        app TEXT NOT NULL REFERENCES apps ON DELETE CASCADE,
        process_type TEXT NOT NULL,
        quantity INTEGER,             -- NULL: no command said
        size TEXT,                    -- NULL: no command said
        PRIMARY KEY (app, process_type)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE config_vars (
        app TEXT NOT NULL REFERENCES apps ON DELETE CASCADE,
        name TEXT NOT NULL,
        value BLOB NOT NULL,          -- sealed
        PRIMARY KEY (app, name)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE releases (
        id TEXT PRIMARY KEY,
        app TEXT NOT NULL REFERENCES apps ON DELETE CASCADE,
        version INTEGER NOT NULL,
        description TEXT NOT NULL,
        user TEXT NOT NULL,
        status TEXT NOT NULL CHECK (status IN ('pending', 'succeeded', 'failed')),
        slug TEXT,
        dir TEXT,
        commands TEXT NOT NULL,       -- JSON: command by process type
        config_vars BLOB NOT NULL,    -- JSON, sealed
        fingerprint TEXT NOT NULL,    -- of what it runs
        created_at INTEGER NOT NULL,
        UNIQUE (app, version)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE tokens (
        id TEXT PRIMARY KEY,
        description TEXT NOT NULL,
        scope TEXT NOT NULL,
        hash TEXT NOT NULL UNIQUE,    -- SHA-256 of the token, hexadecimal
        created_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE requests (           -- of which the effect is there: a client that repeats one gets it once
        key TEXT PRIMARY KEY,
        at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE drains (
        app TEXT NOT NULL REFERENCES apps ON DELETE CASCADE,
        place INTEGER NOT NULL,       -- in the order in which they were added
        url BLOB NOT NULL,            -- sealed: there may be a password in it
        created_at INTEGER NOT NULL,
        PRIMARY KEY (app, place)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE features (
        app TEXT NOT NULL REFERENCES apps ON DELETE CASCADE,
        name TEXT NOT NULL,
        enabled INTEGER NOT NULL,
        PRIMARY KEY (app, name)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE certificates (
        id TEXT PRIMARY KEY,
        app TEXT NOT NULL REFERENCES apps ON DELETE CASCADE,
        place INTEGER NOT NULL,       -- in the order in which they were added
        name TEXT NOT NULL,
        chain TEXT NOT NULL,          -- PEM
        key BLOB NOT NULL,            -- PEM, sealed
        names TEXT NOT NULL,          -- JSON: the domains that it is for
        chosen_for TEXT NOT NULL,     -- JSON: those of the app's for which it was chosen
        is_trusted INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX certificates_of_app ON certificates (app, place);

    CREATE TABLE addons (
        id TEXT PRIMARY KEY,
        app TEXT NOT NULL REFERENCES apps ON DELETE CASCADE,
        place INTEGER NOT NULL,       -- in the order in which they were made
        name TEXT NOT NULL UNIQUE,
        plan TEXT NOT NULL,
        url BLOB NOT NULL,            -- sealed
        created_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX addons_of_app ON addons (app, place);

    CREATE TABLE attachments (        -- of add-ons to apps; those of an add-on go with it
        id TEXT PRIMARY KEY,
        app TEXT NOT NULL REFERENCES apps ON DELETE CASCADE,
        place INTEGER NOT NULL,
        name TEXT NOT NULL,
        addon TEXT NOT NULL REFERENCES addons ON DELETE CASCADE,
        created_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX attachments_of_app ON attachments (app, place);
    CREATE INDEX attachments_of_addon ON attachments (addon);

    CREATE TABLE pipelines (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        created_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE couplings (          -- of apps to pipelines
        app TEXT PRIMARY KEY REFERENCES apps ON DELETE CASCADE,
        id TEXT NOT NULL UNIQUE,
        pipeline TEXT NOT NULL REFERENCES pipelines ON DELETE CASCADE,
        stage TEXT NOT NULL,
        created_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
",
    "
    ALTER TABLE releases RENAME TO releases_before;
    CREATE TABLE releases (
        id TEXT PRIMARY KEY,
        app TEXT NOT NULL REFERENCES apps ON DELETE CASCADE,
        version INTEGER NOT NULL,
        description TEXT NOT NULL,
        user TEXT NOT NULL,
        status TEXT NOT NULL CHECK (status IN ('pending', 'succeeded', 'failed', 'expired')),
        slug TEXT,
        dir TEXT,
        commands TEXT NOT NULL,       -- JSON: command by process type
        config_vars BLOB NOT NULL,    -- JSON, sealed
        fingerprint TEXT NOT NULL,    -- of what it runs
        created_at INTEGER NOT NULL,
        failure TEXT,                 -- JSON: why it failed
        UNIQUE (app, version)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO releases SELECT id, app, version, description, user, status, slug, dir, commands, config_vars,
        fingerprint, created_at, NULL FROM releases_before;
    DROP TABLE releases_before;
",
    "
    CREATE TABLE autoscale (          -- of web dynos; no row: no command said
        app TEXT PRIMARY KEY REFERENCES apps ON DELETE CASCADE,
        min INTEGER NOT NULL,
        max INTEGER NOT NULL,
        p95 INTEGER NOT NULL          -- milliseconds
    ) STRICT, WITHOUT ROWID;
",
];

/// The database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Its file or directory.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What SQLite says.
    #[error("{}: {source}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// It is from the future.
    #[error(
        "{}: was written by a newer dynomesh (schema {found}, this one knows {})",
        path.display(),
        STEPS.len()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema's version.
        found: usize,
    },
}

/// Opens the database at `path`, made where it is missing, for its owner alone, and brought to the newest schema.
pub(in crate::store) fn open(path: &Path) -> Result<Connection, StoreError> {
    let file_error = |source| StoreError::File { path: path.to_owned(), source };
    if let Some(dir) = path.parent() {
        private_file::make_dir(dir).map_err(file_error)?;
    }
    let mut connection = at(path, Connection::open(path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(file_error)?;
    // What a command was told is done survives a loss of power, too: that is a wait for the disk at each commit.
    at(path, connection.pragma_update(None, "journal_mode", "WAL"))?;
    at(path, connection.pragma_update(None, "synchronous", "FULL"))?;
    at(path, connection.pragma_update(None, "foreign_keys", true))?;
    migrate(path, &mut connection)?;
    Ok(connection)
}

/// Opens the database at `path` to read it beside whoever writes it. One of an older schema stays as it is, for whoever
/// writes it may be as old: what is read then is a copy.
pub(in crate::store) fn open_to_read(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = at(path, Connection::open_with_flags(path, flags))?;
    match at(path, version(&connection))? {
        found if found > STEPS.len() => Err(StoreError::Newer { path: path.to_owned(), found }),
        found if found == STEPS.len() => Ok(connection),
        _ => {
            let mut copy = at(path, copied(&connection))?;
            migrate(path, &mut copy)?;
            Ok(copy)
        }
    }
}

fn copied(connection: &Connection) -> rusqlite::Result<Connection> {
    let mut copy = Connection::open_in_memory()?;
    let all = Backup::new(connection, &mut copy)?;
    // Whoever writes meanwhile is waited for.
    all.run_to_completion(COPIED_AT_ONCE, Duration::from_millis(10), None)?;
    drop(all);
    Ok(copy)
}

/// Pages; each has 4 KiB.
const COPIED_AT_ONCE: i32 = 1024;

/// Opens the database at `path` to copy it, of whichever schema it is. Waits so long for whoever opens or closes it.
pub(in crate::store) fn open_to_copy(
    path: &Path,
    wait: Duration,
) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = at(path, Connection::open_with_flags(path, flags))?;
    at(path, connection.busy_timeout(wait))?;
    Ok(connection)
}

/// A database that is gone with this process.
pub(in crate::store) fn in_memory() -> Result<Connection, StoreError> {
    let path = Path::new(":memory:");
    let mut connection = at(path, Connection::open_in_memory())?;
    at(path, connection.pragma_update(None, "foreign_keys", true))?;
    migrate(path, &mut connection)?;
    Ok(connection)
}

fn migrate(path: &Path, connection: &mut Connection) -> Result<(), StoreError> {
    let transaction = at(path, connection.transaction())?;
    let found = at(path, version(&transaction))?;
    if found > STEPS.len() {
        return Err(StoreError::Newer { path: path.to_owned(), found });
    }
    for step in &STEPS[found..] {
        at(path, transaction.execute_batch(step))?;
    }
    at(path, transaction.pragma_update(None, "user_version", STEPS.len()))?;
    at(path, transaction.commit())
}

/// Which of the steps have been taken.
fn version(connection: &Connection) -> rusqlite::Result<usize> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn at<T>(path: &Path, result: rusqlite::Result<T>) -> Result<T, StoreError> {
    result.map_err(|source| StoreError::Database { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn it_is_its_owners_alone_and_opens_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/dynomesh.db");
        let connection = open(&path).unwrap();
        assert_eq!((mode(path.parent().unwrap()), mode(&path)), (0o700, 0o600));
        connection.execute("INSERT INTO booked VALUES (1, 7)", ()).unwrap();
        drop(connection);
        let until = |row: &rusqlite::Row<'_>| row.get::<_, u64>(0);
        assert_eq!(open(&path).unwrap().query_row("SELECT until FROM booked", (), until), Ok(7));
    }

    #[test]
    fn an_older_one_is_read_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dynomesh.db");
        for known in 0..STEPS.len() {
            let _ = fs::remove_file(&path);
            let connection = Connection::open(&path).unwrap();
            STEPS[..known].iter().for_each(|step| connection.execute_batch(step).unwrap());
            connection.pragma_update(None, "user_version", known).unwrap();
            let reading = open_to_read(&path).unwrap();
            assert_eq!(version(&reading), Ok(STEPS.len()));
            let apps = |row: &rusqlite::Row<'_>| row.get::<_, u64>(0);
            assert_eq!(reading.query_row("SELECT count(*) FROM apps", (), apps), Ok(0));
            assert_eq!(version(&connection), Ok(known));
        }
    }

    #[test]
    fn what_is_in_an_older_one_stays_when_it_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        // From the first that has apps on.
        for known in 2..STEPS.len() {
            let path = dir.path().join(known.to_string());
            let connection = Connection::open(&path).unwrap();
            STEPS[..known].iter().for_each(|step| connection.execute_batch(step).unwrap());
            connection.pragma_update(None, "user_version", known).unwrap();
            let shop = "INSERT INTO apps (id, name, created_at, made) VALUES ('1', 'shop', 2, 1)";
            connection.execute(shop, ()).unwrap();
            drop(connection);
            let opened = open(&path).unwrap();
            let name = |row: &rusqlite::Row<'_>| row.get::<_, String>(0);
            assert_eq!(opened.query_row("SELECT name FROM apps", (), name), Ok("shop".into()));
            assert_eq!(version(&opened), Ok(STEPS.len()));
        }
    }

    #[test]
    fn what_cannot_be_used_is_said_with_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dynomesh.db");
        fs::write(&path, "certainly not a database, and long enough to have a header".repeat(9))
            .unwrap();
        let error = open(&path).unwrap_err().to_string();
        assert!(error.ends_with("/dynomesh.db: file is not a database"), "{error}");
        fs::remove_file(&path).unwrap();
        open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let error = open(&path).unwrap_err().to_string();
        assert!(
            error.ends_with("was written by a newer dynomesh (schema 99, this one knows 5)"),
            "{error}"
        );
    }
}
