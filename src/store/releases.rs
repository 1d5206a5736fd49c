//! What apps ran and run, release by release.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, Transaction};

use crate::model::{AppName, Id, ProcessType, Release, ReleaseStatus, Runs};
use crate::store::Store;
use crate::store::apps::id_of;
use crate::store::columns::{opened, parsed, strange};
use crate::store::handle::AskError;
use crate::store::sealed::SealKey;

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

/// The version that this is of the app: that of its current release if it runs just this, else that of a new one, which is
/// its current one then.
pub(in crate::store) fn number(
    transaction: &Transaction<'_>,
    key: &SealKey,
    app: Id,
    runs: &Runs,
    maker: &Maker,
    new: Id,
) -> rusqlite::Result<u64> {
    let (text, commands) = (canonical(runs), json(&names(&runs.commands)));
    let fingerprint = key.fingerprint(&text);
    let app = app.to_string();
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
        return Ok(version);
    }
    let last: u64 = transaction.query_row(
        "SELECT coalesce(max(version), 0) FROM releases WHERE app = ?1",
        [&app],
        |row| row.get(0),
    )?;
    let version = last + 1;
    let description = if version == 1 { "Initial release" } else { &maker.description };
    let config_vars = key.seal(&place(&app, version), &json(&runs.config_vars));
    transaction.execute(
        "INSERT INTO releases (id, app, version, description, user, status, slug, dir, commands, config_vars,
             fingerprint, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        rusqlite::params![
            new.to_string(),
            app,
            version,
            description,
            maker.user,
            ReleaseStatus::Succeeded.as_str(),
            runs.slug,
            runs.dir,
            commands,
            config_vars,
            fingerprint,
            maker.at,
        ],
    )?;
    transaction.execute("UPDATE apps SET release = ?2 WHERE id = ?1", (&app, version))?;
    Ok(version)
}

impl Store {
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
             releases.created_at, version = release
         FROM releases JOIN apps ON apps.id = app WHERE app = ?1 ORDER BY version DESC",
    )?;
    rows.query_map([&app], |row| release(row, key, &app))?.collect()
}

fn release(row: &Row<'_>, key: &SealKey, app: &str) -> rusqlite::Result<Release> {
    let version = row.get(1)?;
    let config_vars = opened(key, row, 8, &place(app, version))?;
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
        current: row.get(10)?,
        runs: Runs {
            slug: row.get(5)?,
            dir: row.get(6)?,
            commands: commands.collect(),
            config_vars: of_json(8, &config_vars)?,
        },
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
    use crate::model::StatedApp;
    use crate::store::{apps, database};

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
        let mut ids = 0;
        let mut check = |runs: &Runs, description: &str, expected: u64| {
            ids += 1;
            let new = Id::of_random([ids; 16]);
            let found = number(&transaction, &key, app.id, runs, &maker(description), new);
            assert_eq!(found.unwrap(), expected, "{description}");
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
