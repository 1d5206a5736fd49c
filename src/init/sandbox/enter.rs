//! The order of calls by which PID 1 gets a root of its own.

use std::env;

use rustix::fs::Mode;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount_change, mount_remount, unmount,
};
use rustix::process::{chdir, pivot_root, umask};
use rustix::system::sethostname;
use rustix::thread::UnshareFlags;

use crate::init::sandbox::plan::{Part, Sandbox, SandboxError, Step};
use crate::init::sandbox::root::Root;
use crate::init::sandbox::{app, identity, system};

/// What a dyno has of its own. Control groups must be joined before: the dyno sees none above those that its
/// first process was in when it left the host's namespaces.
pub const NAMESPACES: UnshareFlags = UnshareFlags::NEWPID
    .union(UnshareFlags::NEWNS)
    .union(UnshareFlags::NEWIPC)
    .union(UnshareFlags::NEWUTS)
    .union(UnshareFlags::NEWCGROUP);

/// Makes the sandbox this process' root, and /app its working directory. Call it as PID 1 in new
/// [`NAMESPACES`], with a single thread, as root. What it cannot do it says, and then the process must end:
/// half a sandbox is none.
///
/// # Errors
/// The step that failed, with its path.
pub fn enter(sandbox: &Sandbox) -> Result<(), SandboxError> {
    // First of all: nothing that follows may reach the host's mounts.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).step(|| "make mounts private".into())?;
    let before = umask(Mode::empty());
    // The binary may be anywhere, and the dyno's environment names it.
    let binary = env::current_exe().step(|| "find the binary of dynomesh".into())?;

    let mut root = Root::begin(&sandbox.dir.join("root"))?;
    system::show_host(&mut root)?;
    system::mount_kernel_file_systems(&mut root, sandbox)?;
    system::mount_scratch(&mut root, sandbox)?;
    app::mount(&mut root, sandbox).map_err(|error| error.of(Part::App))?;
    // What is hidden comes before what is exposed: an app, a runtime or the binary may lie in it.
    for path in &sandbox.hide {
        root.hide(path)?;
    }
    for path in sandbox.expose.iter().chain([&binary]) {
        root.expose(path)?;
    }
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
