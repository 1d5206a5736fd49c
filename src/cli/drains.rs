//! `dynomesh drains`, `drains:add` and `drains:remove`

use std::process::ExitCode;

use anyhow::bail;
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cli::app::{App, Daemon};
use crate::cli::listing::Listing;

/// Print where the log of an app is sent to
#[derive(clap::Args)]
pub(in crate::cli) struct Drains {
    #[command(flatten)]
    of: Listing,
}

/// What is read of a drain.
#[derive(Serialize, Deserialize)]
struct Drain {
    id: String,
    url: String,
    token: String,
}

impl Drains {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        self.of.print("log-drains", |_, drains: Vec<Drain>| {
            if !drains.is_empty() {
                println!("=== Drains\n");
            }
            for Drain { url, token, .. } in drains {
                println!("{url} ({token})");
            }
        })
    }
}

/// Send the log of an app somewhere
#[derive(clap::Args)]
pub(in crate::cli) struct Add {
    /// syslog://10.0.0.1:514, syslog+tls://logs.example.com:6514, https://user:password@logs.example.com/path
    #[arg(value_name = "URL")]
    url: String,
    #[command(flatten)]
    app: App,
    #[command(flatten)]
    daemon: Daemon,
}

impl Add {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let app = self.app.name(&self.daemon)?;
        let body = json!({ "url": self.url });
        let Drain { url, .. } = self.daemon.tell(Method::POST, &path(&app), &body)?;
        println!("Successfully added drain {url}");
        Ok(ExitCode::SUCCESS)
    }
}

/// Send the log of an app somewhere no more
#[derive(clap::Args)]
pub(in crate::cli) struct Remove {
    /// The drain's URL, or its token
    #[arg(value_name = "URL|TOKEN")]
    drain: String,
    #[command(flatten)]
    app: App,
    #[command(flatten)]
    daemon: Daemon,
}

impl Remove {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let app = self.app.name(&self.daemon)?;
        let drains: Vec<Drain> = self.daemon.ask(Method::GET, &path(&app))?;
        let is_meant = |it: &&Drain| it.url == self.drain || it.token == self.drain;
        let Some(Drain { id, .. }) = drains.iter().find(is_meant) else {
            bail!("⬢ {app} has no drain {}", self.drain);
        };
        let removed = self.daemon.ask(Method::DELETE, &format!("{}/{id}", path(&app)))?;
        let Drain { url, .. } = removed;
        println!("Successfully removed drain {url}");
        Ok(ExitCode::SUCCESS)
    }
}

fn path(app: &str) -> String {
    format!("/apps/{app}/log-drains")
}
