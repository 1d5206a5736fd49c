//! The daemon's end of the conversation with one init: what it says becomes something to wait for.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, watch};
use tokio::task::{self, spawn_blocking};
use tokio::time::{self, Instant};

use crate::config::limits;
use crate::init::{self, HeardAt, Hello, Lost, Report, Request};
use crate::model::{AppName, DynoName, Exit};
use crate::shutdown::Shutdown;
use crate::supervisor::cgroup::Group;
use crate::supervisor::numbers::LentNumber;
use crate::supervisor::output::{self, Kept, Output};
use crate::supervisor::program::{Ends, ProcessId, Streams};
use crate::supervisor::remove::remove;
use crate::telemetry::AppLog;
use crate::wall_clock::monotonic;

/// The exit that counts for a dyno that could not be made: what shells say of what cannot be run.
const NOT_MADE: Exit = Exit::Status(126);
/// The exit that counts where an init was killed, and everyone with it.
const KILLED: Exit = Exit::Signal(Signal::KILL.as_raw());

/// Whose init it is, and what is to be done with what it says.
pub(crate) struct About {
    pub(crate) app: AppName,
    pub(crate) dyno: DynoName,
    pub(crate) streams: Streams,
    /// The dyno's directory: removed when nobody of it is left.
    pub(crate) dir: PathBuf,
    /// The same of its control group, where it is in one.
    pub(crate) group: Option<Arc<Group>>,
    /// Whether the init is PID 1 of a namespace, so that everyone of the dyno dies with it.
    pub(crate) namespaces: bool,
    /// A pidfd of the init that was started, or found.
    pub(crate) init: Option<OwnedFd>,
    /// The user that it runs as, where it has one of its own: lent until the directory is removed.
    pub(crate) uid: Option<LentNumber>,
    /// Its addresses, where it has a network of its own: lent as long.
    pub(crate) addresses: Option<LentNumber>,
    pub(crate) log: AppLog,
    pub(crate) shutdown: Shutdown,
}

/// A connection to an init. Dropped before the dyno's command has ended, it has everyone of the dyno killed.
pub(crate) struct Link {
    shared: Arc<Shared>,
    heard: watch::Receiver<Heard>,
}

struct Shared {
    socket: AsyncFd<OwnedFd>,
    pid: ProcessId,
    /// Everyone is to be killed.
    killed: Notify,
    output: OnceLock<Output>,
    ends: Mutex<Option<Ends>>,
}

/// What the init has said so far.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    hello: Option<Hello>,
    started: bool,
    /// When somebody first heard that the command's process is gone, by the monotonic clock: the init, which is
    /// told by a signal, or this daemon, which waits for the process itself. Either may get a processor first.
    ended_at: Option<Duration>,
    exit: Option<Exit>,
    gone: bool,
}

impl Heard {
    fn has_ended(&self) -> bool {
        self.ended_at.is_some() || self.exit.is_some()
    }
}

impl Link {
    /// Begins to listen. The listener ends when nobody of the dyno is left, whatever becomes of the link.
    pub(crate) fn open(
        socket: OwnedFd,
        mut about: About,
    ) -> io::Result<(Self, impl Future<Output = ()> + Send + 'static)> {
        let socket = watch_fd(socket)?;
        let (teller, heard) = watch::channel(Heard::default());
        let shared = Arc::new(Shared {
            socket,
            pid: ProcessId::default(),
            killed: Notify::new(),
            output: OnceLock::new(),
            ends: Mutex::new(None),
        });
        let listener = Listener {
            shared: shared.clone(),
            init: about.init.take(),
            about,
            teller,
            leader: None,
            is_left: false,
            kept: Vec::new(),
            piped: None,
        };
        Ok((Self { shared, heard }, listener.listen()))
    }

    /// Says this to the init. One that is gone needs no telling.
    pub(crate) fn say(&self, request: Request) {
        let _ = init::send(self.shared.socket.get_ref(), &request.print(), &[]);
    }

    /// Has everyone of the dyno killed: by the init, and where that does not do it, together with it.
    pub(crate) fn kill(&self) {
        self.say(Request::signal(Signal::KILL));
        self.shared.killed.notify_one();
    }

    /// Returns once the command runs; never where it could not be started.
    pub(crate) async fn started(&self) {
        self.until(|heard| heard.started).await;
    }

    /// The number of the command's process, once it is known.
    pub(crate) fn pid(&self) -> ProcessId {
        self.shared.pid.clone()
    }

    /// What the init says of itself first. `None`: it has ended instead.
    pub(crate) async fn hello(&self) -> Option<Hello> {
        self.until(|heard| heard.hello.is_some() || heard.gone).await.hello
    }

    /// Returns once the command's process is gone. How it ended may not be known yet.
    pub(crate) async fn ended(&self) {
        self.until(Heard::has_ended).await;
    }

    /// Whether it is gone.
    pub(crate) fn has_ended(&self) -> bool {
        self.heard.borrow().has_ended()
    }

    /// When somebody first heard that it is gone, by the monotonic clock. `None`: nobody has, or its init was killed.
    pub(crate) fn ended_at(&self) -> Option<Duration> {
        self.heard.borrow().ended_at
    }

    /// Returns once the command's process is gone, and it is known how.
    pub(crate) async fn exited(&self) -> Exit {
        self.until(|heard| heard.exit.is_some()).await.exit.unwrap_or(KILLED)
    }

    /// Returns once nobody of the dyno is left.
    pub(crate) async fn gone(&self) {
        self.until(|heard| heard.gone).await;
    }

    /// Returns once what was printed is handed to the log, or after a moment.
    pub(crate) async fn output_settled(&self) {
        if let Some(output) = self.shared.output.get() {
            output.settled().await;
        }
    }

    /// The last lines that were printed.
    pub(crate) fn last_lines(&self) -> Vec<String> {
        self.shared.output.get().map(Output::last_lines).unwrap_or_default()
    }

    /// Nobody will ask for them.
    pub(crate) fn forget_lines(&self) {
        if let Some(output) = self.shared.output.get() {
            output.forget_lines();
        }
    }

    /// The daemon's ends of the streams, where a client has them; whoever asks first gets them.
    pub(crate) async fn ends(&self) -> Option<Ends> {
        self.until(|heard| heard.started || heard.gone).await;
        self.shared.ends.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    async fn until(&self, known: impl Fn(&Heard) -> bool) -> Heard {
        let mut heard = self.heard.clone();
        let said = heard.wait_for(|heard| known(heard)).await.map(|heard| *heard);
        match said {
            Ok(said) => said,
            // The listener ends only after it has told everything: the runtime is ending, and with it whoever
            // asks.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if self.heard.borrow().exit.is_none() {
            self.kill();
        }
    }
}

struct Listener {
    shared: Arc<Shared>,
    about: About,
    teller: watch::Sender<Heard>,
    /// A pidfd of the init, as far as it is known.
    init: Option<OwnedFd>,
    /// A pidfd of the command's process, while that lives: its init may be slower to hear of its end.
    leader: Option<AsyncFd<OwnedFd>>,
    /// The init has not ended when it was time to.
    is_left: bool,
    kept: Vec<u8>,
    /// The pipe of its output, where a client is to have it.
    piped: Option<OwnedFd>,
}

impl Listener {
    async fn listen(mut self) {
        let shared = self.shared.clone();
        let mut patience = None;
        while !self.teller.borrow().gone {
            let received = tokio::select! {
                biased;
                received = shared.socket.async_io(Interest::READABLE, |it| init::receive(it)) => received,
                () = ended(self.leader.as_ref()) => {
                    self.leader = None;
                    self.tell(|heard| _ = heard.ended_at.get_or_insert_with(monotonic));
                    continue;
                }
                () = shared.killed.notified(), if patience.is_none() => {
                    patience = Some(Instant::now() + limits::INIT_KILL_WAIT);
                    self.set_init_going();
                    continue;
                }
                () = until(patience) => {
                    patience = None;
                    self.kill_init();
                    continue;
                }
            };
            match received {
                Ok(datagram) if !datagram.bytes.is_empty() => {
                    match Report::parse(&datagram.bytes) {
                        Ok(report) => self.hear(report, datagram.descriptors),
                        Err(error) => {
                            let About { app, dyno, .. } = &self.about;
                            tracing::warn!(app = %app, "{dyno}: its init says {error}");
                        }
                    }
                }
                _ => self.mourn().await,
            }
        }
        // Whoever waits for what was said gets the processor first: it is also that on which the kernel takes down
        // the dyno's namespaces, once the init has heard this.
        task::yield_now().await;
        let _ = rustix::net::shutdown(shared.socket.get_ref(), rustix::net::Shutdown::Both);
        self.until_init_is_gone().await;
        if self.is_left {
            // It may still run: its directory is how the next daemon finds it, and nobody else may be its user, or have
            // its addresses.
            tracing::warn!("{}: its init does not end; it is left to the kernel", self.about.dyno);
            let About { uid, addresses, .. } = &mut self.about;
            [uid.take(), addresses.take()].into_iter().flatten().for_each(LentNumber::keep);
            return;
        }
        if let Some(Err(error)) = self.about.group.as_ref().map(|group| group.remove()) {
            tracing::warn!("{}: its control group is not removed: {error}", self.about.dyno);
        }
        let dir = std::mem::take(&mut self.about.dir);
        // What the dyno wrote may be gigabytes in thousands of files.
        let removed = spawn_blocking(move || remove(&dir).map_err(|error| (dir, error))).await;
        if let Ok(Err((dir, error))) = removed {
            tracing::warn!("remove {}: {error}", dir.display());
        }
        // Only now may somebody else be this user: files of it were there.
        drop((self.about.uid.take(), self.about.addresses.take()));
    }

    fn hear(&mut self, report: Report, descriptors: Vec<OwnedFd>) {
        let mut descriptors = descriptors.into_iter();
        match report {
            Report::Hello(hello) => {
                self.init = descriptors.next().or(self.init.take());
                self.tell(|heard| heard.hello = Some(hello));
            }
            Report::Output(bytes) => self.kept.extend(bytes),
            Report::Pipe(lost) => {
                if let Some(pipe) = descriptors.next() {
                    self.carry(pipe, lost);
                }
            }
            Report::Failed(reason) => {
                let About { app, dyno, log, .. } = &self.about;
                log.platform(app, dyno, &format_args!("Failed to start: {reason}"));
                self.tell(|heard| heard.exit = Some(NOT_MADE));
            }
            Report::Started => {
                let leader = descriptors.next();
                if let Some(number) = leader.as_ref().and_then(number) {
                    self.shared.pid.set(number);
                }
                self.leader = leader.and_then(|leader| watch_fd(leader).ok());
                let ends = match (self.about.streams, descriptors.next(), self.piped.take()) {
                    (Streams::Terminal { .. }, Some(master), _) => Some(Ends::Terminal(master)),
                    (Streams::Pipes, Some(input), Some(output)) => {
                        Some(Ends::Pipes { input, output })
                    }
                    _ => None,
                };
                *self.shared.ends.lock().unwrap_or_else(PoisonError::into_inner) = ends;
                self.tell(|heard| heard.started = true);
            }
            Report::Exited(exit, HeardAt(nanos)) => {
                let at = Duration::from_nanos(nanos);
                self.tell(|heard| {
                    heard.ended_at = Some(heard.ended_at.map_or(at, |before| before.min(at)));
                    heard.exit = Some(exit);
                });
            }
            Report::Gone => self.tell(|heard| heard.gone = true),
        }
    }

    fn carry(&mut self, pipe: OwnedFd, lost: Lost) {
        let About { app, dyno, streams, log, shutdown, .. } = &self.about;
        if *streams == Streams::Pipes {
            self.piped = Some(pipe);
            return;
        }
        let kept = Kept { bytes: std::mem::take(&mut self.kept), lost };
        match output::carry(pipe, kept, (app, dyno), log, shutdown) {
            Ok(output) => {
                let _ = self.shared.output.set(output);
            }
            Err(error) => tracing::error!(app = %app, "{dyno}: its output is not read: {error}"),
        }
    }

    /// The init is gone before it said that everyone else is.
    async fn mourn(&mut self) {
        let had_exited = self.teller.borrow().exit.is_some();
        self.tell(|heard| heard.exit = heard.exit.or(Some(KILLED)));
        self.until_init_is_gone().await;
        // In a namespace nobody is left now. Elsewhere the command's process has died with its init, and its
        // group can be reached; whoever left that group is not found again. A command that ended before was
        // reaped, and its number may be somebody else's by now.
        let group = self.shared.pid.get().and_then(|number| Pid::from_raw(number.try_into().ok()?));
        if let (Some(group), false, false) = (group, had_exited, self.about.namespaces) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        self.tell(|heard| heard.gone = true);
    }

    async fn until_init_is_gone(&mut self) {
        let Some(init) = self.init.take() else { return };
        if let Ok(init) = watch_fd(init) {
            // A pidfd is readable when its process has ended. One that the kernel cannot end is not waited for.
            self.is_left = time::timeout(limits::KILL_WAIT, init.readable()).await.is_err();
        }
    }

    /// One that is stopped hears of nothing, not even that it is to kill its dyno.
    fn set_init_going(&self) {
        if let Some(init) = &self.init {
            let _ = pidfd_send_signal(init, Signal::CONT);
        }
    }

    /// Ends an init that has not killed its dyno: one that is stuck. Without namespaces the others
    /// would go on without it, and nobody would find them.
    fn kill_init(&self) {
        if let (Some(init), true) = (&self.init, self.about.namespaces) {
            let _ = pidfd_send_signal(init, Signal::KILL);
        }
    }

    fn tell(&self, change: impl FnOnce(&mut Heard)) {
        self.teller.send_modify(change);
    }
}

/// Returns once this process has ended; never where there is none. A pidfd is readable from then on.
async fn ended(process: Option<&AsyncFd<OwnedFd>>) {
    match process {
        Some(process) => _ = process.readable().await,
        None => std::future::pending().await,
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe, for descriptors that are not owned; this one is"
)]
fn watch_fd(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}

/// The number of a pidfd's process, as this process sees it (pidfd_open(2), `/proc/PID/fdinfo`).
fn number(pidfd: &OwnedFd) -> Option<u32> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::process::{PidfdFlags, getpid, pidfd_open};

    use super::*;
    use crate::model::ProcessType;
    use crate::supervisor::numbers::Numbers;
    use crate::telemetry::{Lines, Target};

    /// A link whose init is played by the test.
    struct Stage {
        link: Link,
        init: OwnedFd,
        dir: tempfile::TempDir,
        log: AppLog,
        shutdown: Shutdown,
        uids: Numbers,
    }

    impl Stage {
        fn new(streams: Streams) -> Self {
            Self::with(streams, None)
        }

        /// With a process that was started to be the init.
        fn with(streams: Streams, started: Option<OwnedFd>) -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("dyno")).unwrap();
            let log =
                AppLog::new(Lines::start(Target::file(&dir.path().join("log")).unwrap()).unwrap());
            let shutdown = Shutdown::default();
            let (ours, init) = init::pair().unwrap();
            let uids = Numbers::new(70_000..=70_000);
            let about = About {
                app: AppName::parse("shop").unwrap(),
                dyno: DynoName { process_type: ProcessType::web(), number: 1 },
                streams,
                dir: dir.path().join("dyno"),
                group: None,
                namespaces: true,
                init: started,
                uid: uids.lend(),
                addresses: None,
                log: log.clone(),
                shutdown: shutdown.clone(),
            };
            let (link, listener) = Link::open(ours, about).unwrap();
            shutdown.spawn(listener);
            Self { link, init, dir, log, shutdown, uids }
        }

        fn says(&self, report: Report, descriptors: &[&OwnedFd]) {
            let descriptors = descriptors.iter().map(|it| it.as_fd()).collect::<Vec<_>>();
            init::send(&self.init, &report.print(), &descriptors).unwrap();
        }

        fn asked(&self) -> Request {
            Request::parse(&init::receive(&self.init).unwrap().bytes).unwrap()
        }

        /// What was logged until the listener and the reader have ended.
        async fn logged(self) -> Vec<String> {
            drop((self.link, self.init));
            soon(self.shutdown.finished()).await;
            self.log.flush();
            assert!(!self.dir.path().join("dyno").exists(), "it is removed with its dyno");
            assert!(self.uids.lend().is_some(), "its user is free again");
            let text = fs::read_to_string(self.dir.path().join("log")).unwrap();
            text.lines().map(|line| line.split_once(" shop ").unwrap().1.to_owned()).collect()
        }
    }

    async fn soon<T>(future: impl Future<Output = T>) -> T {
        time::timeout(Duration::from_secs(20), future).await.unwrap()
    }

    fn hello() -> Report {
        Report::Hello(Hello { version: init::VERSION, up_since: Some(7), stopping: false })
    }

    #[tokio::test]
    async fn what_was_kept_is_printed_before_what_comes() {
        let stage = Stage::new(Streams::Log);
        let (reader, writer) = io::pipe().unwrap();
        stage.says(hello(), &[]);
        assert_eq!(soon(stage.link.hello()).await.unwrap().up_since, Some(7));
        io::Write::write_all(&mut &writer, b"ter\nlast\n").unwrap();
        drop(writer);
        stage.says(Report::Output(b"first\nla".to_vec()), &[]);
        stage.says(Report::Pipe(Lost { lines: 7, since: 1_000 }), &[&reader.into()]);
        stage.says(Report::Exited(Exit::Status(3), HeardAt(0)), &[]);
        assert_eq!(soon(stage.link.exited()).await, Exit::Status(3));
        stage.says(Report::Gone, &[]);
        soon(stage.link.gone()).await;
        assert_eq!(
            stage.logged().await,
            [
                "heroku[web.1]: Error L12: 7 messages dropped since 1970-01-01T00:00:01.000000+00:00.",
                "app[web.1]: first",
                "app[web.1]: later",
                "app[web.1]: last",
            ]
        );
    }

    #[tokio::test]
    async fn the_number_of_the_command_is_known_once_it_was_started() {
        let stage = Stage::new(Streams::Log);
        assert_eq!(stage.link.pid().get(), None);
        let this = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
        stage.says(Report::Started, &[&this]);
        stage.says(Report::Exited(Exit::Signal(9), HeardAt(0)), &[]);
        soon(stage.link.exited()).await;
        assert_eq!(stage.link.pid().get(), Some(std::process::id()));
        // Its group must not be killed: this is not a dyno.
        stage.says(Report::Gone, &[]);
        soon(stage.link.gone()).await;
    }

    /// It is killed before it has said anything.
    #[tokio::test]
    async fn an_init_that_never_speaks_is_killed_and_its_end_is_heard() {
        let (mut child, pidfd) = sleeper();
        let started = pidfd.try_clone().unwrap();
        let Stage { link, init, .. } = Stage::with(Streams::Log, Some(started));
        link.kill();
        soon(watch_fd(pidfd).unwrap().readable()).await.unwrap().retain_ready();
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        drop(init);
        assert_eq!(soon(link.exited()).await, Exit::Signal(9));
        soon(link.gone()).await;
    }

    /// It says nothing, as one that is stopped or waits for a processor.
    #[tokio::test]
    async fn the_end_of_a_command_is_heard_before_its_init_says_so() {
        let stage = Stage::new(Streams::Log);
        let (mut command, pidfd) = sleeper();
        stage.says(Report::Started, &[&pidfd]);
        assert!(soon(stage.link.ends()).await.is_none());
        assert_eq!(stage.link.ended_at(), None);
        let before = monotonic();
        command.kill().unwrap();
        soon(stage.link.ended()).await;
        let heard = stage.link.ended_at().unwrap();
        assert!((before..=monotonic()).contains(&heard));
        command.wait().unwrap();
        stage.says(Report::Exited(Exit::Signal(9), HeardAt(7)), &[]);
        soon(stage.link.exited()).await;
        assert_eq!(stage.link.ended_at(), Some(Duration::from_nanos(7)), "it had heard before");
        stage.says(Report::Gone, &[]);
        soon(stage.link.gone()).await;
    }

    #[tokio::test]
    async fn an_init_that_dies_was_killed_and_its_dyno_with_it() {
        let Stage { link, init, .. } = Stage::new(Streams::Log);
        drop(init);
        assert_eq!(soon(link.exited()).await, Exit::Signal(9));
        soon(link.gone()).await;
        assert!(soon(link.hello()).await.is_none());
        assert!(soon(link.ends()).await.is_none());
    }

    #[expect(clippy::disallowed_methods, reason = "a process that plays the init")]
    fn sleeper() -> (std::process::Child, OwnedFd) {
        let child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        (child, pidfd)
    }

    /// It reads nothing, as one that is stopped.
    #[tokio::test]
    async fn an_init_that_kills_nobody_is_killed_itself() {
        let stage = Stage::new(Streams::Log);
        let (mut child, pidfd) = sleeper();
        stage.says(hello(), &[&pidfd]);
        soon(stage.link.hello()).await.unwrap();
        stage.link.kill();
        soon(watch_fd(pidfd).unwrap().readable()).await.unwrap().retain_ready();
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    }

    #[tokio::test]
    async fn the_user_and_the_directory_of_an_init_that_does_not_end_stay_taken() {
        let Stage { link, init, dir, shutdown, uids, .. } = Stage::new(Streams::Log);
        let (mut child, pidfd) = sleeper();
        init::send(&init, &hello().print(), &[pidfd.as_fd()]).unwrap();
        soon(link.hello()).await.unwrap();
        drop(init);
        soon(link.gone()).await;
        soon(shutdown.finished()).await;
        assert!(dir.path().join("dyno").exists());
        assert!(uids.lend().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn a_dyno_that_could_not_be_made_says_why() {
        let stage = Stage::new(Streams::Log);
        stage.says(Report::Failed("mount /app: no such device".into()), &[]);
        assert_eq!(soon(stage.link.exited()).await, Exit::Status(126));
        let logged = stage.logged().await;
        assert_eq!(logged, ["heroku[web.1]: Failed to start: mount /app: no such device"]);
    }

    #[tokio::test]
    async fn the_streams_of_a_client_are_handed_out_once() {
        let stage = Stage::new(Streams::Pipes);
        let (output, _writer) = io::pipe().unwrap();
        let (_reader, input) = io::pipe().unwrap();
        let this = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
        stage.says(Report::Pipe(Lost::default()), &[&output.into()]);
        stage.says(Report::Started, &[&this, &input.into()]);
        assert!(matches!(soon(stage.link.ends()).await, Some(Ends::Pipes { .. })));
        assert!(soon(stage.link.ends()).await.is_none());
        stage.says(Report::Exited(Exit::Status(0), HeardAt(0)), &[]);
        stage.says(Report::Gone, &[]);
        soon(stage.link.gone()).await;
    }

    #[tokio::test]
    async fn a_link_that_is_dropped_has_the_dyno_killed() {
        let Stage { link, init, .. } = Stage::new(Streams::Log);
        let stage = Stage::new(Streams::Log);
        stage.link.say(Request::Up(7));
        assert_eq!(stage.asked(), Request::Up(7));
        drop(link);
        let asked = init::receive(&init).unwrap().bytes;
        assert_eq!(Request::parse(&asked), Ok(Request::Signal(9)));
    }
}
