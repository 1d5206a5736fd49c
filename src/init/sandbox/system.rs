//! What every dyno sees of the host and of the kernel: system directories, /proc, /sys, /dev, and places for
//! what is in flux.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::MountFlags;

use crate::init::sandbox::plan::{Sandbox, SandboxError, Step};
use crate::init::sandbox::resolver;
use crate::init::sandbox::root::{NO_PRIVILEGES, Root};

/// Where programs, libraries and their settings are. /var is not: what the host keeps there is its own
/// business, but for what Debian's `gem` installs.
pub const SYSTEM: [&str; 11] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc",
    "/opt",
    "/nix",
    "/var/lib/gems",
];

/// Files of /proc by which the host could be read or changed, most of them by root alone; a dyno has no
/// business with any.
const MASKED: [&str; 9] = [
    "kcore",
    "keys",
    "key-users",
    "kmsg",
    "latency_stats",
    "sched_debug",
    "sysrq-trigger",
    "timer_list",
    "timer_stats",
];

/// Directories of /proc that describe hardware.
const EMPTIED: [&str; 3] = ["acpi", "asound", "scsi"];

/// Directories of /proc that are also there to be written to.
const READ_ONLY: [&str; 4] = ["sys", "irq", "bus", "fs"];

/// Devices that are no devices.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

const LINKS_IN_DEV: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Shows the host's system directories, read-only.
pub(in crate::init::sandbox) fn show_host(root: &mut Root) -> Result<(), SandboxError> {
    for path in SYSTEM.map(Path::new) {
        let Ok(metadata) = fs::symlink_metadata(path) else { continue };
        if metadata.is_symlink() {
            // /bin is usr/bin nearly everywhere.
            let to = fs::read_link(path).step(|| format!("read {}", path.display()))?;
            root.link(path, to.strip_prefix("/").unwrap_or(&to))?;
        } else if metadata.is_dir() {
            root.make_dir(path)?;
            root.show(path, path, true)?;
            root.is_shown(path);
        }
    }
    Ok(())
}

/// /proc, /sys and /dev.
pub(in crate::init::sandbox) fn mount_kernel_file_systems(
    root: &mut Root,
    sandbox: &Sandbox,
) -> Result<(), SandboxError> {
    for path in ["/proc", "/sys", "/dev"] {
        root.make_dir(Path::new(path))?;
    }
    proc(root)?;
    sys(root, sandbox)?;
    dev(root, sandbox)
}

fn proc(root: &Root) -> Result<(), SandboxError> {
    let proc = Path::new("/proc");
    root.mount("proc", proc, NO_PRIVILEGES | MountFlags::NOEXEC, "")?;
    let there = |path: &PathBuf| root.at(path).exists();
    for path in MASKED.map(|name| proc.join(name)).iter().filter(|path| there(path)) {
        root.bind(Path::new("/dev/null"), path)?;
    }
    for path in EMPTIED.map(|name| proc.join(name)).iter().filter(|path| there(path)) {
        root.memory(path, NO_PRIVILEGES | MountFlags::RDONLY, "mode=555,size=4k")?;
    }
    for path in READ_ONLY.map(|name| proc.join(name)).iter().filter(|path| there(path)) {
        root.show(&root.at(path), path, false)?;
    }
    Ok(())
}

/// The kernel's own view of devices, without what is mounted in it but for the dyno's own control groups:
/// programs read there how much memory they have.
fn sys(root: &Root, sandbox: &Sandbox) -> Result<(), SandboxError> {
    let sys = Path::new("/sys");
    if sandbox.own_network {
        // The host's shows the host's interfaces, whoever looks.
        root.mount("sysfs", sys, NO_PRIVILEGES | MountFlags::NOEXEC | MountFlags::RDONLY, "")?;
    } else {
        root.show(sys, sys, false)?;
    }
    let firmware = sys.join("firmware");
    if root.at(&firmware).exists() {
        root.memory(&firmware, NO_PRIVILEGES | MountFlags::RDONLY, "mode=555,size=4k")?;
    }
    let mounts = fs::read_to_string("/proc/self/mounts").step(|| "read the mounts".into())?;
    let flags = NO_PRIVILEGES | MountFlags::NOEXEC | MountFlags::RDONLY;
    let groups = Path::new(GROUPS);
    match control_groups(&mounts) {
        ControlGroups::None => Ok(()),
        ControlGroups::Unified => root.mount("cgroup2", groups, flags, ""),
        ControlGroups::Each(controllers) => {
            root.memory(groups, NO_PRIVILEGES, "mode=755,size=64k,nr_inodes=64")?;
            for controller in controllers {
                let path = groups.join(&controller);
                root.make_dir(&path)?;
                root.mount("cgroup", &path, flags, &controller)?;
            }
            Ok(())
        }
    }
}

const GROUPS: &str = "/sys/fs/cgroup";

/// The controllers by which a program learns how much it has; Java wants all of the first four, or none. Of
/// `cpuset` a dyno sees the groups of others, since it has none of its own there; no dyno has.
const READ_BY_PROGRAMS: [&str; 5] = ["memory", "cpu", "cpuacct", "cpuset", "pids"];

/// How the host has its control groups.
#[derive(Debug, PartialEq, Eq)]
enum ControlGroups {
    None,
    /// Version 2: one tree.
    Unified,
    /// Version 1: a tree for each controller, or for each set of them (`cpu,cpuacct`).
    Each(Vec<String>),
}

/// Reads `/proc/self/mounts`.
fn control_groups(mounts: &str) -> ControlGroups {
    let mut controllers = Vec::new();
    for mount in mounts.lines() {
        let mut fields = mount.split(' ').skip(1);
        let (Some(at), Some(kind)) = (fields.next(), fields.next()) else { continue };
        match (kind, at.strip_prefix(GROUPS)) {
            ("cgroup2", Some("")) => return ControlGroups::Unified,
            ("cgroup", Some(name)) => {
                let name = name.trim_start_matches('/');
                if name.split(',').any(|controller| READ_BY_PROGRAMS.contains(&controller)) {
                    controllers.push(name.to_owned());
                }
            }
            _ => {}
        }
    }
    if controllers.is_empty() { ControlGroups::None } else { ControlGroups::Each(controllers) }
}

fn dev(root: &Root, sandbox: &Sandbox) -> Result<(), SandboxError> {
    let dev = Path::new("/dev");
    // NODEV would make what is bound below it useless too.
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    root.memory(dev, flags, "mode=755,size=64k,nr_inodes=64")?;
    for path in DEVICES.map(|name| dev.join(name)) {
        root.make_place(&path, false)?;
        root.bind(&path, &path)?;
    }
    for (name, to) in LINKS_IN_DEV {
        root.link(&dev.join(name), Path::new(to))?;
    }
    root.make_dir(&dev.join("pts"))?;
    root.mount("devpts", &dev.join("pts"), flags, "newinstance,ptmxmode=0666,mode=0620,gid=5")?;
    root.make_dir(&dev.join("shm"))?;
    let options = format!("mode=1777,size={},nr_inodes=4096", sandbox.shm_bytes);
    root.memory(&dev.join("shm"), NO_PRIVILEGES | MountFlags::NOEXEC, &options)
}

/// /tmp, /run and /var: in memory and the dyno's own.
pub(in crate::init::sandbox) fn mount_scratch(
    root: &mut Root,
    sandbox: &Sandbox,
) -> Result<(), SandboxError> {
    let path = Path::new;
    root.make_dir(path("/tmp"))?;
    let options = format!("mode=1777,size={},nr_inodes=65536", sandbox.tmp_bytes);
    root.memory(path("/tmp"), NO_PRIVILEGES, &options)?;
    root.make_dir(path("/run"))?;
    let Sandbox { uid, gid, .. } = sandbox;
    let options = format!("mode=755,uid={uid},gid={gid},size=16m,nr_inodes=4096");
    root.memory(path("/run"), NO_PRIVILEGES, &options)?;
    for dir in ["/var/lib", "/var/cache", "/var/log", "/home", "/root", "/mnt", "/srv"] {
        root.make_dir(path(dir))?;
    }
    for (link, to) in [("/var/tmp", "../tmp"), ("/var/run", "../run"), ("/var/lock", "../run")] {
        root.link(path(link), path(to))?;
    }
    resolver::show(root, sandbox.own_network)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_groups_are_found_as_the_host_has_them() {
        let check = |mounts: &str, expected: ControlGroups| {
            assert_eq!(control_groups(mounts), expected, "{mounts}");
        };
        check("proc /proc proc rw 0 0\n", ControlGroups::None);
        check("cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nsdelegate 0 0\n", ControlGroups::Unified);
        check(
            "tmpfs /sys/fs/cgroup tmpfs ro 0 0\n\
             cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
             cgroup /sys/fs/cgroup/systemd cgroup rw,xattr,name=systemd 0 0\n\
             cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n\
             cgroup /sys/fs/cgroup/blkio cgroup rw,blkio 0 0\n\
             cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n",
            ControlGroups::Each(vec!["cpu,cpuacct".into(), "memory".into()]),
        );
    }
}
