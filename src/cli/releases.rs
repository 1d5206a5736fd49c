//! `dynomesh releases` and `rollback`

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::{Context, bail};
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cli::app::{App, Daemon, name};

/// A release, as the API shows it.
#[derive(Serialize, Deserialize)]
struct Release {
    version: u64,
    description: String,
    status: String,
    current: bool,
    user: User,
    created_at: String,
}

#[derive(Serialize, Deserialize)]
struct User {
    email: String,
}

/// Print the releases of an app, the newest first
#[derive(clap::Args)]
pub(in crate::cli) struct Releases {
    #[command(flatten)]
    app: App,
    /// How many
    #[arg(short, long, value_name = "NUMBER", default_value_t = 15)]
    num: usize,
    /// As JSON, in the form of Heroku's Platform API
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

impl Releases {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let app = self.app.name(&self.daemon)?;
        if self.json {
            let releases: Vec<Value> = self.daemon.ask(Method::GET, &path(&app))?;
            let newest: Vec<_> = releases.into_iter().take(self.num).collect();
            println!("{}", serde_json::to_string_pretty(&newest)?);
            return Ok(ExitCode::SUCCESS);
        }
        let releases: Vec<Release> = self.daemon.ask(Method::GET, &path(&app))?;
        match releases.iter().find(|it| it.current) {
            Some(current) => println!("=== {app} Releases - Current: v{}\n", current.version),
            None if releases.is_empty() => println!("{app} has no releases."),
            None => println!("=== {app} Releases\n"),
        }
        print!("{}", table(releases.get(..self.num).unwrap_or(&releases)));
        Ok(ExitCode::SUCCESS)
    }
}

/// Have an app run again what it ran before
#[derive(clap::Args)]
pub(in crate::cli) struct Rollback {
    /// Which release: v7 [default: the one before the current one]
    #[arg(value_name = "RELEASE")]
    release: Option<String>,
    #[command(flatten)]
    app: App,
    #[command(flatten)]
    daemon: Daemon,
}

impl Rollback {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let app = self.app.name(&self.daemon)?;
        let version = match self.release.as_deref().map(name).transpose()? {
            Some(release) => release.strip_prefix('v').unwrap_or(release).to_owned(),
            None => self.previous(&app)?,
        };
        let body = json!({ "release": version });
        let made: Release = self.daemon.tell(Method::POST, &path(&app), &body)?;
        eprintln!("Rolling back ⬢ {app} to v{version}... done, v{}", made.version);
        Ok(ExitCode::SUCCESS)
    }

    fn previous(&self, app: &str) -> anyhow::Result<String> {
        let releases: Vec<Release> = self.daemon.ask(Method::GET, &path(app))?;
        let before = releases.iter().skip_while(|it| !it.current).skip(1);
        let previous = before.filter(|it| it.status == "succeeded").map(|it| it.version).next();
        match previous {
            Some(version) => Ok(version.to_string()),
            None => bail!("{app} has no release before the current one"),
        }
    }
}

/// `v7`
pub(in crate::cli) fn current_version(daemon: &Daemon, app: &str) -> anyhow::Result<String> {
    let releases: Vec<Release> = daemon.ask(Method::GET, &path(app))?;
    // What was asked for last may be on its way still.
    let pending = releases.first().filter(|it| it.status == "pending");
    let current = pending.or_else(|| releases.iter().find(|it| it.current));
    Ok(format!("v{}", current.context("the app has no release")?.version))
}

fn path(app: &str) -> String {
    format!("/apps/{app}/releases")
}

fn table(releases: &[Release]) -> String {
    let described = |it: &Release| match it.status.as_str() {
        "succeeded" => it.description.clone(),
        status => format!("{} ({status})", it.description),
    };
    let rows: Vec<_> =
        releases.iter().map(|it| (format!("v{}", it.version), described(it), it)).collect();
    let width =
        |of: &dyn Fn(&(String, String, &Release)) -> usize| rows.iter().map(of).max().unwrap_or(0);
    let (version, description, user) =
        (width(&|it| it.0.len()), width(&|it| it.1.len()), width(&|it| it.2.user.email.len()));
    rows.iter().fold(String::new(), |mut text, row| {
        let Release { user: User { email }, created_at, .. } = row.2;
        writeln!(text, "{:version$}  {:description$}  {email:user$}  {created_at}", row.0, row.1)
            .expect("writing to a string does not fail");
        text
    })
}
