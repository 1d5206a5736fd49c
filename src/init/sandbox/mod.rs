//! What keeps a dyno apart from the rest of the machine.
//!
//! Two deeds: PID 1 of a dyno [`enter`]s its sandbox, a root of its own that shows the app and little else;
//! whoever is about to become the app's command is [`confine`]d to a user without privileges. Neither knows
//! the daemon, and both read only what the order says.

mod plan; // what a sandbox is to be: part of the order
mod enter; // the order of calls by which PID 1 gets its root
mod root; // the new root while it is put together
mod system; // the host's directories, /proc, /sys and /dev
mod resolver; // how a dyno finds names
mod app; // /app: the app's directory below, what the dyno writes above
mod owners; // files of the app's owner belong to the dyno's user
mod identity; // user, host name: the few files of /etc that are the dyno's own
mod confine; // limits, user, capabilities
mod system_calls; // what a web app never asks the kernel
mod trial; // whether a host can do all this, found out by doing it
mod kernel; // calls that rustix has in no safe form

pub use plan::{Confinement, Part, Sandbox, SandboxError, Upper};
pub use resolver::unreached_resolver;
pub use system::SYSTEM;
pub use trial::{Trial, TrialError, run_trial, try_sandbox};

pub(in crate::init) use confine::confine;
pub(in crate::init) use enter::enter;
pub(in crate::init) use trial::ask_ourselves;
