//! `dynomesh reload`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, StatusCode};

use crate::cli::place::{File, Socket, ask};
use crate::control::ReloadOutcome;

/// A file of a million dynos takes seconds to read, not minutes.
const WITHIN: Duration = Duration::from_secs(60);

/// Have the daemon read its file again; prints what changed, or why nothing did
#[derive(clap::Args)]
pub(in crate::cli) struct Reload {
    #[command(flatten)]
    file: File,
    #[command(flatten)]
    socket: Socket,
}

impl Reload {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let addr = self.socket.of(&self.file)?;
        let reply = ask(&addr, Method::POST, "/reload", Bytes::new(), WITHIN)??;
        if !matches!(reply.status, StatusCode::OK | StatusCode::UNPROCESSABLE_ENTITY) {
            bail!("{}", String::from_utf8_lossy(&reply.body).trim_end());
        }
        let outcome = serde_json::from_slice(&reply.body).context("read the daemon's answer")?;
        match &outcome {
            ReloadOutcome::Ok { changes, .. } => {
                for change in changes {
                    println!("{change}");
                }
                println!("{outcome}");
                Ok(ExitCode::SUCCESS)
            }
            ReloadOutcome::Refused { reasons } => {
                for reason in reasons {
                    eprintln!("{reason}");
                }
                bail!("{outcome}")
            }
        }
    }
}
