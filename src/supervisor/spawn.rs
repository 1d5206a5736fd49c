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
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, waitid,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::config::{HealthCheck, limits};
use crate::init::{Init, descriptors_before_raise};
use crate::model::Exit;
use crate::shutdown::Shutdown;
use crate::supervisor::cgroup::{Cgroups, Group, Usage};
use crate::supervisor::group;
use crate::supervisor::health::{self, Unwell};
use crate::supervisor::output::{self, Output};
use crate::supervisor::probe;
use crate::supervisor::program::Start;
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
    /// Tells it from all others that there ever were: `HEROKU_DYNO_ID`, a UUID.
    fn id(&self) -> &str;
    /// What the process and all that it started take; absent where nobody counts it.
    fn usage(&self) -> Option<Usage>;
    /// How many of them run or wait for a CPU at this moment.
    fn runnable(&self) -> u32;
    /// Returns once the leader's port accepts connections; never where it was lent none.
    fn listening(&self) -> impl Future<Output = ()> + Send;
    /// Asks the leader at its port whether it is well; where it was lent none, it is.
    fn well(&self, check: &HealthCheck) -> impl Future<Output = Result<(), Unwell>> + Send;
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

/// A process could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpawnError {
    #[error("no port is left of {}-{}", limits::DYNO_PORTS.start(), limits::DYNO_PORTS.end())]
    NoPort,
    #[error("the app's directory {0} is not there")]
    NoDirectory(PathBuf),
    #[error("make its control group: {0}")]
    Group(io::Error),
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
    /// Absent where the host gives us none.
    cgroups: Option<Cgroups>,
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
    pub(crate) fn through_init(
        binary: PathBuf,
        cgroups: Option<Cgroups>,
        log: AppLog,
        shutdown: Shutdown,
    ) -> Self {
        let mut args = vec!["init".into()];
        args.extend(Init::options(std::process::id(), descriptors_before_raise()));
        Self::new(binary.clone(), args, binary, cgroups, log, shutdown)
    }

    fn new(
        program: PathBuf,
        args: Vec<OsString>,
        binary: PathBuf,
        cgroups: Option<Cgroups>,
        log: AppLog,
        shutdown: Shutdown,
    ) -> Self {
        Self { inner: Arc::new(LauncherParts { program, args, binary, cgroups, log, shutdown }) }
    }
}

impl Spawn for Launcher {
    type Process = OsProcess;

    fn spawn(&self, start: &Start) -> Result<OsProcess, SpawnError> {
        let LauncherParts { program, args, binary, cgroups, log, shutdown } = &*self.inner;
        let dir = &start.program.dir;
        if !dir.is_dir() {
            return Err(SpawnError::NoDirectory(dir.clone()));
        }
        let failed = |source| SpawnError::Spawn { program: program.clone(), source };
        let id = dyno_id(u128::from(random()) << 64 | u128::from(random()));
        let size = &start.program.size;
        let group = cgroups.as_ref().map(|it| it.make(&id, &size.limits)).transpose();
        let group = group.map_err(SpawnError::Group)?;
        // One pipe for both, so that lines stay in the order in which they were printed.
        let (output, stdout) = io::pipe().map_err(failed)?;
        let stderr = stdout.try_clone().map_err(failed)?;
        #[expect(clippy::disallowed_methods, reason = "the only place that makes processes")]
        let mut command = Command::new(program);
        command
            .args(args.first())
            .args(Init::cgroups(group.iter().flat_map(Group::dirs)))
            .args(args.iter().skip(1))
            .arg(&start.program.command)
            .current_dir(dir)
            .env_clear()
            .envs(environment(start, &id, binary, |name| std::env::var_os(name)))
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .process_group(0);
        let child = command.spawn().map_err(failed)?;
        // Our copies of the pipe's writing end are in `command`.
        drop(command);
        let output =
            output::carry(output.into(), start, log, shutdown).map_err(SpawnError::Watch)?;
        OsProcess::new(child.id(), id, start.port, output, group)
    }
}

fn environment(
    start: &Start,
    id: &str,
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
    set("HEROKU_DYNO_ID", &id);
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
    id: String,
    port: Option<u16>,
    output: Output,
    cgroup: Option<Group>,
}

impl OsProcess {
    fn new(
        pid: u32,
        id: String,
        port: Option<u16>,
        output: Output,
        cgroup: Option<Group>,
    ) -> Result<Self, SpawnError> {
        let invalid = || SpawnError::Watch(io::ErrorKind::InvalidData.into());
        let group = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(invalid)?;
        match watch(group) {
            Ok(pidfd) => Ok(Self { group, pidfd, exit: OnceLock::new(), id, port, output, cgroup }),
            Err(error) => {
                // Nobody would hear of its end, so it must not live. It stays a zombie.
                group::signal(group, Signal::KILL);
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

    fn id(&self) -> &str {
        &self.id
    }

    fn usage(&self) -> Option<Usage> {
        self.cgroup.as_ref().map(Group::usage)
    }

    fn runnable(&self) -> u32 {
        self.cgroup.as_ref().map_or(0, Group::runnable)
    }

    async fn listening(&self) {
        match self.port {
            Some(port) => probe::accepts(port).await,
            None => std::future::pending().await,
        }
    }

    async fn well(&self, check: &HealthCheck) -> Result<(), Unwell> {
        match self.port {
            Some(port) => health::ask(port, check).await,
            None => Ok(()),
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
        group::gone(self.group).await;
        // Whoever left the process group is in it still; then it goes with the last of them.
        let _ = self.cgroup.as_ref().map(Group::remove);
    }

    async fn output_settled(&self) {
        self.output.settled().await;
    }

    fn terminate(&self) {
        group::signal(self.group, Signal::TERM);
    }

    fn kill(&self) {
        group::signal(self.group, Signal::KILL);
    }
}

impl Drop for OsProcess {
    fn drop(&mut self) {
        if self.exit.get().is_none() {
            group::signal(self.group, Signal::KILL);
        }
        let _ = waitid(
            WaitId::PidFd(self.pidfd.as_fd()),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        );
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time;

    use super::*;
    use crate::model::{AppName, DynoName, ProcessType};
    use crate::supervisor::program::Program;
    use crate::supervisor::tests::basic;
    use crate::telemetry::{Lines, Target};

    /// Real processes, run by a plain `sh -c`, in real time.
    struct Shell {
        launcher: Launcher,
        shutdown: Shutdown,
        log: AppLog,
        dir: tempfile::TempDir,
    }

    impl Shell {
        fn new() -> Self {
            Self::with("/bin/sh")
        }

        fn with(program: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let log =
                AppLog::new(Lines::start(Target::file(&dir.path().join("log")).unwrap()).unwrap());
            let shutdown = Shutdown::default();
            let launcher = Launcher::new(
                program.into(),
                vec!["-c".into()],
                "/opt/dynomesh".into(),
                None,
                log.clone(),
                shutdown.clone(),
            );
            Self { launcher, shutdown, log, dir }
        }

        fn start(&self, command: &str) -> Start {
            start(command, self.dir.path().to_owned(), None)
        }

        fn run(&self, command: &str) -> OsProcess {
            self.launcher.spawn(&self.start(command)).unwrap()
        }

        /// Ends with every reader; the lines that were printed, without time and source.
        async fn printed(self) -> Vec<String> {
            drop(self.launcher);
            soon(self.shutdown.finished()).await;
            self.log.flush();
            let bytes = std::fs::read(self.dir.path().join("log")).unwrap();
            let text = String::from_utf8_lossy(&bytes);
            text.lines().map(|line| line.split_once(" shop ").unwrap().1.to_owned()).collect()
        }
    }

    fn start(command: &str, dir: PathBuf, port: Option<u16>) -> Start {
        let config_vars = [("RACK_ENV", "production"), ("DYNO", "theirs")];
        let config_vars = config_vars.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Start {
            app: AppName::parse("shop").unwrap(),
            dyno: DynoName { process_type: ProcessType::web(), number: 2 },
            program: Arc::new(Program {
                release: 7,
                command: command.into(),
                dir,
                size: basic(),
                config_vars: Arc::new(config_vars.into()),
            }),
            port,
        }
    }

    async fn soon<T>(future: impl Future<Output = T>) -> T {
        time::timeout(Duration::from_secs(20), future).await.unwrap()
    }

    async fn ends(process: &OsProcess) -> Exit {
        let exit = soon(process.exited()).await;
        process.kill();
        soon(process.group_gone()).await;
        exit
    }

    #[tokio::test]
    async fn exits_are_told_apart() {
        let shell = Shell::new();
        for (command, expected) in [
            ("exit 0", Exit::Status(0)),
            ("exit 3", Exit::Status(3)),
            ("kill -9 $$", Exit::Signal(9)),
            ("no-such-command-anywhere 2>/dev/null", Exit::Status(127)),
        ] {
            let process = shell.run(command);
            assert_eq!(ends(&process).await, expected, "{command}");
            assert_eq!(soon(process.exited()).await, expected, "asked again");
        }
    }

    #[tokio::test]
    async fn lines_come_in_order_with_their_source() {
        let shell = Shell::new();
        let process = shell.run("echo one; echo two >&2; printf three");
        ends(&process).await;
        drop(process);
        assert_eq!(
            shell.printed().await,
            ["app[web.2]: one", "app[web.2]: two", "app[web.2]: three"]
        );
    }

    #[tokio::test]
    async fn a_process_sees_its_own_environment_and_nothing_else() {
        let shell = Shell::new();
        let mut start =
            shell.start("pwd; env | cut -d= -f1; echo $DYNO $PORT $HEROKU_RELEASE_VERSION");
        start.port = Some(5000);
        let process = shell.launcher.spawn(&start).unwrap();
        ends(&process).await;
        drop(process);
        let dir = shell.dir.path().canonicalize().unwrap();
        let printed = shell.printed().await;
        let printed =
            printed.iter().map(|line| line.split_once(": ").unwrap().1).collect::<Vec<_>>();
        assert_eq!(Path::new(printed[0]), dir);
        assert_eq!(*printed.last().unwrap(), "web.2 5000 v7");
        let ours = [
            "PORT",
            "DYNO",
            "HEROKU_APP_NAME",
            "HEROKU_RELEASE_VERSION",
            "HEROKU_DYNO_ID",
            "DYNOMESH",
            "RACK_ENV",
        ];
        let shells = ["PWD", "OLDPWD", "SHLVL", "_"];
        for name in &printed[1..printed.len() - 1] {
            assert!([&ours[..], &INHERITED, &shells].concat().contains(name), "{name}");
        }
    }

    #[test]
    fn what_the_platform_says_wins_over_config_vars_and_these_over_what_is_inherited() {
        let inherited = |name: &str| {
            (name == "PATH" || name == "HOME").then(|| format!("daemon's {name}").into())
        };
        let of = |start: &Start| environment(start, "0-1", Path::new("/opt/dynomesh"), inherited);
        let mut start = start("x", "/".into(), None);
        start.program = Arc::new(Program {
            config_vars: Arc::new(
                [("HOME".into(), "theirs".into()), ("DYNO".into(), "theirs".into())].into(),
            ),
            ..(*start.program).clone()
        });
        let variables = of(&start);
        let value = |name: &str| variables.get(OsStr::new(name)).and_then(|value| value.to_str());
        assert_eq!(value("PATH"), Some("daemon's PATH"));
        assert_eq!(value("HOME"), Some("theirs"));
        assert_eq!(value("DYNO"), Some("web.2"));
        assert_eq!(value("DYNOMESH"), Some("/opt/dynomesh"));
        assert_eq!(value("PORT"), None, "only web dynos are lent one");
        assert_eq!(value("HEROKU_DYNO_ID"), Some("0-1"));
    }

    #[test]
    fn dyno_ids_look_like_uuids() {
        assert_eq!(dyno_id(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(dyno_id(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[tokio::test]
    async fn sigterm_reaches_every_process_of_the_group() {
        let shell = Shell::new();
        let process = shell.run("sleep 1000 & sleep 1000 & echo up; wait");
        soon(until_printed(&shell, "up")).await;
        process.terminate();
        assert_eq!(soon(process.exited()).await, Exit::Signal(15));
        soon(process.group_gone()).await;
    }

    #[tokio::test]
    async fn the_group_is_not_gone_while_a_child_finishes() {
        let shell = Shell::new();
        let process = shell.run("(trap 'sleep 0.2; echo finished; exit' TERM; echo up; while :; do sleep 0.01; done) & wait");
        soon(until_printed(&shell, "up")).await;
        process.terminate();
        soon(process.exited()).await;
        soon(process.group_gone()).await;
        drop(process);
        // The shell itself may say that what it waited for was terminated.
        assert_eq!(shell.printed().await.last().unwrap(), "app[web.2]: finished");
    }

    #[tokio::test]
    async fn whoever_ignores_sigterm_is_killed_with_its_children() {
        let shell = Shell::new();
        let process = shell.run("trap '' TERM; sleep 1000 & echo up; while :; do sleep 0.01; done");
        soon(until_printed(&shell, "up")).await;
        process.terminate();
        let deaf = time::timeout(Duration::from_millis(100), process.exited()).await;
        assert!(deaf.is_err());
        process.kill();
        assert_eq!(ends(&process).await, Exit::Signal(9));
    }

    #[tokio::test]
    async fn a_grandchild_that_left_and_holds_the_output_delays_nothing() {
        let shell = Shell::new();
        let process = shell.run(
            "setsid sh -c 'echo $$ > left; exec sleep 1000' & while ! test -s left; do sleep 0.01; done; exit 1",
        );
        let left = shell.dir.path().join("left");
        assert_eq!(ends(&process).await, Exit::Status(1));
        soon(process.output_settled()).await;
        drop(process);
        let left = std::fs::read_to_string(left).unwrap();
        assert_eq!(shell.printed().await, [""; 0]);
        rustix::process::kill_process(
            Pid::from_raw(left.trim().parse().unwrap()).unwrap(),
            Signal::KILL,
        )
        .unwrap();
    }

    #[tokio::test]
    async fn a_dyno_that_prints_without_end_keeps_running_and_loses_lines() {
        let shell = Shell::new();
        let process = shell.run(
            "yes 0123456789012345678901234567890123456789 | head -c 41000000; echo done > finished",
        );
        assert_eq!(ends(&process).await, Exit::Status(0));
        drop(process);
        assert!(shell.dir.path().join("finished").exists());
        let printed = shell.printed().await;
        let said = printed.iter().filter(|line| line.contains("Error L10")).collect::<Vec<_>>();
        assert!(said.iter().all(|line| line.starts_with("heroku[web.2]: Error L10 (output buffer overflow): ")));
        let number = |line: &&String| line.split(' ').nth(6).unwrap().parse::<usize>().unwrap();
        let dropped = said.iter().map(number).sum::<usize>();
        assert!(dropped > 0);
        assert_eq!(printed.len() - said.len() + dropped, 1_000_000);
    }

    #[tokio::test]
    async fn a_line_of_10_mb_is_cut() {
        let shell = Shell::new();
        let process = shell.run("head -c 10000000 /dev/zero | tr '\\0' x; echo; echo next");
        ends(&process).await;
        drop(process);
        let printed = shell.printed().await;
        assert!(printed.iter().all(|line| line.len() <= limits::OUTPUT_LINE_MAX + 80));
        assert!(printed.iter().any(|line| line.ends_with("xxx")));
        assert!(printed.iter().any(|line| line == "app[web.2]: next"));
    }

    #[tokio::test]
    async fn a_web_process_listens_when_its_port_accepts() {
        let shell = Shell::new();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut start = shell.start("exec sleep 1000");
        start.port = Some(listener.local_addr().unwrap().port());
        let process = shell.launcher.spawn(&start).unwrap();
        soon(process.listening()).await;
        drop(listener);
        let silent = time::timeout(Duration::from_millis(100), process.listening()).await;
        assert!(silent.is_err());
        process.kill();
        ends(&process).await;
    }

    #[tokio::test]
    async fn a_start_that_fails_says_why() {
        let shell = Shell::new();
        let mut missing = shell.start("true");
        missing.program =
            Arc::new(Program { dir: "/no/such/dir".into(), ..(*missing.program).clone() });
        let error = shell.launcher.spawn(&missing).err().unwrap();
        assert_eq!(error.to_string(), "the app's directory /no/such/dir is not there");
        let shell = Shell::with("/no/such/program");
        let error = shell.launcher.spawn(&shell.start("true")).err().unwrap();
        assert!(error.to_string().starts_with("start /no/such/program: "), "{error}");
    }

    #[tokio::test]
    async fn a_process_that_is_forgotten_is_killed() {
        let shell = Shell::new();
        let process = shell.run("echo $$; exec sleep 1000");
        let group = process.group;
        drop(process);
        let gone = async {
            while !matches!(
                waitid(WaitId::Pgid(Some(group)), WaitIdOptions::EXITED),
                Err(_) | Ok(Some(_))
            ) {}
        };
        soon(gone).await;
    }

    /// The log is a file: there is nothing to await but its next line.
    async fn until_printed(shell: &Shell, line: &str) {
        loop {
            shell.log.flush();
            let text = std::fs::read_to_string(shell.dir.path().join("log")).unwrap();
            if text.lines().any(|it| it.ends_with(line)) {
                return;
            }
            time::sleep(Duration::from_millis(5)).await;
        }
    }
}
