//! The third step: what becomes the app's command. Its standard input brings the order, its standard output is
//! the command's already.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{
    Signal, chdir, getppid, ioctl_tiocsctty, set_parent_process_death_signal, setsid,
};
use rustix::stdio::{dup2_stderr, dup2_stdin, stderr, stdout};

use crate::init::descriptors;
use crate::init::failure::{During, Failure};
use crate::init::order::Order;
use crate::init::sandbox;

/// Becomes the command. Returns only where that cannot be; what it says then is a line of the dyno's output.
pub(in crate::init) fn run(parent: i32) -> ExitCode {
    let failure = match prepare(parent) {
        Ok(order) => become_shell(&order),
        Err(failure) => failure,
    };
    // Nobody is left to hear that it cannot be printed.
    let _ = writeln!(io::stderr(), "dynomesh init: {failure}");
    ExitCode::from(failure.exit_code())
}

fn prepare(parent: i32) -> Result<Order, Failure> {
    descriptors::close_on_exec().during("part with the daemon's descriptors")?;
    // To its end, which comes when the init has left the dyno's control groups to us.
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes).during("read the order")?;
    let order = Order::parse(&bytes).map_err(io::Error::other).during("read the order")?;
    setsid().during("begin a session")?;
    connect(&order).during("connect standard input")?;
    chdir(&order.dir).during(format!("go to {}", order.dir.display()))?;
    if let Some(soft) = order.descriptors {
        descriptors::lower(soft).during("limit open files")?;
    }
    if let Some(confinement) = &order.confinement {
        sandbox::confine(confinement)?;
    }
    // Last: whoever becomes another user forgets whom to follow.
    if parent != 0 {
        die_with(parent).during("follow the init")?;
    }
    Ok(order)
}

fn connect(order: &Order) -> io::Result<()> {
    if order.terminal.is_some() {
        ioctl_tiocsctty(stdout())?;
        dup2_stdin(stdout())?;
    } else if order.stdin {
        // It came as the standard errors, since three is all that a command is given.
        dup2_stdin(stderr())?;
        dup2_stderr(stdout())?;
    } else {
        dup2_stdin(File::open("/dev/null")?)?;
    }
    Ok(())
}

/// The command must not outlive its init, from whom all is heard of it.
fn die_with(parent: i32) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have died before the line above: then nobody would ever send the signal.
    match getppid() {
        Some(now) if now.as_raw_nonzero().get() == parent => Ok(()),
        _ => Err(io::Error::other("it is gone")),
    }
}

/// `bash -c` where there is a bash, else `sh -c`.
fn become_shell(order: &Order) -> Failure {
    let error = match shell("bash", order).exec() {
        error if error.kind() == io::ErrorKind::NotFound => shell("sh", order).exec(),
        error => error,
    };
    Failure::new("run the shell", error)
}

#[expect(clippy::disallowed_methods, reason = "this replaces our own process, it makes no new one")]
fn shell(name: &str, order: &Order) -> Command {
    let mut shell = Command::new(name);
    shell.arg("-c").arg(&order.command).env_clear().envs(&order.environment);
    shell
}
