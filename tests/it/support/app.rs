//! An app process that the test starts itself, and that the router is given as `dynos = […]`.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};

use crate::support::{Client, becomes_true, testapp, within};

/// A running testapp; killed on drop.
pub(crate) struct App {
    child: Child,
    place: Place,
    /// Held so that the app can always print.
    _output: Lines<BufReader<ChildStdout>>,
}

enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl App {
    /// Starts one that behaves.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts one whose environment says how it misbehaves; returns once it accepts connections.
    pub(crate) async fn start_with(environment: &[(&str, &str)]) -> Self {
        Self::launch(environment, |command| command.env("PORT", "0")).await
    }

    /// Starts one at a Unix socket.
    pub(crate) async fn start_at(socket: &Path) -> Self {
        Self::launch(&[], |command| command.env("UNIX_SOCKET", socket)).await
    }

    /// Starts one on a port of the test's choice, for apps that come back where they were.
    pub(crate) async fn start_on(port: u16) -> Self {
        Self::launch(&[], |command| command.env("PORT", port.to_string())).await
    }

    #[expect(clippy::disallowed_methods, reason = "a test stands outside the house")]
    async fn launch(
        environment: &[(&str, &str)],
        with: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Self {
        let mut command = Command::new(testapp());
        command.envs(environment.iter().copied()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = with(&mut command).spawn().expect("start the testapp");
        let stdout = child.stdout.take().expect("its output is piped");
        let mut output = BufReader::new(stdout).lines();
        let place = within("the testapp to listen", async {
            loop {
                let line = output
                    .next_line()
                    .await
                    .unwrap()
                    .expect("the testapp ended before it listened");
                if let Some(path) = line.strip_prefix("listening on unix:") {
                    return Place::Unix(path.into());
                }
                if let Some(addr) = line.strip_prefix("listening on ") {
                    return Place::Tcp(addr.parse().unwrap());
                }
            }
        })
        .await;
        Self { child, place, _output: output }
    }

    /// Where it listens, as a configuration has it.
    pub(crate) fn place(&self) -> String {
        match &self.place {
            Place::Tcp(addr) => addr.to_string(),
            Place::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    /// Its address; panics for one at a Unix socket.
    pub(crate) fn addr(&self) -> SocketAddr {
        match &self.place {
            Place::Tcp(addr) => *addr,
            Place::Unix(path) => panic!("{} has no address", path.display()),
        }
    }

    /// Requests that have reached it, questions like this one not counted.
    pub(crate) async fn count(&self) -> u64 {
        self.ask("/count").await
    }

    /// Connections that have reached it, the question's own not counted.
    pub(crate) async fn connections(&self) -> u64 {
        self.ask("/connections").await - 1
    }

    /// How often a request with this `Id` field has reached it.
    pub(crate) async fn seen(&self, id: &str) -> u64 {
        self.ask(&format!("/seen?id={id}")).await
    }

    /// Waits until it has taken so many requests.
    pub(crate) async fn counts(&self, requests: u64) {
        becomes_true(&format!("{requests} requests at the app"), async || {
            self.count().await >= requests
        })
        .await;
    }

    /// Asks the app itself, past the router.
    async fn ask(&self, path: &str) -> u64 {
        let mut client = Client::connect(self.addr()).await;
        client.get(path).await.text().parse().expect("a number")
    }

    /// Kills it (SIGKILL) and waits for its end.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.expect("kill the testapp");
    }

    /// Stops it from running (SIGSTOP): its kernel still accepts connections, it does nothing.
    pub(crate) fn freeze(&self) {
        self.signal(rustix::process::Signal::STOP);
        // It runs on, and accepts, until its kernel says that it has stopped.
        let stopped = waitid(WaitId::Pid(self.pid()), WaitIdOptions::STOPPED);
        assert!(stopped.expect("wait for the testapp").is_some_and(|status| status.stopped()));
    }

    /// Fills the listen queue of a frozen app that was started with `BACKLOG=0`, so that its kernel drops further
    /// connects silently. The queue is full while the result is held.
    pub(crate) async fn fill_queue(&self) -> Vec<TcpStream> {
        let mut fillers = Vec::new();
        let mut dropped = 0;
        // More than one, since a kernel may let one through that it had dropped before.
        while dropped < 4 {
            let connect = TcpStream::connect(self.addr());
            match tokio::time::timeout(Duration::from_millis(200), connect).await {
                Ok(filler) => fillers.push(filler.expect("connect")),
                Err(_) => dropped += 1,
            }
            assert!(fillers.len() < 8, "the listen queue takes everything");
        }
        fillers
    }

    /// Undoes [`freeze`](Self::freeze).
    pub(crate) fn thaw(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).expect("signal the testapp");
    }

    fn pid(&self) -> Pid {
        let id = self.child.id().expect("it was not waited for") as i32;
        Pid::from_raw(id).expect("a process id")
    }
}

/// An address of this machine that refuses connections.
pub(crate) fn refusing_addr() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}
