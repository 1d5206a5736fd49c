//! Features of an app, as commands turned them on or off.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row, Transaction};

use crate::model::Feature;
use crate::store::columns::parsed;

/// Those of an app.
pub(in crate::store) fn read(
    connection: &Connection,
    app: &str,
) -> rusqlite::Result<BTreeMap<Feature, bool>> {
    let mut rows = connection.prepare("SELECT name, enabled FROM features WHERE app = ?1")?;
    let feature = |row: &Row<'_>| Ok((parsed(row, 0, Feature::parse)?, row.get(1)?));
    rows.query_map([app], feature)?.collect()
}

/// Writes those of an app, in place of what there was.
pub(in crate::store) fn put(
    transaction: &Transaction<'_>,
    app: &str,
    features: &BTreeMap<Feature, bool>,
) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM features WHERE app = ?1", [app])?;
    for (feature, enabled) in features {
        transaction.execute(
            "INSERT INTO features (app, name, enabled) VALUES (?1, ?2, ?3)",
            (app, feature.as_str(), enabled),
        )?;
    }
    Ok(())
}
