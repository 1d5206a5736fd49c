//! Pipelines, and which apps are in them. Nothing of the configuration hangs on them, so they are no part of what commands
//! said of apps.

use rusqlite::{Connection, Row};

use crate::model::{AppName, Coupling, Id, Pipeline, Stage};
use crate::store::apps::id_of;
use crate::store::columns::parsed;
use crate::store::commit::new_id;
use crate::store::{AskError, Store};

impl Store {
    /// All pipelines, in the order of their names.
    pub async fn pipelines(&self) -> Result<Vec<Pipeline>, AskError> {
        self.ask(|connection| {
            let mut rows =
                connection.prepare("SELECT id, name, created_at FROM pipelines ORDER BY name")?;
            rows.query_map((), pipeline)?.collect()
        })
        .await
    }

    /// Makes a pipeline. `None`: there is one of this name.
    pub async fn make_pipeline(
        &self,
        name: String,
        now: u64,
    ) -> Result<Option<Pipeline>, AskError> {
        self.ask(move |connection| {
            let made = Pipeline { id: new_id(), name, created_at: now };
            let inserted = connection.execute(
                "INSERT OR IGNORE INTO pipelines (id, name, created_at) VALUES (?1, ?2, ?3)",
                (made.id.to_string(), &made.name, made.created_at),
            )?;
            Ok((inserted > 0).then_some(made))
        })
        .await
    }

    /// Gives a pipeline another name. `false`: that is another's, or there is no such pipeline.
    pub async fn rename_pipeline(&self, id: Id, name: String) -> Result<bool, AskError> {
        self.ask(move |connection| {
            let renamed = "UPDATE OR IGNORE pipelines SET name = ?2 WHERE id = ?1";
            Ok(connection.execute(renamed, (id.to_string(), name))? > 0)
        })
        .await
    }

    /// Forgets a pipeline. Its apps stay as they are.
    pub async fn remove_pipeline(&self, id: Id) -> Result<(), AskError> {
        self.ask(move |connection| {
            connection.execute("DELETE FROM pipelines WHERE id = ?1", [id.to_string()])?;
            Ok(())
        })
        .await
    }

    /// Every app's place in a pipeline, in the order of their names.
    pub async fn couplings(&self) -> Result<Vec<Coupling>, AskError> {
        self.ask(|connection| couplings(connection)).await
    }

    /// Puts an app into a pipeline. `None`: it is in one, or the store does not know the app.
    pub async fn couple(
        &self,
        pipeline: Id,
        app: AppName,
        stage: Stage,
        now: u64,
    ) -> Result<Option<Coupling>, AskError> {
        self.ask(move |connection| {
            let Some(id) = id_of(connection, &app)? else { return Ok(None) };
            let made =
                Coupling { id: new_id(), pipeline, app: id, name: app, stage, created_at: now };
            let inserted = connection.execute(
                "INSERT OR IGNORE INTO couplings (app, id, pipeline, stage, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                (
                    id.to_string(),
                    made.id.to_string(),
                    pipeline.to_string(),
                    stage.as_str(),
                    made.created_at,
                ),
            )?;
            Ok((inserted > 0).then_some(made))
        })
        .await
    }

    /// Has an app at another stage of its pipeline; what comes of it, if there is such a coupling.
    pub async fn stage(&self, coupling: Id, stage: Stage) -> Result<Option<Coupling>, AskError> {
        self.ask(move |connection| {
            let update = "UPDATE couplings SET stage = ?2 WHERE id = ?1";
            connection.execute(update, (coupling.to_string(), stage.as_str()))?;
            Ok(couplings(connection)?.into_iter().find(|it| it.id == coupling))
        })
        .await
    }

    /// Takes an app out of its pipeline.
    pub async fn uncouple(&self, coupling: Id) -> Result<(), AskError> {
        self.ask(move |connection| {
            connection.execute("DELETE FROM couplings WHERE id = ?1", [coupling.to_string()])?;
            Ok(())
        })
        .await
    }
}

fn pipeline(row: &Row<'_>) -> rusqlite::Result<Pipeline> {
    Ok(Pipeline { id: parsed(row, 0, Id::parse)?, name: row.get(1)?, created_at: row.get(2)? })
}

fn couplings(connection: &Connection) -> rusqlite::Result<Vec<Coupling>> {
    let mut rows = connection.prepare(
        "SELECT couplings.id, pipeline, app, name, stage, couplings.created_at
         FROM couplings JOIN apps ON apps.id = app ORDER BY name",
    )?;
    let coupling = |row: &Row<'_>| {
        Ok(Coupling {
            id: parsed(row, 0, Id::parse)?,
            pipeline: parsed(row, 1, Id::parse)?,
            app: parsed(row, 2, Id::parse)?,
            name: parsed(row, 3, |text| AppName::parse(text).ok())?,
            stage: parsed(row, 4, Stage::parse)?,
            created_at: row.get(5)?,
        })
    };
    rows.query_map((), coupling)?.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::Runs;
    use crate::store::{Commit, Maker};

    #[tokio::test]
    async fn an_app_is_in_one_pipeline_and_leaves_it_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let shop = AppName::parse("shop").unwrap();
        let one = store.make_pipeline("one".into(), 1).await.unwrap().unwrap();
        let two = store.make_pipeline("two".into(), 2).await.unwrap().unwrap();
        assert_eq!(store.make_pipeline("one".into(), 3).await.unwrap(), None);
        assert!(!store.rename_pipeline(two.id, "one".into()).await.unwrap());
        assert!(store.rename_pipeline(two.id, "three".into()).await.unwrap());
        let couple = async |pipeline: &Pipeline| {
            store.couple(pipeline.id, shop.clone(), Stage::Staging, 4).await.unwrap()
        };
        assert_eq!(couple(&one).await, None, "nothing is known of the app");
        let maker = Maker { description: String::new(), user: String::new(), at: 7 };
        let runs = BTreeMap::from([(shop.clone(), Runs::default())]);
        store
            .commit(Commit { changed: None, runs, maker, request: None, begun: None, back: None })
            .await
            .unwrap();
        let coupling = couple(&one).await.unwrap();
        assert_eq!(couple(&two).await, None, "it is in another");
        let staged = store.stage(coupling.id, Stage::Production).await.unwrap().unwrap();
        assert_eq!(staged, Coupling { stage: Stage::Production, ..coupling });
        assert_eq!(store.couplings().await.unwrap(), [staged]);
        store.remove_pipeline(one.id).await.unwrap();
        assert_eq!(store.couplings().await.unwrap(), []);
        let coupling = couple(&two).await.unwrap();
        store.uncouple(coupling.id).await.unwrap();
        assert_eq!(store.couplings().await.unwrap(), []);
        let names: Vec<_> =
            store.pipelines().await.unwrap().into_iter().map(|it| it.name).collect();
        assert_eq!(names, ["three"]);
    }
}
