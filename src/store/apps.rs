//! What commands said of apps. An app is written whole: it is small, and there is no difference to get wrong.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, Transaction};

use crate::model::{AppName, Domain, Id, ProcessType, Stated, StatedApp, StatedDomain};
use crate::store::columns::{opened, parsed};
use crate::store::sealed::SealKey;
use crate::store::{addons, autoscale, certificates, drains, features};

/// Everything that commands said.
pub(in crate::store) fn read(connection: &Connection, key: &SealKey) -> rusqlite::Result<Stated> {
    let mut apps = connection
        .prepare("SELECT name, id, created_at, made, maintenance, slug FROM apps ORDER BY name")?;
    let rows = apps.query_map((), app)?.collect::<Result<Vec<_>, _>>()?;
    let mut stated = Stated::default();
    for (name, mut app) in rows {
        read_parts(connection, key, &mut app)?;
        stated.apps.insert(name, app);
    }
    Ok(stated)
}

fn app(row: &Row<'_>) -> rusqlite::Result<(AppName, StatedApp)> {
    let name = parsed(row, 0, |text| AppName::parse(text).ok())?;
    let mut app = StatedApp::new(parsed(row, 1, Id::parse)?, row.get(2)?, row.get(3)?);
    app.maintenance = row.get(4)?;
    app.slug = row.get(5)?;
    Ok((name, app))
}

fn read_parts(connection: &Connection, key: &SealKey, app: &mut StatedApp) -> rusqlite::Result<()> {
    let id = app.id.to_string();
    let mut domains = connection
        .prepare("SELECT id, domain, created_at FROM domains WHERE app = ?1 ORDER BY place")?;
    let domain = |row: &Row<'_>| {
        let domain = parsed(row, 1, |text| Domain::parse(text).ok())?;
        Ok(StatedDomain { id: parsed(row, 0, Id::parse)?, domain, created_at: row.get(2)? })
    };
    app.domains = domains.query_map([&id], domain)?.collect::<Result<_, _>>()?;

    let mut formation =
        connection.prepare("SELECT process_type, quantity, size FROM formations WHERE app = ?1")?;
    let mut rows = formation.query([&id])?;
    while let Some(row) = rows.next()? {
        let process_type = parsed(row, 0, |text| ProcessType::parse(text).ok())?;
        if let Some(quantity) = row.get(1)? {
            app.formation.insert(process_type.clone(), quantity);
        }
        if let Some(size) = row.get(2)? {
            app.sizes.insert(process_type, size);
        }
    }

    let mut vars = connection.prepare("SELECT name, value FROM config_vars WHERE app = ?1")?;
    let mut rows = vars.query([&id])?;
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let value = opened(key, row, 1, &place(&id, &name))?;
        app.config_vars.insert(name, value);
    }
    app.drains = drains::read(connection, key, &id)?;
    app.features = features::read(connection, &id)?;
    app.autoscale = autoscale::read(connection, &id)?;
    app.certificates = certificates::read(connection, key, &id)?;
    app.addons = addons::read(connection, key, &id)?;
    app.attachments = addons::read_attachments(connection, &id)?;
    Ok(())
}

/// Writes an app as it is now, in place of what there was of it.
pub(in crate::store) fn put(
    transaction: &Transaction<'_>,
    key: &SealKey,
    name: &AppName,
    app: &StatedApp,
) -> rusqlite::Result<()> {
    let id = app.id.to_string();
    transaction.execute(
        "INSERT INTO apps (id, name, created_at, made, maintenance, slug)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, made = excluded.made,
             maintenance = excluded.maintenance, slug = excluded.slug",
        (&id, name.as_str(), app.created_at, app.made, app.maintenance, &app.slug),
    )?;
    for table in ["domains", "formations", "config_vars"] {
        transaction.execute(&format!("DELETE FROM {table} WHERE app = ?1"), [&id])?;
    }
    for (place, StatedDomain { id: of_domain, domain, created_at }) in
        app.domains.iter().enumerate()
    {
        transaction.execute(
            "INSERT INTO domains (id, app, place, domain, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
            (of_domain.to_string(), &id, place, domain.to_string(), created_at),
        )?;
    }
    let types = app.formation.keys().chain(app.sizes.keys());
    let types: BTreeMap<&ProcessType, ()> = types.map(|it| (it, ())).collect();
    for process_type in types.into_keys() {
        let (quantity, size) = (app.formation.get(process_type), app.sizes.get(process_type));
        transaction.execute(
            "INSERT INTO formations (app, process_type, quantity, size) VALUES (?1, ?2, ?3, ?4)",
            (&id, process_type.as_str(), quantity, size),
        )?;
    }
    for (name, value) in &app.config_vars {
        transaction.execute(
            "INSERT INTO config_vars (app, name, value) VALUES (?1, ?2, ?3)",
            (&id, name, key.seal(&place(&id, name), value)),
        )?;
    }
    drains::put(transaction, key, &id, &app.drains)?;
    features::put(transaction, &id, &app.features)?;
    autoscale::put(transaction, &id, app.autoscale)?;
    certificates::put(transaction, key, &id, &app.certificates)?;
    addons::put(transaction, key, &id, &app.addons)?;
    addons::put_attachments(transaction, &id, &app.attachments)
}

/// Forgets an app, with its releases and all else of it. `false`: there was none.
pub(in crate::store) fn remove(transaction: &Transaction<'_>, id: Id) -> rusqlite::Result<bool> {
    Ok(transaction.execute("DELETE FROM apps WHERE id = ?1", [id.to_string()])? > 0)
}

/// The id of an app by its name.
pub(in crate::store) fn id_of(
    connection: &Connection,
    app: &AppName,
) -> rusqlite::Result<Option<Id>> {
    connection
        .query_row("SELECT id FROM apps WHERE name = ?1", [app.as_str()], |row| {
            parsed(row, 0, Id::parse)
        })
        .optional()
}

/// What the value of a config var is sealed with.
fn place(id: &str, name: &str) -> String {
    format!("{id}/{name}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{
        DrainUrl, Feature, StatedAddon, StatedAttachment, StatedAutoscale, StatedCertificate,
        StatedDrain,
    };
    use crate::store::database;

    fn certificate(name: &str) -> StatedCertificate {
        StatedCertificate {
            id: Id::of_random([name.as_bytes()[0]; 16]),
            name: name.into(),
            chain: "chain".into(),
            key: "hunter2".into(),
            names: ["*.a.test", "b.test"].map(|it| Domain::parse(it).unwrap()).to_vec(),
            chosen_for: vec![Domain::parse("b.test").unwrap()],
            is_trusted: true,
            created_at: 3,
            updated_at: 4,
        }
    }

    fn attachment(name: &str, addon: Id) -> StatedAttachment {
        let id = Id::of_random([name.as_bytes()[0]; 16]);
        StatedAttachment { id, name: name.into(), addon, created_at: 6 }
    }

    #[test]
    fn what_is_attached_goes_with_its_addon_and_not_before() {
        let mut connection = database::in_memory().unwrap();
        let key = SealKey::passing();
        let (shop, owner) = shop();
        let blog = AppName::parse("blog").unwrap();
        let mut other = StatedApp::new(Id::of_random([2; 16]), 0, true);
        let attached = StatedAttachment { id: other.id, ..owner.attachments[0].clone() };
        other.attachments.push(attached);
        let mut put_all = |apps: &[(&AppName, &StatedApp)]| {
            let transaction = connection.transaction().unwrap();
            apps.iter().for_each(|(name, app)| put(&transaction, &key, name, app).unwrap());
            transaction.commit().unwrap();
            read(&connection, &key).unwrap()
        };
        put_all(&[(&shop, &owner), (&blog, &other)]);
        // The owner is written anew for another reason.
        let stated = put_all(&[(&shop, &StatedApp { maintenance: Some(true), ..owner.clone() })]);
        assert_eq!(stated.apps[&blog], other);
        assert_eq!(stated.attached(&blog)["REDIS_URL"], "redis://:hunter2@localhost");
        let without = StatedApp { addons: Vec::new(), attachments: Vec::new(), ..owner };
        let stated = put_all(&[(&shop, &without)]);
        assert_eq!(stated.apps[&blog].attachments, []);
    }

    fn shop() -> (AppName, StatedApp) {
        let mut app = StatedApp::new(Id::of_random([7; 16]), 1_000, true);
        app.maintenance = Some(false);
        app.slug = Some("abc".into());
        for (number, domain) in ["z.example.com", "*.a.example.com"].into_iter().enumerate() {
            let id = Id::of_random([number as u8; 16]);
            let domain = Domain::parse(domain).unwrap();
            app.domains.push(StatedDomain { id, domain, created_at: 7 });
        }
        let [web, worker] = ["web", "worker"].map(|it| ProcessType::parse(it).unwrap());
        app.formation.insert(web.clone(), 3);
        app.sizes = BTreeMap::from([(web, "basic".into()), (worker, "standard-2x".into())]);
        app.config_vars.insert("TOKEN".into(), "hunter2 \u{1f511}".into());
        for url in ["https://user:hunter2@logs.test/in", "syslog://10.0.0.1:514"] {
            app.drains.push(StatedDrain { url: DrainUrl::parse(url).unwrap(), created_at: 9 });
        }
        let addon = Id::of_random([8; 16]);
        app.addons.push(StatedAddon {
            id: addon,
            name: "redis-1".into(),
            plan: "redis:local".into(),
            url: "redis://:hunter2@localhost".into(),
            created_at: 5,
        });
        app.attachments = ["REDIS", "CACHE"].map(|name| attachment(name, addon)).to_vec();
        app.certificates = ["one", "two"].map(certificate).to_vec();
        app.autoscale = Some(StatedAutoscale { min: 2, max: 5, p95: Duration::from_millis(700) });
        app.features =
            BTreeMap::from([(Feature::Preboot, true), (Feature::SessionAffinity, false)]);
        (AppName::parse("shop").unwrap(), app)
    }

    #[test]
    fn an_app_is_read_as_it_was_written() {
        let mut connection = database::in_memory().unwrap();
        let key = SealKey::passing();
        let (name, mut app) = shop();
        for _ in 0..2 {
            let transaction = connection.transaction().unwrap();
            put(&transaction, &key, &name, &app).unwrap();
            transaction.commit().unwrap();
            let stated = read(&connection, &key).unwrap();
            assert_eq!(stated.apps, BTreeMap::from([(name.clone(), app.clone())]));
            // Then with nothing said but that it is there.
            app = StatedApp::new(app.id, app.created_at, true);
        }
        assert_eq!(id_of(&connection, &name).unwrap(), Some(app.id));
        let transaction = connection.transaction().unwrap();
        assert!(remove(&transaction, app.id).unwrap());
        assert!(!remove(&transaction, app.id).unwrap());
        transaction.commit().unwrap();
        assert_eq!(read(&connection, &key).unwrap(), Stated::default());
    }

    #[test]
    fn without_its_key_nothing_is_read() {
        let mut connection = database::in_memory().unwrap();
        let (name, app) = shop();
        let transaction = connection.transaction().unwrap();
        put(&transaction, &SealKey::passing(), &name, &app).unwrap();
        transaction.commit().unwrap();
        let error = read(&connection, &SealKey::passing()).unwrap_err().to_string();
        assert!(error.contains("it was not encrypted with the key in store.key"), "{error}");
    }
}
