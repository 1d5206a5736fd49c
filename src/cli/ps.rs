//! `dynomesh ps`, `dynomesh ps:restart` and `dynomesh ps:stop`

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::ExitCode;

use anyhow::bail;
use http::Method;

use crate::cli::app::{App, Daemon, name};
use crate::control::DynoObject;
use crate::model::Civil;
use crate::wall_clock;

/// Print the dynos of an app
#[derive(clap::Args)]
pub(in crate::cli) struct Ps {
    /// Of these process types alone
    #[arg(value_name = "TYPE")]
    types: Vec<String>,
    #[command(flatten)]
    app: App,
    /// As JSON, in the form of Heroku's Platform API
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

impl Ps {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let app = self.app.name(&self.daemon)?;
        let path = format!("/apps/{app}/dynos");
        let mut dynos: Vec<DynoObject> = self.daemon.ask(Method::GET, &path)?;
        for wanted in &self.types {
            if !dynos.iter().any(|dyno| dyno.process_type == *wanted) {
                bail!("No {wanted} dynos on ⬢ {app}");
            }
        }
        dynos.retain(|dyno| self.types.is_empty() || self.types.contains(&dyno.process_type));
        match self.json {
            true => println!("{}", serde_json::to_string_pretty(&dynos)?),
            false if dynos.is_empty() => println!("No dynos on ⬢ {app}"),
            false => print!("{}", listed(&dynos, wall_clock::unix())),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Restart the dynos of an app: all, those of a process type, or one
#[derive(clap::Args)]
pub(in crate::cli) struct Restart {
    /// Which: web.1, or web for all of the type
    #[arg(value_name = "DYNO|TYPE")]
    which: Option<String>,
    #[command(flatten)]
    app: App,
    #[command(flatten)]
    daemon: Daemon,
}

impl Restart {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let app = self.app.name(&self.daemon)?;
        let which = self.which.as_deref().map(name).transpose()?;
        let (what, path) = match which {
            None => ("all dynos".into(), format!("/apps/{app}/dynos")),
            Some(dyno) if dyno.contains('.') => {
                (format!("dyno {dyno}"), format!("/apps/{app}/dynos/{dyno}"))
            }
            Some(of_type) => {
                (format!("all {of_type} dynos"), format!("/apps/{app}/formations/{of_type}"))
            }
        };
        self.daemon.ask::<serde_json::Value>(Method::DELETE, &path)?;
        eprintln!("Restarting {what} on ⬢ {app}... done");
        Ok(ExitCode::SUCCESS)
    }
}

/// Stop a dyno; one of the formation is started anew
#[derive(clap::Args)]
pub(in crate::cli) struct Stop {
    /// Which: run.4711, web.1
    #[arg(value_name = "DYNO")]
    dyno: String,
    #[command(flatten)]
    app: App,
    #[command(flatten)]
    daemon: Daemon,
}

impl Stop {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let app = self.app.name(&self.daemon)?;
        let dyno = name(&self.dyno)?;
        let path = format!("/apps/{app}/dynos/{dyno}/actions/stop");
        self.daemon.ask::<serde_json::Value>(Method::POST, &path)?;
        eprintln!("Stopping dyno {dyno} on ⬢ {app}... done");
        Ok(ExitCode::SUCCESS)
    }
}

/// As Heroku's CLI prints them: one-off dynos first, then those of each type under its command.
fn listed(dynos: &[DynoObject], now: u64) -> String {
    let is_one_off = |dyno: &&DynoObject| matches!(&*dyno.process_type, "run" | "scheduler");
    let mut text = String::new();
    let one_offs: Vec<_> = dynos.iter().filter(is_one_off).collect();
    if !one_offs.is_empty() {
        put(&mut text, format_args!("=== run: one-off processes ({})\n", one_offs.len()));
        for dyno in sorted(one_offs) {
            let DynoObject { name, size, command, .. } = dyno;
            put(&mut text, format_args!("{name} ({size}): {}: {command}", state(dyno, now)));
        }
        text.push('\n');
    }
    let mut types: BTreeMap<&str, Vec<&DynoObject>> = BTreeMap::new();
    for dyno in dynos.iter().filter(|dyno| !is_one_off(dyno)) {
        types.entry(&dyno.process_type).or_default().push(dyno);
    }
    for (process_type, dynos) in types {
        let DynoObject { size, command, .. } = dynos[0];
        let count = dynos.len();
        let of_size = if size.is_empty() { String::new() } else { format!(" ({size})") };
        let command = if command.is_empty() { "run by somebody else" } else { command };
        put(&mut text, format_args!("=== {process_type}{of_size}: {command} ({count})\n"));
        for dyno in sorted(dynos) {
            put(&mut text, format_args!("{}: {}", dyno.name, state(dyno, now)));
        }
        text.push('\n');
    }
    text
}

fn put(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a string does not fail");
}

/// By number: web.10 comes after web.9.
fn sorted(mut dynos: Vec<&DynoObject>) -> Vec<&DynoObject> {
    let number = |dyno: &&DynoObject| {
        dyno.name.rsplit('.').next().and_then(|number| number.parse::<u64>().ok())
    };
    dynos.sort_by_key(number);
    dynos
}

/// `up 2025/09/16 12:00:00 +0000 (~ 1h ago)`
fn state(dyno: &DynoObject, now: u64) -> String {
    let since = Civil::parse_rfc3339(&dyno.updated_at).filter(|since| *since > 0);
    let Some(since) = since else { return dyno.state.clone() };
    let age = match now.saturating_sub(since) {
        seconds @ 0..60 => format!(" (~ {seconds}s ago)"),
        seconds @ 60..3600 => format!(" (~ {}m ago)", seconds / 60),
        seconds @ 3600..90_000 => format!(" (~ {}h ago)", seconds / 3600),
        _ => String::new(),
    };
    format!("{} {}{age}", dyno.state, Civil::of(since))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::AppObject;

    fn dyno(name: &str, command: &str, since: u64) -> DynoObject {
        let process_type = name.split('.').next().unwrap().to_owned();
        let (size, state) = ("Basic".into(), "up".into());
        let (app, name) = (AppObject { name: "shop".into() }, name.into());
        let (command, updated_at) = (command.into(), Civil::of(since).rfc3339());
        DynoObject {
            app,
            name,
            process_type,
            command,
            size,
            state,
            updated_at,
            release: None,
            attach_url: None,
        }
    }

    #[test]
    fn dynos_are_printed_as_heroku_prints_them() {
        let now = 1_795_225_490;
        let dynos = [
            dyno("web.10", "serve", now - 90_000),
            dyno("web.9", "serve", now - 59),
            dyno("worker.1", "work", now - 7_200),
            dyno("run.4711", "bash", now - 60),
        ];
        assert_eq!(
            listed(&dynos, now),
            "=== run: one-off processes (1)

run.4711 (Basic): up 2026/11/21 01:43:50 +0000 (~ 1m ago): bash

=== web (Basic): serve (2)

web.9: up 2026/11/21 01:43:51 +0000 (~ 59s ago)
web.10: up 2026/11/20 00:44:50 +0000

=== worker (Basic): work (1)

worker.1: up 2026/11/20 23:44:50 +0000 (~ 2h ago)

"
        );
    }
}
