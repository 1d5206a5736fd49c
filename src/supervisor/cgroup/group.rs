//! One dyno's group: what it takes, its processes stopped, going on, or killed, and its end.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

use crate::config::limits;
use crate::init::ControlGroup;
use crate::model::SizeLimits;
use crate::supervisor::cgroup::files;
use crate::supervisor::cgroup::usage::Usage;
use crate::supervisor::cgroup::{v1, v2};

/// The group of one dyno. Removed on drop, if nobody is in it.
#[derive(Debug)]
pub(crate) struct Group {
    layout: Layout,
    places: Vec<ControlGroup>,
    /// What its processes took, once they and it are gone. Locked while its files are read or removed: half a
    /// group shows nothing of what happened in it.
    at_the_end: Mutex<Option<Usage>>,
}

/// How the kernel shows a group.
#[derive(Debug)]
pub(crate) enum Layout {
    V1(v1::Dirs),
    V2(v2::Dir),
}

impl Group {
    /// Makes it, empty.
    pub(crate) fn make(
        layout: Layout,
        places: Vec<ControlGroup>,
        limits: &SizeLimits,
    ) -> io::Result<Self> {
        // What was made is removed again by the drop, wherever it goes wrong.
        let group = Self { layout, places, at_the_end: Mutex::default() };
        for dir in group.dirs() {
            fs::create_dir(dir)?;
        }
        match &group.layout {
            Layout::V1(dirs) => dirs.limit(limits)?,
            Layout::V2(dir) => dir.limit(limits)?,
        }
        Ok(group)
    }

    /// The group that an earlier daemon made, by its [`places`](Self::places).
    pub(crate) fn adopt(places: Vec<ControlGroup>) -> Option<Self> {
        let first = &places.first()?.dir;
        let layout = match first.join("cgroup.controllers").exists() {
            true => Layout::V2(v2::Dir::at(first.clone())),
            false => Layout::V1(v1::Dirs::among(places.iter().map(|it| &*it.dir))),
        };
        Some(Self { layout, places, at_the_end: Mutex::default() })
    }

    /// Its directories, one per hierarchy: who is to be in the group writes itself to `cgroup.procs` of each.
    pub(crate) fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.places.iter().map(|it| &*it.dir)
    }

    /// The same, each with the directory of the group that is the daemon's own there: for an order.
    pub(crate) fn places(&self) -> &[ControlGroup] {
        &self.places
    }

    /// Stops every process of it in its tracks. The kernel may take some milliseconds for that.
    pub(crate) fn freeze(&self) -> io::Result<()> {
        self.set_frozen(true)
    }

    /// Lets every process go on.
    pub(crate) fn thaw(&self) -> io::Result<()> {
        self.set_frozen(false)
    }

    fn set_frozen(&self, frozen: bool) -> io::Result<()> {
        match &self.layout {
            Layout::V1(dirs) => dirs.set_frozen(frozen),
            Layout::V2(dir) => dir.set_frozen(frozen),
        }
    }

    /// Removes it. Fails where somebody is in it still. What its processes took is still known.
    pub(crate) fn remove(&self) -> io::Result<()> {
        let mut at_the_end = self.at_the_end();
        let usage = at_the_end.unwrap_or_else(|| self.read_usage());
        let mut result = Ok(());
        for dir in self.dirs() {
            match fs::remove_dir(dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => result = Err(error),
                Ok(()) => {}
            }
        }
        if result.is_ok() {
            *at_the_end = Some(usage);
        }
        result
    }

    /// What its processes take now.
    pub(crate) fn usage(&self) -> Usage {
        let at_the_end = self.at_the_end();
        at_the_end.unwrap_or_else(|| self.read_usage())
    }

    fn read_usage(&self) -> Usage {
        match &self.layout {
            Layout::V1(dirs) => dirs.usage(),
            Layout::V2(dir) => dir.usage(),
        }
    }

    fn at_the_end(&self) -> MutexGuard<'_, Option<Usage>> {
        // Nothing panics while this lock is held, so poison says nothing.
        self.at_the_end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many of its processes and threads run or wait for a CPU at this moment.
    pub(crate) fn runnable(&self) -> u32 {
        let file = match self.layout {
            Layout::V1(_) => "tasks",
            Layout::V2(_) => "cgroup.threads",
        };
        let Some(dir) = self.dirs().next() else { return 0 };
        let tasks = fs::read_to_string(dir.join(file)).unwrap_or_default();
        let running = tasks.lines().take(limits::LOAD_TASKS_MAX).filter(|task| runs(task));
        running.count() as u32
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Who is in it still outlives this daemon, and so must the group.
        let _ = self.remove();
    }
}

/// Whether a task is runnable, by its own line of /proc (proc_pid_stat(5)): `PID (NAME) STATE …`, where the name
/// may hold anything.
fn runs(task: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{task}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with('R'))
}

/// Kills who is in a directory of a group, and removes it. Fails where the kernel has not ended all of them yet.
pub(crate) fn sweep(dir: &Path) -> io::Result<()> {
    // At most one of these is there; frozen processes would not end.
    for (file, go_on) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
        if dir.join(file).exists() {
            files::write(dir, file, go_on)?;
        }
    }
    let pids = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    for pid in pids.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)) {
        let _ = kill_process(pid, Signal::KILL);
    }
    fs::remove_dir(dir)
}
