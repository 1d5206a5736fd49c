//! `dynomesh config`, `config:set`, `config:get` and `config:unset`

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::bail;
use http::Method;
use serde_json::{Value, json};

use crate::cli::app::{App, Daemon};
use crate::cli::releases::current_version;

type Vars = BTreeMap<String, String>;

/// Print the config vars of an app
#[derive(clap::Args)]
pub(in crate::cli) struct Config {
    #[command(flatten)]
    app: App,
    /// As NAME=VALUE, quoted for a shell
    #[arg(short, long)]
    shell: bool,
    /// As JSON
    #[arg(short, long)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

impl Config {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let app = self.app.name(&self.daemon)?;
        let vars: Vars = self.daemon.ask(Method::GET, &path(&app))?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&vars)?);
        } else if self.shell {
            for (name, value) in &vars {
                println!("{name}={}", quoted(value));
            }
        } else {
            println!("=== {app} Config Vars\n");
            print!("{}", aligned(&vars));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Set config vars, and have the app run with them
#[derive(clap::Args)]
pub(in crate::cli) struct Set {
    /// NAME=VALUE
    #[arg(value_name = "NAME=VALUE", required = true)]
    vars: Vec<String>,
    #[command(flatten)]
    app: App,
    #[command(flatten)]
    daemon: Daemon,
}

impl Set {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let app = self.app.name(&self.daemon)?;
        let mut set = Vars::new();
        for var in &self.vars {
            let Some((name, value)) = var.split_once('=') else {
                bail!("{var} is invalid. Must be in the format FOO=bar.");
            };
            set.insert(name.to_owned(), value.to_owned());
        }
        let all: Vars = self.daemon.tell(Method::PATCH, &path(&app), &json!(set))?;
        let names: Vec<_> = set.keys().map(String::as_str).collect();
        let version = current_version(&self.daemon, &app)?;
        eprintln!("Setting {} and restarting ⬢ {app}... done, {version}", names.join(", "));
        print!(
            "{}",
            aligned(&all.into_iter().filter(|(name, _)| set.contains_key(name)).collect())
        );
        Ok(ExitCode::SUCCESS)
    }
}

/// Print the value of config vars
#[derive(clap::Args)]
pub(in crate::cli) struct Get {
    /// Which
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    app: App,
    /// As NAME=VALUE, quoted for a shell
    #[arg(short, long)]
    shell: bool,
    #[command(flatten)]
    daemon: Daemon,
}

impl Get {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let app = self.app.name(&self.daemon)?;
        let vars: Vars = self.daemon.ask(Method::GET, &path(&app))?;
        for name in &self.names {
            let value = vars.get(name).map_or("", String::as_str);
            match self.shell {
                true => println!("{name}={}", quoted(value)),
                false => println!("{value}"),
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Unset config vars, and have the app run without them
#[derive(clap::Args)]
pub(in crate::cli) struct Unset {
    /// Which
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    app: App,
    #[command(flatten)]
    daemon: Daemon,
}

impl Unset {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let app = self.app.name(&self.daemon)?;
        let unset: BTreeMap<&str, Value> =
            self.names.iter().map(|it| (it.as_str(), Value::Null)).collect();
        self.daemon.tell::<Vars>(Method::PATCH, &path(&app), &json!(unset))?;
        let version = current_version(&self.daemon, &app)?;
        eprintln!("Unsetting {} and restarting ⬢ {app}... done, {version}", self.names.join(", "));
        Ok(ExitCode::SUCCESS)
    }
}

fn path(app: &str) -> String {
    format!("/apps/{app}/config-vars")
}

/// `NAME:  value`, the values under each other.
fn aligned(vars: &Vars) -> String {
    let width = vars.keys().map(String::len).max().unwrap_or(0) + 1;
    vars.iter().map(|(name, value)| format!("{:width$} {value}\n", format!("{name}:"))).collect()
}

/// As a shell reads it back; bare where nothing in it means anything to one.
pub(in crate::cli) fn quoted(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:@%+,=".contains(&byte);
    match !value.is_empty() && value.bytes().all(plain) {
        true => value.to_owned(),
        false => format!("'{}'", value.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_for_shells() {
        for (value, expected) in
            [("", "''"), ("a-b", "a-b"), ("a b", "'a b'"), ("it's", "'it'\\''s'"), ("$X", "'$X'")]
        {
            assert_eq!(quoted(value), expected);
        }
    }

    #[test]
    fn values_stand_under_each_other() {
        let vars = Vars::from([("A".into(), "1".into()), ("LONG".into(), "2".into())]);
        assert_eq!(aligned(&vars), "A:    1\nLONG: 2\n");
    }
}
