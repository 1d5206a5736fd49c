//! For tests: a configuration and its table, without processes.

use std::fs;
use std::sync::Arc;

use crate::config::{self, Config};
use crate::model::{DynoAddr, DynoName, ProcessType};
use crate::table::{App, AppId, Dyno, Lineup, Publisher, Roster, Routes, Standing, Table};

pub(in crate::control) struct Scene {
    pub(in crate::control) config: Config,
    pub(in crate::control) publisher: Arc<Publisher>,
}

impl Scene {
    /// For the text of a file, beside which `app/Procfile` has the types web and worker. No dyno is up.
    pub(in crate::control) fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("app")).unwrap();
        fs::write(dir.path().join("app/Procfile"), "web: serve\nworker: work\n").unwrap();
        let file = dir.path().join("dynomesh.toml");
        fs::write(&file, text).unwrap();
        let config = config::load(&file).unwrap();
        let app = |(name, app): (_, &config::AppConfig)| {
            let (name, policy) = (Clone::clone(name), app.policy.clone());
            let roster = Roster::new(Standing::Starting);
            (
                Arc::new(App {
                    id: AppId::fresh(),
                    name,
                    policy,
                    roster,
                    traffic: None,
                    load: None,
                }),
                Vec::new(),
            )
        };
        let publisher = Publisher::new(Table::new(Routes {
            version: 1,
            listener: config.router.listener.clone(),
            apps: config.apps.iter().map(app).collect(),
            domain: config.router.domain.clone(),
            default_app: None,
        }));
        Self { config, publisher }
    }

    /// Makes the app's dyno `web.1` routable.
    pub(in crate::control) fn up(&self, app: &str) -> Arc<Dyno> {
        let name = DynoName { process_type: ProcessType::web(), number: 1 };
        let dyno = Dyno::new(name, DynoAddr::parse("127.0.0.1:1").unwrap(), true);
        let lineup =
            Lineup { dynos: vec![dyno.clone()], canary: None, ring: None, standing: Standing::Up };
        self.publish(app, lineup);
        dyno
    }

    /// Leaves the app without a routable dyno, for this reason.
    pub(in crate::control) fn stands(&self, app: &str, standing: Standing) {
        self.publish(app, Lineup { dynos: vec![], canary: None, ring: None, standing });
    }

    fn publish(&self, app: &str, lineup: Lineup) {
        let table = self.publisher.table();
        let app = table.apps().iter().find(|it| it.name.as_str() == app).unwrap();
        self.publisher.publish_lineup(&app.roster, lineup);
    }
}
