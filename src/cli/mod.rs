//! What a person types.

use std::process::ExitCode;

/// Runs the command line; the exit code is 0, 1, or 64 for usage and configuration.
pub fn main() -> ExitCode {
    ExitCode::from(64)
}
