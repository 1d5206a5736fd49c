//! `dynomesh token`, `token:create` and `token:revoke`

use std::process::ExitCode;

use http::Method;
use serde_json::{Value, json};

use crate::cli::app::{Daemon, name};

/// Print the tokens by which the Platform API may be asked
#[derive(clap::Args)]
pub(in crate::cli) struct Tokens {
    #[command(flatten)]
    daemon: Daemon,
}

impl Tokens {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let tokens: Vec<Value> = self.daemon.ask(Method::GET, PATH)?;
        for token in tokens {
            let text = |key: &str| token[key].as_str().unwrap_or_default().to_owned();
            let scope = token["scope"][0].as_str().unwrap_or_default();
            println!("{}  {scope:7}  {}  {}", text("id"), text("created_at"), text("description"));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Make a token for the Platform API, and print it: it is shown this once
#[derive(clap::Args)]
pub(in crate::cli) struct Create {
    /// What its bearer may do: read (all but config vars), operate (all but to end apps), admin
    #[arg(short, long, value_name = "SCOPE", default_value = "operate")]
    scope: String,
    /// What it is for
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    description: String,
    #[command(flatten)]
    daemon: Daemon,
}

impl Create {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        println!("{}", make(&self.daemon, &self.scope, &self.description)?.1);
        Ok(ExitCode::SUCCESS)
    }
}

/// Take a token back
#[derive(clap::Args)]
pub(in crate::cli) struct Revoke {
    /// Its id
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    daemon: Daemon,
}

impl Revoke {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let id = name(&self.id)?;
        self.daemon.ask::<Value>(Method::DELETE, &format!("{PATH}/{id}"))?;
        eprintln!("Revoking token {id}... done");
        Ok(ExitCode::SUCCESS)
    }
}

/// Where tokens are made and listed.
pub(in crate::cli) const PATH: &str = "/oauth/authorizations";

/// A new token's id and text.
pub(in crate::cli) fn make(
    daemon: &Daemon,
    scope: &str,
    description: &str,
) -> anyhow::Result<(String, String)> {
    let body = json!({ "scope": [scope], "description": description });
    let token: Value = daemon.tell(Method::POST, PATH, &body)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok((text(&token["id"]), text(&token["access_token"]["token"])))
}
