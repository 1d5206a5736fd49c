//! What makes dynos: each is an order to a `dynomesh init`, which this starts and talks to from then on.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use tokio::task::spawn_blocking;
use tokio::time;
use tokio_util::task::TaskTracker;

use crate::config::{HealthCheck, limits};
use crate::hexadecimal;
use crate::init::{self, Identity, Network, ORDER_FILE, Order, OrderError, Request, Terminal};
use crate::model::{AppName, DynoName, Exit, Id};
use crate::private_file;
use crate::random;
use crate::shutdown::Shutdown;
use crate::supervisor::cgroup::{Cgroups, Group, Usage};
use crate::supervisor::health::{self, Unwell};
use crate::supervisor::isolation::{Isolated, Isolation, NoUid};
use crate::supervisor::link::{About, Link};
use crate::supervisor::network::NoNetwork;
use crate::supervisor::numbers::LentNumber;
use crate::supervisor::probe;
use crate::supervisor::program::{Ends, ProcessId, Program, Start, Streams};
use crate::supervisor::remove::remove;
use crate::supervisor::sock_diag::on_loopback;
use crate::telemetry::AppLog;
use crate::wall_clock::unix_millis;

/// Starts processes. The operating system's in the daemon, scripted ones in tests.
pub(crate) trait Spawn: Clone + Send + Sync + 'static {
    /// What it starts.
    type Process: Process;

    /// Starts a process. Takes milliseconds, without a way to wait for them.
    fn spawn(&self, start: &Start) -> Result<Self::Process, SpawnError>;
    /// Returns once everything that the processes left behind is cleared away. Call it when all are gone.
    fn cleared(&self) -> impl Future<Output = ()> + Send;
}

/// A command that was started, with all that it starts (its group). Every future here may be dropped and asked for
/// again.
pub(crate) trait Process: Send + Sync + 'static {
    /// The operating system's number of its leader.
    fn pid(&self) -> ProcessId;
    /// Tells it from all others that there ever were: `HEROKU_DYNO_ID`, a UUID.
    fn id(&self) -> &str;
    /// Where its ports are reached.
    fn ip(&self) -> Ipv4Addr;
    /// Whether anybody counts what it takes.
    fn is_counted(&self) -> bool;
    /// What the process and all that it started take; absent where nobody counts it.
    fn usage(&self) -> impl Future<Output = Option<Usage>> + Send;
    /// How many of them run or wait for a CPU at this moment.
    fn runnable(&self) -> impl Future<Output = u32> + Send;
    /// Returns once the leader runs, and its number is known; never where it could not be started.
    fn started(&self) -> impl Future<Output = ()> + Send;
    /// Returns once the leader's port accepts connections; never where it was lent none. Where somebody else
    /// accepts them, says so and kills the process: then it never returns either.
    fn listening(&self) -> impl Future<Output = ()> + Send;
    /// Asks the leader at its port whether it is well; where it was lent none, it is.
    fn well(&self, check: &HealthCheck) -> impl Future<Output = Result<(), Unwell>> + Send;
    /// Returns in the moment in which the leader is gone; how it ended may not be known yet.
    fn ended(&self) -> impl Future<Output = ()> + Send;
    /// Whether it is.
    fn has_ended(&self) -> bool;
    /// When somebody first heard that, by the monotonic clock, where it is known.
    fn ended_at(&self) -> Option<Duration>;
    /// Returns once the leader is gone, and it is known how.
    fn exited(&self) -> impl Future<Output = Exit> + Send;
    /// Returns once no process of the group is left. Wait for [`exited`](Self::exited) first.
    fn group_gone(&self) -> impl Future<Output = ()> + Send;
    /// Returns once what the process printed is handed to the log, or after a moment.
    fn output_settled(&self) -> impl Future<Output = ()> + Send;
    /// The last lines that it printed, as far as they are with the log.
    fn last_lines(&self) -> Vec<String>;
    /// Nobody will ask for its last lines.
    fn forget_lines(&self);
    /// The daemon's ends of the streams, where a client has them; whoever asks first gets them.
    fn ends(&self) -> impl Future<Output = Option<Ends>> + Send;
    /// It is up: remembered with it, for the next daemon.
    fn came_up(&self);
    /// This signal to every process of the group.
    fn signal(&self, signal: Signal);
    /// Stops every process of the group where it is, until [`thaw`](Self::thaw).
    fn freeze(&self);
    /// Has them go on, where they are stopped.
    fn thaw(&self);
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
    #[error("write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Order(#[from] OrderError),
    #[error("make its control group: {0}")]
    Group(io::Error),
    #[error(transparent)]
    User(#[from] NoUid),
    #[error(transparent)]
    Network(#[from] NoNetwork),
    #[error(transparent)]
    Init(#[from] init::Failure),
    #[error("hear its init: {0}")]
    Link(io::Error),
}

/// Starts processes of the operating system.
#[derive(Clone)]
pub(crate) struct Launcher {
    inner: Arc<LauncherParts>,
}

pub(in crate::supervisor) struct LauncherParts {
    /// Where each dyno has its directory.
    pub(in crate::supervisor) dynos_dir: PathBuf,
    /// `DYNOMESH` in the dynos' environment.
    binary: PathBuf,
    pub(in crate::supervisor) isolation: Isolation,
    /// Absent where the host gives us none.
    pub(in crate::supervisor) cgroups: Option<Cgroups>,
    pub(in crate::supervisor) log: AppLog,
    pub(in crate::supervisor) shutdown: Shutdown,
    /// One listener per init.
    links: TaskTracker,
}

/// What a dyno inherits from the daemon's environment. All else is the daemon's own business.
const INHERITED: [&str; 8] = ["PATH", "HOME", "LANG", "TZ", "TERM", "USER", "SHELL", "TMPDIR"];

impl Launcher {
    /// Starts commands through `dynomesh init`, each with a directory of its own below `state_dir`.
    pub(crate) fn new(
        state_dir: &Path,
        binary: PathBuf,
        isolation: Isolation,
        cgroups: Option<Cgroups>,
        log: AppLog,
        shutdown: Shutdown,
    ) -> Self {
        let dynos_dir = init::dynos_dir(state_dir);
        let links = TaskTracker::new();
        let parts = LauncherParts { dynos_dir, binary, isolation, cgroups, log, shutdown, links };
        Self { inner: Arc::new(parts) }
    }

    pub(in crate::supervisor) fn parts(&self) -> &LauncherParts {
        &self.inner
    }

    /// A process whose init is at the other end of this socket.
    pub(in crate::supervisor) fn process(
        &self,
        socket: OwnedFd,
        order: &Order,
        about: About,
    ) -> io::Result<OsProcess> {
        let LauncherParts { links, shutdown, .. } = &*self.inner;
        let Order { identity, network, .. } = order;
        let (id, port, group) = (identity.id.clone(), identity.port, about.group.clone());
        let network = network.as_ref().map(|network| network.dyno);
        let owner = Owner {
            app: about.app.clone(),
            dyno: about.dyno.clone(),
            user: about.uid.as_ref().map(LentNumber::number),
            log: about.log.clone(),
        };
        let (link, listener) = Link::open(socket, about)?;
        shutdown.spawn(links.track_future(listener));
        Ok(OsProcess { link, id, network, port, group, owner })
    }

    fn order(
        &self,
        start: &Start,
        id: String,
        isolated: Option<&Isolated>,
        network: Option<Network>,
        group: Option<&Group>,
    ) -> Order {
        let Start { app, dyno, program, port, streams } = start;
        let LauncherParts { binary, isolation, .. } = &*self.inner;
        let mut environment = environment(start, &id, binary, |name| {
            isolation.inherited(name, std::env::var_os(name))
        });
        if network.is_some() {
            environment.insert("DYNOMESH_NETWORK".into(), "private".into());
        }
        let identity = Identity {
            id,
            app: app.to_string(),
            dyno: dyno.to_string(),
            release: program.release,
            program: digest_of(program),
            size: Some(program.size.name.to_string()),
            port: *port,
            started: unix_millis(),
        };
        let terminal = match *streams {
            Streams::Terminal { rows, columns } => Some(Terminal { rows, cols: columns }),
            Streams::Log | Streams::Pipes => None,
        };
        Order {
            identity,
            command: program.command.clone(),
            dir: isolated.map_or_else(|| program.dir.clone(), |_| "/app".into()),
            environment,
            descriptors: init::descriptors_before_raise(),
            namespaces: isolated.is_some(),
            network,
            sandbox: isolated.map(|isolated| isolated.sandbox.clone()),
            confinement: isolated.map(|isolated| isolated.confinement.clone()),
            cgroups: group.map_or(Vec::new(), |group| group.places().to_vec()),
            terminal,
            stdin: *streams == Streams::Pipes,
        }
    }
}

impl Spawn for Launcher {
    type Process = OsProcess;

    fn spawn(&self, start: &Start) -> Result<OsProcess, SpawnError> {
        let LauncherParts { dynos_dir, isolation, cgroups, log, shutdown, .. } = &*self.inner;
        if !start.program.dir.is_dir() {
            return Err(SpawnError::NoDirectory(start.program.dir.clone()));
        }
        let id = Id::of_random(random::secret()).to_string();
        let dir = dynos_dir.join(&id);
        let size = &start.program.size.limits;
        let isolated = isolation.lend(&dir, &start.program.dir, &id, size.processes.into())?;
        let (network, addresses) = isolation.lend_network(&start.app, &start.dyno)?.unzip();
        let group = cgroups.as_ref().map(|cgroups| cgroups.make(&id, size)).transpose();
        let group = group.map_err(SpawnError::Group)?.map(Arc::new);
        let order = self.order(start, id, isolated.as_ref(), network, group.as_deref());
        let mut about = About {
            app: start.app.clone(),
            dyno: start.dyno.clone(),
            streams: start.streams,
            dir: dir.clone(),
            group,
            namespaces: order.namespaces,
            init: None,
            uid: isolated.map(|isolated| isolated.uid),
            addresses,
            log: log.clone(),
            shutdown: shutdown.clone(),
        };
        let started = write_order(&dir, &order).and_then(|file| {
            let (socket, init) = init::start(Path::new(init::OURSELVES), &dir, &order, file)?;
            // Whoever waits for all children reaps it, but not before this turn of the runtime is over.
            let init = pidfd_open(Pid::from_child(&init), PidfdFlags::empty());
            about.init = Some(init.map_err(io::Error::from).map_err(SpawnError::Link)?);
            self.process(socket, &order, about).map_err(SpawnError::Link)
        });
        if started.is_err() {
            // What cannot be removed now is removed by the next daemon.
            let _ = remove(&dir);
        }
        started
    }

    async fn cleared(&self) {
        self.inner.links.close();
        let _ = time::timeout(limits::KILL_WAIT, self.inner.links.wait()).await;
    }
}

/// Writes the order of a dyno into its new directory. The file is locked, for as long as it is open anywhere.
fn write_order(dir: &Path, order: &Order) -> Result<File, SpawnError> {
    let path = dir.join(ORDER_FILE);
    let bytes = order.print()?;
    let write = || {
        private_file::make_dir(dir)?;
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        file.write_all(&bytes)?;
        Ok(file)
    };
    write().map_err(|source| SpawnError::Write { path: path.clone(), source })
}

/// The same for two programs that do the same, whatever release they belong to. It is kept with a dyno; a daemon
/// whose programs have more to them finds that all have changed.
pub(crate) fn digest_of(program: &Program) -> String {
    let Program { release: _, command, dir, size, config_vars } = program;
    let text = format!("{:?}", (command, dir, &size.name, &size.limits, config_vars));
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    hexadecimal::of(digest.as_ref())
}

fn environment(
    start: &Start,
    id: &str,
    binary: &Path,
    inherited: impl Fn(&str) -> Option<OsString>,
) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for name in INHERITED {
        // An order is text; what is none is not inherited.
        if let Some(value) = inherited(name).and_then(|value| value.into_string().ok()) {
            variables.insert(name.to_owned(), value);
        }
    }
    for (name, value) in &*start.program.config_vars {
        variables.insert(name.clone(), value.clone());
    }
    let mut set = |name: &str, value: &str| variables.insert(name.to_owned(), value.to_owned());
    if let Some(port) = start.port {
        set("PORT", &port.to_string());
    }
    set("DYNO", &start.dyno.to_string());
    set("HEROKU_APP_NAME", start.app.as_str());
    set("HEROKU_RELEASE_VERSION", &format!("v{}", start.program.release));
    set("HEROKU_DYNO_ID", id);
    set("DYNOMESH", &binary.to_string_lossy());
    variables
}

/// A dyno's command with all that it starts, through its init.
pub(crate) struct OsProcess {
    link: Link,
    id: String,
    /// Its address, where it has a network of its own.
    network: Option<Ipv4Addr>,
    port: Option<u16>,
    group: Option<Arc<Group>>,
    owner: Owner,
}

/// It listens on the loopback of a network of its own, and nowhere else.
#[derive(Debug, thiserror::Error)]
#[error(
    "Listens on {0} only, where nobody reaches it: it has a network of its own and must bind to 0.0.0.0:$PORT"
)]
struct OutOfReach(SocketAddr);

/// Whose process it is.
struct Owner {
    app: AppName,
    dyno: DynoName,
    /// The user that it runs as, where it has one of its own.
    user: Option<u32>,
    log: AppLog,
}

impl OsProcess {
    pub(in crate::supervisor) fn link(&self) -> &Link {
        &self.link
    }

    /// Where it must listen.
    fn addr(&self) -> Option<SocketAddr> {
        Some((self.ip(), self.port?).into())
    }

    /// Returns once the leader listens on the loopback of a network of its own, with where.
    async fn listens_out_of_reach(&self, addr: SocketAddr) -> SocketAddr {
        if self.network.is_none() {
            return std::future::pending().await;
        }
        loop {
            time::sleep(limits::OUT_OF_REACH_LOOK).await;
            let Some(pid) = self.link.pid().get() else { continue };
            let found = spawn_blocking(move || on_loopback(pid, addr)).await;
            if let Ok(Ok(Some(loopback))) = found {
                return loopback;
            }
        }
    }

    fn unfreeze(&self) {
        if let Some(group) = &self.group {
            // It fails where it has no freezer, or is gone: either way nobody is frozen in it.
            let _ = group.thaw();
        }
    }
}

impl Process for OsProcess {
    fn pid(&self) -> ProcessId {
        self.link.pid()
    }

    fn id(&self) -> &str {
        &self.id
    }

    fn ip(&self) -> Ipv4Addr {
        self.network.unwrap_or(Ipv4Addr::LOCALHOST)
    }

    fn is_counted(&self) -> bool {
        self.group.is_some()
    }

    async fn usage(&self) -> Option<Usage> {
        let group = self.group.clone()?;
        spawn_blocking(move || group.usage()).await.ok()
    }

    async fn runnable(&self) -> u32 {
        let Some(group) = self.group.clone() else { return 0 };
        // A file for each of a thousand threads is too much for one turn of the control runtime.
        spawn_blocking(move || group.runnable()).await.unwrap_or(0)
    }

    async fn started(&self) {
        self.link.started().await;
    }

    async fn listening(&self) {
        let Owner { app, dyno, user, log } = &self.owner;
        let Some(addr) = self.addr() else { return std::future::pending().await };
        // Nobody else can listen in its own network.
        let user = user.filter(|_| self.network.is_none());
        tokio::select! {
            accepts = probe::accepts(addr, user) => match accepts {
                Ok(()) => return,
                Err(stranger) => {
                    log.platform(app, dyno, &stranger);
                    log.platform(app, dyno, &"Stopping process with SIGKILL");
                    self.kill();
                }
            },
            // It may come to listen elsewhere, too, until its time is over.
            loopback = self.listens_out_of_reach(addr) => {
                log.platform(app, dyno, &OutOfReach(loopback));
                if probe::accepts(addr, user).await.is_ok() {
                    return;
                }
            }
        }
        std::future::pending().await
    }

    async fn well(&self, check: &HealthCheck) -> Result<(), Unwell> {
        match self.addr() {
            Some(addr) => health::ask(addr, check).await,
            None => Ok(()),
        }
    }

    async fn ended(&self) {
        self.link.ended().await;
    }

    fn has_ended(&self) -> bool {
        self.link.has_ended()
    }

    fn ended_at(&self) -> Option<Duration> {
        self.link.ended_at()
    }

    async fn exited(&self) -> Exit {
        self.link.exited().await
    }

    async fn group_gone(&self) {
        self.link.gone().await;
    }

    async fn output_settled(&self) {
        self.link.output_settled().await;
    }

    fn last_lines(&self) -> Vec<String> {
        self.link.last_lines()
    }

    fn forget_lines(&self) {
        self.link.forget_lines();
    }

    async fn ends(&self) -> Option<Ends> {
        self.link.ends().await
    }

    fn came_up(&self) {
        self.link.say(Request::Up(unix_millis()));
    }

    fn signal(&self, signal: Signal) {
        self.link.say(Request::signal(signal));
    }

    fn freeze(&self) {
        let frozen = self.group.as_ref().is_some_and(|group| group.freeze().is_ok());
        if !frozen {
            // Where there is no freezer, by a signal, of which a parent may hear.
            self.signal(Signal::STOP);
        }
    }

    fn thaw(&self) {
        self.unfreeze();
        self.signal(Signal::CONT);
    }

    fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    fn kill(&self) {
        // A process in a frozen group does not even die (cgroup v1).
        self.unfreeze();
        self.link.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ProcessType;
    use crate::supervisor::tests::basic;

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
            streams: Streams::Log,
        }
    }

    fn launcher(state_dir: &Path) -> Launcher {
        let log = crate::telemetry::Target::file(&state_dir.join("log")).unwrap();
        let log = AppLog::new(crate::telemetry::Lines::start(log).unwrap());
        let isolation = Isolation::none();
        Launcher::new(state_dir, "/opt/dynomesh".into(), isolation, None, log, Shutdown::default())
    }

    #[test]
    fn what_the_platform_says_wins_over_config_vars_and_these_over_what_is_inherited() {
        let inherited = |name: &str| {
            (name == "PATH" || name == "HOME").then(|| format!("daemon's {name}").into())
        };
        let mut start = start("x", "/".into(), Some(5000));
        start.program = Arc::new(Program {
            config_vars: Arc::new(
                [("HOME".into(), "theirs".into()), ("DYNO".into(), "theirs".into())].into(),
            ),
            ..(*start.program).clone()
        });
        let expected = [
            ("PATH", "daemon's PATH"),
            ("HOME", "theirs"),
            ("PORT", "5000"),
            ("DYNO", "web.2"),
            ("HEROKU_APP_NAME", "shop"),
            ("HEROKU_RELEASE_VERSION", "v7"),
            ("HEROKU_DYNO_ID", "an id"),
            ("DYNOMESH", "/opt/dynomesh"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let of = |start: &Start| environment(start, "an id", Path::new("/opt/dynomesh"), inherited);
        assert_eq!(of(&start), expected.into());
        start.port = None;
        assert_eq!(of(&start).get("PORT"), None, "only web dynos are lent one");
    }

    #[test]
    fn a_program_is_the_same_in_every_release_and_another_one_with_every_change() {
        let program = Program::clone(&start("x", "/".into(), None).program);
        let digest = digest_of(&program);
        assert_eq!(digest_of(&Program { release: 8, ..program.clone() }), digest);
        assert_ne!(digest_of(&Program { command: "y".into(), ..program.clone() }), digest);
        assert_ne!(digest_of(&Program { dir: "/srv".into(), ..program.clone() }), digest);
        assert_ne!(digest_of(&Program { config_vars: Arc::default(), ..program }), digest);
    }

    #[tokio::test]
    async fn an_order_is_for_its_owner_alone_and_locked_while_anybody_has_it_open() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let start = start("x", "/".into(), None);
        let order = launcher(dir.path()).order(&start, "an-id".into(), None, None, None);
        let dyno_dir = dir.path().join("dynos/an-id");
        let file = write_order(&dyno_dir, &order).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dyno_dir), 0o700);
        assert_eq!(mode(&dyno_dir.join(ORDER_FILE)), 0o600);
        let other = File::open(dyno_dir.join(ORDER_FILE)).unwrap();
        assert!(flock(&other, FlockOperation::NonBlockingLockExclusive).is_err());
        drop(file);
        flock(&other, FlockOperation::NonBlockingLockExclusive).unwrap();
        let read = Order::parse(&std::fs::read(dyno_dir.join(ORDER_FILE)).unwrap()).unwrap();
        assert_eq!(read, order);
    }

    #[tokio::test]
    async fn a_start_that_fails_says_why_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let launcher = launcher(dir.path());
        let error = launcher.spawn(&start("true", "/no/such/dir".into(), None)).err().unwrap();
        assert_eq!(error.to_string(), "the app's directory /no/such/dir is not there");
        std::fs::write(dir.path().join("dynos"), "a file").unwrap();
        let error = launcher.spawn(&start("true", "/".into(), None)).err().unwrap();
        assert!(error.to_string().starts_with("write "), "{error}");
        assert!(error.to_string().contains("/order.json: "), "{error}");
    }
}
