//! Log drains of an app, as commands said them.

use rusqlite::{Connection, Row, Transaction};

use crate::model::{DrainUrl, StatedDrain};
use crate::store::columns::{opened, strange};
use crate::store::sealed::SealKey;

/// Those of an app, in their order.
pub(in crate::store) fn read(
    connection: &Connection,
    key: &SealKey,
    app: &str,
) -> rusqlite::Result<Vec<StatedDrain>> {
    let mut rows = connection
        .prepare("SELECT place, url, created_at FROM drains WHERE app = ?1 ORDER BY place")?;
    let drain = |row: &Row<'_>| {
        let url = opened(key, row, 1, &place(app, row.get(0)?))?;
        // Not what it is: there may be a password in it.
        let url = DrainUrl::parse(&url).map_err(|expected| strange(1, expected.into()))?;
        Ok(StatedDrain { url, created_at: row.get(2)? })
    };
    rows.query_map([app], drain)?.collect()
}

/// Writes those of an app, in place of what there was.
pub(in crate::store) fn put(
    transaction: &Transaction<'_>,
    key: &SealKey,
    app: &str,
    drains: &[StatedDrain],
) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM drains WHERE app = ?1", [app])?;
    for (at, StatedDrain { url, created_at }) in drains.iter().enumerate() {
        let sealed = key.seal(&place(app, at), url.as_str());
        transaction.execute(
            "INSERT INTO drains (app, place, url, created_at) VALUES (?1, ?2, ?3, ?4)",
            (app, at, sealed, created_at),
        )?;
    }
    Ok(())
}

/// What the URL of a drain is sealed with. No config var has a slash in its name.
fn place(app: &str, at: usize) -> String {
    format!("{app}/drains/{at}")
}
