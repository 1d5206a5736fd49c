//! The daemon: its configuration, its process, its log.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::support::uids::Uids;
use crate::support::{App, Client, Line, Metrics, Request, becomes_true, testapp, within};

/// A configuration in the making, and the directory it lives in.
pub(crate) struct Setup {
    dir: TempDir,
    http: Vec<String>,
    https: Vec<String>,
    router: String,
    timeouts: String,
    admin: String,
    apps: String,
    isolation: &'static str,
    uids: Option<Uids>,
    /// Lines for `[dynos]` about networks.
    network: &'static str,
    expose: Vec<PathBuf>,
    /// What the shell does before it becomes the daemon.
    before: Option<String>,
}

/// A running daemon. On drop it and all that it started are killed.
pub(crate) struct Mesh {
    setup: Setup,
    child: Child,
    /// What it left is another one's now.
    has_heir: bool,
    log: Arc<Log>,
    http: SocketAddr,
    https: Option<SocketAddr>,
    admin: SocketAddr,
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    /// `None`: it was killed.
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A dyno, as the daemon shows it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub(crate) struct Known {
    pub(crate) dyno: String,
    pub(crate) state: String,
    pub(crate) since: u64,
    pub(crate) pid: Option<i32>,
    pub(crate) addr: Option<SocketAddr>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    grown: watch::Sender<()>,
}

impl Setup {
    /// One listener, no apps yet.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self {
            dir,
            http: vec!["127.0.0.1:0".into()],
            https: Vec::new(),
            router: String::new(),
            timeouts: String::new(),
            admin: String::new(),
            apps: String::new(),
            // Apps of most tests wait for files of the test's.
            isolation: "none",
            uids: None,
            network: "",
            expose: Vec::new(),
            before: None,
        }
    }

    /// The directory of the configuration file.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Lines for `[router]`.
    pub(crate) fn router(mut self, lines: &str) -> Self {
        writeln!(self.router, "{lines}").unwrap();
        self
    }

    /// The hard limit on open files that the daemon starts with.
    pub(crate) fn descriptors(self, limit: u32) -> Self {
        self.before(&format!("ulimit -n {limit}; exec"))
    }

    /// What a shell does before it becomes the daemon: a command line to which the daemon's is added.
    pub(crate) fn before(mut self, shell: &str) -> Self {
        self.before = Some(shell.into());
        self
    }

    /// Has dynos kept apart, where that can be, and shows them these files of the host.
    pub(crate) fn isolated(mut self, expose: &[&Path]) -> Self {
        self.isolation = "auto";
        self.uids = Some(Uids::take());
        self.expose = expose.iter().map(|path| path.to_path_buf()).collect();
        self
    }

    /// Has dynos kept apart, each in a network of its own, and shows them the testapp. The test must be in one itself.
    pub(crate) fn private(mut self) -> Self {
        self = self.isolated(&[&testapp()]);
        self.network = "network = \"private\"\n";
        self
    }

    /// Listens there as well.
    pub(crate) fn listen(mut self, addr: &str) -> Self {
        self.http.push(addr.into());
        self
    }

    /// Listens for TLS, too.
    pub(crate) fn listen_tls(mut self) -> Self {
        self.https.push("127.0.0.1:0".into());
        self
    }

    /// Lines for `[router.timeouts]`.
    pub(crate) fn timeouts(mut self, lines: &str) -> Self {
        writeln!(self.timeouts, "{lines}").unwrap();
        self
    }

    /// Has the Platform API answer on a port of its own, too.
    pub(crate) fn api(mut self) -> Self {
        self.admin.push_str("api = \"127.0.0.1:0\"\n");
        self
    }

    /// The app `shop`, whose dynos the test started.
    pub(crate) fn shop(self, dynos: &[&App]) -> Self {
        self.shop_with(dynos, "")
    }

    /// As [`shop`](Self::shop), with further lines.
    pub(crate) fn shop_with(self, dynos: &[&App], lines: &str) -> Self {
        let places = dynos.iter().map(|app| app.place()).collect::<Vec<_>>();
        self.app("shop", &format!("dynos = {places:?}\n{lines}"))
    }

    /// `[apps.NAME]` with these lines.
    pub(crate) fn app(mut self, name: &str, lines: &str) -> Self {
        writeln!(self.apps, "[apps.{name}]\n{lines}").unwrap();
        self
    }

    /// A table of its own with these lines.
    pub(crate) fn table(mut self, name: &str, lines: &str) -> Self {
        writeln!(self.apps, "[{name}]\n{lines}").unwrap();
        self
    }

    /// Forgets the apps and tables: for the next configuration of the same daemon.
    pub(crate) fn clear_apps(&mut self) {
        self.apps.clear();
    }

    /// An app that dynomesh runs, from a Procfile in which `TESTAPP` stands for the testapp.
    pub(crate) fn procfile(self, name: &str, procfile: &str, lines: &str) -> Self {
        let dir = self.dir().join(name);
        fs::create_dir_all(&dir).unwrap();
        let testapp = testapp();
        fs::write(dir.join("Procfile"), procfile.replace("TESTAPP", testapp.to_str().unwrap()))
            .unwrap();
        self.app(name, &format!("dir = {name:?}\n{lines}"))
    }

    /// The file as it is written now.
    pub(crate) fn text(&self) -> String {
        let Self { http, https, router, timeouts, admin, isolation, network, expose, apps, .. } =
            self;
        let uids = self.uids.as_ref().map(|Uids { range, .. }| {
            let (first, last) = (range.start(), range.end());
            format!("uids = \"{first}-{last}\"\n")
        });
        let uids = uids.unwrap_or_default();
        format!(
            "[router]\nhttp = {http:?}\nhttps = {https:?}\ndomain = \"localhost\"\nworkers = 2\n{router}\
             [router.timeouts]\n{timeouts}[admin]\nhttp = \"127.0.0.1:0\"\n{admin}\
             [dynos]\nisolation = {isolation:?}\n{uids}{network}expose = {expose:?}\n{apps}"
        )
    }

    /// The configuration file.
    pub(crate) fn file(&self) -> PathBuf {
        self.dir().join("dynomesh.toml")
    }

    /// Starts the daemon; returns once it listens.
    pub(crate) async fn start(self) -> Mesh {
        let text = self.text();
        self.start_with(&text).await
    }

    /// As [`start`](Self::start), with another text of the file.
    pub(crate) async fn start_with(self, text: &str) -> Mesh {
        fs::write(self.file(), text).unwrap();
        let mut child = self.spawn("serve");
        let log = Arc::new(Log::default());
        // Both tasks end with the daemon's output.
        collect(log.clone(), child.stdout.take().expect("it is piped"));
        collect(log.clone(), child.stderr.take().expect("it is piped"));
        let announced = async |prefix: &str| {
            let addr = |line: &Line| line.message.strip_prefix(prefix)?.parse().ok();
            log.wait_for(&format!("{prefix}…"), addr).await
        };
        let http = announced("listening on http://").await;
        let https = match self.https.is_empty() {
            true => None,
            false => Some(announced("listening on https://").await),
        };
        let admin = announced("metrics and health on http://").await;
        Mesh { setup: self, child, has_heir: false, log, http, https, admin }
    }

    /// Runs a command that ends by itself.
    pub(crate) async fn run(&self, command: &str) -> (ExitStatus, String) {
        fs::write(self.file(), self.text()).unwrap();
        self.run_as_is(command).await
    }

    /// As [`run`](Self::run), on the file as it lies there.
    pub(crate) async fn run_as_is(&self, command: &str) -> (ExitStatus, String) {
        let child = self.spawn(command);
        let output = within(command, child.wait_with_output()).await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status, String::from_utf8_lossy(&text).into_owned())
    }

    #[expect(clippy::disallowed_methods, reason = "a test stands outside the house")]
    fn spawn(&self, command: &str) -> Child {
        let binary = env!("CARGO_BIN_EXE_dynomesh");
        let mut daemon = Command::new(if self.before.is_some() { "sh" } else { binary });
        if let Some(before) = &self.before {
            daemon.args(["-c", &format!("{before} \"$0\" \"$@\""), binary]);
        }
        daemon.args(command.split(' ')).arg("--config").arg(self.file()).current_dir(self.dir());
        daemon
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        daemon.spawn().expect("start dynomesh")
    }
}

impl Mesh {
    /// A daemon with the app `shop` on these dynos and nothing else said.
    pub(crate) async fn of(dynos: &[&App]) -> Self {
        Setup::new().shop(dynos).start().await
    }

    /// Where it listens first.
    pub(crate) fn http(&self) -> SocketAddr {
        self.http
    }

    /// Where it listens for TLS.
    pub(crate) fn https(&self) -> SocketAddr {
        self.https.expect("a listener for TLS")
    }

    /// Where the Platform API answers.
    pub(crate) async fn api(&self) -> SocketAddr {
        let prefix = "Heroku's Platform API on http://";
        self.line(prefix, |line| line.message.strip_prefix(prefix)?.parse().ok()).await
    }

    /// The directory of the configuration file.
    pub(crate) fn dir(&self) -> &Path {
        self.setup.dir()
    }

    /// A file in that directory, for apps to write or wait for.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// The daemon's process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().expect("it was not waited for") as i32).expect("a process id")
    }

    // ---- requests ----------------------------------------------------------------------------------------

    /// A fresh connection.
    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.http).await
    }

    /// A GET on a connection of its own.
    pub(crate) async fn get(&self, target: &str) -> crate::support::Answer {
        self.client().await.get(target).await
    }

    /// A GET of the admin listener.
    pub(crate) async fn ask_admin(&self, target: &str) -> crate::support::Answer {
        Client::connect(self.admin).await.get(target).await
    }

    /// A scrape.
    pub(crate) async fn metrics(&self) -> Metrics {
        let answer = self.ask_admin("/metrics").await;
        assert_eq!(answer.status, 200);
        Metrics { text: answer.text().to_string() }
    }

    /// Waits until a series has a value.
    pub(crate) async fn metric_becomes(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let what = format!("{name}{labels:?} to become {value}");
        becomes_true(&what, async || self.metrics().await.get(name, labels) == value).await;
    }

    // ---- commands ----------------------------------------------------------------------------------------

    /// Runs a command that asks this daemon, to its end. Standard input is empty.
    pub(crate) async fn command(&self, args: &[&str]) -> Ran {
        #[expect(clippy::disallowed_methods, reason = "a test stands outside the house")]
        let mut command = Command::new(env!("CARGO_BIN_EXE_dynomesh"));
        command.args(&args[..1]).arg("--config").arg(self.setup.file()).args(&args[1..]);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = within(&args.join(" "), command.output()).await.expect("run dynomesh");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    // ---- the log -----------------------------------------------------------------------------------------

    /// Every line so far.
    pub(crate) fn lines(&self) -> Vec<Line> {
        self.log.lines.lock().unwrap().iter().filter_map(|text| Line::parse(text)).collect()
    }

    /// Waits for a line for which the question is answered.
    pub(crate) async fn line<T>(&self, what: &str, ask: impl Fn(&Line) -> Option<T>) -> T {
        self.log.wait_for(what, ask).await
    }

    /// As [`line`](Self::line), but not among the first so many lines.
    pub(crate) async fn line_since<T>(
        &self,
        first: usize,
        what: &str,
        ask: impl Fn(&Line) -> Option<T>,
    ) -> T {
        self.log.wait(what, || self.lines().iter().skip(first).find_map(&ask)).await
    }

    /// Waits for a line about a process that contains this.
    pub(crate) async fn says(&self, source: &str, message: &str) -> Line {
        let what = format!("{source}: {message}");
        self.line(&what, |line| line.says(source, message).then(|| line.clone())).await
    }

    /// Waits until so many lines about a process contain this.
    pub(crate) async fn says_times(&self, source: &str, message: &str, times: usize) {
        let what = format!("{times} times {source}: {message}");
        let count = || self.lines().iter().filter(|line| line.says(source, message)).count();
        self.log.wait(&what, || (count() >= times).then_some(())).await;
    }

    /// Waits for the router's line about the request for this target.
    pub(crate) async fn request(&self, target: &str) -> Request {
        let asked = |line: &Line| line.request().filter(|it| it.find("path") == Some(target));
        self.line(&format!("the line of {target}"), asked).await
    }

    /// The router's lines about requests for this target, late ones left out.
    pub(crate) fn requests(&self, target: &str) -> Vec<Request> {
        let requests = self.lines();
        let requests = requests.iter().filter_map(Line::request);
        requests.filter(|it| it.find("path") == Some(target)).collect()
    }

    /// Waits for the line that says how the request of this line ended after its client was answered.
    pub(crate) async fn late(&self, request: &Request) -> Request {
        let id = request.get("request_id");
        let asked = |line: &Line| {
            line.request()
                .filter(|it| it.find("late").is_some() && it.find("request_id") == Some(id))
        };
        self.line("the late= line", asked).await
    }

    // ---- orders ------------------------------------------------------------------------------------------

    /// Sends a signal to the daemon.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("signal the daemon");
    }

    /// Writes another configuration, has it read, and waits until it is in force.
    pub(crate) async fn reload(&mut self, change: impl FnOnce(Setup) -> Setup) {
        self.setup = change(std::mem::replace(&mut self.setup, Setup::new()));
        let text = self.setup.text();
        self.reload_text(&text, "ok").await;
    }

    /// Has this text read as configuration, and waits until the daemon has counted the result.
    pub(crate) async fn reload_text(&mut self, text: &str, result: &str) {
        let name = "dynomesh_reloads_total";
        let labels = [("result", result)];
        let before = self.metrics().await.get(name, &labels);
        fs::write(self.setup.file(), text).unwrap();
        self.signal(Signal::HUP);
        self.metric_becomes(name, &labels, before + 1.0).await;
    }

    /// Starts a daemon that has ended, on the same configuration.
    pub(crate) async fn start_again(mut self) -> Self {
        self.left_to_the_next().start().await
    }

    /// Kills the daemon as nothing announces it, and leaves its dynos to whoever starts it again.
    pub(crate) async fn killed(mut self) -> Setup {
        self.signal(Signal::KILL);
        self.ended().await;
        self.left_to_the_next()
    }

    fn left_to_the_next(&mut self) -> Setup {
        self.has_heir = true;
        std::mem::replace(&mut self.setup, Setup::new())
    }

    /// What the daemon knows of its dynos.
    pub(crate) async fn known(&self) -> Vec<Known> {
        serde_json::from_slice(&self.ask_admin("/debug/dynos").await.body).expect("a list of dynos")
    }

    /// The configuration as it stands.
    pub(crate) fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Waits for the daemon's end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        within("the daemon to end", self.child.wait()).await.expect("wait for the daemon")
    }

    /// Whether the daemon still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().expect("look at the daemon").is_none()
    }

    /// The processor time that the daemon has used.
    pub(crate) fn cpu(&self) -> Duration {
        let tasks = format!("/proc/{}/task", self.pid().as_raw_nonzero());
        let tasks = fs::read_dir(tasks).expect("the daemon runs").flatten();
        let used = tasks.filter_map(|task| {
            let stat = fs::read_to_string(task.path().join("schedstat")).ok()?;
            stat.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(used.sum())
    }

    /// The name of the control group in which its dynos have theirs; none where the host has none for us.
    pub(crate) fn control_groups(&self) -> Option<String> {
        let lines = self.log.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let line = lines.iter().find(|line| line.contains("dynos are held to their sizes by "))?;
        Some(line.rsplit_once(", in ")?.1.to_owned())
    }

    /// The processes that this daemon started and that still run.
    pub(crate) fn dynos(&self) -> Vec<Pid> {
        let daemon = self.child.id().and_then(|id| Pid::from_raw(id as i32));
        processes_below(self.dir()).into_iter().filter(|pid| Some(*pid) != daemon).collect()
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = self.log.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            eprintln!("---- the daemon's log\n{}\n----", lines.join("\n"));
        }
        // The daemon first, so that it starts nothing in place of what is killed.
        let _ = self.child.start_kill();
        for pid in processes_below(self.dir()) {
            let _ = kill_process(pid, Signal::KILL);
        }
        if let Some(name) = self.control_groups().filter(|_| !self.has_heir) {
            remove_control_groups(&name);
        }
    }
}

/// Removes what a daemon that was killed could not: the groups of this name, once those that were in them are gone.
#[expect(clippy::disallowed_methods, reason = "a drop cannot await")]
fn remove_control_groups(name: &str) {
    for parent in control_groups(name) {
        for _ in 0..200 {
            for group in fs::read_dir(&parent).into_iter().flatten().flatten() {
                // With cgroup v1 who is killed while frozen dies when the frost ends.
                let frost = group.path().join("freezer.state");
                if frost.exists() {
                    let _ = fs::write(frost, "THAWED");
                }
                let _ = fs::remove_dir(group.path());
            }
            if fs::remove_dir(&parent).is_ok() || !parent.exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The directories of this name in the groups in which this process and its daemons are.
pub(crate) fn control_groups(name: &str) -> Vec<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let dir = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let dir = Path::new("/sys/fs/cgroup").join(controllers).join(path.trim_start_matches('/'));
        Some(dir.join(name))
    };
    let below = own.lines().filter_map(dir);
    below.chain([Path::new("/sys/fs/cgroup").join(name)]).filter(|dir| dir.exists()).collect()
}

/// Processes whose working directory or order lies in this directory: dynos, what they left behind, their inits, and
/// no one else's.
fn processes_below(dir: &Path) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").expect("read /proc").flatten();
    let pids = entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    let below = |pid: &Pid| {
        let link = |name: &str| fs::read_link(format!("/proc/{}/{name}", pid.as_raw_nonzero()));
        ["cwd", "fd/0"].iter().any(|name| link(name).is_ok_and(|path| path.starts_with(dir)))
    };
    pids.filter(below).collect()
}

impl Log {
    async fn wait_for<T>(&self, what: &str, ask: impl Fn(&Line) -> Option<T>) -> T {
        let ask = || {
            let lines = self.lines.lock().unwrap();
            lines.iter().filter_map(|text| Line::parse(text)).find_map(|line| ask(&line))
        };
        self.wait(what, ask).await
    }

    /// Asks whenever the log has grown, until there is an answer.
    async fn wait<T>(&self, what: &str, ask: impl Fn() -> Option<T>) -> T {
        let mut grown = self.grown.subscribe();
        let found = async {
            loop {
                if let Some(found) = ask() {
                    return Some(found);
                }
                if grown.changed().await.is_err() {
                    return None;
                }
            }
        };
        let found = tokio::time::timeout(super::PATIENCE, found).await;
        match found {
            Ok(Some(found)) => found,
            _ => panic!("no line for {what} in:\n{}", self.lines.lock().unwrap().join("\n")),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "it ends with the daemon's output")]
fn collect(log: Arc<Log>, output: impl AsyncRead + Unpin + Send + 'static) {
    let mut lines = BufReader::new(output).split(b'\n');
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_segment().await {
            log.lines.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
            log.grown.send_replace(());
        }
    });
}
