//! What runs first inside a dyno: `dynomesh init`, between the daemon's spawn and the app's own command.
//!
//! The daemon starts dynos by posix_spawn, which copies no page tables but can set little up; what is missing
//! is done here, in a small process of its own: tie the dyno's life to the daemon's, give back the
//! descriptor limit that the daemon raised for itself, become the shell that runs the command. No threads,
//! no runtime, nothing allocated that matters.

mod command_line; // how the daemon and its init understand each other
mod order; // what the daemon orders of an init
mod message; // what they say to each other
mod descriptors; // the limit on open files: raised for the daemon, given back to dynos
mod sandbox; // what keeps a dyno apart from the rest of the machine

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

pub use command_line::{Init, UsageError};
pub use descriptors::{descriptors_before_raise, raise_descriptors};
pub use message::{Hello, Lost, MESSAGE_MAX, MessageError, OUTPUT_MAX, Report, Request, VERSION};
pub use order::{
    ControlGroup, Identity, ORDER_FILE, Order, OrderError, SOCKET_FILE, Terminal, dynos_dir,
};
pub use sandbox::{
    Confinement, NAMESPACES, Part, SYSTEM, Sandbox, SandboxError, Trial, TrialError, Upper,
    confine, enter, run_trial, try_sandbox,
};

/// Becomes the command, run by `bash -c` where there is a bash, else by `sh -c`. Returns only on failure; the
/// caller prints the error, which then is a line of the dyno's output, and exits with 127 (126 where the shell
/// exists and cannot be run).
pub fn exec(init: &Init) -> io::Error {
    if let Err(error) = prepare(init) {
        return error;
    }
    let error = shell("bash", init).exec();
    if error.kind() == io::ErrorKind::NotFound { shell("sh", init).exec() } else { error }
}

fn prepare(init: &Init) -> io::Result<()> {
    if let Some(parent) = init.parent {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The daemon may have died before the line above: then nobody would ever send the signal.
        if getppid().is_none_or(|now| now.as_raw_nonzero().get() != parent) {
            return Err(io::Error::other("the daemon is gone"));
        }
    }
    init.descriptors.map_or(Ok(()), descriptors::lower)
}

#[expect(clippy::disallowed_methods, reason = "this replaces our own process, it makes no new one")]
fn shell(name: &str, init: &Init) -> Command {
    let mut shell = Command::new(name);
    shell.arg("-c").arg(&init.command);
    shell
}
