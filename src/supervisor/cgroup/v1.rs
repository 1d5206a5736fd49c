//! cgroup v1 (cgroups(7)): a hierarchy per controller, or per some of them, each with a directory of ours.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::init::ControlGroup;
use crate::model::SizeLimits;
use crate::supervisor::cgroup::detect::{Home, NoCgroups, refused};
use crate::supervisor::cgroup::files::{self, Fields};
use crate::supervisor::cgroup::usage::{Memory, Usage};

/// `cpu.shares` of one share: what a group has that says nothing.
const SHARES: u32 = 1024;
/// `cpu.cfs_period_us`: the kernel's default, of which a quota is a part.
const PERIOD_MICROS: u64 = 100_000;

/// Our group in each hierarchy, and the one in it for all dynos.
pub(crate) struct V1 {
    hierarchies: Vec<(Home, PathBuf)>,
}

/// A dyno's directory for each controller; several controllers may share one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dirs {
    memory: Option<PathBuf>,
    cpu: Option<PathBuf>,
    cpuacct: Option<PathBuf>,
    pids: Option<PathBuf>,
    freezer: Option<PathBuf>,
}

impl V1 {
    /// Makes the group for all dynos. A controller that cannot be had is left out, unless all cannot.
    pub(crate) fn prepare(homes: Vec<Home>, name: &str) -> Result<Self, NoCgroups> {
        let mut hierarchies = Vec::new();
        let mut refusal = NoCgroups::NotMounted;
        for home in homes {
            let parent = home.dir.join(name);
            match files::ensure_dir(&parent) {
                Ok(()) => {
                    if home.controllers.contains(&"cpu") {
                        weigh_as_all_of_us(&parent);
                    }
                    hierarchies.push((home, parent));
                }
                Err(error) => refusal = refused(&parent)(error),
            }
        }
        if hierarchies.is_empty() { Err(refusal) } else { Ok(Self { hierarchies }) }
    }

    pub(crate) fn controllers(&self) -> Vec<&'static str> {
        let mut all: Vec<&'static str> =
            self.hierarchies.iter().flat_map(|(home, _)| home.controllers.clone()).collect();
        all.sort_unstable();
        all
    }

    pub(crate) fn parents(&self) -> Vec<&Path> {
        self.hierarchies.iter().map(|(_, parent)| &**parent).collect()
    }

    /// Where a dyno's group is to be: each directory with that of the group that is our own there.
    pub(crate) fn places(&self, id: &str) -> Vec<ControlGroup> {
        self.hierarchies
            .iter()
            .map(|(home, parent)| ControlGroup { dir: parent.join(id), home: home.dir.clone() })
            .collect()
    }

    /// The same by controller.
    pub(crate) fn dirs(&self, id: &str) -> Dirs {
        let mut dirs = Dirs::default();
        for (home, parent) in &self.hierarchies {
            for controller in &home.controllers {
                *dirs.of(controller) = Some(parent.join(id));
            }
        }
        dirs
    }
}

/// All dynos together weigh as much as the daemon's threads, of which there is about one per CPU, each with as
/// many shares as a group: neither starves the other.
fn weigh_as_all_of_us(parent: &Path) {
    let cpus = std::thread::available_parallelism().map_or(1, |it| it.get() as u64);
    // The largest that the kernel takes is 2^18. Where it cannot be had, dynos have less; that is no reason to
    // have no groups.
    let _ = files::write(parent, "cpu.shares", (u64::from(SHARES) * cpus).min(1 << 18));
}

impl Dirs {
    /// Which of these directories is whose, by the files in them.
    pub(crate) fn among<'a>(dirs: impl Iterator<Item = &'a Path> + Clone) -> Self {
        let having = |file| dirs.clone().find(|dir| dir.join(file).exists()).map(Path::to_owned);
        Self {
            memory: having("memory.limit_in_bytes"),
            cpu: having("cpu.shares"),
            cpuacct: having("cpuacct.usage"),
            pids: having("pids.max"),
            freezer: having("freezer.state"),
        }
    }

    fn of(&mut self, controller: &str) -> &mut Option<PathBuf> {
        match controller {
            "memory" => &mut self.memory,
            "cpu" => &mut self.cpu,
            "cpuacct" => &mut self.cpuacct,
            "pids" => &mut self.pids,
            _ => &mut self.freezer,
        }
    }

    pub(crate) fn limit(&self, limits: &SizeLimits) -> io::Result<()> {
        if let Some(dir) = &self.memory {
            files::write(dir, "memory.limit_in_bytes", 2 * limits.memory)?;
            // With what is swapped out. Absent where the kernel does not account for swap.
            let _ = files::write(dir, "memory.memsw.limit_in_bytes", 2 * limits.memory);
        }
        if let Some(dir) = &self.cpu {
            files::write(dir, "cpu.shares", SHARES * limits.cpu.shares())?;
            if let Some(thousandths) = limits.cpus {
                let micros = u64::from(thousandths) * PERIOD_MICROS / 1000;
                files::write(dir, "cpu.cfs_quota_us", micros)?;
            }
        }
        if let Some(dir) = &self.pids {
            files::write(dir, "pids.max", limits.processes)?;
        }
        Ok(())
    }

    pub(crate) fn usage(&self) -> Usage {
        let memory = self.memory.as_deref();
        let stat = memory.and_then(|dir| Fields::read(dir, "memory.stat"));
        let cpu = self.cpu.as_deref().and_then(|dir| Fields::read(dir, "cpu.stat"));
        Usage {
            memory: stat.and_then(|stat| {
                Some(Memory {
                    rss: stat.get("total_rss")?,
                    cache: stat.get("total_cache")?,
                    shared: stat.get("total_shmem").unwrap_or(0),
                    swap: stat.get("total_swap").unwrap_or(0),
                    quota: files::number(memory?, "memory.limit_in_bytes")? / 2,
                    paged: stat.get("total_pgpgin").zip(stat.get("total_pgpgout")),
                })
            }),
            oom_kills: memory
                .and_then(|dir| Fields::read(dir, "memory.oom_control")?.get("oom_kill"))
                .unwrap_or(0),
            cpu: self
                .cpuacct
                .as_deref()
                .and_then(|dir| files::number(dir, "cpuacct.usage"))
                .map(Duration::from_nanos),
            throttled: cpu.and_then(|stat| stat.get("throttled_time")).map(Duration::from_nanos),
            tasks: self.pids.as_deref().and_then(|dir| files::number(dir, "pids.current")),
        }
    }

    pub(crate) fn set_frozen(&self, frozen: bool) -> io::Result<()> {
        let dir = self.freezer.as_deref().ok_or(io::ErrorKind::Unsupported)?;
        files::write(dir, "freezer.state", if frozen { "FROZEN" } else { "THAWED" })
    }
}
