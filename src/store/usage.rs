//! Dyno-seconds by month. What is booked at one time is one transaction with the time up to which it counts, so
//! that a daemon that goes on with the dynos of a killed one knows from when on.

use rusqlite::Row;

use crate::model::{AppName, Month, Payer, ProcessType, SizeName, Usage};
use crate::store::Store;
use crate::store::handle::AskError;

impl Store {
    /// Adds what dynos used up to the Unix millisecond `until`.
    pub async fn book(&self, usage: Usage, until: u64) -> Result<(), AskError> {
        self.ask(move |connection| {
            let transaction = connection.transaction()?;
            {
                let mut add = transaction.prepare(
                    "INSERT INTO usage VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT DO UPDATE SET millis = millis + excluded.millis",
                )?;
                for ((month, payer), millis) in &usage {
                    let Payer { app, process_type, size } = payer;
                    let payer = (app.as_str(), process_type.as_str(), size.as_str());
                    add.execute((month.begin(), payer.0, payer.1, payer.2, millis))?;
                }
            }
            transaction.execute(
                "INSERT INTO booked VALUES (1, ?1) ON CONFLICT DO UPDATE SET until = excluded.until",
                [until],
            )?;
            transaction.commit()
        })
        .await
    }

    /// The Unix millisecond up to which usage was booked last; 0 where it never was.
    pub async fn booked_until(&self) -> Result<u64, AskError> {
        self.ask(|connection| {
            connection.query_row("SELECT coalesce(max(until), 0) FROM booked", (), |row| row.get(0))
        })
        .await
    }

    /// What is booked of a month.
    pub async fn usage(&self, month: Month) -> Result<Usage, AskError> {
        self.ask(move |connection| {
            let mut rows = connection
                .prepare("SELECT app, process_type, size, millis FROM usage WHERE month = ?1")?;
            let booked = rows.query_map([month.begin()], booked)?;
            // A row whose names could not be is none of ours.
            booked
                .filter_map(Result::transpose)
                .map(|row| row.map(|(payer, millis)| ((month, payer), millis)))
                .collect()
        })
        .await
    }
}

fn booked(row: &Row<'_>) -> rusqlite::Result<Option<(Payer, u64)>> {
    let [app, process_type, size] = [row.get::<_, String>(0)?, row.get(1)?, row.get(2)?];
    let millis = row.get(3)?;
    let payer = || {
        Some(Payer {
            app: AppName::parse(&app).ok()?,
            process_type: ProcessType::parse(&process_type).ok()?,
            size: SizeName::parse(&size).ok()?,
        })
    };
    Ok(payer().map(|payer| (payer, millis)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(app: &str, millis: u64) -> Usage {
        let payer = Payer {
            app: AppName::parse(app).unwrap(),
            process_type: ProcessType::web(),
            size: SizeName::parse("basic").unwrap(),
        };
        Usage::from([((Month::of(0), payer), millis)])
    }

    #[tokio::test]
    async fn what_is_booked_adds_up_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.booked_until().await.unwrap(), 0);
        store.book(used("shop", 1_500), 10).await.unwrap();
        store.book(used("shop", 2_000), 20).await.unwrap();
        store.book(used("blog", 1), 20).await.unwrap();
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.booked_until().await.unwrap(), 20);
        let mut expected = used("shop", 3_500);
        expected.extend(used("blog", 1));
        assert_eq!(store.usage(Month::of(0)).await.unwrap(), expected);
        let next = Month::of(Month::of(0).end());
        assert_eq!(store.usage(next).await.unwrap(), Usage::new());
    }

    #[tokio::test]
    async fn a_state_directory_that_cannot_be_written_is_no_reason_not_to_run() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let store = Store::open(&dir.path().join("file")).unwrap();
        store.book(used("shop", 1), 1).await.unwrap();
        assert_eq!(store.usage(Month::of(0)).await.unwrap(), used("shop", 1));
    }
}
