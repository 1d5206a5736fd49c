//! `dynomesh addons`, `addons:create`, `addons:info`, `addons:attach`, `addons:detach` and `addons:destroy`

use std::process::ExitCode;

use anyhow::bail;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::app::{App, Daemon, name};
use crate::cli::listing::Listing;
use crate::cli::releases::current_version;

/// Print the add-ons of an app, and what is attached to it
#[derive(clap::Args)]
pub(in crate::cli) struct Addons {
    #[command(flatten)]
    of: Listing,
}

/// Name a resource outside, a database for instance, and have its URL as a config var
#[derive(clap::Args)]
pub(in crate::cli) struct Create {
    /// What it is: redis
    #[arg(value_name = "SERVICE")]
    service: String,
    /// Where it is: redis://user:password@10.0.0.1:6379
    #[arg(long, value_name = "URL")]
    url: String,
    /// REDIS for the config var REDIS_URL [default: the service]
    #[arg(long = "as", value_name = "NAME")]
    attached_as: Option<String>,
    /// Its own name; one is made up where none is given
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The app once more, to replace a config var that is set already
    #[arg(long, value_name = "APP")]
    confirm: Option<String>,
    #[command(flatten)]
    app: App,
    #[command(flatten)]
    daemon: Daemon,
}

/// Print an add-on and which apps are told of it
#[derive(clap::Args)]
pub(in crate::cli) struct Info {
    /// Its name
    #[arg(value_name = "ADDON")]
    addon: String,
    #[command(flatten)]
    daemon: Daemon,
}

/// Tell another app of an add-on
#[derive(clap::Args)]
pub(in crate::cli) struct Attach {
    /// Its name
    #[arg(value_name = "ADDON")]
    addon: String,
    /// REDIS for the config var REDIS_URL [default: the service]
    #[arg(long = "as", value_name = "NAME")]
    attached_as: Option<String>,
    /// The app once more, to replace a config var that is set already
    #[arg(long, value_name = "APP")]
    confirm: Option<String>,
    #[command(flatten)]
    app: App,
    #[command(flatten)]
    daemon: Daemon,
}

/// Tell an app of an add-on no more
#[derive(clap::Args)]
pub(in crate::cli) struct Detach {
    /// What the app calls it: REDIS
    #[arg(value_name = "ATTACHMENT")]
    attachment: String,
    #[command(flatten)]
    app: App,
    #[command(flatten)]
    daemon: Daemon,
}

/// Forget an add-on: no app is told of it any more, and the resource itself stays as it is
#[derive(clap::Args)]
pub(in crate::cli) struct Destroy {
    /// Its name
    #[arg(value_name = "ADDON")]
    addon: String,
    /// The app whose it is, once more
    #[arg(long, value_name = "APP")]
    confirm: String,
    #[command(flatten)]
    daemon: Daemon,
}

#[derive(Deserialize)]
struct Addon {
    name: String,
    app: Named,
    plan: Named,
    config_vars: Vec<String>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct Attachment {
    id: String,
    name: String,
    addon: Named,
    app: Named,
}

impl Addons {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        self.of.print("addon-attachments", |app, attachments: Vec<Attachment>| {
            if attachments.is_empty() {
                println!("No add-ons for ⬢ {app}.");
            }
            let width = attachments.iter().map(|it| it.addon.name.len()).max().unwrap_or(0);
            for Attachment { name, addon, .. } in attachments {
                println!("{:width$}  as {name}", addon.name);
            }
        })
    }
}

impl Create {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let app = self.app.name(&self.daemon)?;
        let body = json!({
            "plan": { "name": self.service },
            "name": self.name,
            "attachment": { "name": self.attached_as },
            "config": { "url": self.url },
            "confirm": self.confirm,
        });
        let path = format!("/apps/{app}/addons");
        let Addon { name, config_vars, .. } = self.daemon.tell(Method::POST, &path, &body)?;
        eprintln!("Creating {} on ⬢ {app}... done", self.service);
        println!("Created {name} as {}", config_vars.join(", "));
        Ok(ExitCode::SUCCESS)
    }
}

impl Info {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let path = format!("/addons/{}", name(&self.addon)?);
        let Addon { name, app, plan, .. } = self.daemon.ask(Method::GET, &path)?;
        let attachments: Vec<Attachment> =
            self.daemon.ask(Method::GET, &format!("{path}/addon-attachments"))?;
        let attachments = attachments.iter().map(|it| format!("{}::{}", it.app.name, it.name));
        println!("=== {name}\n");
        println!("Attachments: {}", attachments.collect::<Vec<_>>().join(", "));
        println!("Owning app:  {}\nPlan:        {}", app.name, plan.name);
        Ok(ExitCode::SUCCESS)
    }
}

impl Attach {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let app = self.app.name(&self.daemon)?;
        let body = json!({
            "addon": { "name": self.addon },
            "app": { "name": app },
            "name": self.attached_as,
            "confirm": self.confirm,
        });
        let made: Attachment = self.daemon.tell(Method::POST, "/addon-attachments", &body)?;
        let (addon, called) = (&self.addon, &made.name);
        eprintln!("Attaching {addon} as {called} to ⬢ {app}... done");
        let version = current_version(&self.daemon, &app)?;
        eprintln!("Setting {called} config vars and restarting ⬢ {app}... done, {version}");
        Ok(ExitCode::SUCCESS)
    }
}

impl Detach {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let app = self.app.name(&self.daemon)?;
        let path = format!("/apps/{app}/addon-attachments");
        let attachments: Vec<Attachment> = self.daemon.ask(Method::GET, &path)?;
        let Some(found) = attachments.into_iter().find(|it| it.name == self.attachment) else {
            bail!("⬢ {app} has no attachment {}", self.attachment);
        };
        let Attachment { id, name, addon, .. } = found;
        self.daemon.ask::<Value>(Method::DELETE, &format!("/addon-attachments/{id}"))?;
        eprintln!("Detaching {name} to {} from ⬢ {app}... done", addon.name);
        let version = current_version(&self.daemon, &app)?;
        eprintln!("Unsetting {name} config vars and restarting ⬢ {app}... done, {version}");
        Ok(ExitCode::SUCCESS)
    }
}

impl Destroy {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let addon = name(&self.addon)?;
        let Addon { app, .. } = self.daemon.ask(Method::GET, &format!("/addons/{addon}"))?;
        let app = app.name;
        if self.confirm != app {
            bail!("Confirmation {} did not match {app}. Aborted.", self.confirm);
        }
        self.daemon.ask::<Value>(Method::DELETE, &format!("/apps/{app}/addons/{addon}"))?;
        eprintln!("Destroying {addon} on ⬢ {app}... done");
        Ok(ExitCode::SUCCESS)
    }
}
