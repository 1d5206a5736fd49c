//! The first step: outside, in the daemon. It starts an init where that is to live.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use crate::init::failure::{During, Failure};
use crate::init::namespaces::{NAMESPACES, leave};
use crate::init::network;
use crate::init::order::Order;
use crate::init::socket;

/// This binary, even where another one has its name by now: a daemon and its inits must understand each other.
pub const OURSELVES: &str = "/proc/self/exe";

/// Starts the init of a dyno, whose directory this is, and returns the daemon's end of their socket. `file` is the
/// order as the init reads it; `binary` is [`OURSELVES`]. The child is the caller's to wait for.
///
/// By posix_spawn: a fork of a daemon of 500 MB takes 26 ms in place of 3.5, and its workers pay for copied pages
/// afterwards. So nothing may run between fork and exec (no `pre_exec`), and only the child of a thread that has left
/// the host's namespaces is PID 1 of new ones. That is a thread of its own, which ends here: what it left are its own,
/// the other threads stay where they are (unshare(2)).
///
/// # Errors
/// The step that failed. What was made until then goes with it.
pub fn start(
    binary: &Path,
    dir: &Path,
    order: &Order,
    file: File,
) -> Result<(OwnedFd, Child), Failure> {
    let (ours, theirs) = socket::pair().during("make a socket")?;
    #[expect(
        clippy::disallowed_methods,
        reason = "what the only processes that are made are made by"
    )]
    let mut init = Command::new(binary);
    init.arg0("dynomesh").arg("init").env_clear().current_dir(dir);
    init.stdin(file).stdout(theirs).stderr(Stdio::null());
    let mut start = || {
        if order.namespaces {
            match &order.network {
                Some(network) => network::enter(network, NAMESPACES)?,
                None => leave(NAMESPACES).during("leave the host's namespaces")?,
            }
        }
        init.spawn().during("start an init")
    };
    if !order.namespaces {
        return Ok((ours, start()?));
    }
    let child = thread::scope(|scope| {
        let thread = thread::Builder::new().name("outside".into()).spawn_scoped(scope, start);
        let thread = thread.during("start a thread")?;
        let defect = || std::io::Error::other("a defect");
        thread.join().unwrap_or_else(|_| Err(Failure::new("start an init", defect())))
    })?;
    Ok((ours, child))
}
