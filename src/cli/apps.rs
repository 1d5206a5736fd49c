//! `dynomesh apps`, `apps:create` and `apps:destroy`

use std::process::ExitCode;

use anyhow::bail;
use http::Method;
use serde_json::{Value, json};

use crate::cli::app::{Daemon, name};

/// Print the apps
#[derive(clap::Args)]
pub(in crate::cli) struct Apps {
    /// As JSON, in the form of Heroku's Platform API
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

impl Apps {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let apps: Vec<Value> = self.daemon.ask(Method::GET, "/apps")?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&apps)?);
            return Ok(ExitCode::SUCCESS);
        }
        if apps.is_empty() {
            println!("You have no apps.");
        }
        let text = |app: &Value, key: &str| app[key].as_str().unwrap_or_default().to_owned();
        let width = apps.iter().map(|app| text(app, "name").len()).max().unwrap_or(0);
        for app in &apps {
            println!("{:width$}  decided by {}", text(app, "name"), text(app, "decided_by"));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Make an app, to be deployed to
#[derive(clap::Args)]
pub(in crate::cli) struct Create {
    /// Its name; one is made up where none is given
    #[arg(value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    daemon: Daemon,
}

impl Create {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let app: Value = self.daemon.tell(Method::POST, "/apps", &json!({ "name": self.name }))?;
        let made = app["name"].as_str().unwrap_or_default();
        match self.name {
            Some(_) => eprintln!("Creating ⬢ {made}... done"),
            None => eprintln!("Creating app... done, ⬢ {made}"),
        }
        if let Some(url) = app["web_url"].as_str() {
            println!("{url}");
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// End an app and all that is its own
#[derive(clap::Args)]
pub(in crate::cli) struct Destroy {
    /// The app
    #[arg(short, long, value_name = "APP")]
    app: String,
    /// The app once more: its releases, config vars and domains cannot be brought back
    #[arg(long, value_name = "APP")]
    confirm: String,
    #[command(flatten)]
    daemon: Daemon,
}

impl Destroy {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let app = name(&self.app)?;
        if self.confirm != app {
            bail!("Confirmation {} did not match {app}. Aborted.", self.confirm);
        }
        self.daemon.ask::<Value>(Method::DELETE, &format!("/apps/{app}"))?;
        eprintln!("Destroying ⬢ {app}... done");
        Ok(ExitCode::SUCCESS)
    }
}
