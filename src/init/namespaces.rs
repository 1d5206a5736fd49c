//! What a dyno has of its own, and how what is shared with the host is left.

use std::io;

use rustix::thread::UnshareFlags;

/// What a dyno has of its own, but for its network. Its control groups come later, when PID 1 is in them.
pub(in crate::init) const NAMESPACES: UnshareFlags = UnshareFlags::NEWPID
    .union(UnshareFlags::NEWNS)
    .union(UnshareFlags::NEWIPC)
    .union(UnshareFlags::NEWUTS);

/// Leaves namespaces for new ones.
#[expect(
    deprecated,
    reason = "its successor is unsafe, for descriptors that are not shared; none are left here"
)]
pub(in crate::init) fn leave(namespaces: UnshareFlags) -> io::Result<()> {
    Ok(rustix::thread::unshare(namespaces)?)
}
