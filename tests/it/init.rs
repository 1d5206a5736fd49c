//! `dynomesh init` by itself: started and talked to as a daemon does.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command};

use dynomesh::init::{
    Hello, Identity, ORDER_FILE, Order, Report, Request, Terminal, connect, pair, receive, send,
    start,
};
use dynomesh::model::Exit;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, mknodat};
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use rustix::process::{Signal, geteuid};

/// An init with its order in a directory of its own.
struct Init {
    process: Child,
    socket: OwnedFd,
    dir: tempfile::TempDir,
}

fn order(command: &str, dir: &Path) -> Order {
    Order {
        identity: Identity {
            id: "an-id".into(),
            app: "shop".into(),
            dyno: "web.1".into(),
            release: 1,
            program: "a program".into(),
            size: None,
            port: None,
            started: 0,
        },
        command: command.into(),
        dir: dir.into(),
        environment: [("PATH".to_owned(), std::env::var("PATH").unwrap())].into(),
        descriptors: None,
        namespaces: false,
        network: None,
        sandbox: None,
        confinement: None,
        cgroups: vec![],
        terminal: None,
        stdin: false,
    }
}

impl Init {
    fn start(command: &str) -> Self {
        Self::start_with(command, |_| {})
    }

    fn start_with(command: &str, change: impl FnOnce(&mut Order)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // For commands that wait for a word.
        mknodat(CWD, dir.path().join("fifo"), FileType::Fifo, 0o600.into(), 0).unwrap();
        let mut order = order(command, dir.path());
        change(&mut order);
        let file = dir.path().join(ORDER_FILE);
        fs::write(&file, order.print().unwrap()).unwrap();
        let file = File::open(file).unwrap();
        let binary = Path::new(env!("CARGO_BIN_EXE_dynomesh"));
        let (socket, process) = start(binary, dir.path(), &order, file).unwrap();
        Self { process, socket, dir }
    }

    /// The next thing that it says.
    fn hear(&self) -> (Report, Vec<OwnedFd>) {
        let patience = Timespec { tv_sec: 20, tv_nsec: 0 };
        // The children of tests beside this one interrupt it, where all run in one process.
        while poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&patience))
            == Err(Errno::INTR)
        {}
        let datagram = receive(&self.socket).expect("it says something");
        (Report::parse(&datagram.bytes).expect("it has not ended"), datagram.descriptors)
    }

    fn hello(&self) -> Hello {
        let (Report::Hello(hello), beside) = self.hear() else { panic!("no hello") };
        assert_eq!(beside.len(), 1, "its own pidfd");
        hello
    }

    /// All that it says until its command runs: what the dyno prints, and what is beside the start.
    fn started(&self) -> (File, Vec<OwnedFd>) {
        self.hello();
        let (Report::Pipe(_), mut pipe) = self.hear() else { panic!("no pipe") };
        let (Report::Started, beside) = self.hear() else { panic!("no start") };
        (blocking(pipe.remove(0)), beside)
    }

    fn ask(&self, signal: Signal) {
        send(&self.socket, &Request::signal(signal).print(), &[]).unwrap();
    }

    /// How its command ends; then nobody is left, and the init ends too.
    fn ends(mut self) -> Exit {
        let (Report::Exited(exit, _), _) = self.hear() else { panic!("no exit") };
        let (Report::Gone, _) = self.hear() else { panic!("somebody is left") };
        shutdown(&self.socket, Shutdown::Both).unwrap();
        assert!(self.process.wait().unwrap().success());
        exit
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn blocking(pipe: OwnedFd) -> File {
    rustix::io::ioctl_fionbio(&pipe, false).unwrap();
    pipe.into()
}

/// Reads until this was printed.
fn until(output: &mut File, text: &str) -> String {
    let mut printed = String::new();
    let mut byte = [0];
    while !printed.contains(text) {
        assert_eq!(output.read(&mut byte).unwrap(), 1, "the end, after {printed:?}");
        printed.push(byte[0].into());
    }
    printed
}

#[test]
fn exits_are_told_apart() {
    for (command, expected) in [
        ("exit 0", Exit::Status(0)),
        ("exit 3", Exit::Status(3)),
        ("kill -9 $$", Exit::Signal(9)),
        ("no-such-command-anywhere 2>/dev/null", Exit::Status(127)),
    ] {
        let init = Init::start(command);
        init.started();
        assert_eq!(init.ends(), expected, "{command}");
    }
}

#[test]
fn a_directory_that_is_not_there_is_said_on_the_dynos_output() {
    let init = Init::start_with("true", |order| order.dir = "/no/such/dir".into());
    let (mut output, _) = init.started();
    until(&mut output, "dynomesh init: go to /no/such/dir: No such file or directory");
    assert_eq!(init.ends(), Exit::Status(127));
}

#[test]
fn a_signal_reaches_those_who_left_their_group_and_session() {
    let init = Init::start(
        "setsid sh -c 'trap \"echo heard; exit\" TERM; echo ready; while :; do sleep 0.01; done' & exec sleep 1000",
    );
    let (mut output, _) = init.started();
    until(&mut output, "ready");
    init.ask(Signal::TERM);
    until(&mut output, "heard");
    assert_eq!(init.ends(), Exit::Signal(15));
}

#[test]
fn nobody_is_left_after_a_kill() {
    let init =
        Init::start("trap '' TERM; (trap '' TERM; setsid sleep 1000) & echo ready; sleep 1000");
    let (mut output, _) = init.started();
    until(&mut output, "ready");
    init.ask(Signal::TERM);
    init.ask(Signal::KILL);
    assert_eq!(init.ends(), Exit::Signal(9));
}

#[test]
fn an_orphan_is_waited_for() {
    let init = Init::start("(setsid sh -c 'read line; echo last' < fifo &); exit 3");
    let fifo = init.dir.path().join("fifo");
    let (mut output, _) = init.started();
    let (Report::Exited(exit, _), _) = init.hear() else { panic!("no exit") };
    assert_eq!(exit, Exit::Status(3));
    fs::write(&fifo, "go\n").unwrap();
    until(&mut output, "last");
    let (report, _) = init.hear();
    assert_eq!(report, Report::Gone);
}

#[test]
fn a_terminal_has_its_size_and_hangs_up_when_its_holder_goes() {
    let init = Init::start_with("stty size; read line; echo \"got $line\"; sleep 1000", |order| {
        order.terminal = Some(Terminal { rows: 33, cols: 101 });
    });
    let (_, mut beside) = init.started();
    let mut master = File::from(beside.remove(1));
    until(&mut master, "33 101");
    master.write_all(b"hello\n").unwrap();
    until(&mut master, "got hello");
    drop(master);
    assert_eq!(init.ends(), Exit::Signal(1));
}

#[test]
fn a_pipe_to_standard_input_carries_any_bytes_to_its_end() {
    let init = Init::start_with("wc -c; echo errors >&2", |order| order.stdin = true);
    let (mut output, mut beside) = init.started();
    let mut input = File::from(beside.remove(1));
    input.write_all(&[0, 255, 10, 4, 3]).unwrap();
    drop(input);
    assert_eq!(until(&mut output, "errors").trim_start().split_once('\n'), Some(("5", "errors")));
    assert_eq!(init.ends(), Exit::Status(0));
}

#[test]
fn the_next_daemon_hears_all_that_the_last_one_did_not() {
    let mut init = Init::start("read line < fifo; printf 'kept\\n'; exit 7");
    let fifo = init.dir.path().join("fifo");
    init.started();
    send(&init.socket, &Request::Up(7).print(), &[]).unwrap();
    init.socket = connect(init.dir.path()).unwrap();
    let hello = init.hello();
    assert!(hello.up_since == Some(7) && !hello.stopping);
    let (Report::Pipe(_), _) = init.hear() else { panic!("nothing was kept yet") };
    init.socket = pair().unwrap().0;
    fs::write(&fifo, "go\n").unwrap();
    // It has ended, and waits for somebody to tell.
    let child = init.process.id();
    while fs::read_to_string(format!("/proc/{child}/task/{child}/children")).unwrap() != "" {
        std::thread::yield_now();
    }
    init.socket = connect(init.dir.path()).unwrap();
    assert_eq!(init.hello().up_since, Some(7));
    let (kept, _) = init.hear();
    assert_eq!(kept, Report::Output(b"kept\n".to_vec()));
    let (Report::Pipe(_), _) = init.hear() else { panic!("no pipe") };
    let (Report::Started, _) = init.hear() else { panic!("no start") };
    assert_eq!(init.ends(), Exit::Status(7));
}

#[test]
fn a_dyno_that_no_daemon_can_find_ends() {
    let mut init = Init::start("trap '' TERM; while :; do sleep 0.01; done");
    init.started();
    fs::remove_file(init.dir.path().join(ORDER_FILE)).unwrap();
    // The last daemon goes, and with it the last one that knew.
    init.socket = pair().unwrap().0;
    assert!(init.process.wait().unwrap().success());
}

/// As PID 1 of a namespace of its own, without a sandbox.
#[test]
fn in_a_namespace_everyone_is_reached_at_once() {
    if !geteuid().is_root() {
        return eprintln!("skipped: namespaces are root's");
    }
    let init = Init::start_with(
        "echo number=$$; (setsid sleep 1000 &); (setsid sleep 1000 &); exec sleep 1000",
        |order| order.namespaces = true,
    );
    let (mut output, _) = init.started();
    assert!(until(&mut output, "\n").starts_with("number=2"), "it is the second one there");
    init.ask(Signal::KILL);
    assert_eq!(init.ends(), Exit::Signal(9));
}

/// What each dyno costs beside its app: pages that no other process shares. The program's own text is shared by
/// every init and by the daemon.
#[test]
fn an_init_is_small() {
    let init = Init::start("echo ready; exec sleep 1000");
    let (mut output, _) = init.started();
    until(&mut output, "ready");
    let smaps = fs::read_to_string(format!("/proc/{}/smaps_rollup", init.process.id())).unwrap();
    let dirty = smaps.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).unwrap();
    let kib = dirty.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap();
    println!("private memory of an init: {kib} KiB");
    // Most of it is what the linker relocates in a binary that is the daemon's too.
    assert!(kib < 4 * 1024, "{kib} KiB");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test stands outside the house")]
fn a_person_who_types_it_is_told_what_it_is() {
    let init = Command::new(env!("CARGO_BIN_EXE_dynomesh")).arg("init").output().unwrap();
    assert_eq!(init.status.code(), Some(64));
    let said = String::from_utf8_lossy(&init.stderr);
    assert!(said.contains("usage: dynomesh init (it is the daemon that runs this)"), "{said}");
}
