//! `dynomesh run` and `dynomesh run:detached`

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::Method;

use crate::cli::app::{App, Daemon, accepted};
use crate::cli::attached::{relay, window};
use crate::control::{self, DynoCreate, DynoObject, PROTOCOL, Upgraded};
use crate::model::ListenAddr;

/// A start of a process takes milliseconds; a machine that is short of memory takes longer.
const WITHIN: Duration = Duration::from_secs(60);

/// What both kinds of run have.
#[derive(clap::Args)]
struct Wanted {
    #[command(flatten)]
    app: App,
    /// The dyno's size [default: the app's]
    #[arg(short, long, value_name = "SIZE")]
    size: Option<String>,
    /// Variables for this dyno alone: "A=1;B=2"
    #[arg(short, long, value_name = "VARS")]
    env: Option<String>,
    /// What to run; a process type of the Procfile stands for its command
    #[arg(
        value_name = "COMMAND",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<String>,
    #[command(flatten)]
    daemon: Daemon,
}

/// Run a command in a dyno of its own, here
///
/// At a terminal the command has one, too. Its exit code is that of this command.
#[derive(clap::Args)]
pub(in crate::cli) struct Run {
    /// No terminal for the command, even at one
    #[arg(long)]
    no_tty: bool,
    #[command(flatten)]
    wanted: Wanted,
}

/// Run a command in a dyno of its own, in the background
#[derive(clap::Args)]
pub(in crate::cli) struct RunDetached {
    #[command(flatten)]
    wanted: Wanted,
}

impl Run {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let app = self.wanted.app.name(&self.wanted.daemon)?;
        let mut create = self.wanted.create()?;
        create.attach = true;
        create.force_no_tty = self.no_tty;
        let window = window().filter(|_| !self.no_tty);
        if let Some((rows, columns)) = window {
            create.env.entry("LINES".into()).or_insert_with(|| rows.to_string());
            create.env.entry("COLUMNS".into()).or_insert_with(|| columns.to_string());
            let term = std::env::var("TERM").unwrap_or_else(|_| "dumb".into());
            create.env.entry("TERM".into()).or_insert(term);
        }
        let addr = self.wanted.daemon.addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.context("start a runtime")?.block_on(async {
            let dyno = begin(&addr, &app, &create).await?;
            eprint!("Running {} on ⬢ {app}... ", create.command);
            let stream = attach(&addr, &dyno).await?;
            eprintln!("up, {}", dyno.name);
            relay(stream, window.is_some()).await
        })
    }
}

impl RunDetached {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let app = self.wanted.app.name(&self.wanted.daemon)?;
        let create = self.wanted.create()?;
        let addr = self.wanted.daemon.addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let begun = runtime.context("start a runtime")?.block_on(begin(&addr, &app, &create));
        println!("Running {} on ⬢ {app}... done, {}", create.command, begun?.name);
        Ok(ExitCode::SUCCESS)
    }
}

impl Wanted {
    fn create(&self) -> anyhow::Result<DynoCreate> {
        let env = variables(self.env.as_deref().unwrap_or_default())?;
        let (command, size) = (joined(&self.command), self.size.clone());
        Ok(DynoCreate { command, env, size, ..DynoCreate::default() })
    }
}

async fn begin(addr: &ListenAddr, app: &str, create: &DynoCreate) -> anyhow::Result<DynoObject> {
    let body = Bytes::from(serde_json::to_vec(create)?);
    let path = format!("/apps/{app}/dynos");
    let reply = control::send(addr, Method::POST, &path, body, WITHIN).await?;
    serde_json::from_slice(&accepted(reply)?.body).context("read the daemon's answer")
}

async fn attach(addr: &ListenAddr, dyno: &DynoObject) -> anyhow::Result<Upgraded> {
    let path = dyno.attach_url.as_deref().context("the daemon does not say where to attach")?;
    match control::upgrade(addr, path, PROTOCOL, WITHIN).await? {
        Ok(stream) => Ok(stream),
        Err(reply) => bail!("{}", control::message(&reply.body)),
    }
}

/// One command line out of several arguments, as Heroku's CLI makes it: with quotes around those that have blanks
/// or quotes; the dyno's shell reads the rest.
fn joined(words: &[String]) -> String {
    let quoted = |word: &String| match word.contains([' ', '"']) {
        true => format!("\"{}\"", word.replace('"', "\\\"")),
        false => word.clone(),
    };
    match words {
        [only] => only.clone(),
        several => several.iter().map(quoted).collect::<Vec<_>>().join(" "),
    }
}

/// `A=1;B=2`
fn variables(text: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let mut variables = BTreeMap::new();
    for variable in text.split(';').filter(|variable| !variable.trim().is_empty()) {
        match variable.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => {
                variables.insert(name.trim().to_owned(), value.to_owned());
            }
            _ => bail!("-e has NAME=value pairs with ; between them, not {variable:?}"),
        }
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_a_command_line() {
        let check = |words: &[&str], expected: &str| {
            let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(joined(&words), expected);
        };
        check(&["echo $HOME; ls"], "echo $HOME; ls");
        check(&["rake", "db:migrate"], "rake db:migrate");
        check(&["sh", "-c", "echo \"a b\""], "sh -c \"echo \\\"a b\\\"\"");
    }

    #[test]
    fn variables_are_pairs() {
        let pairs = |text| variables(text).unwrap().into_iter().collect::<Vec<_>>();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(pairs("A=1;B=x=y;"), [pair("A", "1"), pair("B", "x=y")]);
        assert_eq!(pairs(""), []);
        assert!(variables("A").is_err() && variables("=1").is_err());
    }
}
