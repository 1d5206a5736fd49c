//! What apps ran and run, release by release.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension, Row, Transaction};

use crate::model::{
    AppName, Id, ProcessType, Release, ReleaseFailure, ReleaseStatus, Runs, StatedApp,
};
use crate::store::apps::id_of;
use crate::store::columns::{opened, parsed, strange};
use crate::store::handle::AskError;
use crate::store::requests::remember;
use crate::store::sealed::SealKey;
use crate::store::{Store, WentBack, apps, new_id};

/// What a new release says of itself.
#[derive(Clone, Debug)]
pub struct Maker {
    /// `Set RACK_ENV config vars`
    pub description: String,
    /// Who made it.
    pub user: String,
    /// Unix seconds.
    pub at: u64,
}

/// The number of what an app runs.
pub(in crate::store) struct Numbered {
    pub(in crate::store) version: u64,
    /// It is a new one, and has dynos to get to.
    pub(in crate::store) is_begun: bool,
}

/// The version that this is of the app: that of its current release if it runs just this, else that of a new one, which is
/// its current one then. `begun`: the row that the new one has already; where the app runs just this without it, it has come
/// to its end.
pub(in crate::store) fn number(
    transaction: &Transaction<'_>,
    key: &SealKey,
    app: Id,
    runs: &Runs,
    maker: &Maker,
    begun: Option<u64>,
) -> rusqlite::Result<Numbered> {
    let fingerprint = key.fingerprint(&canonical(runs));
    let (id, app) = (app, app.to_string());
    let current: Option<(u64, String)> = transaction
        .query_row(
            "SELECT version, fingerprint FROM releases JOIN apps ON apps.id = app
             WHERE app = ?1 AND version = release",
            [&app],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    if let Some((version, of_current)) = current
        && of_current == fingerprint
    {
        if let Some(begun) = begun {
            end(transaction, id, begun, ReleaseStatus::Succeeded, None)?;
        }
        return Ok(Numbered { version, is_begun: false });
    }
    let mut row = None;
    if let Some(version) = begun {
        // It is written anew: what it runs may have changed in the file since.
        let delete = "DELETE FROM releases WHERE app = ?1 AND version = ?2 RETURNING id";
        let id = transaction.query_row(delete, (&app, version), |row| row.get(0)).optional()?;
        row = id.map(|id: String| (version, id));
    }
    let version = insert(transaction, key, &app, runs, maker, row)?;
    transaction.execute("UPDATE apps SET release = ?2 WHERE id = ?1", (&app, version))?;
    Ok(Numbered { version, is_begun: !runs.commands.is_empty() })
}

/// Writes a new release, under this version and id or the next ones. One that has dynos to get to is pending.
fn insert(
    transaction: &Transaction<'_>,
    key: &SealKey,
    app: &str,
    runs: &Runs,
    maker: &Maker,
    row: Option<(u64, String)>,
) -> rusqlite::Result<u64> {
    let last: u64 = transaction.query_row(
        "SELECT coalesce(max(version), 0) FROM releases WHERE app = ?1",
        [app],
        |row| row.get(0),
    )?;
    let (version, id) = row.unwrap_or_else(|| (last + 1, new_id().to_string()));
    let status = match runs.commands.is_empty() {
        true => ReleaseStatus::Succeeded,
        false => ReleaseStatus::Pending,
    };
    let description = if version == 1 { "Initial release" } else { &maker.description };
    let config_vars = key.seal(&place(app, version), &json(&runs.config_vars));
    transaction.execute(
        "INSERT INTO releases (id, app, version, description, user, status, slug, dir, commands, config_vars,
             fingerprint, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        rusqlite::params![
            id,
            app,
            version,
            description,
            maker.user,
            status.as_str(),
            runs.slug,
            runs.dir,
            json(&names(&runs.commands)),
            config_vars,
            key.fingerprint(&canonical(runs)),
            maker.at,
        ],
    )?;
    Ok(version)
}

/// The app is at another release again, for the one that it was at has failed.
pub(in crate::store) fn go_back(
    transaction: &Transaction<'_>,
    app: Id,
    back: &WentBack,
) -> rusqlite::Result<()> {
    end(transaction, app, back.failed, ReleaseStatus::Failed, Some(&back.failure))?;
    let update = "UPDATE apps SET release = ?3 WHERE id = ?1 AND release = ?2";
    transaction.execute(update, (app.to_string(), back.failed, back.to))?;
    Ok(())
}

/// Notes what came of a release.
fn end(
    connection: &Connection,
    app: Id,
    version: u64,
    status: ReleaseStatus,
    failure: Option<&ReleaseFailure>,
) -> rusqlite::Result<()> {
    let failure = failure.map(json);
    connection.execute(
        "UPDATE releases SET status = ?3, failure = ?4 WHERE app = ?1 AND version = ?2",
        (app.to_string(), version, status.as_str(), failure),
    )?;
    Ok(())
}

impl Store {
    /// Notes what came of a release. Of an app that is gone nothing is.
    pub async fn end_release(
        &self,
        app: &AppName,
        version: u64,
        status: ReleaseStatus,
        failure: Option<ReleaseFailure>,
    ) -> Result<(), AskError> {
        let app = app.clone();
        self.ask(move |connection| match id_of(connection, &app)? {
            Some(id) => end(connection, id, version, status, failure.as_ref()),
            None => Ok(()),
        })
        .await
    }

    /// Writes a release that the app is not at yet, because something is to be done before; a
    /// [`commit`](Self::commit) brings the app there. `stated`: what commands say of it then.
    pub async fn begin_release(
        &self,
        app: &AppName,
        stated: &StatedApp,
        runs: Runs,
        maker: Maker,
        request: Option<String>,
    ) -> Result<u64, AskError> {
        let (app, key) = (app.clone(), self.key());
        // One of the file may not be known yet.
        let fresh = StatedApp::new(stated.id, stated.created_at, false);
        self.ask(move |connection| {
            let transaction = connection.transaction()?;
            let id = match id_of(&transaction, &app)? {
                Some(id) => id,
                None => {
                    apps::put(&transaction, &key, &app, &fresh)?;
                    fresh.id
                }
            };
            let version = insert(&transaction, &key, &id.to_string(), &runs, &maker, None)?;
            if let Some(request) = request {
                remember(&transaction, &request, maker.at)?;
            }
            transaction.commit()?;
            Ok(version)
        })
        .await
    }

    /// For the start: what is on its way still, with its version. What an earlier daemon had begun and was not at yet has
    /// failed, and what was followed by another release has expired.
    pub async fn take_up_releases(&self) -> Result<Vec<(AppName, u64)>, AskError> {
        self.ask(|connection| {
            let transaction = connection.transaction()?;
            let interrupted = ReleaseFailure {
                dyno: "release".into(),
                reason: "did not end before dynomesh did".into(),
                last_lines: Vec::new(),
            };
            transaction.execute(
                "UPDATE releases SET status = 'failed', failure = ?1 WHERE status = 'pending'
                 AND version > (SELECT coalesce(release, 0) FROM apps WHERE id = app)",
                [json(&interrupted)],
            )?;
            transaction.execute(
                "UPDATE releases SET status = 'expired' WHERE status = 'pending'
                 AND version < (SELECT release FROM apps WHERE id = app)",
                (),
            )?;
            let pending = {
                let mut rows = transaction.prepare(
                    "SELECT name, version FROM releases JOIN apps ON apps.id = app WHERE status = 'pending'",
                )?;
                let name = |row: &Row<'_>| parsed(row, 0, |text| AppName::parse(text).ok());
                let rows = rows.query_map((), |row| Ok((name(row)?, row.get(1)?)))?;
                rows.collect::<Result<Vec<_>, _>>()?
            };
            transaction.commit()?;
            Ok(pending)
        })
        .await
    }

    /// The slugs that may be asked for: those of the last `count` releases of each app, and of what is on its way.
    pub async fn slugs_in_use(&self, count: usize) -> Result<BTreeSet<String>, AskError> {
        self.ask(move |connection| {
            let mut rows = connection.prepare(
                "SELECT slug FROM apps WHERE slug IS NOT NULL
                 UNION SELECT slug FROM (
                     SELECT slug, status, row_number() OVER (PARTITION BY app ORDER BY version DESC) AS place FROM releases
                 ) WHERE slug IS NOT NULL AND (place <= ?1 OR status = 'pending')",
            )?;
            rows.query_map([count], |row| row.get(0))?.collect()
        })
        .await
    }

    /// The releases of an app, the newest first.
    pub async fn releases(&self, app: &AppName) -> Result<Vec<Release>, AskError> {
        let app = app.clone();
        let key = self.key();
        self.ask(move |connection| match id_of(connection, &app)? {
            Some(id) => read(connection, &key, id),
            None => Ok(Vec::new()),
        })
        .await
    }
}

fn read(connection: &Connection, key: &SealKey, app: Id) -> rusqlite::Result<Vec<Release>> {
    let app = app.to_string();
    let mut rows = connection.prepare(
        "SELECT releases.id, version, description, user, status, releases.slug, dir, commands, config_vars,
             releases.created_at, failure,
             coalesce(version = coalesce((
                 SELECT max(version) FROM releases AS other
                 WHERE other.app = apps.id AND other.version <= release AND other.status IN ('pending', 'succeeded')
             ), release), FALSE)
         FROM releases JOIN apps ON apps.id = app WHERE app = ?1 ORDER BY version DESC",
    )?;
    rows.query_map([&app], |row| release(row, key, &app))?.collect()
}

fn release(row: &Row<'_>, key: &SealKey, app: &str) -> rusqlite::Result<Release> {
    let version = row.get(1)?;
    let config_vars = opened(key, row, 8, &place(app, version))?;
    let failure: Option<String> = row.get(10)?;
    let commands: BTreeMap<String, String> = of_json(7, &row.get::<_, String>(7)?)?;
    // A type whose name could not be is none of ours.
    let commands = commands
        .into_iter()
        .filter_map(|(name, command)| Some((ProcessType::parse(&name).ok()?, command)));
    Ok(Release {
        id: parsed(row, 0, Id::parse)?,
        version,
        description: row.get(2)?,
        user: row.get(3)?,
        status: parsed(row, 4, ReleaseStatus::parse)?,
        current: row.get(11)?,
        runs: Runs {
            slug: row.get(5)?,
            dir: row.get(6)?,
            commands: commands.collect(),
            config_vars: of_json(8, &config_vars)?,
        },
        failure: failure.and_then(|failure| serde_json::from_str(&failure).ok()),
        created_at: row.get(9)?,
    })
}

/// What the config vars of a release are sealed with.
fn place(app: &str, version: u64) -> String {
    format!("{app}/v{version}")
}

/// The same text for the same release.
fn canonical(runs: &Runs) -> String {
    let Runs { slug, dir, commands, config_vars } = runs;
    json(&(slug, dir, names(commands), config_vars))
}

fn names(commands: &BTreeMap<ProcessType, String>) -> BTreeMap<&str, &str> {
    commands.iter().map(|(name, command)| (name.as_str(), command.as_str())).collect()
}

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("texts and maps of texts are JSON")
}

fn of_json(column: usize, text: &str) -> rusqlite::Result<BTreeMap<String, String>> {
    serde_json::from_str(text).map_err(|error| strange(column, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::database;

    fn maker(description: &str) -> Maker {
        Maker { description: description.into(), user: "me".into(), at: 7 }
    }

    fn runs(vars: &[(&str, &str)]) -> Runs {
        let config_vars = vars.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let commands = BTreeMap::from([(ProcessType::web(), "serve".to_owned())]);
        Runs { slug: Some("abc".into()), dir: None, commands, config_vars: config_vars.collect() }
    }

    #[test]
    fn what_runs_the_same_is_the_same_release() {
        let mut connection = database::in_memory().unwrap();
        let key = SealKey::passing();
        let app = StatedApp::new(Id::of_random([1; 16]), 0, true);
        let transaction = connection.transaction().unwrap();
        apps::put(&transaction, &key, &AppName::parse("shop").unwrap(), &app).unwrap();
        let check = |runs: &Runs, description: &str, expected: u64| {
            let found = number(&transaction, &key, app.id, runs, &maker(description), None);
            assert_eq!(found.unwrap().version, expected, "{description}");
        };
        check(&runs(&[]), "Initial release", 1);
        check(&runs(&[]), "nothing", 1);
        check(&runs(&[("A", "1")]), "Set A", 2);
        check(&runs(&[("A", "2")]), "Set A", 3);
        check(&runs(&[]), "Unset A", 4);
        check(&runs(&[]), "nothing", 4);
        transaction.commit().unwrap();

        let releases = read(&connection, &key, app.id).unwrap();
        let said = releases.iter().map(|it| (it.version, it.current, it.description.as_str()));
        let expected = [
            (4, true, "Unset A"),
            (3, false, "Set A"),
            (2, false, "Set A"),
            (1, false, "Initial release"),
        ];
        assert!(said.eq(expected), "{releases:?}");
        assert_eq!(releases[1].runs, runs(&[("A", "2")]));
    }
}
