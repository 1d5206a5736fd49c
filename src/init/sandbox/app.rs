//! /app: the app's directory below, what the dyno writes above, in a directory that is gone with it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat, readlinkat};
use rustix::io::Errno;
use rustix::process::chdir;

use crate::init::sandbox::plan::{Sandbox, SandboxError, Step, Upper};
use crate::init::sandbox::root::{NO_PRIVILEGES, Root};
use crate::init::sandbox::{kernel, owners};

/// Where an app is, in its dynos.
pub(in crate::init::sandbox) const PATH: &str = "/app";

/// Where the layers are while the overlay is made of them. Its options are a list with separators, which the
/// host's paths may contain, so they are named from here.
const LAYERS: &str = "/layers";
const LOWER: &str = "/layers/lower";
const OWN: &str = "/layers/own";
/// Links on the way to a directory, at most: as the kernel has it.
const LINKS_MAX: usize = 40;

/// Mounts /app.
pub(in crate::init::sandbox) fn mount(
    root: &mut Root,
    sandbox: &Sandbox,
) -> Result<(), SandboxError> {
    for path in [PATH, LOWER, OWN] {
        root.make_dir(Path::new(path))?;
    }
    mount_lower(root, sandbox)?;
    match sandbox.upper {
        Upper::Disk => root.bind(&sandbox.dir, Path::new(OWN))?,
        Upper::Memory(bytes) => {
            root.memory(Path::new(OWN), NO_PRIVILEGES, &format!("mode=700,size={bytes}"))?;
        }
    }
    make_upper(root, sandbox)?;
    chdir(root.at(Path::new(LAYERS))).step(|| format!("go to {LAYERS}"))?;
    // Nobody misses what was not written when the machine stops: the next dyno begins anew.
    let options = "lowerdir=lower,upperdir=own/upper,workdir=own/work,volatile";
    root.mount("overlay", Path::new(PATH), NO_PRIVILEGES, options)?;
    chdir("/").step(|| "go to /".into())?;
    for path in [LOWER, OWN] {
        root.unmount(Path::new(path))?;
    }
    fs::remove_dir_all(root.at(Path::new(LAYERS))).step(|| format!("remove {LAYERS}"))?;
    hide_below(root, sandbox)
}

/// An app's directory may be one that has other apps, the configuration or the state directory in it.
fn hide_below(root: &Root, sandbox: &Sandbox) -> Result<(), SandboxError> {
    let app_dir = real(&sandbox.app_dir)?;
    for path in &sandbox.hide {
        let Ok(path) = path.canonicalize() else { continue };
        match path.strip_prefix(&app_dir) {
            Ok(below) if !below.as_os_str().is_empty() => {
                root.cover(&Path::new(PATH).join(below), path.is_dir())?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn real(path: &Path) -> Result<PathBuf, SandboxError> {
    path.canonicalize().step(|| format!("look at {}", path.display()))
}

/// The app's directory, its files the dyno's where the kernel and the file system can do that.
fn mount_lower(root: &Root, sandbox: &Sandbox) -> Result<(), SandboxError> {
    let app_dir = &sandbox.app_dir;
    let step = |deed: &str| format!("{deed} {}", app_dir.display());
    let (dir, makers) = follow(app_dir).step(|| step("look at"))?;
    let copy = kernel::copy_mount_of(dir.as_fd()).step(|| step("copy the mount at"))?;
    // Of what was opened: by its name it may be another directory by now.
    let owner = fstat(&copy).step(|| step("look at"))?;
    // Who makes a link chooses a directory, and may be somebody who must not read what only its owner does.
    if makers.iter().all(|maker| [0, owner.st_uid].contains(maker)) {
        let users = owners::swapped(owner.st_uid, sandbox.uid);
        let groups = owners::swapped(owner.st_gid, sandbox.gid);
        match owners::map(copy.as_fd(), &root.at(Path::new("/proc")), &users, &groups) {
            Ok(()) => {}
            // Then, too, the dyno reads what everybody may read, and writes what is new.
            Err(error) if cannot(&error) => {}
            Err(error) => return Err(error).step(|| step("map the owner of")),
        }
    }
    kernel::set_attributes(copy.as_fd(), false, libc::MOUNT_ATTR_RDONLY)
        .step(|| step("make read-only:"))?;
    root.attach(copy.as_fd(), Path::new(LOWER))
}

/// Opens what a path leads to, and says who made the links on the way: each is looked at in the moment in which it is
/// followed.
fn follow(path: &Path) -> io::Result<(OwnedFd, Vec<u32>)> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Where it begins with one, a slash is a step like any other.
    let steps = |path: &Path| {
        let steps = path.components().rev().map(|step| step.as_os_str().to_owned());
        steps.collect::<Vec<OsString>>()
    };
    let mut at = openat(CWD, ".", flags, Mode::empty())?;
    let (mut ahead, mut makers) = (steps(path), Vec::new());
    while let Some(step) = ahead.pop() {
        let next = openat(&at, step.as_os_str(), flags, Mode::empty())?;
        let stat = fstat(&next)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            at = next;
            continue;
        }
        if makers.len() == LINKS_MAX {
            return Err(Errno::LOOP.into());
        }
        makers.push(stat.st_uid);
        let target = readlinkat(&next, "", Vec::new())?;
        ahead.extend(steps(Path::new(OsStr::from_bytes(target.as_bytes()))));
    }
    Ok((at, makers))
}

/// Whether an error says that the host cannot do this, rather than that something went wrong.
fn cannot(error: &io::Error) -> bool {
    let kinds = [Errno::INVAL, Errno::PERM, Errno::NOSYS, Errno::OPNOTSUPP, Errno::NOSPC];
    Errno::from_io_error(error).is_some_and(|errno| kinds.contains(&errno))
}

/// What is written to goes above: the topmost directory is the dyno's own.
fn make_upper(root: &Root, sandbox: &Sandbox) -> Result<(), SandboxError> {
    let own = Path::new(OWN);
    for (name, mode) in [("upper", 0o755), ("work", 0o700)] {
        let path = root.at(&own.join(name));
        let step = || format!("make {}", sandbox.dir.join(name).display());
        DirBuilder::new().mode(mode).create(&path).step(step)?;
    }
    chown(root.at(&own.join("upper")), Some(sandbox.uid), Some(sandbox.gid))
        .step(|| format!("give {PATH} to the dyno's user"))
}

/// Shows /app also where the app's directory is on the host: a Python environment, for one, is full of its own
/// absolute path.
pub(in crate::init::sandbox) fn show_at_its_own_path(
    root: &mut Root,
    sandbox: &Sandbox,
) -> Result<(), SandboxError> {
    let path = real(&sandbox.app_dir)?;
    if path == Path::new(PATH) {
        return Ok(());
    }
    root.make_place(&path, true)?;
    root.bind(&root.at(Path::new(PATH)), &path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn links_are_followed_and_their_makers_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("releases/2/app")).unwrap();
        symlink("releases/2", at("current")).unwrap();
        symlink(at("current/../2/app"), at("shop")).unwrap();
        symlink("loop", at("loop")).unwrap();
        let this = rustix::process::geteuid().as_raw();
        for (path, links) in [("releases/2/app", 0), ("current/app", 1), ("shop", 2)] {
            let (found, makers) = follow(&at(path)).unwrap();
            let expected = fs::metadata(at("releases/2/app")).unwrap().ino();
            assert_eq!((fstat(&found).unwrap().st_ino, makers), (expected, vec![this; links]));
        }
        assert_eq!(
            follow(&at("loop")).unwrap_err().raw_os_error(),
            Some(Errno::LOOP.raw_os_error())
        );
        assert!(follow(&at("missing/app")).is_err());
    }
}
