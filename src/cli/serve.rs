//! `dynomesh serve`

use std::process::ExitCode;

use crate::cli::place::File;
use crate::daemon;

/// Run the daemon: route requests, run dynos
///
/// Stays in the foreground and logs to standard output. SIGHUP reads the file again, SIGTERM and SIGINT
/// stop gracefully, a second one stops at once.
#[derive(clap::Args)]
pub(in crate::cli) struct Serve {
    #[command(flatten)]
    file: File,
}

impl Serve {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        daemon::serve(&self.file.path())?;
        Ok(ExitCode::SUCCESS)
    }
}
