//! The new root while it is put together.
//!
//! A path is always the one that the dyno will see. Whatever is made on the way is a plain directory in memory
//! of ours, never a link to follow: an absolute one would lead back to the host.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MoveMountFlags, UnmountFlags, mount, mount_bind_recursive, move_mount, unmount,
};

use crate::init::sandbox::kernel;
use crate::init::sandbox::plan::{SandboxError, Step};

/// Of what is shown of the host: nobody writes to it, gains rights by it, or reaches a device through it.
const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;

/// Of what a dyno may write to.
pub(in crate::init::sandbox) const NO_PRIVILEGES: MountFlags =
    MountFlags::NOSUID.union(MountFlags::NODEV);

pub(in crate::init::sandbox) struct Root {
    dir: PathBuf,
    /// Parts of the host that are in it, and parts of those that are not: the longest that a path begins with
    /// decides.
    parts: Vec<(PathBuf, bool)>,
}

impl Root {
    /// Begins with nothing but a little memory at `dir`, which is made if it is not there.
    pub(in crate::init::sandbox) fn begin(dir: &Path) -> Result<Self, SandboxError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .step(|| format!("make {}", dir.display()))?;
        let root = Self { dir: dir.to_owned(), parts: Vec::new() };
        root.memory(Path::new("/"), NO_PRIVILEGES, "mode=755,size=4m,nr_inodes=4096")?;
        Ok(root)
    }

    /// Where the root is on the host.
    pub(in crate::init::sandbox) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a path of the dyno's is on the host.
    pub(in crate::init::sandbox) fn at(&self, path: &Path) -> PathBuf {
        self.dir.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Makes a directory with those above it. That it is there already is fine.
    pub(in crate::init::sandbox) fn make_dir(&self, path: &Path) -> Result<(), SandboxError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o755).create(self.at(path)).step(|| at("make", path))
    }

    /// Makes a symbolic link.
    pub(in crate::init::sandbox) fn link(
        &self,
        path: &Path,
        to: &Path,
    ) -> Result<(), SandboxError> {
        symlink(to, self.at(path)).step(|| at("link", path))
    }

    /// Makes a file of the dyno's own with this text.
    pub(in crate::init::sandbox) fn write(
        &self,
        path: &Path,
        text: &str,
    ) -> Result<(), SandboxError> {
        fs::write(self.at(path), text).step(|| at("write", path))?;
        let mode = fs::Permissions::from_mode(0o644);
        fs::set_permissions(self.at(path), mode).step(|| at("write", path))
    }

    /// Mounts memory at a directory.
    pub(in crate::init::sandbox) fn memory(
        &self,
        path: &Path,
        flags: MountFlags,
        options: &str,
    ) -> Result<(), SandboxError> {
        self.mount("tmpfs", path, flags, options)
    }

    /// Mounts a file system of the kernel at a directory.
    pub(in crate::init::sandbox) fn mount(
        &self,
        kind: &str,
        path: &Path,
        flags: MountFlags,
        options: &str,
    ) -> Result<(), SandboxError> {
        let step = || format!("mount {kind} on {}", path.display());
        let options = std::ffi::CString::new(options).map_err(io::Error::other).step(step)?;
        mount(kind, self.at(path), kind, flags, options.as_c_str()).step(step)
    }

    /// Puts a file or directory of this root with what is mounted below it, or a device of the host, over what
    /// is at `path`.
    pub(in crate::init::sandbox) fn bind(
        &self,
        from: &Path,
        path: &Path,
    ) -> Result<(), SandboxError> {
        mount_bind_recursive(from, self.at(path)).step(|| at("bind", path))
    }

    /// Takes a mount away that was only needed on the way.
    pub(in crate::init::sandbox) fn unmount(&self, path: &Path) -> Result<(), SandboxError> {
        unmount(self.at(path), UnmountFlags::DETACH).step(|| at("unmount", path))
    }

    /// Puts `from` of the host, with everything mounted below it where `recursive`, over what is at `path`,
    /// read-only.
    pub(in crate::init::sandbox) fn show(
        &self,
        from: &Path,
        path: &Path,
        recursive: bool,
    ) -> Result<(), SandboxError> {
        let copy = kernel::copy_mount(from, recursive).step(|| at("copy the mount at", from))?;
        kernel::set_attributes(copy.as_fd(), recursive, READ_ONLY)
            .step(|| format!("make {} read-only", path.display()))?;
        self.attach(copy.as_fd(), path)
    }

    /// Puts a mount that is nowhere over what is at `path`.
    pub(in crate::init::sandbox) fn attach(
        &self,
        copy: impl AsFd,
        path: &Path,
    ) -> Result<(), SandboxError> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(copy, "", CWD, self.at(path), flags).step(|| at("mount", path))
    }

    /// Notes that the host's files below `path` are in this root.
    pub(in crate::init::sandbox) fn is_shown(&mut self, path: &Path) {
        self.parts.push((path.to_owned(), true));
    }

    /// Shows a file or directory of the host where it is, if it is not there yet.
    pub(in crate::init::sandbox) fn expose(&mut self, path: &Path) -> Result<(), SandboxError> {
        let real = path.canonicalize().step(|| at("expose", path))?;
        if !shown(&self.parts, &real) {
            self.make_place(&real, real.is_dir())?;
            self.show(&real, &real, true)?;
            self.is_shown(&real);
        }
        // A name of it that is a link, in a directory that the dyno does not see.
        if real != path && !self.at(path).exists() && !shown(&self.parts, path) {
            self.make_dir(path.parent().unwrap_or(path))?;
            self.link(path, &real)?;
        }
        Ok(())
    }

    /// Covers a file or directory of the host, if it can be seen where it is. A directory is covered by one that
    /// only leads on to what is put in there later.
    pub(in crate::init::sandbox) fn hide(&mut self, path: &Path) -> Result<(), SandboxError> {
        let Ok(real) = path.canonicalize() else { return Ok(()) };
        if !shown(&self.parts, &real) {
            return Ok(());
        }
        self.cover(&real, real.is_dir())?;
        self.parts.push((real, false));
        Ok(())
    }

    /// Covers a file or directory of this root.
    pub(in crate::init::sandbox) fn cover(
        &self,
        path: &Path,
        directory: bool,
    ) -> Result<(), SandboxError> {
        if directory {
            self.memory(path, NO_PRIVILEGES, "mode=711,size=64k,nr_inodes=64")
        } else {
            self.bind(Path::new("/dev/null"), path)
        }
    }

    /// Makes an empty file or directory to mount something on, unless the host has it in what is shown.
    pub(in crate::init::sandbox) fn make_place(
        &self,
        path: &Path,
        directory: bool,
    ) -> Result<(), SandboxError> {
        if shown(&self.parts, path) {
            return Ok(());
        }
        if directory {
            return self.make_dir(path);
        }
        self.make_dir(path.parent().unwrap_or(path))?;
        File::create(self.at(path)).map(drop).step(|| at("make", path))
    }
}

fn at(deed: &str, path: &Path) -> String {
    format!("{deed} {}", path.display())
}

/// Whether a path of the host is in a root that has these parts.
fn shown(parts: &[(PathBuf, bool)], path: &Path) -> bool {
    let around = parts.iter().filter(|(part, _)| path.starts_with(part));
    around.max_by_key(|(part, _)| part.as_os_str().len()).is_some_and(|(_, shown)| *shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_part_decides_what_is_shown() {
        let parts = [("/opt", true), ("/opt/state", false), ("/opt/state/app", true)];
        let parts = parts.map(|(path, shown)| (PathBuf::from(path), shown));
        let check = |path: &str, expected: bool| {
            assert_eq!(shown(&parts, Path::new(path)), expected, "{path}");
        };
        check("/opt", true);
        check("/opt/node/bin", true);
        check("/opt/state", false);
        check("/opt/state/dynos", false);
        check("/opt/state/app/x", true);
        check("/optical", false);
        check("/", false);
    }
}
