//! The configuration as used: every value parsed, every default filled in, every path absolute, every file
//! that it names read. What exists here is valid.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;

use crate::config::config_var::Redacted;
use crate::config::{ConfigProblem, Said, defaults};
use crate::model::{
    AppName, AppPolicy, Autoscale, Canary, Domain, DrainUrl, DynoAddr, Endpoint, Formation, Guard,
    ListenAddr, ListenerPolicy, ProcessType, Schedule, Size, Sizes, StatedCertificate,
};

/// Everything `serve` needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file it came from, absolute.
    pub file: PathBuf,
    /// `[router]`
    pub router: RouterConfig,
    /// `[admin]`
    pub admin: AdminConfig,
    /// `[state] dir`
    pub state_dir: PathBuf,
    /// `[dynos]`
    pub dynos: DynosConfig,
    /// `[logs]`
    pub logs: LogsConfig,
    /// `[[certs]]`, in the order of the file.
    pub certs: Vec<CertSource>,
    /// `[acme]`; absent: no automatic certificates.
    pub acme: Option<AcmeConfig>,
    /// Heroku's sizes and `[sizes.NAME]`.
    pub sizes: Sizes,
    /// `[apps.NAME]`, in the order of names.
    pub apps: BTreeMap<AppName, AppConfig>,
    /// What a person should hear of it; nothing that changes what `serve` does.
    pub notes: Notes,
}

/// What was noticed while the configuration was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// What holds, but may not be what was meant.
    pub warnings: Vec<ConfigProblem>,
    /// Whether the number of workers is that of the cores, which may be another one at the next reading.
    pub workers_per_core: bool,
    /// The line of each key that is written and cannot change while the daemon runs.
    pub lines: BTreeMap<&'static str, usize>,
}

/// `[router]`
#[derive(Clone, Debug, PartialEq)]
pub struct RouterConfig {
    /// Where clients are accepted.
    pub endpoints: Vec<Endpoint>,
    /// Apps answer at `NAME.domain`.
    pub domain: Box<str>,
    /// The app that answers at the domain itself and at bare addresses.
    pub default_app: Option<AppName>,
    /// Worker threads; never 0 here. Fixed for the daemon's life.
    pub workers: usize,
    /// Where the line per request goes.
    pub access_log: AccessLog,
    /// What holds before an app is known.
    pub listener: ListenerPolicy,
    /// `timeouts.stop`: how long a stop of the daemon may take before what is left is cut.
    pub stop: Duration,
}

/// Where the router's line per request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// With everything else.
    Stdout,
    /// To a file, appended to.
    File(PathBuf),
    /// Nowhere; counters only.
    Off,
}

/// `[admin]`
#[derive(Clone, Debug, PartialEq)]
pub struct AdminConfig {
    /// Where /metrics, /healthz and /readyz answer; absent: nowhere.
    pub http: Option<ListenAddr>,
    /// Where the Platform API answers whoever has a token: by TLS, and plainly to this machine alone. Absent: nowhere
    /// but on the socket.
    pub api: Option<SocketAddr>,
    /// By which names and addresses it is asked besides those of loopback and its own address.
    pub api_names: Vec<Box<str>>,
    /// The unix socket by which commands find the daemon.
    pub socket: PathBuf,
}

impl AdminConfig {
    /// All names and addresses by which the Platform API may be asked.
    pub fn names_of_api(&self) -> Vec<Box<str>> {
        let mut names: Vec<Box<str>> = ["localhost", "127.0.0.1", "::1"].map(Into::into).into();
        let own = self.api.map(|addr| addr.ip()).filter(|ip| !ip.is_unspecified());
        names.extend(own.map(|ip| ip.to_string().into()));
        names.extend(self.api_names.iter().cloned());
        names.sort();
        names.dedup();
        names
    }
}

/// `[dynos]`: what holds for every dyno that dynomesh runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DynosConfig {
    /// Whether each is kept apart from the rest of the machine. Fixed for the daemon's life.
    pub isolation: IsolationWanted,
    /// The users that are lent to isolated dynos, one each. Fixed for the daemon's life.
    pub uids: RangeInclusive<u32>,
    /// Whose network dynos are in. Fixed for the daemon's life.
    pub network: NetworkWanted,
    /// The addresses that are lent to dynos with a network of their own, two each: a private network of at least
    /// 256. Fixed for the daemon's life.
    pub addresses: Ipv4Net,
    /// What an isolated dyno sees of the host besides its system directories; absolute, and was there when the
    /// file was read.
    pub expose: Vec<PathBuf>,
}

/// Whether dynos are kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsolationWanted {
    /// Where the daemon is root and the host can.
    Auto,
    /// Where they cannot be, the daemon does not start.
    Required,
    /// They are processes of the daemon's own user like any others.
    None,
}

/// Whose network dynos are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkWanted {
    /// The host's.
    Host,
    /// Each in one of its own; where that cannot be, the daemon does not start.
    Private,
}

impl Config {
    /// The drains of each app.
    pub fn drains(&self) -> BTreeMap<AppName, Vec<DrainUrl>> {
        self.apps.iter().map(|(name, app)| (name.clone(), app.drains.clone())).collect()
    }
}

/// `[logs]`: where lines go beside standard output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogsConfig {
    /// Where each app's lines are written to; absent: nowhere.
    pub files: Option<LogFiles>,
    /// PEM: roots to trust for drains, beside those of the system. Absolute.
    pub ca_file: Option<PathBuf>,
}

/// `[logs] dir` and what goes with it: `DIR/APP.log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFiles {
    /// The directory; made where it is not there. Absolute.
    pub dir: PathBuf,
    /// Bytes from which on a file becomes `APP.log.1`, and that one `APP.log.2`.
    pub max_size: u64,
    /// How many of these are kept.
    pub keep: u32,
}

/// `[[certs]]`: own certificates. That the files are there was checked, what is in them was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertSource {
    /// The line of the entry, from 1.
    pub line: usize,
    /// Where its certificates are.
    pub files: CertFiles,
}

/// Where own certificates are; the paths are absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertFiles {
    /// One certificate.
    Pair {
        /// PEM: the certificate itself, then those between it and a root.
        cert: PathBuf,
        /// PEM: PKCS#8, SEC1 or PKCS#1.
        key: PathBuf,
    },
    /// A directory of pairs: `NAME.pem` or `NAME.crt`, and `NAME.key`.
    Dir(PathBuf),
}

/// `[acme]`: automatic certificates (RFC 8555). That one agrees to the terms of service was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcmeConfig {
    /// The URL of the server's directory; `https`.
    pub directory: String,
    /// `mailto:` URLs of who is told of trouble.
    pub contact: Vec<String>,
    /// How long before its end a certificate is renewed.
    pub renew_before: Duration,
    /// PEM: roots to trust for the server itself, beside those of the system. Absolute.
    pub ca_file: Option<PathBuf>,
}

/// `[apps.NAME]`
#[derive(Clone, Debug, PartialEq)]
pub struct AppConfig {
    /// Names it answers at, beside `NAME.domain`.
    pub domains: Vec<Domain>,
    /// Whether its exact domains get automatic certificates, where there is `[acme]`.
    pub acme: bool,
    /// Certificates that commands gave it.
    pub certificates: Vec<StatedCertificate>,
    /// How the router treats its requests.
    pub policy: AppPolicy,
    /// Where its dynos come from.
    pub source: AppSource,
    /// Where its log is sent to; none twice.
    pub drains: Vec<DrainUrl>,
    /// What it runs by the clock, in the order of the file; no name twice.
    pub jobs: Vec<JobConfig>,
    /// What of it the file decides.
    pub said: Said,
}

/// `[[apps.NAME.jobs]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobConfig {
    /// What it is remembered by: its command, where it has no name of its own.
    pub name: String,
    /// What its one-off dynos run.
    pub command: String,
    /// When.
    pub schedule: Schedule,
    /// The size of its dynos, if not the app's.
    pub size: Option<Arc<Size>>,
    /// Whether it is started beside one that still runs.
    pub overlap: bool,
}

/// Where an app's dynos come from.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there is one per app, most of them the large one")]
pub enum AppSource {
    /// `dir`: dynomesh runs them.
    Managed(ManagedApp),
    /// `dynos`: somebody else runs them; not empty, no address twice.
    External(Vec<DynoAddr>),
    /// Neither: the app is known but has no release (H81).
    Blank,
}

/// An app whose processes dynomesh runs. Its `Debug` shows no values of config vars.
#[derive(Clone, PartialEq)]
pub struct ManagedApp {
    /// Has the Procfile; the working directory of its dynos.
    pub dir: PathBuf,
    /// The Procfile: command by process type.
    pub commands: BTreeMap<ProcessType, String>,
    /// How many dynos of each type; only types of the Procfile. `web` is 1 and others 0 where unsaid. Of those
    /// that are autoscaled, with how many they begin: within their bounds.
    pub formation: Formation,
    /// By what the number of dynos of a type follows the requests; web only.
    pub autoscale: BTreeMap<ProcessType, Autoscale>,
    /// The size of its dynos, and of what runs beside them, where none of its own is said.
    pub size: Arc<Size>,
    /// The size of the dynos of each type of the Procfile.
    pub sizes: BTreeMap<ProcessType, Arc<Size>>,
    /// How another release takes the place of the one that runs.
    pub deploy: Deploy,
    /// By what a release is judged once it has requests; absent: by whether its dynos come up.
    pub guard: Option<Guard>,
    /// With how much of the requests a release begins; absent: all, dyno by dyno.
    pub canary: Option<Canary>,
    /// How long the web dynos' processes of the release before are kept, out of the line-up; absent: they end.
    pub keep_warm: Option<Duration>,
    /// The number of the release that this is: 7 is `v7`. Absent: whoever runs it counts, one more for each change
    /// of what it runs.
    pub release: Option<u64>,
    /// How long a dyno may be above its memory quota until it is replaced; absent: as long as it likes.
    pub recycle_on_r14: Option<Duration>,
    /// Whether its dynos' load and memory are said in the log each 20 s.
    pub runtime_metrics: bool,
    /// Config vars: `env_file` first, `[apps.NAME.config]` over it.
    pub config_vars: BTreeMap<String, String>,
    /// How its dynos are booted and stopped.
    pub timeouts: SupervisorTimeouts,
    /// How its dynos are looked after while they are up.
    pub upkeep: Arc<Upkeep>,
}

impl fmt::Debug for ManagedApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagedApp")
            .field("dir", &self.dir)
            .field("commands", &self.commands)
            .field("formation", &self.formation)
            .field("autoscale", &self.autoscale)
            .field("size", &self.size)
            .field("sizes", &self.sizes)
            .field("deploy", &self.deploy)
            .field("guard", &self.guard)
            .field("canary", &self.canary)
            .field("keep_warm", &self.keep_warm)
            .field("release", &self.release)
            .field("recycle_on_r14", &self.recycle_on_r14)
            .field("runtime_metrics", &self.runtime_metrics)
            .field("config_vars", &Redacted(&self.config_vars))
            .field("timeouts", &self.timeouts)
            .field("upkeep", &self.upkeep)
            .finish()
    }
}

/// How another release takes the place of the one that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deploy {
    /// A quarter of each process type at a time, and each successor is up before its predecessor goes.
    Rolling,
    /// All new web dynos boot beside the old ones, then requests go to all of them at once.
    Preboot,
    /// All old ones stop, then the new ones start; requests are held meanwhile. Heroku's default.
    Restart,
}

/// How dynos are booted, stopped and restarted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SupervisorTimeouts {
    /// Until a web dyno accepts connections (R10), 60 s.
    pub boot: Duration,
    /// From SIGTERM to SIGKILL (R12), 30 s.
    pub exit: Duration,
    /// The first cool-off after the immediate restart, 1 s; doubles from there.
    pub cool_off_first: Duration,
    /// The longest cool-off, 5 min.
    pub cool_off_max: Duration,
}

impl SupervisorTimeouts {
    /// Where the file says nothing, or says nothing any more.
    pub const DEFAULT: Self = defaults::SUPERVISOR_TIMEOUTS;
}

/// How dynos are looked after while they are up. All of it is off by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upkeep {
    /// How web dynos are asked whether they are well.
    pub health: Option<HealthCheck>,
    /// How long a dyno lives until it is replaced by a fresh one.
    pub cycle: Option<Duration>,
    /// How long without web requests until the processes of an app are stopped where they are.
    pub freeze_after: Option<Duration>,
}

/// How web dynos are asked whether they are well: by a GET, which 2xx and 3xx answer well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked for.
    pub path: Arc<str>,
    /// Between two checks of a dyno, 10 s.
    pub interval: Duration,
    /// For one whole answer, 5 s.
    pub timeout: Duration,
    /// Failures in a row until the dyno gets no more requests, 3.
    pub unhealthy_after: NonZeroU32,
    /// Failures in a row until it is restarted; absent: it never is.
    pub restart_after: Option<NonZeroU32>,
}
