//! The order of calls by which PID 1 gets a root of its own.

use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount_change, mount_remount, unmount,
};
use rustix::process::{chdir, pivot_root, umask};
use rustix::system::sethostname;

use crate::init::sandbox::plan::{Part, Sandbox, SandboxError, Step};
use crate::init::sandbox::root::Root;
use crate::init::sandbox::{app, identity, system};

/// Makes the sandbox this process' root, and /app its working directory. Call it as PID 1 in namespaces of
/// its own, that of control groups included, with a single thread, as root. What it cannot do it says, and then the process must end:
/// half a sandbox is none.
///
/// # Errors
/// The step that failed, with its path.
pub(in crate::init) fn enter(sandbox: &Sandbox) -> Result<(), SandboxError> {
    // First of all: nothing that follows may reach the host's mounts.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).step(|| "make mounts private".into())?;
    let before = umask(Mode::empty());

    let mut root = Root::begin(&sandbox.dir.join("root"))?;
    system::show_host(&mut root)?;
    system::mount_kernel_file_systems(&mut root, sandbox)?;
    system::mount_scratch(&mut root, sandbox)?;
    app::mount(&mut root, sandbox).map_err(|error| error.of(Part::App))?;
    show_and_hide(&mut root, sandbox)?;
    app::show_at_its_own_path(&mut root, sandbox)?;
    identity::write(&mut root, sandbox)?;
    sethostname(sandbox.hostname.as_bytes()).step(|| "set the host name".into())?;

    chdir(root.dir()).step(|| format!("go to {}", root.dir().display()))?;
    // The old root ends up over the new one at the same place, and is taken off from there.
    pivot_root(".", ".").step(|| "make it the root".into())?;
    unmount(".", UnmountFlags::DETACH).step(|| "leave the host's root".into())?;
    chdir("/").step(|| "go to /".into())?;
    let read_only = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    mount_remount("/", read_only, "").step(|| "make / read-only".into())?;
    chdir(app::PATH).step(|| format!("go to {}", app::PATH))?;
    umask(before);
    Ok(())
}

/// From the outside in, since each may lie in another: a runtime in a directory that is hidden, the state
/// directory in one that is exposed. For one and the same place hiding is last.
fn show_and_hide(root: &mut Root, sandbox: &Sandbox) -> Result<(), SandboxError> {
    // It may be anywhere; where it was replaced by nothing there is nothing to show.
    let binary = sandbox.binary.iter().filter(|binary| binary.exists());
    let exposed = sandbox.expose.iter().chain(binary).map(|path| (path.as_path(), true));
    let hidden = sandbox.hide.iter().map(|path| (path.as_path(), false));
    for (path, shown) in from_outside_in(exposed.chain(hidden).collect()) {
        if shown { root.expose(path)? } else { root.hide(path)? }
    }
    Ok(())
}

/// Orders paths, each with whether it is shown, by how deep they really are: a link that is short may lead deep
/// into another.
fn from_outside_in(mut paths: Vec<(&Path, bool)>) -> Vec<(&Path, bool)> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| PathBuf::from(path));
    paths.sort_by_cached_key(|&(path, shown)| (real(path).components().count(), !shown));
    paths
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_ordered_by_what_they_lead_to_and_hiding_is_last() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        fs::create_dir_all(&deep).unwrap();
        let (link, around) = (dir.path().join("link"), dir.path().join("a/b"));
        symlink(&deep, &link).unwrap();
        let paths = vec![(&*link, false), (&*deep, false), (&*around, true), (&*deep, true)];
        let expected = [(&*around, true), (&*deep, true), (&*link, false), (&*deep, false)];
        assert_eq!(from_outside_in(paths), expected);
    }
}
