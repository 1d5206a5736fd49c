//! What the commands that list something of an app have in common.

use std::process::ExitCode;

use http::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cli::app::{App, Daemon};

/// Of which app, and how.
#[derive(clap::Args)]
pub(in crate::cli) struct Listing {
    #[command(flatten)]
    app: App,
    /// As JSON, in the form of Heroku's Platform API
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

impl Listing {
    /// Prints what an app has of this kind (`drains`): as the API gives it, or by `show`, which is told the app's name.
    pub(in crate::cli) fn print<T: DeserializeOwned>(
        &self,
        kind: &str,
        show: impl FnOnce(&str, Vec<T>),
    ) -> anyhow::Result<ExitCode> {
        let app = self.app.name(&self.daemon)?;
        let path = format!("/apps/{app}/{kind}");
        if self.json {
            let all: Value = self.daemon.ask(Method::GET, &path)?;
            println!("{}", serde_json::to_string_pretty(&all)?);
        } else {
            show(&app, self.daemon.ask(Method::GET, &path)?);
        }
        Ok(ExitCode::SUCCESS)
    }
}
