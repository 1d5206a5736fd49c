//! The first step: outside, as the daemon started it. Leaves the host's namespaces, which only a child can have
//! done from its first moment on, starts that child, says who it is, and is done.

use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::stdio::stdout;

use crate::init::command_line::Step;
use crate::init::failure::{During, Failure};
use crate::init::message::Report;
use crate::init::namespaces::{NAMESPACES, leave};
use crate::init::network;
use crate::init::order::Order;
use crate::init::socket;

/// Starts the init of the dyno whose order is the standard input. `false`: the dyno has no namespaces, and this
/// process is to be its init.
pub(in crate::init) fn start() -> Result<bool, Failure> {
    let (order, _) = Order::from_stdin().during("read the order")?;
    if order.namespaces {
        match &order.network {
            Some(network) => network::enter(network, NAMESPACES)?,
            None => leave(NAMESPACES).during("leave the host's namespaces")?,
        }
        // Its standard input and output are ours: the order with its lock, and the socket.
        let mut child = ourselves(Step::Inside);
        let child = child.stderr(Stdio::inherit()).spawn().during("start PID 1 of the dyno")?;
        // Whatever becomes of it before it can speak: the daemon can end it, and hears of its end.
        let begun = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
        let begun = begun.during("name PID 1 of the dyno")?;
        // A daemon that is gone needs no telling.
        let _ = socket::send(stdout(), &Report::Begun.print(), &[begun.as_fd()]);
    }
    Ok(order.namespaces)
}

/// This binary once more, even where another one has its name by now, with nothing in its environment.
#[expect(clippy::disallowed_methods, reason = "an init starts its own next step, and nothing else")]
pub(in crate::init) fn ourselves(step: Step) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("dynomesh").arg("init").args(step.args()).env_clear();
    command
}
