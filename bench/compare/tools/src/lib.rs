//! What the programs of the comparison share.
//!
//! Each program is one current-thread runtime: the harness pins it, and what it costs beside the
//! proxy under test must be small and steady.

pub mod client; // an HTTP/1.1 client that never retries
pub mod options; // `--name value` and the rest
pub mod socket; // a client's WebSocket
pub mod tally; // what became of the requests
pub mod target; // the proxy under test, over TCP or TLS
pub mod websocket; // frames of RFC 6455

use std::future::Future;
use std::net::SocketAddr;
use std::process::ExitCode;

use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Builder;

/// Thousands of connections come in one moment; the kernel lowers it to net.core.somaxconn.
const BACKLOG: u32 = 4096;

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

/// Listens on an IPv4 address. Call it on a runtime.
pub fn listen(addr: SocketAddr) -> Result<TcpListener, String> {
    let bind = || {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        socket.listen(BACKLOG)
    };
    bind().map_err(|error: std::io::Error| format!("listen on {addr}: {error}"))
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}
