//! `dynomesh env`: what the heroku CLI needs to talk to this daemon and to nobody else.

use std::process::ExitCode;

use anyhow::Context;

use crate::cli::place::File;

/// Print the variables by which the heroku CLI talks to this daemon: eval "$(dynomesh env)"
///
/// The token is not among them: HEROKU_API_KEY=$(dynomesh token:create).
#[derive(clap::Args)]
pub(in crate::cli) struct Env {
    #[command(flatten)]
    file: File,
}

impl Env {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let addr = self.file.load()?.admin.api;
        let addr =
            addr.context("the configuration has no [admin] api: the Platform API answers nowhere")?;
        // Without the second one it would send the token to heroku.com beside each look at the account; without the
        // third one, its telemetry would. The others keep it from looking for newer versions of itself.
        println!("export HEROKU_HOST=http://{addr}");
        println!("export HEROKU_PARTICLEBOARD_URL=http://{addr}");
        println!("export DISABLE_TELEMETRY=true");
        println!("export HEROKU_SKIP_NEW_VERSION_CHECK=1");
        println!("export HEROKU_DISABLE_AUTOUPDATE=1");
        Ok(ExitCode::SUCCESS)
    }
}
