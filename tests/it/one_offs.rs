//! Dynos for one command.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::{Output, Stdio};
use std::sync::Mutex;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::Value;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::process::{Child, Command};

use crate::support::{Line, Mesh, Ran, Setup, becomes_true, request, within};

const PROCFILE: &str = "web: TESTAPP\nconsole: echo console\n";

async fn shop() -> Mesh {
    let lines = "formation = { web = 1 }\n[apps.shop.config]\nGREETING = \"hello\"";
    Setup::new().procfile("shop", PROCFILE, lines).start().await
}

/// `run.4711`, of what a run printed.
fn name(ran: &Ran) -> String {
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let (_, name) = ran.out.trim_end().rsplit_once(", ").expect("done, run.NNNN");
    assert!(name.starts_with("run.") && name.len() == 8, "{ran:?}");
    name.to_owned()
}

#[tokio::test]
async fn a_detached_command_runs_once_into_the_log() {
    let mesh = shop().await;
    let command = "echo $GREETING $ONE in $DYNO; exit 3";
    let ran = mesh.command(&["run:detached", "-a", "shop", "-e", "ONE=1", command]).await;
    let dyno = name(&ran);
    let (heroku, app) = (format!("heroku[{dyno}]"), format!("app[{dyno}]"));
    mesh.says(&heroku, "State changed from up to complete").await;
    mesh.says(&app, &format!("hello 1 in {dyno}")).await;
    let lines = mesh.lines();
    let said = lines.iter().filter(|line| line.source == heroku).map(|line| &*line.message);
    assert_eq!(
        said.collect::<Vec<_>>(),
        [
            &*format!("Starting process with command `{command}`"),
            "State changed from starting to up",
            "Process exited with status 3",
            "State changed from up to complete",
        ]
    );
    let ps = mesh.command(&["ps"]).await;
    assert!(!ps.out.contains("run."), "{ps:?}");
}

#[tokio::test]
async fn a_process_type_stands_for_its_command() {
    let mesh = shop().await;
    let dyno = name(&mesh.command(&["run:detached", "console", "and", "a b"]).await);
    mesh.says(&format!("app[{dyno}]"), "console and a b").await;
}

#[tokio::test]
async fn ps_lists_it_and_stop_ends_it() {
    let mesh = shop().await;
    let ran = mesh.command(&["run:detached", "-s", "Standard-2X", "sleep 1000"]).await;
    let dyno = name(&ran);
    mesh.says(&format!("heroku[{dyno}]"), "State changed from starting to up").await;
    let ps = mesh.command(&["ps"]).await;
    assert!(ps.out.starts_with("=== run: one-off processes (1)\n\n"), "{ps:?}");
    let line = ps.out.lines().nth(2).unwrap();
    assert!(line.starts_with(&format!("{dyno} (Standard-2X): up 2")), "{ps:?}");
    assert!(line.ends_with("s ago): sleep 1000"), "{ps:?}");

    let stop = mesh.command(&["ps:stop", &dyno]).await;
    assert_eq!(stop.err, format!("Stopping dyno {dyno} on ⬢ shop... done\n"));
    mesh.says(&format!("heroku[{dyno}]"), "Process exited with status 143").await;
    mesh.says(&format!("heroku[{dyno}]"), "State changed from up to complete").await;
    let again = mesh.command(&["ps:stop", &dyno]).await;
    assert_eq!(again.code, Some(1));
    assert_eq!(again.err, format!("dynomesh: Couldn't find the dyno {dyno} of shop.\n"));
}

#[tokio::test]
async fn a_formations_dyno_that_is_stopped_is_replaced() {
    let mesh = shop().await;
    mesh.says_times("heroku[web.1]", "State changed from starting to up", 1).await;
    let pid = async || {
        let dynos: Vec<Value> =
            serde_json::from_str(mesh.ask_admin("/debug/dynos").await.text()).unwrap();
        dynos.iter().find_map(|dyno| dyno["pid"].as_u64().filter(|_| dyno["state"] == "up"))
    };
    let before = pid().await;
    assert!(before.is_some());
    assert_eq!(mesh.command(&["ps:stop", "web.1"]).await.code, Some(0));
    becomes_true("another process", async || {
        let now = pid().await;
        now.is_some() && now != before
    })
    .await;
}

#[tokio::test]
async fn what_cannot_run_is_said() {
    let mesh = shop().await;
    let check = async |args: &[&str], expected: &str| {
        let ran = mesh.command(args).await;
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.err.starts_with(expected), "{ran:?}");
    };
    check(&["run:detached", "-a", "shpo", "true"], "dynomesh: Couldn't find the app shpo.").await;
    check(&["run:detached", "-s", "huge", "true"], "dynomesh: There is no size huge (there is: ")
        .await;
    check(&["run:detached", "-e", "A", "true"], "dynomesh: -e has NAME=value pairs").await;
    check(&["run:detached", " "], "dynomesh: there is no command to run").await;
}

#[tokio::test]
async fn a_one_off_is_paid_for_as_run() {
    let mesh = shop().await;
    let dyno = name(&mesh.command(&["run:detached", "sleep 1000"]).await);
    mesh.says(&format!("heroku[{dyno}]"), "State changed from starting to up").await;
    becomes_true("a second of run", async || {
        let usage = mesh.command(&["ps:usage", "--json"]).await;
        let rows: Vec<Value> = serde_json::from_str(&usage.out).unwrap();
        rows.iter().any(|row| row["type"] == "run" && row["dyno_seconds"].as_u64() >= Some(1))
    })
    .await;
}

#[tokio::test]
async fn a_detached_one_outlives_the_daemon() {
    let mut mesh = shop().await;
    let dyno = name(&mesh.command(&["run:detached", "sleep 1000"]).await);
    let source = format!("heroku[{dyno}]");
    mesh.says(&source, "State changed from starting to up").await;
    mesh.signal(Signal::KILL);
    mesh.ended().await;
    let mesh = mesh.start_again().await;
    mesh.says(&source, "Adopted, up since ").await;
    let ps = mesh.command(&["ps"]).await;
    assert!(ps.out.contains(&format!("{dyno} (Basic): up ")), "{ps:?}");
    assert_eq!(mesh.command(&["ps:stop", &dyno]).await.code, Some(0));
    mesh.says(&source, "State changed from up to complete").await;
}

/// A daemon that stops has been told to start nothing more, also while the last requests finish.
#[tokio::test]
async fn nothing_is_begun_while_the_daemon_stops() {
    let mut mesh = shop().await;
    mesh.says("heroku[web.1]", "State changed from starting to up").await;
    let mut client = mesh.client().await;
    assert_eq!(client.get("/").await.status, 200);
    client.send(request("GET", "/sleep?ms=5000", "", "")).await;
    mesh.signal(Signal::TERM);
    becomes_true("a command to be refused", async || {
        mesh.command(&["run:detached", "true"]).await.err.contains("dynomesh is stopping")
    })
    .await;
    assert_eq!(client.answer().await.text(), "slept");
    assert!(mesh.ended().await.success());
}

// ---- attached ---------------------------------------------------------------------------------------------

/// Runs a command with this standard input, to its end; its output is the bytes themselves.
async fn attached(mesh: &Mesh, command: &str, input: &[u8]) -> Output {
    #[expect(clippy::disallowed_methods, reason = "a test stands outside the house")]
    let mut run = Command::new(env!("CARGO_BIN_EXE_dynomesh"));
    run.args(["run", "--config"]).arg(mesh.setup().file()).args(["-a", "shop", command]);
    run.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = run.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let write = async {
        // Who does not read its input may end before it was written.
        let _ = stdin.write_all(input).await;
        drop(stdin);
    };
    let (output, ()) =
        within(command, async { tokio::join!(child.wait_with_output(), write) }).await;
    output.unwrap()
}

#[tokio::test]
async fn input_and_output_are_the_commands_to_the_byte() {
    let mesh = shop().await;
    // More than any pipe holds, every byte in it.
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|number| (number * 7 % 256) as u8).collect();
    let output = attached(&mesh, "cat", &bytes).await;
    assert!(output.stdout == bytes, "{} bytes came back", output.stdout.len());
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("Running cat on ⬢ shop... up, run."), "{said}");
}

#[tokio::test]
async fn the_exit_code_and_the_last_output_come_through() {
    let mesh = shop().await;
    let output = attached(&mesh, "echo to stdout; echo to stderr >&2; exit 7", b"").await;
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(output.stdout, b"to stdout\nto stderr\n");
    let killed = attached(&mesh, "kill -9 $$", b"").await;
    assert_eq!(killed.status.code(), Some(137));
}

#[tokio::test]
async fn attached_lines_are_told_in_herokus_order() {
    let mesh = shop().await;
    let output = attached(&mesh, "echo $DYNO", b"").await;
    let dyno = String::from_utf8(output.stdout).unwrap().trim_end().to_owned();
    let source = format!("heroku[{dyno}]");
    mesh.says(&source, "State changed from up to complete").await;
    let lines = mesh.lines();
    let said = lines.iter().filter(|line| line.source == source).map(|line| &*line.message);
    assert_eq!(
        said.collect::<Vec<_>>(),
        [
            "Awaiting client",
            "Starting process with command `echo $DYNO`",
            "State changed from starting to up",
            "Process exited with status 0",
            "State changed from up to complete",
        ]
    );
    // What it printed is the client's, not the log's.
    assert!(!lines.iter().any(|line| line.source == format!("app[{dyno}]")));
}

#[tokio::test]
async fn who_leaves_hangs_up() {
    let mesh = shop().await;
    #[expect(clippy::disallowed_methods, reason = "a test stands outside the house")]
    let mut run = Command::new(env!("CARGO_BIN_EXE_dynomesh"));
    run.args(["run", "--config"]).arg(mesh.setup().file());
    run.args(["-a", "shop", "echo there; exec sleep 1000"]);
    run.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = run.spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut printed = [0; 6];
    within("its output", stdout.read_exact(&mut printed)).await.unwrap();
    child.kill().await.unwrap();
    let ended = |line: &Line| {
        (line.source.starts_with("heroku[run.") && line.message == "Process exited with status 129")
            .then_some(())
    };
    mesh.line("a process that heard SIGHUP", ended).await;
}

#[tokio::test]
async fn ctrl_c_reaches_the_command() {
    let mesh = shop().await;
    #[expect(clippy::disallowed_methods, reason = "a test stands outside the house")]
    let mut run = Command::new(env!("CARGO_BIN_EXE_dynomesh"));
    run.args(["run", "--config"]).arg(mesh.setup().file());
    run.args([
        "-a",
        "shop",
        "trap 'echo caught; exit 3' INT; echo there; while :; do sleep 0.05; done",
    ]);
    run.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = run.spawn().unwrap();
    let _stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut printed = [0; 6];
    within("its output", stdout.read_exact(&mut printed)).await.unwrap();
    let pid = Pid::from_raw(child.id().unwrap() as i32).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let mut rest = String::new();
    within("the rest", stdout.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(rest, "caught\n");
    assert_eq!(within("its end", child.wait()).await.unwrap().code(), Some(3));
}

#[tokio::test]
async fn at_a_terminal_the_command_has_one_of_the_same_size() {
    let mesh = shop().await;
    let terminal = Terminal::open(31, 97);
    let mut child = terminal.run(&mesh, "stty size; test -t 0 && test -t 1 && echo tty; read line; echo got $line; stty size; exit 5");
    terminal.until("31 97\r\n").await;
    terminal.until("tty\r\n").await;
    terminal.resize(20, 60);
    terminal.write(b"hello\r").await;
    terminal.until("got hello\r\n").await;
    terminal.until("20 60\r\n").await;
    assert_eq!(within("its end", child.wait()).await.unwrap().code(), Some(5));
}

#[tokio::test]
async fn ctrl_c_at_a_terminal_is_a_key() {
    let mesh = shop().await;
    let terminal = Terminal::open(24, 80);
    let mut child = terminal.run(&mesh, "echo there; sleep 1000");
    terminal.until("there\r\n").await;
    terminal.write(&[3]).await;
    assert_eq!(within("its end", child.wait()).await.unwrap().code(), Some(130));
}

/// A terminal, and a person's side of it.
struct Terminal {
    master: AsyncFd<OwnedFd>,
    seen: Mutex<Vec<u8>>,
}

impl Terminal {
    fn open(rows: u16, columns: u16) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        rustix::io::ioctl_fionbio(&master, true).unwrap();
        #[expect(
            deprecated,
            reason = "its successor is unsafe, for descriptors that are not owned"
        )]
        let master = AsyncFd::new(master).unwrap();
        let terminal = Self { master, seen: Mutex::default() };
        terminal.resize(rows, columns);
        terminal
    }

    fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(self.master.get_ref(), size).unwrap();
    }

    /// `dynomesh run` at this terminal.
    fn run(&self, mesh: &Mesh, command: &str) -> Child {
        let name = ptsname(self.master.get_ref(), Vec::new()).unwrap();
        let open = || File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        // setsid makes the terminal its own, so that it hears of the window.
        #[expect(clippy::disallowed_methods, reason = "a test stands outside the house")]
        let mut run = Command::new("setsid");
        run.args(["--ctty", "--wait", env!("CARGO_BIN_EXE_dynomesh"), "run", "--config"]);
        run.arg(mesh.setup().file()).args(["-a", "shop", command]).kill_on_drop(true);
        run.stdin(open()).stdout(open()).stderr(Stdio::null()).spawn().unwrap()
    }

    async fn write(&self, bytes: &[u8]) {
        let write = |fd: &OwnedFd| Ok(rustix::io::write(fd, bytes)?);
        let written = within("typing", self.master.async_io(Interest::WRITABLE, write)).await;
        assert_eq!(written.unwrap(), bytes.len());
    }

    /// Waits until this was printed.
    async fn until(&self, text: &str) {
        within(text, async {
            while !self.seen.lock().unwrap().windows(text.len()).any(|it| it == text.as_bytes()) {
                let mut buffer = [0; 4096];
                let read = |fd: &OwnedFd| Ok(rustix::io::read(fd, &mut buffer)?);
                let length = self.master.async_io(Interest::READABLE, read).await.unwrap();
                self.seen.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        })
        .await;
    }
}
