//! Requests whose effect is there: a client that repeats one gets it once.

use rusqlite::Transaction;

use crate::config::limits;
use crate::store::Store;
use crate::store::handle::AskError;

/// Remembers that what this request wants is done.
pub(in crate::store) fn remember(
    transaction: &Transaction<'_>,
    request: &str,
    now: u64,
) -> rusqlite::Result<()> {
    let forgotten = now.saturating_sub(limits::REQUESTS_REMEMBERED.as_secs());
    transaction.execute("DELETE FROM requests WHERE at < ?1", [forgotten])?;
    transaction.execute("INSERT OR REPLACE INTO requests VALUES (?1, ?2)", (request, now))?;
    Ok(())
}

impl Store {
    /// Whether what this request wants was done before.
    pub async fn was_done(&self, request: &str) -> Result<bool, AskError> {
        let key = request.to_owned();
        self.ask(move |connection| {
            let found = "SELECT count(*) > 0 FROM requests WHERE key = ?1";
            connection.query_row(found, [key], |row| row.get(0))
        })
        .await
    }
}
