//! `dynomesh env`

use std::process::ExitCode;

use crate::cli::app::Daemon;
use crate::cli::config_vars::quoted;
use crate::cli::heroku_cli::Environment;

/// Print the variables by which the heroku CLI talks to this daemon: eval "$(dynomesh env)"
///
/// A token is among them: that of $HEROKU_API_KEY if it is one of this daemon's, else one that is made for the heroku CLI
/// and kept.
#[derive(clap::Args)]
pub(in crate::cli) struct Env {
    #[command(flatten)]
    daemon: Daemon,
}

impl Env {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let Environment { set, unset, .. } = Environment::of(&self.daemon)?;
        for (name, value) in set {
            println!("export {name}={}", quoted(&value));
        }
        println!("unset {}", unset.join(" "));
        Ok(ExitCode::SUCCESS)
    }
}
