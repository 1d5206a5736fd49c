//! The third step: a child of the init that becomes the app's command.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio, exit};

use rustix::process::{
    Pid, Signal, chdir, getppid, ioctl_tiocsctty, set_parent_process_death_signal, setsid,
};
use rustix::stdio::stdin;

use crate::init::descriptors;
use crate::init::failure::{During, Failure};
use crate::init::order::Order;
use crate::init::sandbox;

/// Standard input, output and errors.
pub(in crate::init) struct Streams {
    pub(in crate::init) input: Stdio,
    pub(in crate::init) output: Stdio,
    pub(in crate::init) errors: Stdio,
}

/// Starts the command of an order, and returns when it has become the app's, or has ended because it could not: what it
/// says then is a line of the dyno's output. `init`: whom it must not outlive, where the kernel does not see to that.
///
/// Call it in a process with one thread. Its child may then do all that the process might, and needs no exec for it:
/// another of this binary would take 2 ms of each boot.
///
/// # Errors
/// There is no child.
#[expect(
    unsafe_code,
    reason = "what runs between a fork and an exec is nobody's business but ours"
)]
pub(in crate::init) fn start(
    order: &Order,
    init: Option<Pid>,
    streams: Streams,
) -> io::Result<Child> {
    let order = order.clone();
    let mut command = shell("sh", &order);
    command.stdin(streams.input).stdout(streams.output).stderr(streams.errors);
    // SAFETY: an init has one thread, so at its fork nobody holds a lock, and nobody is in the middle of anything.
    unsafe { command.pre_exec(move || become_command(&order, init)) };
    command.spawn()
}

/// Returns only where `sh` is to be executed, since there is no `bash`.
fn become_command(order: &Order, init: Option<Pid>) -> io::Result<()> {
    let failure = match prepare(order, init) {
        Ok(()) => match shell("bash", order).exec() {
            error if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            error => Failure::new("run the shell", error),
        },
        Err(failure) => failure,
    };
    // Nobody is left to hear that it cannot be printed.
    let _ = writeln!(io::stderr(), "dynomesh init: {failure}");
    exit(failure.exit_code().into())
}

fn prepare(order: &Order, init: Option<Pid>) -> Result<(), Failure> {
    heed_signals();
    descriptors::close_on_exec().during("part with the daemon's descriptors")?;
    setsid().during("begin a session")?;
    if order.terminal.is_some() {
        ioctl_tiocsctty(stdin()).during("take the terminal")?;
    }
    chdir(&order.dir).during(format!("go to {}", order.dir.display()))?;
    if let Some(soft) = order.descriptors {
        descriptors::lower(soft).during("limit open files")?;
    }
    if let Some(confinement) = &order.confinement {
        sandbox::confine(confinement)?;
    }
    // Last: whoever becomes another user forgets whom to follow.
    init.map_or(Ok(()), die_with).during("follow the init")
}

/// Ends what whoever started the daemon had it ignore, which passes from parent to child: a script ignores SIGINT and
/// SIGQUIT for what it starts in the background, and no shell can trap what it was started to ignore. posix_spawn adds
/// those that the C library keeps for itself, which its own functions do not touch.
#[expect(unsafe_code, reason = "no crate resets a signal without a handler in its place")]
fn heed_signals() {
    // `struct sigaction` as the kernel has it, no longer than this: SIG_DFL, no flags, no mask. All are zero.
    const DEFAULT: [u64; 4] = [0; 4];
    const MASK_BYTES: usize = 8;
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: the kernel reads `DEFAULT`, keeps nothing of it, and writes nothing. No handler is put in place. It
        // refuses SIGKILL and SIGSTOP, which nobody can ignore.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                DEFAULT.as_ptr(),
                std::ptr::null_mut::<u64>(),
                MASK_BYTES,
            )
        };
    }
}

/// The command must not outlive its init, from whom all is heard of it.
fn die_with(init: Pid) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have died before the line above: then nobody would ever send the signal.
    if getppid() == Some(init) { Ok(()) } else { Err(io::Error::other("it is gone")) }
}

#[expect(clippy::disallowed_methods, reason = "the app's command, in place of a child of the init")]
fn shell(name: &str, order: &Order) -> Command {
    let mut shell = Command::new(Path::new(name));
    shell.arg("-c").arg(&order.command).env_clear().envs(&order.environment);
    shell
}
