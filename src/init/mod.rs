//! `dynomesh init`: what runs inside a dyno, from the daemon's spawn to the last of its processes.
//!
//! In three steps: *outside*, in the daemon, which leaves the host's namespaces in a thread; *inside*, PID 1 of the dyno,
//! which stays; and the one that becomes the app's *command*. Inside is an exec of this binary, without threads and
//! without a runtime: a dyno is to have little beside its app.
//!
//! The daemon is a client. It writes the order, and hears and asks over a socket; when it dies, the dyno goes on,
//! and the next one connects. What both need of that conversation is here too.

mod order; // what the daemon orders
mod message; // what they say to each other
mod socket; // over which
mod namespaces; // how the host's are left
mod outside; // the first step, in the daemon
mod inside; // PID 1 of the dyno
mod command; // the third step, which becomes the app's command
mod descendants; // how a signal reaches everyone in a dyno
mod ring; // what is printed while no daemon is there
mod failure; // what keeps a dyno from being made
mod descriptors; // of the daemon: the limit is given back to dynos, the rest closed to them
mod sandbox; // what keeps a dyno apart from the rest of the machine
mod network; // what gives it a network of its own

use std::os::fd::AsFd;
use std::process::ExitCode;

use rustix::io::ioctl_fionbio;
use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;
use rustix::stdio::stdout;

pub use descriptors::{close_on_exec, descriptors_before_raise, raise_descriptors};
pub use failure::Failure;
pub use message::{
    HeardAt, Hello, Lost, MESSAGE_MAX, MessageError, OUTPUT_MAX, Report, Request, VERSION,
};
pub use network::{
    Firewall, FirewallError, Netlink, Network, NetworkTrial, Request as NetworkRequest, overlap,
    try_network,
};
pub use order::{
    ControlGroup, Identity, ORDER_FILE, Order, OrderError, SOCKET_FILE, Terminal, dynos_dir,
};
pub use outside::{OURSELVES, start};
pub use sandbox::{
    Confinement, Part, SYSTEM, Sandbox, SandboxError, Trial, TrialError, Upper, run_trial,
    try_sandbox, unreached_resolver,
};
pub use socket::{Datagram, connect, pair, receive, send};

/// A person has typed this.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("usage: dynomesh init (it is the daemon that runs this)")]
pub struct UsageError;

/// Is the init of a dyno, whose order is the standard input, and standard output the socket to its daemon.
///
/// # Errors
/// The standard output is no such socket.
pub fn run() -> Result<ExitCode, UsageError> {
    Ok(inside::run(daemon()?))
}

fn daemon() -> Result<inside::Daemon, UsageError> {
    match socket_type(stdout()) {
        Ok(SocketType::SEQPACKET) => {}
        _ => return Err(UsageError),
    }
    let socket = stdout().as_fd().try_clone_to_owned().map_err(|_| UsageError)?;
    ioctl_fionbio(&socket, true).map_err(|_| UsageError)?;
    Ok(inside::Daemon::new(socket))
}
