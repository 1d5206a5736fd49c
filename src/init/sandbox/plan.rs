//! What a sandbox is to be, as the order says it. Plain data.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a dyno sees of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// The dyno's own directory on the host, `state/dynos/ID`. The root is put together in `root/` below it,
    /// and what the dyno writes to /app goes to `upper/` and `work/`.
    pub dir: PathBuf,
    /// The app's directory: what lies below /app, and is never written to.
    pub app_dir: PathBuf,
    /// Where it is kept what the dyno writes to /app.
    pub upper: Upper,
    /// The dyno's user; files in /app that belong to the owner of `app_dir` are this user's.
    pub uid: u32,
    /// The dyno's group.
    pub gid: u32,
    /// What the dyno takes for the name of its host.
    pub hostname: String,
    /// Files and directories of the host that are shown where they are, read-only, also behind closed
    /// directories.
    pub expose: Vec<PathBuf>,
    /// Files and directories that are hidden where a directory of the host that is shown has them.
    pub hide: Vec<PathBuf>,
    /// The binary of dynomesh as the daemon was started: the dyno's environment names it. By now another may be
    /// in its place, or none.
    #[serde(default)]
    pub binary: Option<PathBuf>,
    /// How much fits into /tmp, in bytes. It is memory.
    pub tmp_bytes: u64,
    /// How much fits into /dev/shm, in bytes. It is memory.
    pub shm_bytes: u64,
    /// Whether the dyno has a network of its own.
    #[serde(default)]
    pub own_network: bool,
}

/// Where it is kept what a dyno writes to /app; gone with the dyno either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Upper {
    /// In the dyno's own directory.
    Disk,
    /// In memory, so many bytes at most: the state directory's file system cannot be the upper one of an
    /// overlay.
    Memory(u64),
}

/// What a dyno's processes may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// The user that they run as. Its own, so that the limit on processes counts only the dyno's.
    pub uid: u32,
    /// The group that they run as, the only one.
    pub gid: u32,
    /// How many processes and threads there may be.
    pub processes: u64,
    /// How many open files a process may have: what it starts with, and what it may raise that to.
    pub open_files: (u64, u64),
}

/// The parts of which isolation is made, in the order in which they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Processes, mounts, names of its own.
    Namespaces,
    /// A root of its own.
    Root,
    /// What is written to /app is nobody else's.
    App,
    /// No way to more rights.
    Privileges,
}

/// A step on the way into a sandbox failed.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub struct SandboxError {
    part: Part,
    step: String,
    source: io::Error,
}

impl SandboxError {
    /// Which part a host refuses that this is an error of.
    pub fn part(&self) -> Part {
        self.part
    }

    /// The number of the kernel's answer.
    pub(in crate::init::sandbox) fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    /// The step, and what came of it.
    pub(in crate::init) fn into_parts(self) -> (String, io::Error) {
        (self.step, self.source)
    }

    /// The same as an error of this part.
    pub(in crate::init::sandbox) fn of(self, part: Part) -> Self {
        Self { part, ..self }
    }
}

/// Names the step that an error ended.
pub(in crate::init::sandbox) trait Step<T> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T, SandboxError>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T, SandboxError> {
        self.map_err(|source| SandboxError {
            part: Part::Root,
            step: step(),
            source: source.into(),
        })
    }
}
