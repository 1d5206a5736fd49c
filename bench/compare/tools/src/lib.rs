//! What the programs of the comparison share.
//!
//! Each program is one current-thread runtime: the harness pins it, and what it costs beside the
//! proxy under test must be small and steady.

pub mod client; // an HTTP/1.1 client that never retries
pub mod options; // `--name value` and the rest
pub mod tally; // what became of the requests

use std::future::Future;
use std::process::ExitCode;

use tokio::runtime::Builder;

/// Runs a program to its end; an error goes to standard error, with exit code 1.
pub fn run<E: std::fmt::Display>(program: impl Future<Output = Result<(), E>>) -> ExitCode {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    match runtime.block_on(program) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}
