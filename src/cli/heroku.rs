//! `dynomesh heroku`

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::Context;

use crate::cli::app::Daemon;
use crate::cli::heroku_cli::{Environment, find};

/// Run the heroku CLI, so that it talks to this daemon and to nobody else
///
/// It is the one on the PATH (npm install -g heroku), unmodified. Its exit code is that of this command.
#[derive(clap::Args)]
pub(in crate::cli) struct Heroku {
    #[command(flatten)]
    daemon: Daemon,
    /// A command of the heroku CLI, with its arguments
    #[arg(value_name = "ARGS", trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

impl Heroku {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let program = find("heroku", env::var_os("PATH"))
            .context("there is no heroku on the PATH: npm install -g heroku")?;
        let Environment { host, trusted, set, unset } = Environment::of(&self.daemon)?;
        #[expect(
            clippy::disallowed_methods,
            reason = "no dyno, and no process beside this one: it becomes the heroku CLI"
        )]
        let mut heroku = Command::new(&program);
        heroku.args(&self.args).envs(set);
        for name in unset {
            heroku.env_remove(name);
        }
        // Some of its commands go to hosts of Heroku's that nothing re-points, and take the token along. With the API for
        // a proxy, they get no further than to it; so it must be asked by way of itself, too.
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
            heroku.env(name, host.replace("https://", "http://"));
        }
        for name in ["NO_PROXY", "no_proxy", "SSL_CERT_DIR"] {
            heroku.env_remove(name);
        }
        // Whom it trusts behind a proxy.
        heroku.env("SSL_CERT_FILE", trusted);
        let error = heroku.exec();
        Err(error).with_context(|| format!("run {}", program.display()))
    }
}
