//! The archive on its way to the daemon, said at a terminal as it goes.

use std::fs::File;
use std::io::{IsTerminal, stderr};
use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;

use crate::cli::app::accepted;
use crate::control;
use crate::model::ListenAddr;

/// How long the daemon may take until it has unpacked it: some gigabytes for a slow disk.
const WITHIN: Duration = Duration::from_secs(30 * 60);
/// How often a person is told how far it is.
const SAY: Duration = Duration::from_millis(100);

/// Sends an archive to the place that the daemon has named.
pub(in crate::cli) async fn upload(
    addr: &ListenAddr,
    path: &str,
    archive: File,
    app: &str,
) -> anyhow::Result<()> {
    let length = archive.metadata().context("look at the archive")?.len();
    let is_watched = stderr().is_terminal();
    let mut said = Instant::now();
    let say = move |sent: u64| {
        if is_watched && (said.elapsed() >= SAY || sent == length) {
            said = Instant::now();
            let percent = (sent * 100).checked_div(length).unwrap_or(100);
            eprint!(
                "\rUploading to the daemon... {} of {}, {percent}% ",
                bytes(sent),
                bytes(length)
            );
        }
    };
    if !is_watched {
        eprint!("Uploading to the daemon... {} ", bytes(length));
    }
    let reply = control::upload(addr, path, archive, length, say, WITHIN).await;
    if reply.is_err() {
        eprintln!();
    }
    let reply = reply?;
    eprintln!("{}", if reply.status.is_success() { "done" } else { "refused" });
    accepted(reply).with_context(|| format!("deploy to {app}"))?;
    Ok(())
}

/// `1.2 MB`
fn bytes(count: u64) -> String {
    match count {
        0..1_000_000 => format!("{:.1} KB", count as f64 / 1e3),
        _ => format!("{:.1} MB", count as f64 / 1e6),
    }
}
