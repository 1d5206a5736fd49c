//! The two system calls of a sandbox that rustix has in no safe form.
#![expect(unsafe_code, reason = "no crate wraps mount_setattr(2) and clone(2) safely")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// A copy of the mount at `path`, which is nowhere yet; with all mounts below it where `recursive`.
pub(in crate::init::sandbox) fn copy_mount(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let below = if recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | below;
    Ok(open_tree(CWD, path, flags)?)
}

/// The same of the mount in which a directory is that is open, from that directory on.
pub(in crate::init::sandbox) fn copy_mount_of(dir: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(open_tree(dir, "", flags)?)
}

/// Sets attributes (`MOUNT_ATTR_*`) of a mount, and of those below it where `recursive`.
pub(in crate::init::sandbox) fn set_attributes(
    mount: BorrowedFd<'_>,
    recursive: bool,
    attributes: u64,
) -> io::Result<()> {
    mount_setattr(mount, recursive, attributes, None)
}

/// Maps the owners of a mount's files as a user namespace says. The mount must be a copy that is nowhere yet.
pub(in crate::init::sandbox) fn map_owners(
    mount: BorrowedFd<'_>,
    namespace: BorrowedFd<'_>,
) -> io::Result<()> {
    mount_setattr(mount, false, libc::MOUNT_ATTR_IDMAP, Some(namespace))
}

fn mount_setattr(
    mount: BorrowedFd<'_>,
    recursive: bool,
    attributes: u64,
    namespace: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    let userns_fd = match namespace {
        Some(namespace) => u64::try_from(namespace.as_raw_fd()).map_err(io::Error::other)?,
        None => 0,
    };
    let attr = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd };
    // SAFETY: the path is a literal that ends with a zero, and `attr` is as long as the kernel is told; it
    // reads both and keeps neither.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes a user namespace by a child that is in it and does nothing, and returns what `look` makes of that
/// child. The child is gone afterwards; a namespace lives on for as long as somebody has it open.
pub(in crate::init::sandbox) fn with_user_namespace<T>(
    look: impl FnOnce(Pid) -> io::Result<T>,
) -> io::Result<T> {
    let flags = libc::c_long::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and with no stack it is a fork. The child calls nothing but pause, which takes
    // no lock that another thread could have held.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, 0_usize, 0_usize, 0_usize) };
    if pid == 0 {
        loop {
            // SAFETY: it has no arguments and touches no memory.
            unsafe { libc::pause() };
        }
    }
    let child = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let child = child.filter(|_| pid > 0).ok_or_else(io::Error::last_os_error)?;
    let result = look(child);
    kill_process(child, Signal::KILL)?;
    waitpid(Some(child), WaitOptions::empty())?;
    result
}
