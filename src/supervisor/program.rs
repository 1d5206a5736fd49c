//! What is started: a program of a release, and one start of it for one dyno. Plain data.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use crate::model::{AppName, DynoName, Size};

/// What a dyno runs: one process type of one release.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Program {
    /// `v7` is 7: one more for each change of what the app runs.
    pub(crate) release: u64,
    /// The Procfile's command.
    pub(crate) command: String,
    /// Where it runs.
    pub(crate) dir: PathBuf,
    /// What it may take.
    pub(crate) size: Arc<Size>,
    /// The app's config vars.
    pub(crate) config_vars: Arc<BTreeMap<String, String>>,
}

impl Program {
    /// Whether a process of this runs what a process of the other would: the number of a release is no part of it.
    pub(crate) fn runs_as(&self, other: &Self) -> bool {
        let Self { release: _, command, dir, size, config_vars } = self;
        (command, dir, config_vars) == (&other.command, &other.dir, &other.config_vars)
            && size.runs_as(&other.size)
    }
}

/// One start of a process.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) app: AppName,
    pub(crate) dyno: DynoName,
    pub(crate) program: Arc<Program>,
    /// Where a web dyno must listen.
    pub(crate) port: Option<u16>,
    pub(crate) streams: Streams,
}

/// Where a process' standard streams lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streams {
    /// Input is at its end, output goes into the log.
    Log,
    /// A client has them: a terminal of this size, in characters.
    Terminal {
        /// Lines.
        rows: u16,
        /// Characters of a line.
        columns: u16,
    },
    /// A client has them: a pipe to the input, and one that output and errors share.
    Pipes,
}

/// The daemon's ends of streams that a client has.
#[derive(Debug)]
pub enum Ends {
    /// The master of the terminal. Whoever drops it hangs up.
    Terminal(OwnedFd),
    /// Two pipes.
    Pipes {
        /// To the process' input.
        input: OwnedFd,
        /// From its output and its errors.
        output: OwnedFd,
    },
}

/// The operating system's number of a process, from the moment on when it is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProcessId(Arc<OnceLock<u32>>);

impl ProcessId {
    /// It is this one.
    pub(crate) fn set(&self, number: u32) {
        // There is one command per init, which is started once.
        let _ = self.0.set(number);
    }

    /// `None`: it is not known yet.
    pub(crate) fn get(&self) -> Option<u32> {
        self.0.get().copied()
    }
}
