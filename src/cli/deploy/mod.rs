//! `dynomesh deploy`: what is in a directory becomes what an app runs.

mod ignored; // what stays behind
mod pack; // a directory becomes an archive
mod upload; // the archive goes to the daemon

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Write, stderr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use http::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::cli::app::{App, Daemon, accepted};
use crate::config::limits;
use crate::control;
use crate::model::ListenAddr;

/// What is announced and released is looked through as a whole by the daemon: some gigabytes from its disk.
const WITHIN: Duration = Duration::from_secs(60);
/// How often it is asked how far a release is.
const LOOK: Duration = Duration::from_millis(200);
/// For how long the daemon may be away meanwhile: it may be replaced by another one.
const AWAY: Duration = Duration::from_secs(30);

/// Have an app run what is in a directory or an archive
///
/// The directory has a Procfile. What its .slugignore names stays behind, and .git. The command ends when every dyno of
/// the app runs the new release, and its guard has no word against it where it has one, or when that has failed: then
/// what ran before goes on.
#[derive(clap::Args)]
pub(in crate::cli) struct Deploy {
    /// The directory, or a .tgz of it
    #[arg(value_name = "DIR|FILE.tgz", default_value = ".")]
    source: PathBuf,
    /// What is said of the release
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    #[command(flatten)]
    app: App,
    #[command(flatten)]
    daemon: Daemon,
}

/// How far a release is.
#[derive(Deserialize)]
struct Release {
    version: u64,
    status: String,
    #[serde(default)]
    output_stream_url: Option<String>,
    #[serde(default)]
    rollout: Option<Rollout>,
    #[serde(default)]
    failure: Option<Failure>,
}

#[derive(Deserialize)]
struct Rollout {
    up: Vec<String>,
    wanted: u32,
    /// One has a part of the requests before all others.
    #[serde(default)]
    canary: Option<Canary>,
    /// All are up, and for so long their requests are looked at.
    #[serde(default)]
    guarded_secs: Option<u64>,
}

#[derive(Deserialize)]
struct Canary {
    /// `5%`
    share: String,
    secs: u64,
}

#[derive(Deserialize)]
struct Failure {
    dyno: String,
    reason: String,
    last_lines: Vec<String>,
}

impl Deploy {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let (app, addr) = (self.app.name(&self.daemon)?, self.daemon.addr()?);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.context("start a runtime")?.block_on(self.deploy(&app, &addr))
    }

    async fn deploy(&self, app: &str, addr: &ListenAddr) -> anyhow::Result<ExitCode> {
        // First, so that who may not deploy need not pack.
        let slug: Value =
            tell(addr, Method::POST, &format!("/apps/{app}/slugs"), &json!({})).await?;
        let archive = archive(&self.source)?;
        let text = |of: &Value| of.as_str().map(str::to_owned).context("read the daemon's answer");
        let (id, url) = (text(&slug["id"])?, text(&slug["blob"]["url"])?);
        upload::upload(addr, &url, archive, app).await?;
        let body = json!({ "slug": id, "description": self.message });
        let path = format!("/apps/{app}/releases");
        let release: Release = tell(addr, Method::POST, &path, &body).await?;
        eprintln!("Releasing ⬢ {app}... v{}", release.version);
        if let Some(output) = &release.output_stream_url {
            eprintln!("Running the release command...");
            copy_output(addr, output).await?;
        }
        let release = follow(addr, app, release.version).await?;
        conclude(app, release)
    }
}

async fn tell<T: DeserializeOwned>(
    addr: &ListenAddr,
    method: Method,
    path: &str,
    body: &Value,
) -> anyhow::Result<T> {
    let body = if body.is_null() { Default::default() } else { body.to_string().into() };
    let reply = accepted(control::send(addr, method, path, body, WITHIN).await?)?;
    serde_json::from_slice(&reply.body).context("read the daemon's answer")
}

/// Says what a release command prints, until it has ended. What comes of it is the release's to say.
async fn copy_output(addr: &ListenAddr, path: &str) -> anyhow::Result<()> {
    if let Ok(mut output) = control::stream(addr, path, None, WITHIN).await? {
        while let Ok(Some(text)) = output.next().await {
            stderr().write_all(&text).context("print its output")?;
        }
    }
    Ok(())
}

/// Says how far a release is until what comes of it is known.
async fn follow(addr: &ListenAddr, app: &str, version: u64) -> anyhow::Result<Release> {
    let path = format!("/apps/{app}/releases/{version}");
    let (mut said, mut answered) = (BTreeSet::new(), Instant::now());
    let (mut has_canary, mut is_guarded) = (false, false);
    loop {
        let release: Release = match tell(addr, Method::GET, &path, &Value::Null).await {
            Ok(release) => release,
            Err(_) if answered.elapsed() < AWAY => {
                sleep(LOOK).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        answered = Instant::now();
        for dyno in release.rollout.iter().flat_map(|it| &it.up) {
            if said.insert(dyno.clone()) {
                let wanted = release.rollout.as_ref().map_or(0, |it| it.wanted);
                eprintln!("  {dyno} is up ({} of {wanted})", said.len());
            }
        }
        let canary = release.rollout.as_ref().and_then(|it| it.canary.as_ref());
        if let Some(Canary { share, secs }) =
            canary.filter(|_| !std::mem::replace(&mut has_canary, true))
        {
            eprintln!("  A canary is up, with {share} of the requests for {secs} s");
        }
        let guarded = release.rollout.as_ref().and_then(|it| it.guarded_secs);
        if let Some(secs) = guarded.filter(|_| !std::mem::replace(&mut is_guarded, true)) {
            eprintln!("  All are up. The guard looks at their requests for {secs} s");
        }
        if release.status != "pending" {
            return Ok(release);
        }
        sleep(LOOK).await;
    }
}

/// Says what came of a release.
fn conclude(app: &str, release: Release) -> anyhow::Result<ExitCode> {
    let version = release.version;
    match release.status.as_str() {
        "succeeded" => {
            println!("Released v{version}");
            Ok(ExitCode::SUCCESS)
        }
        "expired" => bail!("release v{version} of {app} was overtaken by another one"),
        _ => {
            let Some(Failure { dyno, reason, last_lines }) = release.failure else {
                bail!("release v{version} of {app} failed")
            };
            if !last_lines.is_empty() {
                eprintln!("The last that {dyno} printed:");
                last_lines.iter().for_each(|line| eprintln!("  {line}"));
            }
            bail!("release v{version} of {app} failed: {dyno} {reason}. What ran before goes on")
        }
    }
}

/// The archive, from its beginning.
fn archive(source: &Path) -> anyhow::Result<File> {
    let archive = match source.is_dir() {
        true => {
            if !source.join("Procfile").is_file() {
                let file = source.join("Procfile");
                bail!(
                    "{}: no such file: say in it what runs, e.g. web: node server.js",
                    file.display()
                );
            }
            eprint!("Packing {}... ", source.display());
            let archive = pack::pack(source)?;
            eprintln!("done");
            archive
        }
        false => File::open(source).with_context(|| format!("open {}", source.display()))?,
    };
    let length = archive.metadata().context("look at the archive")?.len();
    if length > limits::SLUG_ARCHIVE_MAX {
        let max = limits::SLUG_ARCHIVE_MAX >> 20;
        bail!(
            "the archive has {} MB, and {max} at most: name in .slugignore what dynos do not need",
            length >> 20
        );
    }
    Ok(archive)
}
