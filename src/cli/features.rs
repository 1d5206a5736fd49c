//! `dynomesh features`, `features:enable` and `features:disable`

use std::process::ExitCode;

use anyhow::bail;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::app::{App, Daemon, name};
use crate::cli::listing::Listing;

/// Print which features of an app are on
#[derive(clap::Args)]
pub(in crate::cli) struct Features {
    #[command(flatten)]
    of: Listing,
}

/// What is read of a feature.
#[derive(Deserialize)]
struct Feature {
    name: String,
    description: String,
    enabled: bool,
}

impl Features {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        self.of.print("features", |app, features: Vec<Feature>| {
            println!("=== App Features ⬢ {app}\n");
            let width = features.iter().map(|it| it.name.len()).max().unwrap_or(0);
            for Feature { name, description, enabled } in features {
                let mark = if enabled { "[+]" } else { "[ ]" };
                println!("{mark} {name:width$}  {description}");
            }
        })
    }
}

/// Switch a feature on: preboot (deploy = "preboot"), http-session-affinity (affinity = "cookie")
#[derive(clap::Args)]
pub(in crate::cli) struct Enable {
    /// preboot or http-session-affinity
    #[arg(value_name = "FEATURE")]
    feature: String,
    #[command(flatten)]
    app: App,
    #[command(flatten)]
    daemon: Daemon,
}

/// Switch a feature off
#[derive(clap::Args)]
pub(in crate::cli) struct Disable {
    /// preboot or http-session-affinity
    #[arg(value_name = "FEATURE")]
    feature: String,
    #[command(flatten)]
    app: App,
    #[command(flatten)]
    daemon: Daemon,
}

impl Enable {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        turn(&self.app, &self.daemon, &self.feature, true)
    }
}

impl Disable {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        turn(&self.app, &self.daemon, &self.feature, false)
    }
}

fn turn(app: &App, daemon: &Daemon, feature: &str, on: bool) -> anyhow::Result<ExitCode> {
    let app = app.name(daemon)?;
    let path = format!("/apps/{app}/features/{}", name(feature)?);
    let Feature { enabled, .. } = daemon.ask(Method::GET, &path)?;
    if enabled == on {
        bail!("{feature} is already {}.", if on { "enabled" } else { "disabled" });
    }
    daemon.tell::<Value>(Method::PATCH, &path, &json!({ "enabled": on }))?;
    eprintln!("{} {feature} for ⬢ {app}... done", if on { "Enabling" } else { "Disabling" });
    Ok(ExitCode::SUCCESS)
}
