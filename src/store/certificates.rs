//! Certificates of an app, as commands said them.

use rusqlite::{Connection, Row, Transaction};

use crate::model::{Domain, Id, StatedCertificate};
use crate::store::columns::{opened, parsed, strange};
use crate::store::sealed::SealKey;

/// Those of an app, in their order.
pub(in crate::store) fn read(
    connection: &Connection,
    key: &SealKey,
    app: &str,
) -> rusqlite::Result<Vec<StatedCertificate>> {
    let mut rows = connection.prepare(
        "SELECT id, name, chain, key, names, chosen_for, is_trusted, created_at, updated_at
         FROM certificates WHERE app = ?1 ORDER BY place",
    )?;
    let certificate = |row: &Row<'_>| {
        let id = parsed(row, 0, Id::parse)?;
        Ok(StatedCertificate {
            id,
            name: row.get(1)?,
            chain: row.get(2)?,
            key: opened(key, row, 3, &place(app, id))?,
            names: domains(row, 4)?,
            chosen_for: domains(row, 5)?,
            is_trusted: row.get(6)?,
            created_at: row.get(7)?,
            updated_at: row.get(8)?,
        })
    };
    rows.query_map([app], certificate)?.collect()
}

/// Writes those of an app, in place of what there was.
pub(in crate::store) fn put(
    transaction: &Transaction<'_>,
    seal: &SealKey,
    app: &str,
    certificates: &[StatedCertificate],
) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM certificates WHERE app = ?1", [app])?;
    for (at, certificate) in certificates.iter().enumerate() {
        let StatedCertificate { id, name, chain, key, names, chosen_for, .. } = certificate;
        let StatedCertificate { is_trusted, created_at, updated_at, .. } = certificate;
        transaction.execute(
            "INSERT INTO certificates
                 (id, app, place, name, chain, key, names, chosen_for, is_trusted, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            rusqlite::params![
                id.to_string(),
                app,
                at,
                name,
                chain,
                seal.seal(&place(app, *id), key),
                json(names),
                json(chosen_for),
                is_trusted,
                created_at,
                updated_at,
            ],
        )?;
    }
    Ok(())
}

/// What the key of a certificate is sealed with.
fn place(app: &str, id: Id) -> String {
    format!("{app}/certificates/{id}")
}

fn json(domains: &[Domain]) -> String {
    let texts: Vec<String> = domains.iter().map(ToString::to_string).collect();
    serde_json::to_string(&texts).expect("a list of texts is JSON")
}

fn domains(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<Domain>> {
    let texts: Vec<String> = serde_json::from_str(&row.get::<_, String>(column)?)
        .map_err(|error| strange(column, error.to_string()))?;
    let domain = |text: &String| {
        Domain::parse(text).map_err(|wrong| strange(column, format!("{text:?}: {wrong}")))
    };
    texts.iter().map(domain).collect()
}
