//! Parses the command line, runs it, and turns the error into an exit code.

use std::process::ExitCode;

/// What lives long and what lives for one request lie side by side in the C library's allocator, and after a burst it
/// keeps whatever a few of the former are scattered over.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    dynomesh::cli::main()
}
