//! `dynomesh backup`

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::place::File;
use crate::store::Store;

/// Copy what commands said, releases, tokens and usage to a file, while the daemon runs
///
/// To restore it, stop the daemon and put the file in the place of dynomesh.db in the state directory, without the
/// dynomesh.db-wal and dynomesh.db-shm that may be there. Config vars are encrypted in it: keep store.key from the same
/// directory as well, but in another place.
#[derive(clap::Args)]
pub(in crate::cli) struct Backup {
    #[command(flatten)]
    file: File,
    /// The copy; what is there is replaced in one step
    #[arg(value_name = "FILE")]
    to: PathBuf,
}

impl Backup {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        Store::back_up(&self.file.load()?.state_dir, &self.to)?;
        Ok(ExitCode::SUCCESS)
    }
}
