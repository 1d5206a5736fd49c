//! What runs inside a dyno: `dynomesh init`, and the example app `dynomesh hello`; and what tries whether one
//! can be isolated.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context;

use crate::hello;
use crate::init::{self, UsageError};

/// Is a dyno's init.
pub(in crate::cli) fn init(mut args: impl Iterator<Item = OsString>) -> anyhow::Result<ExitCode> {
    match args.next() {
        None => Ok(init::run()?),
        Some(_) => Err(UsageError.into()),
    }
}

/// Enters a throwaway sandbox, and prints what came of it.
pub(in crate::cli) fn try_sandbox(
    args: impl Iterator<Item = OsString>,
) -> anyhow::Result<ExitCode> {
    init::run_trial(args).context("failed to try a sandbox")?;
    Ok(ExitCode::SUCCESS)
}

/// Serves the example app on `$PORT` until SIGTERM.
pub(in crate::cli) fn hello() -> anyhow::Result<ExitCode> {
    hello::run().context("failed to serve the example app")?;
    Ok(ExitCode::SUCCESS)
}
