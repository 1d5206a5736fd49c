//! `dynomesh certs`, `certs:add`, `certs:info`, `certs:update` and `certs:remove`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::app::{App, Daemon, name};
use crate::cli::listing::Listing;

/// Print the certificates that commands gave to an app
#[derive(clap::Args)]
pub(in crate::cli) struct Certs {
    #[command(flatten)]
    of: Listing,
}

/// Give an app a certificate, for those of its domains that it is for
#[derive(clap::Args)]
pub(in crate::cli) struct Add {
    /// The certificate (PEM), followed by those between it and a root
    #[arg(value_name = "CRT")]
    chain: PathBuf,
    /// Its private key (PEM)
    #[arg(value_name = "KEY")]
    key: PathBuf,
    #[command(flatten)]
    app: App,
    #[command(flatten)]
    daemon: Daemon,
}

/// Print a certificate of an app
#[derive(clap::Args)]
pub(in crate::cli) struct Info {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    app: App,
    #[command(flatten)]
    daemon: Daemon,
}

/// Exchange a certificate of an app and its key
#[derive(clap::Args)]
pub(in crate::cli) struct Update {
    /// The certificate (PEM), followed by those between it and a root
    #[arg(value_name = "CRT")]
    chain: PathBuf,
    /// Its private key (PEM)
    #[arg(value_name = "KEY")]
    key: PathBuf,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    app: App,
    #[command(flatten)]
    daemon: Daemon,
}

/// Take a certificate from an app
#[derive(clap::Args)]
pub(in crate::cli) struct Remove {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    app: App,
    #[command(flatten)]
    daemon: Daemon,
}

#[derive(clap::Args)]
struct Which {
    /// Its name, where the app has several
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

/// What is read of a certificate.
#[derive(Deserialize)]
struct Endpoint {
    name: String,
    ssl_cert: Certificate,
    domains: Vec<String>,
}

#[derive(Deserialize)]
struct Certificate {
    cert_domains: Vec<String>,
    starts_at: String,
    expires_at: String,
    issuer: String,
    subject: String,
    #[serde(rename = "ca_signed?")]
    is_trusted: bool,
}

impl Certs {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        self.of.print("sni-endpoints", |app, endpoints: Vec<Endpoint>| {
            if endpoints.is_empty() {
                println!(
                    "⬢ {app} has no SSL certificates.\nUse dynomesh certs:add CRT KEY to add one."
                );
            }
            for Endpoint { name, ssl_cert, domains } in endpoints {
                let trusted = if ssl_cert.is_trusted { "trusted" } else { "not trusted" };
                let (names, until) = (ssl_cert.cert_domains.join(", "), ssl_cert.expires_at);
                println!("{name}  {names}  until {until}  {trusted}  domains: {}", domains.len());
            }
        })
    }
}

impl Add {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let body = pair(&self.chain, &self.key)?;
        let app = self.app.name(&self.daemon)?;
        let added: Endpoint = self.daemon.tell(Method::POST, &path(&app), &body)?;
        eprintln!("Adding SSL certificate to ⬢ {app}... done");
        print!("{}", told(&added));
        Ok(ExitCode::SUCCESS)
    }
}

impl Info {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let app = self.app.name(&self.daemon)?;
        print!("{}", told(&self.which.find(&self.daemon, &app)?));
        Ok(ExitCode::SUCCESS)
    }
}

impl Update {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let body = pair(&self.chain, &self.key)?;
        let app = self.app.name(&self.daemon)?;
        let Endpoint { name, .. } = self.which.find(&self.daemon, &app)?;
        let path = format!("{}/{name}", path(&app));
        let updated: Endpoint = self.daemon.tell(Method::PATCH, &path, &body)?;
        eprintln!("Updating SSL certificate {name} for ⬢ {app}... done");
        print!("{}", told(&updated));
        Ok(ExitCode::SUCCESS)
    }
}

impl Remove {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let app = self.app.name(&self.daemon)?;
        let Endpoint { name, .. } = self.which.find(&self.daemon, &app)?;
        self.daemon.ask::<Value>(Method::DELETE, &format!("{}/{name}", path(&app)))?;
        eprintln!("Removing SSL certificate {name} from ⬢ {app}... done");
        Ok(ExitCode::SUCCESS)
    }
}

impl Which {
    /// The one that was named, else the only one.
    fn find(&self, daemon: &Daemon, app: &str) -> anyhow::Result<Endpoint> {
        let named = self.name.as_deref().map(name).transpose()?;
        let mut endpoints: Vec<Endpoint> = daemon.ask(Method::GET, &path(app))?;
        endpoints.retain(|it| named.is_none_or(|name| it.name == name));
        match (endpoints.len(), endpoints.pop()) {
            (1, Some(only)) => Ok(only),
            (0, _) => bail!("⬢ {app} has no such SSL certificate."),
            _ => bail!("⬢ {app} has several SSL certificates: say --name"),
        }
    }
}

/// The body that brings a chain and its key.
fn pair(chain: &Path, key: &Path) -> anyhow::Result<Value> {
    let read = |file: &Path| {
        std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))
    };
    Ok(json!({ "certificate_chain": read(chain)?, "private_key": read(key)? }))
}

fn told(endpoint: &Endpoint) -> String {
    let Endpoint { name, ssl_cert, domains } = endpoint;
    let Certificate { cert_domains, starts_at, expires_at, issuer, subject, is_trusted } = ssl_cert;
    let verdict = match (is_trusted, issuer == subject) {
        (true, _) => "SSL certificate is verified by a root authority.",
        (false, true) => "SSL certificate is self signed.",
        (false, false) => "SSL certificate is not trusted.",
    };
    format!(
        "Certificate details:\n\
         Name:           {name}\n\
         Common Name(s): {}\n\
         Expires At:     {expires_at}\n\
         Issuer:         {issuer}\n\
         Starts At:      {starts_at}\n\
         Subject:        {subject}\n\
         Shown For:      {} of the app's domains\n\
         {verdict}\n",
        cert_domains.join(", "),
        domains.len(),
    )
}

fn path(app: &str) -> String {
    format!("/apps/{app}/sni-endpoints")
}
