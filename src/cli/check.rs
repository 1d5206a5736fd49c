//! `dynomesh check`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::Method;

use crate::certs;
use crate::cli::place::{File, Socket, ask};
use crate::config::{self, Summary};
use crate::control::ClientError;

const WITHIN: Duration = Duration::from_secs(5);

/// Print what `serve` would do and, where a daemon runs, what a reload would change
#[derive(clap::Args)]
pub(in crate::cli) struct Check {
    #[command(flatten)]
    file: File,
    #[command(flatten)]
    socket: Socket,
}

impl Check {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let mut config = self.file.load()?;
        let certs = certs::load(&config)?;
        config.notes.warnings.extend(certs.warnings);
        let wanted = Summary::of(&config);
        print!("{}", wanted.describe());
        let addr = self.socket.or(config.admin.socket);
        let reply = match ask(&addr, Method::GET, "/config", Bytes::new(), WITHIN)? {
            Ok(reply) if reply.status.is_success() => reply,
            Ok(reply) => bail!("the dynomesh on {addr} answered {}", reply.status),
            // That none runs is no mistake: then there is nothing to compare with.
            Err(ClientError::Absent { .. }) => return Ok(ExitCode::SUCCESS),
            Err(error) => return Err(error.into()),
        };
        let running: Summary =
            serde_json::from_slice(&reply.body).context("read the daemon's answer")?;
        let diff = config::diff(&running, &wanted);
        println!();
        match (diff.is_empty(), diff.is_refused()) {
            (true, _) => println!("A reload would change nothing."),
            (_, false) => println!("A reload would change:"),
            (_, true) => println!("A reload would be refused:"),
        }
        for change in diff.changes {
            println!("  {change}");
        }
        Ok(ExitCode::SUCCESS)
    }
}
