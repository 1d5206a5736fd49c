//! Gives up what a web app does not need: the last step before the app's command.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, fchown, fstat, major};
use rustix::process::{Gid, Resource, Rlimit, Uid, getrlimit, setrlimit};
use rustix::stdio::{stderr, stdin, stdout};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs, set_thread_gid, set_thread_groups, set_thread_uid,
};

use crate::init::sandbox::plan::{Confinement, Part, SandboxError, Step};
use crate::init::sandbox::system_calls;

/// Makes this process the dyno's user, for good: limits, one group, no capabilities and no way to gain any, no
/// system calls that an app never needs. Call it with a single thread, as root, right before exec.
///
/// # Errors
/// The step that failed. The process must end then.
pub(in crate::init) fn confine(confinement: &Confinement) -> Result<(), SandboxError> {
    give_up(confinement).map_err(|error| error.of(Part::Privileges))
}

fn give_up(confinement: &Confinement) -> Result<(), SandboxError> {
    let Confinement { uid, gid, processes, open_files } = *confinement;
    limit(Resource::Nproc, processes, processes).step(|| "limit processes".into())?;
    limit(Resource::Nofile, open_files.0, open_files.1).step(|| "limit open files".into())?;
    // Not 0: where a program takes core dumps (core_pattern begins with |), the kernel passes over every limit
    // but this one, which it gives to such a program itself (fs/coredump.c). A file has no room in it either.
    limit(Resource::Core, 1, 1).step(|| "limit core dumps".into())?;

    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    for descriptor in [stdin(), stdout(), stderr()] {
        own(descriptor, uid, gid).step(|| "hand standard input and output over".into())?;
    }
    empty_bounding_set().step(|| "empty the bounding set".into())?;
    set_thread_groups(&[]).step(|| "leave all groups".into())?;
    set_thread_gid(gid).step(|| format!("become group {}", gid.as_raw()))?;
    set_thread_uid(uid).step(|| format!("become user {}", uid.as_raw()))?;
    drop_capabilities().step(|| "drop capabilities".into())?;
    set_no_new_privs(true).step(|| "give up new privileges".into())?;
    system_calls::deny().step(|| "deny system calls".into())
}

/// Never above what this process has itself: that would take a capability which root may be without.
fn limit(resource: Resource, soft: u64, hard: u64) -> io::Result<()> {
    let hard = getrlimit(resource).maximum.map_or(hard, |own| own.min(hard));
    Ok(setrlimit(resource, Rlimit { current: Some(soft.min(hard)), maximum: Some(hard) })?)
}

/// Lets the dyno open `/dev/stdout` and its like: a pipe and a terminal have an owner, and it was root who made
/// them.
fn own(descriptor: BorrowedFd<'_>, uid: Uid, gid: Gid) -> io::Result<()> {
    /// The numbers of the kernel's `Documentation/admin-guide/devices.txt` for pseudo-terminals.
    const PSEUDO_TERMINALS: std::ops::RangeInclusive<u32> = 136..=143;
    let stat = fstat(descriptor)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo => Ok(fchown(descriptor.as_fd(), Some(uid), Some(gid))?),
        FileType::CharacterDevice if PSEUDO_TERMINALS.contains(&major(stat.st_rdev)) => {
            // Its group is tty's, for those who write to others' terminals.
            Ok(fchown(descriptor.as_fd(), Some(uid), None)?)
        }
        _ => Ok(()),
    }
}

/// Whatever is executed from here on, also by root, has no capability.
fn empty_bounding_set() -> io::Result<()> {
    for capability in (0..u64::BITS).map(|bit| CapabilitySet::from_bits_retain(1 << bit)) {
        match capability_is_in_bounding_set(capability) {
            Ok(true) => remove_capability_from_bounding_set(capability)?,
            Ok(false) => {}
            // The kernel knows no more of them.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A change of user leaves the inheritable set as it was.
fn drop_capabilities() -> io::Result<()> {
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    let left = capabilities(None)?;
    if left.permitted.is_empty() { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}
