//! cgroup v2 (Documentation/admin-guide/cgroup-v2.rst): one hierarchy, in which a group has either processes or
//! controllers for the groups in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::init::ControlGroup;
use crate::model::SizeLimits;
use crate::supervisor::cgroup::detect::{NoCgroups, refused};
use crate::supervisor::cgroup::files::{self, Fields};
use crate::supervisor::cgroup::usage::{Memory, Usage};

/// Of these, what the host has is used.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// The group that the daemon goes to, so that its own may have controllers. What systemd is told with
/// `DelegateSubgroup=`.
const LEAF: &str = "daemon";
/// `cpu.weight` of one share: what a group has that says nothing.
const WEIGHT: u32 = 100;
/// The period of `cpu.max`: the kernel's default.
const PERIOD_MICROS: u64 = 100_000;

/// The group for all dynos.
pub(crate) struct V2 {
    parent: PathBuf,
    /// The group in which this daemon is.
    home: PathBuf,
    controllers: Vec<&'static str>,
}

/// A dyno's directory.
#[derive(Clone, Debug)]
pub(crate) struct Dir {
    path: PathBuf,
    controllers: Vec<&'static str>,
}

impl V2 {
    /// Makes the group for all dynos: in our own where nobody else is in that (a service of systemd with
    /// `Delegate=yes`, a container), otherwise at the root, where administrators' programs put theirs.
    pub(crate) fn prepare(
        root: &Path,
        own: &Path,
        name: &str,
        pid: u32,
    ) -> Result<Self, NoCgroups> {
        let base = match own.file_name() {
            Some(leaf) if leaf == LEAF => own.parent().unwrap_or(own),
            _ => own,
        };
        let (base, home) = if may_have_controllers(base) {
            (base, own.to_owned())
        } else if alone_in(base, pid).map_err(refused(base))? {
            let leaf = base.join(LEAF);
            files::ensure_dir(&leaf).map_err(refused(&leaf))?;
            files::write(&leaf, "cgroup.procs", pid).map_err(refused(&leaf))?;
            (base, leaf)
        } else {
            (root, own.to_owned())
        };
        let parent = base.join(name);
        let controllers = enable(base).map_err(refused(base))?;
        files::ensure_dir(&parent).map_err(refused(&parent))?;
        enable(&parent).map_err(refused(&parent))?;
        if controllers.is_empty() {
            return Err(NoCgroups::NotMounted);
        }
        Ok(Self { parent, home, controllers })
    }

    pub(crate) fn controllers(&self) -> &[&'static str] {
        &self.controllers
    }

    pub(crate) fn parent(&self) -> &Path {
        &self.parent
    }

    /// Where a dyno's group is to be, with the group that is our own.
    pub(crate) fn places(&self, id: &str) -> Vec<ControlGroup> {
        vec![ControlGroup { dir: self.parent.join(id), home: self.home.clone() }]
    }

    /// The same as a group.
    pub(crate) fn dir(&self, id: &str) -> Dir {
        Dir { path: self.parent.join(id), controllers: self.controllers.clone() }
    }
}

/// Whether the group may have processes and controllers both (only the real root, which has no type), or has
/// controllers already.
fn may_have_controllers(dir: &Path) -> bool {
    let enabled = fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
    let real_root = dir.join("cgroup.controllers").exists() && !dir.join("cgroup.type").exists();
    real_root || enabled.split_whitespace().any(|it| it == "memory")
}

/// Whether the group has no process besides this one.
fn alone_in(dir: &Path, pid: u32) -> io::Result<bool> {
    let pids = fs::read_to_string(dir.join("cgroup.procs"))?;
    Ok(pids.lines().all(|line| line.parse() == Ok(pid)))
}

/// Has the groups in this one get the controllers that it has itself, and says which.
fn enable(dir: &Path) -> io::Result<Vec<&'static str>> {
    let available = fs::read_to_string(dir.join("cgroup.controllers"))?;
    let mut enabled = CONTROLLERS.to_vec();
    enabled.retain(|name| available.split_whitespace().any(|it| it == *name));
    for controller in &enabled {
        files::write(dir, "cgroup.subtree_control", format!("+{controller}"))?;
    }
    Ok(enabled)
}

impl Dir {
    /// A group that an earlier daemon made, and has set the limits of.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path, controllers: Vec::new() }
    }

    pub(crate) fn limit(&self, limits: &SizeLimits) -> io::Result<()> {
        let dir = &*self.path;
        let has = |controller| self.controllers.contains(&controller);
        if has("memory") {
            files::write(dir, "memory.max", 2 * limits.memory)?;
            // A dyno with one process less is no dyno: all of it is killed. Neither of these two is everywhere.
            let _ = files::write(dir, "memory.oom.group", 1);
            let _ = files::write(dir, "memory.swap.max", 2 * limits.memory);
        }
        if has("cpu") {
            files::write(dir, "cpu.weight", WEIGHT * limits.cpu.shares())?;
            if let Some(thousandths) = limits.cpus {
                let micros = u64::from(thousandths) * PERIOD_MICROS / 1000;
                files::write(dir, "cpu.max", format!("{micros} {PERIOD_MICROS}"))?;
            }
        }
        if has("pids") {
            files::write(dir, "pids.max", limits.processes)?;
        }
        Ok(())
    }

    pub(crate) fn usage(&self) -> Usage {
        let dir = &*self.path;
        let stat = Fields::read(dir, "memory.stat");
        let cpu = Fields::read(dir, "cpu.stat");
        let events = Fields::read(dir, "memory.events");
        let micros = |word| cpu.as_ref()?.get(word).map(Duration::from_micros);
        Usage {
            memory: stat.and_then(|stat| {
                Some(Memory {
                    rss: stat.get("anon")?,
                    cache: stat.get("file")?,
                    shared: stat.get("shmem").unwrap_or(0),
                    swap: files::number(dir, "memory.swap.current").unwrap_or(0),
                    // The word `max` would be no limit; no group of ours has it.
                    quota: files::number(dir, "memory.max")? / 2,
                    paged: None,
                })
            }),
            oom_kills: events.and_then(|it| it.get("oom_kill")).unwrap_or(0),
            cpu: micros("usage_usec"),
            throttled: micros("throttled_usec"),
            tasks: files::number(dir, "pids.current"),
        }
    }

    pub(crate) fn set_frozen(&self, frozen: bool) -> io::Result<()> {
        files::write(&self.path, "cgroup.freeze", u8::from(frozen))
    }
}
