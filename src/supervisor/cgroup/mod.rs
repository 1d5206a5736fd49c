//! Control groups: what holds a dyno to its size, and tells what it takes.
//!
//! Files of cgroup v2 or v1 (cgroups(7)), whichever the host has; a group per dyno below one of the daemon's own.
//! Knows nothing of dynos but the names and limits that it is given.

mod detect; // which hierarchies there are, and where in them we are
mod files; // reading and writing the kernel's small files
mod group; // one dyno's
mod usage; // what is read of one, as values
mod v1; // a directory per controller
mod v2; // one directory

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::time;

use crate::config::limits;
use crate::model::SizeLimits;

use detect::{Hierarchy, NoCgroups};
use group::Layout;
use v1::V1;
use v2::V2;

pub(crate) use group::Group;
pub(crate) use usage::{Memory, Usage};

/// Where the dynos of this daemon get their groups. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Cgroups(Arc<Version>);

/// Which of the two interfaces the host has.
enum Version {
    V1(V1),
    V2(V2),
}

impl Drop for Version {
    fn drop(&mut self) {
        for parent in self.parents() {
            // Groups of dynos that live on are in it: they are for the next daemon.
            let _ = fs::remove_dir(parent);
        }
    }
}

impl Version {
    /// The groups for all dynos, one per hierarchy.
    fn parents(&self) -> Vec<&Path> {
        match self {
            Self::V1(v1) => v1.parents(),
            Self::V2(v2) => vec![v2.parent()],
        }
    }
}

impl Cgroups {
    /// Prepares the group of all dynos of the daemon whose state is in this directory, so that the next daemon
    /// finds the same one. What cannot be had is said here, once.
    pub(crate) fn start(state_dir: &Path) -> Option<Self> {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let hierarchy = detect::detect(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"));
        let parent = parent_name(state_dir);
        match Self::prepare(hierarchy, &parent, std::process::id()) {
            Ok(cgroups) => {
                tracing::info!(
                    "dynos are held to their sizes by {}, in {parent}",
                    cgroups.describe()
                );
                Some(cgroups)
            }
            Err(why) => {
                tracing::warn!(
                    "dynos are not held to their sizes, there are no control groups: {why}"
                );
                None
            }
        }
    }

    fn prepare(hierarchy: Hierarchy, parent: &str, pid: u32) -> Result<Self, NoCgroups> {
        Ok(Self(Arc::new(match hierarchy {
            Hierarchy::None => return Err(NoCgroups::NotMounted),
            Hierarchy::V1(homes) => Version::V1(V1::prepare(homes, parent)?),
            Hierarchy::V2 { root, own } => Version::V2(V2::prepare(&root, &own, parent, pid)?),
        })))
    }

    /// `cgroup v1: cpu, cpuacct, freezer, memory, pids`
    fn describe(&self) -> String {
        match &*self.0 {
            Version::V1(v1) => format!("cgroup v1: {}", v1.controllers().join(", ")),
            Version::V2(v2) => format!("cgroup v2: {}", v2.controllers().join(", ")),
        }
    }

    /// Makes the group of one dyno. It is empty: whoever starts the dyno's processes has them enter it.
    pub(crate) fn make(&self, id: &str, limits: &SizeLimits) -> io::Result<Group> {
        match &*self.0 {
            Version::V1(v1) => Group::make(Layout::V1(v1.dirs(id)), v1.places(id), limits),
            Version::V2(v2) => Group::make(Layout::V2(v2.dir(id)), v2.places(id), limits),
        }
    }

    /// What an earlier daemon left, but for the groups of the dynos that live on. Nobody watches who is in them.
    pub(crate) fn leftovers(&self, lives: impl Fn(&str) -> bool) -> Vec<PathBuf> {
        let of_parent = |parent: &Path| {
            let ids = files::subdirectories(parent).into_iter().filter(|id| !lives(id));
            ids.map(|id| parent.join(id)).collect::<Vec<_>>()
        };
        self.0.parents().into_iter().flat_map(of_parent).collect()
    }
}

/// Kills who is in these groups, and removes them.
pub(crate) async fn sweep(mut leftovers: Vec<PathBuf>) {
    let mut wait = limits::SWEEP_LOOK_FIRST;
    let swept = time::timeout(limits::KILL_WAIT, async {
        loop {
            leftovers.retain(|dir| group::sweep(dir).is_err());
            if leftovers.is_empty() {
                return;
            }
            time::sleep(wait).await;
            wait = (wait * 2).min(limits::SWEEP_LOOK_MAX);
        }
    });
    if swept.await.is_err() {
        tracing::warn!("{} control groups of an earlier daemon cannot be removed", leftovers.len());
    }
}

/// Two daemons on one machine are in one group as often as not, so that each needs a name of its own: from the
/// place of its state, which no two share.
pub(in crate::supervisor) fn parent_name(state_dir: &Path) -> String {
    // FNV-1a: the next daemon, of another version perhaps, must come to the same.
    let hash = state_dir.as_os_str().as_encoded_bytes().iter();
    let hash = hash.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("dynomesh-{hash:016x}")
}

#[cfg(test)]
mod tests; // on directories that look like both, and on the host's own
