//! Which hierarchies of control groups a host has, and where in them this process is. Pure.

use std::io;
use std::path::{Path, PathBuf};

/// The controllers of v1 that are used. A host may have mounted several of them at one place (`cpu,cpuacct`).
pub(crate) const CONTROLLERS: [&str; 5] = ["memory", "cpu", "cpuacct", "pids", "freezer"];

/// Where groups can be made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Hierarchy {
    /// Where nothing is mounted.
    None,
    /// Our group's directory, for each place where controllers are mounted.
    V1(Vec<Home>),
    /// The directory of the hierarchy's root, as far as it is seen here, and that of our group.
    V2 { root: PathBuf, own: PathBuf },
}

/// Our group in one hierarchy of v1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Home {
    pub(crate) controllers: Vec<&'static str>,
    pub(crate) dir: PathBuf,
}

/// The host gives us no control groups. Dynos run without, and sizes are for people alone.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoCgroups {
    #[error("no controller for memory, CPU or processes is mounted")]
    NotMounted,
    #[error("{path}: {source}", path = path.display())]
    Refused { path: PathBuf, source: io::Error },
}

/// The error with its path.
pub(crate) fn refused(path: &Path) -> impl FnOnce(io::Error) -> NoCgroups {
    move |source| NoCgroups::Refused { path: path.to_owned(), source }
}

/// A hierarchy that is mounted: one line of /proc/self/mountinfo.
struct Mount<'a> {
    /// The group that is seen as the root.
    root: &'a str,
    dir: PathBuf,
    kind: &'a str,
    options: &'a str,
}

/// Reads `/proc/self/cgroup` (cgroups(7)) and `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
///
/// A host with both has the controllers in v1, and v2 for systemd's own books.
pub(crate) fn detect(own: &str, mountinfo: &str) -> Hierarchy {
    let mounts: Vec<Mount<'_>> = mountinfo.lines().filter_map(mount).collect();
    let homes: Vec<Home> =
        mounts.iter().filter(|it| it.kind == "cgroup").filter_map(|it| home(it, own)).collect();
    if homes.iter().any(|home| home.controllers.contains(&"memory")) {
        return Hierarchy::V1(homes);
    }
    let Some(mount) = mounts.into_iter().find(|it| it.kind == "cgroup2") else {
        return Hierarchy::None;
    };
    let path = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    Hierarchy::V2 { own: below(&mount, path), root: mount.dir }
}

/// `36 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory`
fn mount(line: &str) -> Option<Mount<'_>> {
    let (place, what) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (root, dir) = (place.next()?, place.next()?);
    let mut what = what.split(' ');
    let (kind, options) = (what.next()?, what.nth(1)?);
    // Blanks in paths are written in octal; no hierarchy is mounted at such a place.
    Some(Mount { root, dir: dir.into(), kind, options })
}

fn home(mount: &Mount<'_>, own: &str) -> Option<Home> {
    let has = |list: &str, name: &str| list.split(',').any(|it| it == name);
    let controllers: Vec<&'static str> =
        CONTROLLERS.into_iter().filter(|name| has(mount.options, name)).collect();
    let first = controllers.first()?;
    // `4:memory:/user.slice`
    let path = own.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (names, path) = rest.split_once(':')?;
        has(names, first).then_some(path)
    })?;
    Some(Home { dir: below(mount, path), controllers })
}

/// The directory of a group. In a container the mount may show only a part of the hierarchy, or the path may
/// lead out of it: then what is seen of it begins at our group.
fn below(mount: &Mount<'_>, path: &str) -> PathBuf {
    let seen = Path::new(path).strip_prefix(mount.root).unwrap_or(Path::new(""));
    let leads_out = path.split('/').any(|part| part == "..");
    if leads_out || seen.as_os_str().is_empty() { mount.dir.clone() } else { mount.dir.join(seen) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:4 - cgroup cgroup rw,cpu,cpuacct
33 31 0:31 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    fn home(controllers: &[&'static str], dir: &str) -> Home {
        Home { controllers: controllers.to_vec(), dir: dir.into() }
    }

    #[test]
    fn v1_has_a_directory_per_mount() {
        let own = "8:blkio:/\n4:memory:/a/b\n1:cpu,cpuacct:/\n0::/x\n";
        assert_eq!(
            detect(own, V1),
            Hierarchy::V1(vec![
                home(&["cpu", "cpuacct"], "/sys/fs/cgroup/cpu,cpuacct"),
                home(&["memory"], "/sys/fs/cgroup/memory/a/b"),
            ])
        );
    }

    #[test]
    fn v2_is_one_directory() {
        let mounts = "29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let v2 = |own: &str| Hierarchy::V2 { root: "/sys/fs/cgroup".into(), own: own.into() };
        assert_eq!(
            detect("0::/system.slice/dynomesh.service\n", mounts),
            v2("/sys/fs/cgroup/system.slice/dynomesh.service")
        );
        assert_eq!(detect("0::/\n", mounts), v2("/sys/fs/cgroup"));
    }

    #[test]
    fn a_part_of_the_hierarchy_may_be_seen() {
        let mounts = "29 23 0:26 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        for (own, dir) in [
            ("4:memory:/docker/abc/x\n", "/sys/fs/cgroup/memory/x"),
            ("4:memory:/docker/abc\n", "/sys/fs/cgroup/memory"),
            ("4:memory:/elsewhere\n", "/sys/fs/cgroup/memory"),
            ("4:memory:/../x\n", "/sys/fs/cgroup/memory"),
        ] {
            assert_eq!(detect(own, mounts), Hierarchy::V1(vec![home(&["memory"], dir)]), "{own}");
        }
    }

    #[test]
    fn a_host_may_have_none() {
        assert_eq!(detect("", ""), Hierarchy::None);
        assert_eq!(detect("0::/\n", "31 23 0:28 / / rw - ext4 /dev/sda rw\n"), Hierarchy::None);
        assert_eq!(detect("nonsense", "29 23 0:26 - - - -\n - \n"), Hierarchy::None);
    }
}
