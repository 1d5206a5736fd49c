//! Add-ons of an app and what is attached to it, as commands said them.

use rusqlite::{Connection, Row, Transaction};

use crate::model::{Id, StatedAddon, StatedAttachment};
use crate::store::columns::{opened, parsed};
use crate::store::sealed::SealKey;

/// The add-ons of an app, in their order.
pub(in crate::store) fn read(
    connection: &Connection,
    key: &SealKey,
    app: &str,
) -> rusqlite::Result<Vec<StatedAddon>> {
    let mut rows = connection.prepare(
        "SELECT id, name, plan, url, created_at FROM addons WHERE app = ?1 ORDER BY place",
    )?;
    let addon = |row: &Row<'_>| {
        let id = parsed(row, 0, Id::parse)?;
        Ok(StatedAddon {
            id,
            name: row.get(1)?,
            plan: row.get(2)?,
            url: opened(key, row, 3, &place(id))?,
            created_at: row.get(4)?,
        })
    };
    rows.query_map([app], addon)?.collect()
}

/// What is attached to an app, in its order.
pub(in crate::store) fn read_attachments(
    connection: &Connection,
    app: &str,
) -> rusqlite::Result<Vec<StatedAttachment>> {
    let mut rows = connection.prepare(
        "SELECT id, name, addon, created_at FROM attachments WHERE app = ?1 ORDER BY place",
    )?;
    let attachment = |row: &Row<'_>| {
        Ok(StatedAttachment {
            id: parsed(row, 0, Id::parse)?,
            name: row.get(1)?,
            addon: parsed(row, 2, Id::parse)?,
            created_at: row.get(3)?,
        })
    };
    rows.query_map([app], attachment)?.collect()
}

/// Writes the add-ons of an app in place of what there was. Those that stay are not taken away meanwhile: what is attached to
/// other apps would go with them.
pub(in crate::store) fn put(
    transaction: &Transaction<'_>,
    key: &SealKey,
    app: &str,
    addons: &[StatedAddon],
) -> rusqlite::Result<()> {
    for before in read(transaction, key, app)? {
        if !addons.iter().any(|it| it.id == before.id) {
            transaction.execute("DELETE FROM addons WHERE id = ?1", [before.id.to_string()])?;
        }
    }
    for (at, StatedAddon { id, name, plan, url, created_at }) in addons.iter().enumerate() {
        transaction.execute(
            "INSERT INTO addons (id, app, place, name, plan, url, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (id) DO UPDATE SET place = excluded.place, name = excluded.name,
                 plan = excluded.plan, url = excluded.url",
            (id.to_string(), app, at, name, plan, key.seal(&place(*id), url), created_at),
        )?;
    }
    Ok(())
}

/// Writes what is attached to an app, in place of what there was.
pub(in crate::store) fn put_attachments(
    transaction: &Transaction<'_>,
    app: &str,
    attachments: &[StatedAttachment],
) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM attachments WHERE app = ?1", [app])?;
    for (at, StatedAttachment { id, name, addon, created_at }) in attachments.iter().enumerate() {
        transaction.execute(
            "INSERT INTO attachments (id, app, place, name, addon, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            (id.to_string(), app, at, name, addon.to_string(), created_at),
        )?;
    }
    Ok(())
}

/// What the URL of an add-on is sealed with.
fn place(id: Id) -> String {
    format!("addons/{id}")
}
