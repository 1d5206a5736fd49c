//! Children that have ended are taken off the kernel's list: inits, and what is left of dynos whose init was
//! killed.

use std::io;

use rustix::process::{WaitId, WaitIdOptions, getpid, set_child_subreaper, waitid};
use tokio::signal::unix::{SignalKind, signal};

use crate::shutdown::Shutdown;

/// Takes in the orphans of this process' descendants, as the first process of a machine or of a container would,
/// and reaps whoever ends. Nobody else in this process may wait for a child.
pub(crate) fn reap(shutdown: &Shutdown) -> io::Result<()> {
    set_child_subreaper(Some(getpid()))?;
    let mut ended = signal(SignalKind::child())?;
    let end = shutdown.clone();
    shutdown.spawn(async move {
        loop {
            tokio::select! {
                _ = ended.recv() => {}
                // What ends from now on is left to whoever takes in our own orphans.
                () = end.forced() => return,
            }
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            while let Ok(Some(_)) = waitid(WaitId::All, options) {}
        }
    });
    Ok(())
}
