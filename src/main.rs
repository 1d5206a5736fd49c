//! Parses the command line, runs it, and turns the error into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    dynomesh::cli::main()
}
