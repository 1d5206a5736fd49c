//! PID 1 of a dyno: builds what the dyno lives in, starts its command, and then waits: for children to reap, for
//! a daemon that asks, for output that no daemon reads. It ends when nobody of the dyno is left and a daemon
//! knows, or when no daemon can ever find it.
//!
//! Without namespaces it is any process, and takes in the orphans of its descendants.

use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{ExitCode, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::fstat;
use rustix::io::{Errno, ioctl_fionbio};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, chdir, getpid, pidfd_open, setsid, wait,
};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::stdio::{dup2_stdout, stdin};
use rustix::termios::{Winsize, tcsetwinsize};
use rustix::thread::UnshareFlags;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};

use crate::config::limits;
use crate::init::command::{self, Streams};
use crate::init::descendants::Reach;
use crate::init::failure::{CANNOT_RUN, During, Failure};
use crate::init::message::{HeardAt, Hello, OUTPUT_MAX, Report, Request, VERSION};
use crate::init::namespaces::leave;
use crate::init::order::{ControlGroup, Order, Terminal};
use crate::init::ring::Ring;
use crate::init::sandbox;
use crate::init::socket;
use crate::model::Exit;
use crate::wall_clock::{monotonic, unix_millis};

/// How often a kill goes round again where it cannot meet everyone at one moment.
const KILL_AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// How often an init without a daemon looks whether its order is still there.
const LOOK_FOR_ORDER: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// Builds the dyno whose order is the standard input, and stays until it is gone.
pub(in crate::init) fn run(daemon: Daemon) -> ExitCode {
    match Init::begin() {
        Ok(mut init) => {
            init.daemon = Some(daemon);
            init.live()
        }
        Err(failure) => daemon.fail(&failure),
    }
}

/// How much a daemon has been told, in the order in which it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Nothing,
    Hello,
    Pipe,
    Started,
    Exited,
    Gone,
}

/// The daemon that is there.
pub(in crate::init) struct Daemon {
    socket: OwnedFd,
    told: Told,
}

impl Daemon {
    /// A daemon that has heard nothing yet.
    pub(in crate::init) fn new(socket: OwnedFd) -> Self {
        Self { socket, told: Told::Nothing }
    }

    /// Tells it why there will be no dyno. If it is gone, nobody is left to tell.
    pub(in crate::init) fn fail(&self, failure: &Failure) -> ExitCode {
        let _ = socket::send(&self.socket, &Report::Failed(failure.to_string()).print(), &[]);
        ExitCode::from(CANNOT_RUN)
    }
}

/// An init whose command was started.
struct Init {
    reach: Reach,
    /// What the dyno prints. The daemon has a descriptor of the same pipe.
    output: PipeReader,
    /// Nobody is left who could print.
    silent: bool,
    ring: Ring,
    leader: Leader,
    this: OwnedFd,
    exit: Option<(Exit, HeardAt)>,
    /// Nobody of the dyno is left.
    alone: bool,
    /// A daemon knows that.
    known: bool,
    /// No daemon can find it any more.
    lost: bool,
    up_since: Option<u64>,
    stopping: bool,
    killing: bool,
    signals: Signals,
    listener: OwnedFd,
    daemon: Option<Daemon>,
}

/// The process that becomes the command.
struct Leader {
    pid: Pid,
    pidfd: OwnedFd,
    /// The master of its terminal, or the writing end of its standard input. The daemon becomes its only holder.
    input: Option<OwnedFd>,
}

impl Init {
    fn begin() -> Result<Self, Failure> {
        setsid().during("begin a session")?;
        let order = Order::from_stdin().during("read the order")?;
        let reach = Reach::establish(order.namespaces).during("take in orphans")?;
        let signals = Signals::catch().during("catch signals")?;
        let listener = socket::wait_here().during("wait for daemons")?;
        let (output, printed) = io::pipe().during("make a pipe")?;
        ioctl_fionbio(&output, true).during("make a pipe")?;
        // Before it is out of sight.
        let null = File::open("/dev/null").during("open /dev/null")?;
        dup2_stdout(&null).during("let go of the socket")?;

        let groups = Groups::open(&order.cgroups)?;
        groups.enter()?;
        if order.namespaces {
            leave(UnshareFlags::NEWCGROUP).during("leave the host's control groups")?;
        }
        if let Some(sandbox) = &order.sandbox {
            sandbox::enter(sandbox)?;
        }
        chdir("/").during("go to /")?;
        let leader = Leader::start(&order, &groups, printed, reach)?;
        let this = pidfd_open(getpid(), PidfdFlags::empty()).during("name itself")?;
        Ok(Self {
            reach,
            output,
            silent: false,
            ring: Ring::new(limits::OUTPUT_RING),
            leader,
            this,
            exit: None,
            alone: false,
            known: false,
            lost: false,
            up_since: None,
            stopping: false,
            killing: false,
            signals,
            listener,
            daemon: None,
        })
    }

    /// Until the dyno is gone and a daemon knows.
    fn live(&mut self) -> ExitCode {
        self.tell();
        while !self.is_over() {
            let ready = self.wait();
            if ready.children {
                self.reap();
            }
            if ready.terminate {
                self.signal(Signal::TERM);
            }
            if ready.daemon {
                self.hear();
            }
            if ready.knock {
                self.admit();
            }
            if ready.output {
                self.keep();
            }
            self.see_to_the_rest();
            self.tell();
        }
        ExitCode::SUCCESS
    }

    fn is_over(&self) -> bool {
        self.daemon.is_none() && self.alone && (self.known || self.lost)
    }

    fn wait(&self) -> Ready {
        let input = PollFlags::IN;
        let of_daemon = if self.next().is_some() { input | PollFlags::OUT } else { input };
        let mut polled = vec![
            PollFd::new(&self.signals.children, input),
            PollFd::new(&self.signals.terminate, input),
            PollFd::new(&self.listener, input),
        ];
        let daemon = self.daemon.as_ref().map(|daemon| {
            polled.push(PollFd::new(&daemon.socket, of_daemon));
            polled.len() - 1
        });
        let output = self.keeps_output().then(|| {
            polled.push(PollFd::new(&self.output, input));
            polled.len() - 1
        });
        let again = match self.reach {
            Reach::Descendants if self.killing => Some(&KILL_AGAIN),
            _ => self.daemon.is_none().then_some(&LOOK_FOR_ORDER),
        };
        // Interrupted by a signal, whose pipe is looked at in the next turn.
        let _ = poll(&mut polled, again);
        let at = |at: usize| !polled[at].revents().is_empty();
        Ready {
            children: at(0),
            terminate: at(1),
            knock: at(2),
            daemon: daemon.is_some_and(at),
            output: output.is_some_and(at),
        }
    }

    fn keeps_output(&self) -> bool {
        let is_read = self.daemon.as_ref().is_some_and(|daemon| daemon.told >= Told::Pipe);
        !is_read && !self.silent
    }

    fn reap(&mut self) {
        drain(&self.signals.children);
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.leader.pid => {
                    let at = HeardAt(monotonic().as_nanos().try_into().unwrap_or(u64::MAX));
                    self.exit = exit(status).map(|exit| (exit, at));
                }
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => return,
                // Everyone of the dyno descends from us: without children, nobody is left.
                Err(_) => return self.alone = true,
            }
        }
    }

    fn signal(&mut self, signal: Signal) {
        drain(&self.signals.terminate);
        self.stopping |= [Signal::TERM, Signal::KILL].contains(&signal);
        self.killing |= signal == Signal::KILL;
        self.reach.signal(signal);
    }

    fn hear(&mut self) {
        while let Some(daemon) = &self.daemon {
            match socket::receive(&daemon.socket) {
                Ok(datagram) if datagram.bytes.is_empty() => self.part(),
                Ok(datagram) => match Request::parse(&datagram.bytes) {
                    Ok(Request::Up(since)) => _ = self.up_since.get_or_insert(since),
                    Ok(Request::Signal(number)) => {
                        if let Some(signal) = Signal::from_named_raw(number.into()) {
                            self.signal(signal);
                        }
                    }
                    // Of a later version. It is not for us to say what it wanted.
                    Err(_) => {}
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.part(),
            }
        }
    }

    /// The daemon has closed the connection, or is dead.
    fn part(&mut self) {
        let told = self.daemon.take().map(|daemon| daemon.told);
        self.known |= told == Some(Told::Gone);
    }

    /// There is one daemon at a time: whoever comes later knows that the one before is dead.
    fn admit(&mut self) {
        if let Ok(socket) = socket::accept(self.listener.as_fd()) {
            self.daemon = Some(Daemon::new(socket));
        }
    }

    fn keep(&mut self) {
        let mut buffer = [0; OUTPUT_MAX];
        match self.output.read(&mut buffer) {
            Ok(0) => self.silent = true,
            Ok(read) => self.ring.push(&buffer[..read], unix_millis()),
            // Nothing there after all.
            Err(_) => {}
        }
    }

    /// What a daemon would ask, where none is there: a command that went by itself takes the rest along. So does
    /// an order that was removed: no daemon will ever find this dyno.
    fn see_to_the_rest(&mut self) {
        if self.daemon.is_none() {
            self.lost = is_removed(stdin());
            self.killing |= self.lost || (self.exit.is_some() && !self.stopping);
        }
        if self.killing && !self.alone {
            self.reach.signal(Signal::KILL);
        }
    }

    /// Tells the daemon all that it does not know, or as much as it takes now.
    fn tell(&mut self) {
        while let Some((report, told)) = self.next() {
            let Some(daemon) = &mut self.daemon else { return };
            let beside = match &report {
                Report::Hello(_) => vec![self.this.as_fd()],
                Report::Pipe(_) => vec![self.output.as_fd()],
                Report::Started => {
                    let input = self.leader.input.as_ref().map(AsFd::as_fd);
                    [Some(self.leader.pidfd.as_fd()), input].into_iter().flatten().collect()
                }
                _ => Vec::new(),
            };
            match socket::send(&daemon.socket, &report.print(), &beside) {
                Ok(()) => daemon.told = told,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.part(),
            }
            match report {
                Report::Output(bytes) => self.ring.forget(bytes.len()),
                Report::Pipe(_) => self.ring.forget_lost(),
                Report::Started => self.leader.input = None,
                _ => {}
            }
        }
    }

    /// What the daemon is to be told next, and what it will know then.
    fn next(&self) -> Option<(Report, Told)> {
        match self.daemon.as_ref()?.told {
            Told::Nothing => {
                let hello =
                    Hello { version: VERSION, up_since: self.up_since, stopping: self.stopping };
                Some((Report::Hello(hello), Told::Hello))
            }
            Told::Hello => Some(match self.ring.oldest(OUTPUT_MAX) {
                Some(bytes) => (Report::Output(bytes), Told::Hello),
                None => (Report::Pipe(self.ring.lost()), Told::Pipe),
            }),
            Told::Pipe => Some((Report::Started, Told::Started)),
            Told::Started => self.exit.map(|(exit, at)| (Report::Exited(exit, at), Told::Exited)),
            Told::Exited => self.alone.then_some((Report::Gone, Told::Gone)),
            Told::Gone => None,
        }
    }
}

impl Leader {
    /// Starts the third step, which is born in the dyno's control groups, and leaves those.
    fn start(
        order: &Order,
        groups: &Groups,
        printed: PipeWriter,
        reach: Reach,
    ) -> Result<Self, Failure> {
        let init = match reach {
            Reach::Namespace => None,
            Reach::Descendants => Some(getpid()),
        };
        let (streams, input) = connect(order, printed).during("connect the command")?;
        let child = command::start(order, init, streams).during("start the command")?;
        groups.go_home();
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).during("watch the command")?;
        Ok(Self { pid, pidfd, input })
    }
}

/// What a command reads and prints to, and the other side of its input, where it has one.
fn connect(order: &Order, printed: PipeWriter) -> io::Result<(Streams, Option<OwnedFd>)> {
    if let Some(size) = order.terminal {
        let (master, terminal) = open_terminal(size)?;
        let [input, output] = [terminal.try_clone()?, terminal.try_clone()?].map(Stdio::from);
        return Ok((Streams { input, output, errors: terminal.into() }, Some(master)));
    }
    let (input, writer) = if order.stdin {
        let (reader, writer) = io::pipe()?;
        (reader.into(), Some(writer.into()))
    } else {
        (Stdio::null(), None)
    };
    Ok((Streams { input, output: printed.try_clone()?.into(), errors: printed.into() }, writer))
}

fn open_terminal(size: Terminal) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    unlockpt(&master)?;
    let Terminal { rows, cols } = size;
    tcsetwinsize(&master, Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 })?;
    let terminal = ioctl_tiocgptpeer(&master, flags)?;
    Ok((master, terminal))
}

/// The dyno's control groups, opened while they can be seen.
///
/// Whoever puts a process into a group waits for the forks of the whole machine, which takes the kernel up to 20 ms,
/// unless it is a thread that goes by itself (`tasks`, which version 1 has; Linux 5.5 and later). So the init, which
/// has one thread, goes there, has its child, and goes home again.
struct Groups(Vec<Group>);

struct Group {
    dir: String,
    processes: File,
    home: File,
}

impl Groups {
    fn open(groups: &[ControlGroup]) -> Result<Self, Failure> {
        let open = |dir: &Path| {
            let write = |file| OpenOptions::new().write(true).open(dir.join(file));
            let file = write("tasks").or_else(|_| write("cgroup.procs"));
            file.during(format!("open the control group {}", dir.display()))
        };
        let open = groups.iter().map(|group| {
            let dir = group.dir.display().to_string();
            Ok(Group { dir, processes: open(&group.dir)?, home: open(&group.home)? })
        });
        Ok(Self(open.collect::<Result<_, Failure>>()?))
    }

    /// Puts this process into them.
    fn enter(&self) -> Result<(), Failure> {
        for Group { dir, processes, .. } in &self.0 {
            let mut processes = processes;
            let written = processes.write_all(b"0");
            written.during(format!("join the control group {dir}"))?;
        }
        Ok(())
    }

    /// Takes this process out again. Where the kernel does not let it, it stays: then it is frozen and counted
    /// with the dyno, and nothing else is lost.
    fn go_home(&self) {
        for mut group in self.0.iter().map(|group| &group.home) {
            let _ = group.write_all(b"0");
        }
    }
}

/// What happened while nobody looked.
struct Ready {
    children: bool,
    terminate: bool,
    knock: bool,
    daemon: bool,
    output: bool,
}

/// Signals as something to poll: a byte each.
struct Signals {
    children: UnixStream,
    /// From whoever wants the dyno to end and is no daemon: a person, or the machine's shutdown.
    terminate: UnixStream,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        Ok(Self { children: catch(&[SIGCHLD])?, terminate: catch(&[SIGTERM, SIGINT, SIGHUP])? })
    }
}

fn catch(signals: &[i32]) -> io::Result<UnixStream> {
    let (caught, catcher) = UnixStream::pair()?;
    caught.set_nonblocking(true)?;
    for signal in signals {
        signal_hook::low_level::pipe::register(*signal, catcher.try_clone()?)?;
    }
    Ok(caught)
}

fn is_removed(order: BorrowedFd<'_>) -> bool {
    fstat(order).is_ok_and(|stat| stat.st_nlink == 0)
}

fn drain(mut caught: &UnixStream) {
    let mut bytes = [0; 64];
    while caught.read(&mut bytes).is_ok_and(|read| read == bytes.len()) {}
}

fn exit(status: WaitStatus) -> Option<Exit> {
    let by_itself = status.exit_status().map(Exit::Status);
    by_itself.or_else(|| status.terminating_signal().map(Exit::Signal))
}
