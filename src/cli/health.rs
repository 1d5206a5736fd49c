//! `dynomesh health`, for container engines: a check that needs no other program in the image.

use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http::Method;

use crate::cli::place::{File, Socket, ask};

const WITHIN: Duration = Duration::from_secs(5);

/// Ask the daemon whether it is well; exit code 0 or 1
#[derive(clap::Args)]
#[command(hide = true)]
pub(in crate::cli) struct Health {
    #[command(flatten)]
    file: File,
    #[command(flatten)]
    socket: Socket,
    /// Ask whether it is ready for requests, too
    #[arg(long)]
    ready: bool,
}

impl Health {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let path = if self.ready { "/readyz" } else { "/healthz" };
        let reply = ask(&self.socket.of(&self.file)?, Method::GET, path, Bytes::new(), WITHIN)??;
        print!("{}", String::from_utf8_lossy(&reply.body));
        Ok(if reply.status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
