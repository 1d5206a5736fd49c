//! The configuration as plain values that can be shown to people and sent between processes: `check` asks
//! the daemon for its own and compares.
//!
//! Invariant: no value of a config var, only its fingerprint.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::config_var::fingerprint;
use crate::config::{AccessLog, AppConfig, AppSource, Config, SupervisorTimeouts};
use crate::config::{defaults, duration};
use crate::model::{AppName, AppPolicy, AppTimeouts, Balance, Expect};

/// What a configuration says, without secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The file, absolute.
    pub file: String,
    /// `router.http`
    pub http: Vec<String>,
    /// `router.domain`
    pub domain: String,
    /// `router.default_app`
    pub default_app: Option<String>,
    /// Worker threads, counted.
    pub workers: usize,
    /// Whether they are as many as there are cores.
    pub workers_per_core: bool,
    /// `stdout`, `off`, or a path.
    pub access_log: String,
    /// `router.trusted_proxies`
    pub trusted_proxies: Vec<String>,
    /// `[router.timeouts]` that are no app's: `head`, `keepalive`, `stop`.
    pub timeouts: BTreeMap<String, String>,
    /// `admin.http`
    pub admin_http: Option<String>,
    /// `admin.socket`
    pub admin_socket: String,
    /// `state.dir`
    pub state_dir: String,
    /// By name.
    pub apps: BTreeMap<String, AppSummary>,
    /// Each with its file and line.
    pub warnings: Vec<String>,
}

/// What the configuration says of one app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppSummary {
    /// All names that it answers at, `NAME.domain` first.
    pub domains: Vec<String>,
    /// Every other setting by its key: `balance`, `backlog`.
    pub settings: BTreeMap<String, String>,
    /// `[apps.NAME.timeouts]`, or what holds in their place.
    pub timeouts: BTreeMap<String, String>,
    /// Where its dynos come from.
    pub source: SourceSummary,
}

/// Where an app's dynos come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceSummary {
    /// dynomesh runs them.
    Managed {
        /// Has the Procfile.
        dir: String,
        /// By process type.
        commands: BTreeMap<String, String>,
        /// How many dynos of each process type.
        formation: BTreeMap<String, u32>,
        /// Fingerprints of the config vars, by name.
        config_vars: BTreeMap<String, u64>,
    },
    /// Somebody else runs them: their addresses.
    External(Vec<String>),
    /// There are none.
    Blank,
}

impl Summary {
    /// Sums up a configuration.
    pub fn of(config: &Config) -> Self {
        let router = &config.router;
        Self {
            file: config.file.display().to_string(),
            http: router.endpoints.iter().map(|it| it.addr.to_string()).collect(),
            domain: router.domain.to_string(),
            default_app: router.default_app.as_ref().map(ToString::to_string),
            workers: router.workers,
            workers_per_core: config.notes.workers_per_core,
            access_log: match &router.access_log {
                AccessLog::Stdout => "stdout".into(),
                AccessLog::Off => "off".into(),
                AccessLog::File(path) => path.display().to_string(),
            },
            trusted_proxies: texts(&router.listener.trusted_proxies),
            timeouts: listener_timeouts(
                router.listener.head,
                router.listener.keepalive,
                router.stop,
            ),
            admin_http: config.admin.http.as_ref().map(ToString::to_string),
            admin_socket: config.admin.socket.display().to_string(),
            state_dir: config.state_dir.display().to_string(),
            apps: config
                .apps
                .iter()
                .map(|(name, app)| (name.to_string(), sum_up(config, name, app)))
                .collect(),
            warnings: texts(&config.notes.warnings),
        }
    }

    /// Its timeouts where the file says nothing of them.
    pub(crate) fn default_timeouts() -> BTreeMap<String, String> {
        listener_timeouts(defaults::HEAD, defaults::KEEPALIVE, defaults::STOP)
    }
}

impl AppSummary {
    /// Its settings where the file says nothing of them.
    pub(crate) fn default_settings() -> BTreeMap<String, String> {
        settings(&defaults::POLICY)
    }

    /// Its timeouts where the file says nothing of them.
    pub(crate) fn default_timeouts() -> BTreeMap<String, String> {
        let mut timeouts = app_timeouts(&defaults::APP_TIMEOUTS);
        timeouts.extend(supervisor_timeouts(&defaults::SUPERVISOR_TIMEOUTS));
        timeouts
    }
}

fn sum_up(config: &Config, name: &AppName, app: &AppConfig) -> AppSummary {
    let own = format!("{name}.{}", config.router.domain);
    let is_default = config.router.default_app.as_ref() == Some(name);
    let mut domains = vec![own];
    domains.extend(is_default.then(|| config.router.domain.to_string()));
    for domain in texts(&app.domains) {
        if !domains.contains(&domain) {
            domains.push(domain);
        }
    }
    let mut timeouts = app_timeouts(&app.policy.timeouts);
    let source = match &app.source {
        AppSource::Managed(managed) => {
            timeouts.extend(supervisor_timeouts(&managed.timeouts));
            SourceSummary::Managed {
                dir: managed.dir.display().to_string(),
                commands: managed
                    .commands
                    .iter()
                    .map(|(it, command)| (it.to_string(), command.clone()))
                    .collect(),
                formation: managed
                    .formation
                    .iter()
                    .map(|(it, count)| (it.to_string(), *count))
                    .collect(),
                config_vars: managed
                    .config_vars
                    .iter()
                    .map(|(name, value)| (name.clone(), fingerprint(value)))
                    .collect(),
            }
        }
        AppSource::External(dynos) => SourceSummary::External(texts(dynos)),
        AppSource::Blank => SourceSummary::Blank,
    };
    AppSummary { domains, settings: settings(&app.policy), timeouts, source }
}

// The structs are taken apart in full below, so that a field that is added does not compile until it is
// shown here.

fn settings(policy: &AppPolicy) -> BTreeMap<String, String> {
    let AppPolicy {
        timeouts: _,
        balance,
        expect,
        maintenance,
        backlog,
        force_https: _,
        http2_to_dyno: _,
        affinity: _,
        limits: _,
        client_limits: _,
        error_page,
        maintenance_page,
    } = policy;
    let balance = match balance {
        Balance::P2c => "p2c",
        Balance::Random => "random",
        Balance::Least => "least",
    };
    let expect = match expect {
        Expect::Router => "router",
        Expect::Dyno => "dyno",
    };
    let page = |page: &Option<Arc<str>>| match page {
        None => "the router's".to_owned(),
        Some(html) => format!("own ({} bytes, {:016x})", html.len(), fingerprint(html)),
    };
    [
        ("balance", balance.to_owned()),
        ("expect", expect.to_owned()),
        ("maintenance", maintenance.to_string()),
        ("backlog", backlog.to_string()),
        ("error_page", page(error_page)),
        ("maintenance_page", page(maintenance_page)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

fn app_timeouts(timeouts: &AppTimeouts) -> BTreeMap<String, String> {
    let AppTimeouts { hold, connect, first_byte, rolling, linger, drain, dyno_keepalive } =
        *timeouts;
    printed([
        ("hold", hold),
        ("connect", connect),
        ("first_byte", first_byte),
        ("rolling", rolling),
        ("linger", linger),
        ("drain", drain),
        ("dyno_keepalive", dyno_keepalive),
    ])
}

fn supervisor_timeouts(timeouts: &SupervisorTimeouts) -> BTreeMap<String, String> {
    let SupervisorTimeouts { boot, exit, cool_off_first, cool_off_max } = *timeouts;
    printed([
        ("boot", boot),
        ("exit", exit),
        ("cool_off", cool_off_first),
        ("cool_off_max", cool_off_max),
    ])
}

fn listener_timeouts(
    head: Duration,
    keepalive: Duration,
    stop: Duration,
) -> BTreeMap<String, String> {
    printed([("head", head), ("keepalive", keepalive), ("stop", stop)])
}

fn printed<const N: usize>(timeouts: [(&str, Duration); N]) -> BTreeMap<String, String> {
    timeouts.map(|(key, value)| (key.to_owned(), duration::print(value))).into()
}

fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}
