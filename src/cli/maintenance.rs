//! `dynomesh maintenance`, `maintenance:on` and `maintenance:off`

use std::process::ExitCode;

use http::Method;
use serde_json::{Value, json};

use crate::cli::app::{App, Daemon};

/// Print whether an app is under maintenance
#[derive(clap::Args)]
pub(in crate::cli) struct Maintenance {
    #[command(flatten)]
    app: App,
    #[command(flatten)]
    daemon: Daemon,
}

/// Have the router answer requests of an app by its maintenance page (H80)
#[derive(clap::Args)]
pub(in crate::cli) struct On {
    #[command(flatten)]
    app: App,
    #[command(flatten)]
    daemon: Daemon,
}

/// Have an app answer its requests again
#[derive(clap::Args)]
pub(in crate::cli) struct Off {
    #[command(flatten)]
    app: App,
    #[command(flatten)]
    daemon: Daemon,
}

impl Maintenance {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let app = self.app.name(&self.daemon)?;
        let app: Value = self.daemon.ask(Method::GET, &format!("/apps/{app}"))?;
        println!("{}", if app["maintenance"] == true { "on" } else { "off" });
        Ok(ExitCode::SUCCESS)
    }
}

impl On {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        turn(&self.app, &self.daemon, true, "Enabling")
    }
}

impl Off {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        turn(&self.app, &self.daemon, false, "Disabling")
    }
}

fn turn(app: &App, daemon: &Daemon, on: bool, verb: &str) -> anyhow::Result<ExitCode> {
    let app = app.name(daemon)?;
    let body = json!({ "maintenance": on });
    daemon.tell::<Value>(Method::PATCH, &format!("/apps/{app}"), &body)?;
    eprintln!("{verb} maintenance mode for ⬢ {app}... done");
    Ok(ExitCode::SUCCESS)
}
