//! Whether this host can isolate dynos, found out by doing it: a throwaway process enters a sandbox, gives up
//! its privileges and says what came of it. Versions, capabilities and settings are not looked at: there are
//! too many that could be in the way.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, pidfd_open, set_parent_process_death_signal,
};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use crate::config::limits;
use crate::init::namespaces::{NAMESPACES, leave};
use crate::init::network;
use crate::init::sandbox::plan::{Confinement, Part, Sandbox, SandboxError, Upper};
use crate::init::sandbox::{confine, enter};
use crate::wall_clock::monotonic;

/// The hidden command by which this binary becomes the process that tries.
const COMMAND: &str = "try-sandbox";

/// Somebody who is nobody, to try with.
const UID: u32 = *limits::UIDS.start();

/// What a host can do, if it can do it at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Whether files of the app's owner are the dyno's own (id-mapped mounts).
    pub owners_mapped: bool,
}

/// A host cannot isolate dynos this way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{reason}")]
pub struct TrialError {
    /// The part that it refused; those before it are fine.
    pub part: Part,
    /// The step, with its path, and the kernel's answer.
    pub reason: String,
    /// The number of that answer, where a step of the sandbox got one.
    #[serde(default)]
    pub errno: Option<i32>,
}

impl TrialError {
    fn new(part: Part, reason: impl ToString) -> Self {
        Self { part, reason: reason.to_string(), errno: None }
    }

    /// Whether the kernel said that it cannot, or may not, do this here. All else, such as a full disk, went
    /// wrong this time, and says nothing of the host.
    pub fn is_of_the_host(&self) -> bool {
        let kinds = [
            Errno::PERM,
            Errno::ACCESS,
            Errno::NOSYS,
            Errno::INVAL,
            Errno::NODEV,
            Errno::OPNOTSUPP,
        ];
        self.errno.is_some_and(|errno| kinds.iter().any(|kind| kind.raw_os_error() == errno))
    }

    fn with(self, error: &io::Error) -> Self {
        Self { errno: error.raw_os_error(), ..self }
    }
}

impl From<SandboxError> for TrialError {
    fn from(error: SandboxError) -> Self {
        let errno = error.errno();
        Self { errno, ..Self::new(error.part(), error) }
    }
}

/// Tries a sandbox whose dyno keeps what it writes to /app at `upper`. Works in a directory of its own below
/// `state_dir`, whose file system is what matters, and leaves nothing behind. Takes some 30 ms; where another process
/// is at it, that goes first.
///
/// # Errors
/// The step that the host refused.
pub fn try_sandbox(state_dir: &Path, upper: Upper) -> Result<Trial, TrialError> {
    let dir = state_dir.join("trial");
    let unmade =
        |error| TrialError::new(Part::Namespaces, format!("make {}: {error}", dir.display()));
    // Unlocked when it is closed.
    let _locked = lock(state_dir).map_err(unmade)?;
    let left = |error| TrialError::new(Part::App, format!("remove {}: {error}", dir.display()));
    // One that was killed in its trial has left what it had, and the kernel mounts nothing on some of that.
    clear(&dir).map_err(left)?;
    let result = make_app(&dir).map_err(unmade).and_then(|()| judge(&dir, upper));
    // What was mounted is gone with the process that mounted it.
    let removed = clear(&dir);
    result.and_then(|trial| removed.map(|()| trial).map_err(left))
}

/// Waits until nobody else tries below this directory, which is made where it is not there.
fn lock(state_dir: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(state_dir)?;
    let dir = File::open(state_dir)?;
    flock(&dir, FlockOperation::LockExclusive)?;
    Ok(dir)
}

fn clear(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn make_app(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir.join("app"))?;
    fs::write(dir.join("app/file"), "")
}

fn judge(dir: &Path, upper: Upper) -> Result<Trial, TrialError> {
    let said = |error: io::Error| TrialError::new(Part::Namespaces, error);
    let upper = serde_json::to_string(&upper).map_err(io::Error::other).map_err(said)?;
    let outside = ["outside".into(), dir.as_os_str().to_owned(), upper.into()];
    let answer = ask_ourselves(&outside).map_err(said)?;
    serde_json::from_str::<Result<Trial, TrialError>>(&answer).unwrap_or_else(|_| {
        let reason = format!("no answer within {:?}", limits::TRIAL);
        Err(TrialError::new(Part::Root, reason))
    })
}

/// What a throwaway process of this binary says that is started with these arguments; nothing, if it takes too long.
pub(in crate::init) fn ask_ourselves(args: &[OsString]) -> io::Result<String> {
    let mut child = start(args)?;
    let waited = wait(&child);
    // It is gone, or is now: whatever it said is in the pipe.
    child.kill().and_then(|()| child.wait())?;
    waited?;
    let mut answer = String::new();
    if let Some(stdout) = &mut child.stdout {
        stdout.read_to_string(&mut answer)?;
    }
    Ok(answer)
}

#[expect(clippy::disallowed_methods, reason = "our own binary, by which nothing of a dyno is run")]
fn start(args: &[OsString]) -> io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg(COMMAND).args(args).stdin(Stdio::null()).stdout(Stdio::piped());
    command.spawn()
}

/// Returns when the child has ended, or has taken too long.
fn wait(child: &Child) -> io::Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidData)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let end = monotonic() + limits::TRIAL;
    loop {
        let left = end.saturating_sub(monotonic());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            // A signal that the daemon will hear when it has decided.
            Err(Errno::INTR) => {}
            polled => return Ok(polled.map(drop)?),
        }
    }
}

/// Is the process that tries: `dynomesh try-sandbox`, with the arguments after it. Prints its answer.
///
/// # Errors
/// The answer could not be printed, or the arguments are none that [`try_sandbox`] writes.
pub fn run_trial(args: impl Iterator<Item = OsString>) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let args = args.collect::<Vec<_>>();
    if let [place, network] = args.as_slice()
        && place == network::TRIAL
    {
        return io::stdout().write_all(network::answer(network)?.as_bytes());
    }
    let [place, dir, upper] = args.as_slice() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let answer = if place == "outside" {
        // Only a child is in the new namespace of processes from its first moment on.
        match leave(NAMESPACES).and_then(|()| pass_on(dir, upper)) {
            Ok(answer) => answer,
            Err(error) => {
                let reason = format!("leave the host's namespaces: {error}");
                print(&Err(TrialError::new(Part::Namespaces, reason).with(&error)))?
            }
        }
    } else {
        print(&inside(PathBuf::from(dir), upper))?
    };
    io::stdout().write_all(answer.as_bytes())
}

fn print(result: &Result<Trial, TrialError>) -> io::Result<String> {
    Ok(serde_json::to_string(result)?)
}

fn pass_on(dir: &OsString, upper: &OsString) -> io::Result<String> {
    let mut child = start(&["inside".into(), dir.clone(), upper.clone()])?;
    let mut answer = String::new();
    if let Some(stdout) = &mut child.stdout {
        stdout.read_to_string(&mut answer)?;
    }
    child.wait()?;
    Ok(answer)
}

/// Does what an init does, and looks at what has become of this process.
fn inside(dir: PathBuf, upper: &OsString) -> Result<Trial, TrialError> {
    let upper = upper.to_str().and_then(|upper| serde_json::from_str(upper).ok());
    let sandbox = Sandbox {
        app_dir: dir.join("app"),
        dir,
        upper: upper.ok_or_else(|| TrialError::new(Part::App, "upper: which?"))?,
        uid: UID,
        gid: UID,
        hostname: "trial".into(),
        expose: Vec::new(),
        hide: Vec::new(),
        binary: std::env::current_exe().ok(),
        tmp_bytes: 1 << 20,
        shm_bytes: 1 << 20,
        own_network: false,
    };
    if getpid() != Pid::INIT {
        let reason = "a new process namespace does not begin at 1";
        return Err(TrialError::new(Part::Namespaces, reason));
    }
    leave(UnshareFlags::NEWCGROUP).map_err(|error| {
        TrialError::new(Part::Namespaces, format!("leave control groups: {error}")).with(&error)
    })?;
    enter(&sandbox)?;
    let confinement = Confinement { uid: UID, gid: UID, processes: 16, open_files: (256, 256) };
    confine(&confinement)?;
    let in_app =
        |error: io::Error| TrialError::new(Part::App, format!("use /app: {error}")).with(&error);
    fs::write("/app/new", "").map_err(in_app)?;
    let file = fs::metadata("/app/file").map_err(in_app)?;
    Ok(Trial { owners_mapped: file.uid() == UID })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_some_answers_of_the_kernel_are_of_the_host() {
        let check = |errno: Errno, expected: bool| {
            let error = TrialError::new(Part::Root, "mount").with(&errno.into());
            assert_eq!(error.is_of_the_host(), expected, "{errno}");
        };
        for errno in [Errno::PERM, Errno::ACCESS, Errno::NOSYS, Errno::INVAL, Errno::NODEV] {
            check(errno, true);
        }
        check(Errno::OPNOTSUPP, true);
        for errno in [Errno::NOSPC, Errno::IO, Errno::MFILE, Errno::NOMEM, Errno::AGAIN] {
            check(errno, false);
        }
        assert!(!TrialError::new(Part::Root, "no answer within 5 s").is_of_the_host());
    }
}
