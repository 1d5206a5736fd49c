//! `dynomesh domains`, `domains:add` and `domains:remove`

use std::process::ExitCode;

use http::Method;
use serde_json::{Value, json};

use crate::cli::app::{App, Daemon};
use crate::cli::listing::Listing;
use crate::model::Domain;

/// Print the domains at which an app answers
#[derive(clap::Args)]
pub(in crate::cli) struct Domains {
    #[command(flatten)]
    of: Listing,
}

impl Domains {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        self.of.print("domains", |app, domains: Vec<Value>| {
            let of_kind = |kind: &str| {
                let of_kind = domains.iter().filter(|it| it["kind"] == *kind);
                of_kind
                    .filter_map(|it| it["hostname"].as_str())
                    .map(|it| format!("{it}\n"))
                    .collect::<String>()
            };
            println!("=== {app} Heroku Domain\n\n{}", of_kind("heroku"));
            let custom = of_kind("custom");
            if !custom.is_empty() {
                print!("=== {app} Custom Domains\n\n{custom}");
            }
        })
    }
}

/// Have an app answer at a domain
#[derive(clap::Args)]
pub(in crate::cli) struct Add {
    /// shop.example.com, or *.shop.example.com
    #[arg(value_name = "DOMAIN")]
    domain: String,
    #[command(flatten)]
    app: App,
    #[command(flatten)]
    daemon: Daemon,
}

impl Add {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let app = self.app.name(&self.daemon)?;
        let body = json!({ "hostname": self.domain });
        let added: Value = self.daemon.tell(Method::POST, &path(&app), &body)?;
        let hostname = added["hostname"].as_str().unwrap_or(&self.domain);
        eprintln!("Adding {hostname} to ⬢ {app}... done");
        println!("Have its DNS record lead to this machine.");
        Ok(ExitCode::SUCCESS)
    }
}

/// Have an app answer at a domain no more
#[derive(clap::Args)]
pub(in crate::cli) struct Remove {
    /// The domain
    #[arg(value_name = "DOMAIN")]
    domain: String,
    #[command(flatten)]
    app: App,
    #[command(flatten)]
    daemon: Daemon,
}

impl Remove {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let app = self.app.name(&self.daemon)?;
        // A domain in its usual form has nothing that means something in a path.
        let domain = Domain::parse(&self.domain)
            .map_err(|wrong| anyhow::anyhow!("{}: {wrong}", self.domain))?;
        self.daemon.ask::<Value>(Method::DELETE, &format!("{}/{domain}", path(&app)))?;
        eprintln!("Removing {domain} from ⬢ {app}... done");
        Ok(ExitCode::SUCCESS)
    }
}

fn path(app: &str) -> String {
    format!("/apps/{app}/domains")
}
