//! The only place that makes processes.
//!
//! By posix_spawn: a fork of a daemon of 500 MB takes 26 ms in place of 3.5, and its workers pay for copied
//! pages afterwards. So nothing may run between fork and exec here (no `pre_exec`), and what a dyno needs
//! beyond files, directory, environment and process group is set up by `dynomesh init`, which this starts.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group, pidfd_open,
    test_kill_process_group, waitid,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time;

use crate::config::limits;
use crate::init::{Init, descriptors_before_raise};
use crate::model::{AppName, DynoName, Exit};
use crate::shutdown::Shutdown;
use crate::supervisor::output::{self, Output};
use crate::supervisor::probe;
use crate::telemetry::AppLog;

/// Starts processes. The operating system's in the daemon, scripted ones in tests.
pub(crate) trait Spawn: Clone + Send + Sync + 'static {
    /// What it starts.
    type Process: Process;

    /// Starts a process. Takes milliseconds, without a way to wait for them.
    fn spawn(&self, start: &Start) -> Result<Self::Process, SpawnError>;
}

/// A process group that was started and is waited for. Every future here may be dropped and asked for again.
pub(crate) trait Process: Send + Sync + 'static {
    /// The operating system's number of its leader.
    fn pid(&self) -> Option<u32>;
    /// Returns once the leader's port accepts connections; never where it was lent none.
    fn listening(&self) -> impl Future<Output = ()> + Send;
    /// Returns once the leader is gone.
    fn exited(&self) -> impl Future<Output = Exit> + Send;
    /// Returns once no process of the group is left. Wait for [`exited`](Self::exited) first.
    fn group_gone(&self) -> impl Future<Output = ()> + Send;
    /// Returns once what the process printed is handed to the log, or after a moment.
    fn output_settled(&self) -> impl Future<Output = ()> + Send;
    /// SIGTERM to every process of the group.
    fn terminate(&self);
    /// SIGKILL to every process of the group.
    fn kill(&self);
}

/// What a dyno runs: one process type of one release.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Program {
    /// `v7` is 7: one more for each change of what the app runs.
    pub(crate) release: u64,
    /// The Procfile's command.
    pub(crate) command: String,
    /// Where it runs.
    pub(crate) dir: PathBuf,
    /// The app's config vars.
    pub(crate) config_vars: Arc<BTreeMap<String, String>>,
}

/// One start of a process.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) app: AppName,
    pub(crate) dyno: DynoName,
    pub(crate) program: Arc<Program>,
    /// Where a web dyno must listen.
    pub(crate) port: Option<u16>,
}

/// A process could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpawnError {
    #[error("no port is left of {}-{}", limits::DYNO_PORTS.start(), limits::DYNO_PORTS.end())]
    NoPort,
    #[error("the app's directory {0} is not there")]
    NoDirectory(PathBuf),
    #[error("start {program}: {source}")]
    Spawn { program: PathBuf, source: io::Error },
    #[error("watch the process: {0}")]
    Watch(io::Error),
}

/// Starts processes of the operating system.
#[derive(Clone)]
pub(crate) struct Launcher {
    inner: Arc<LauncherParts>,
}

struct LauncherParts {
    /// What is run, with these arguments and the command as one more.
    program: PathBuf,
    args: Vec<OsString>,
    /// `DYNOMESH` in the dynos' environment.
    binary: PathBuf,
    log: AppLog,
    shutdown: Shutdown,
}

/// What a dyno inherits from the daemon's environment. All else is the daemon's own business.
const INHERITED: [&str; 8] = ["PATH", "HOME", "LANG", "TZ", "TERM", "USER", "SHELL", "TMPDIR"];

impl Launcher {
    /// Starts commands through `dynomesh init`, the same binary as this process.
    ///
    /// Dynos die with the *thread* that started them (that is how Linux has it): use it on threads that live as
    /// long as the daemon.
    pub(crate) fn through_init(binary: PathBuf, log: AppLog, shutdown: Shutdown) -> Self {
        let mut args = vec!["init".into()];
        args.extend(Init::options(std::process::id(), descriptors_before_raise()));
        Self::new(binary.clone(), args, binary, log, shutdown)
    }

    fn new(
        program: PathBuf,
        args: Vec<OsString>,
        binary: PathBuf,
        log: AppLog,
        shutdown: Shutdown,
    ) -> Self {
        Self { inner: Arc::new(LauncherParts { program, args, binary, log, shutdown }) }
    }
}

impl Spawn for Launcher {
    type Process = OsProcess;

    fn spawn(&self, start: &Start) -> Result<OsProcess, SpawnError> {
        let LauncherParts { program, args, binary, log, shutdown } = &*self.inner;
        let dir = &start.program.dir;
        if !dir.is_dir() {
            return Err(SpawnError::NoDirectory(dir.clone()));
        }
        let failed = |source| SpawnError::Spawn { program: program.clone(), source };
        // One pipe for both, so that lines stay in the order in which they were printed.
        let (output, stdout) = io::pipe().map_err(failed)?;
        let stderr = stdout.try_clone().map_err(failed)?;
        #[expect(clippy::disallowed_methods, reason = "the only place that makes processes")]
        let mut command = Command::new(program);
        command
            .args(args)
            .arg(&start.program.command)
            .current_dir(dir)
            .env_clear()
            .envs(environment(start, binary, |name| std::env::var_os(name)))
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .process_group(0);
        let child = command.spawn().map_err(failed)?;
        // Our copies of the pipe's writing end are in `command`.
        drop(command);
        let output =
            output::carry(output.into(), start, log, shutdown).map_err(SpawnError::Watch)?;
        OsProcess::new(child.id(), start.port, output)
    }
}

fn environment(
    start: &Start,
    binary: &Path,
    inherited: impl Fn(&str) -> Option<OsString>,
) -> BTreeMap<OsString, OsString> {
    let mut variables = BTreeMap::new();
    for name in INHERITED {
        if let Some(value) = inherited(name) {
            variables.insert(name.into(), value);
        }
    }
    for (name, value) in &*start.program.config_vars {
        variables.insert(name.into(), value.into());
    }
    let mut set = |name: &str, value: &dyn AsRef<OsStr>| {
        variables.insert(name.into(), value.as_ref().to_owned())
    };
    if let Some(port) = start.port {
        set("PORT", &port.to_string());
    }
    set("DYNO", &start.dyno.to_string());
    set("HEROKU_APP_NAME", &start.app.as_str());
    set("HEROKU_RELEASE_VERSION", &format!("v{}", start.program.release));
    set("HEROKU_DYNO_ID", &dyno_id(u128::from(random()) << 64 | u128::from(random())));
    set("DYNOMESH", &binary);
    variables
}

/// A number in a UUID's clothes (RFC 9562, version 4).
fn dyno_id(random: u128) -> String {
    let fixed = (0xf << 76) | (0x3 << 62);
    let hex = format!("{:032x}", (random & !fixed) | (0x4 << 76) | (0x2 << 62));
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// Good enough for names and jitter: the standard library seeds each of these differently.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A process group of the operating system. Its leader is reaped only when the group is waited for, so that
/// the group's number cannot become somebody else's while signals are sent to it.
pub(crate) struct OsProcess {
    group: Pid,
    pidfd: AsyncFd<OwnedFd>,
    exit: OnceLock<Exit>,
    port: Option<u16>,
    output: Output,
}

impl OsProcess {
    fn new(pid: u32, port: Option<u16>, output: Output) -> Result<Self, SpawnError> {
        let invalid = || SpawnError::Watch(io::ErrorKind::InvalidData.into());
        let group = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(invalid)?;
        match watch(group) {
            Ok(pidfd) => Ok(Self { group, pidfd, exit: OnceLock::new(), port, output }),
            Err(error) => {
                // Nobody would hear of its end, so it must not live. It stays a zombie.
                let _ = kill_process_group(group, Signal::KILL);
                Err(SpawnError::Watch(error))
            }
        }
    }

    /// How the leader ended, if it has. Leaves it unreaped.
    fn ended(&self) -> Option<Exit> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let exit = match waitid(WaitId::PidFd(self.pidfd.as_fd()), options) {
            Ok(None) => return self.exit.get().copied(),
            Ok(Some(status)) => exit(&status),
            // Somebody else reaped it: a library in this process, against all rules.
            Err(_) => Exit::Status(255),
        };
        Some(*self.exit.get_or_init(|| exit))
    }

    fn signal(&self, signal: Signal) {
        // It fails only where no process is left, which is as good.
        let _ = kill_process_group(self.group, signal);
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe, for descriptors that are not owned; this one is"
)]
fn watch(leader: Pid) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(pidfd_open(leader, PidfdFlags::NONBLOCK)?, Interest::READABLE)
}

fn exit(status: &WaitIdStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(status), _) => Exit::Status(status),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Status(255),
    }
}

impl Process for OsProcess {
    fn pid(&self) -> Option<u32> {
        u32::try_from(self.group.as_raw_nonzero().get()).ok()
    }

    async fn listening(&self) {
        match self.port {
            Some(port) => probe::accepts(port).await,
            None => std::future::pending().await,
        }
    }

    async fn exited(&self) -> Exit {
        loop {
            if let Some(exit) = self.exit.get() {
                return *exit;
            }
            match self.pidfd.readable().await {
                Ok(mut ready) => {
                    if self.ended().is_none() {
                        ready.clear_ready();
                    }
                }
                // The runtime is ending, and with it whoever asks.
                Err(_) => std::future::pending().await,
            }
        }
    }

    async fn group_gone(&self) {
        let reap = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let _ = waitid(WaitId::PidFd(self.pidfd.as_fd()), reap);
        // Where we are PID 1, the rest of the group are our children now, and ours to reap.
        while test_kill_process_group(self.group).is_ok() {
            if !matches!(waitid(WaitId::Pgid(Some(self.group)), reap), Ok(Some(_))) {
                time::sleep(limits::GROUP_LOOK).await;
            }
        }
    }

    async fn output_settled(&self) {
        self.output.settled().await;
    }

    fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    fn kill(&self) {
        self.signal(Signal::KILL);
    }
}

impl Drop for OsProcess {
    fn drop(&mut self) {
        if self.exit.get().is_none() {
            self.signal(Signal::KILL);
        }
        let _ = waitid(
            WaitId::PidFd(self.pidfd.as_fd()),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        );
    }
}
