//! Up to when each job was seen to.

use std::collections::BTreeMap;

use crate::store::Store;
use crate::store::handle::AskError;

impl Store {
    /// Remembers that a job was started for this Unix second, or not started for a reason that was said.
    pub async fn job_seen_to(&self, app: &str, job: &str, at: u64) -> Result<(), AskError> {
        let (app, job) = (app.to_owned(), job.to_owned());
        self.ask(move |connection| {
            connection.execute(
                "INSERT INTO job_runs VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET last = excluded.last",
                (app, job, at),
            )?;
            Ok(())
        })
        .await
    }

    /// The Unix second for which each job was seen to last, by app and job.
    pub async fn job_runs(&self) -> Result<BTreeMap<(String, String), u64>, AskError> {
        self.ask(|connection| {
            let mut rows = connection.prepare("SELECT app, job, last FROM job_runs")?;
            rows.query_map((), |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?.collect()
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_run_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.job_runs().await.unwrap(), BTreeMap::new());
        store.job_seen_to("shop", "mail", 60).await.unwrap();
        store.job_seen_to("shop", "mail", 120).await.unwrap();
        drop(store);
        let runs = Store::open(dir.path()).unwrap().job_runs().await.unwrap();
        assert_eq!(runs, BTreeMap::from([(("shop".into(), "mail".into()), 120)]));
    }
}
