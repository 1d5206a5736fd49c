//! Between which bounds commands have the number of an app's web dynos follow its requests.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, Transaction};

use crate::model::StatedAutoscale;

/// Those of an app.
pub(in crate::store) fn read(
    connection: &Connection,
    app: &str,
) -> rusqlite::Result<Option<StatedAutoscale>> {
    let bounds = |row: &Row<'_>| {
        let p95 = Duration::from_millis(row.get(2)?);
        Ok(StatedAutoscale { min: row.get(0)?, max: row.get(1)?, p95 })
    };
    let mut rows = connection.prepare("SELECT min, max, p95 FROM autoscale WHERE app = ?1")?;
    rows.query_row([app], bounds).optional()
}

/// Writes those of an app, in place of what there was.
pub(in crate::store) fn put(
    transaction: &Transaction<'_>,
    app: &str,
    bounds: Option<StatedAutoscale>,
) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM autoscale WHERE app = ?1", [app])?;
    if let Some(StatedAutoscale { min, max, p95 }) = bounds {
        // An hour of milliseconds is the most that commands may say.
        let p95 = p95.as_millis() as u64;
        transaction.execute(
            "INSERT INTO autoscale (app, min, max, p95) VALUES (?1, ?2, ?3, ?4)",
            (app, min, max, p95),
        )?;
    }
    Ok(())
}
