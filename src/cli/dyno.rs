//! `dynomesh init`: what runs first inside a dyno.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use crate::init::{self, Init};

/// Becomes the dyno's command. Returns only where that cannot be run, with the exit code of a shell.
pub(in crate::cli) fn init(args: impl Iterator<Item = OsString>) -> anyhow::Result<ExitCode> {
    let error = init::exec(&Init::parse(args)?);
    eprintln!("dynomesh init: {error}");
    Ok(ExitCode::from(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 }))
}
