//! The configuration as plain values that can be shown to people and sent between processes: `check` asks
//! the daemon for its own and compares.
//!
//! Invariant: no value of a config var, only its fingerprint.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::config_var::fingerprint;
use crate::config::{AccessLog, AppConfig, AppSource, Config, SupervisorTimeouts};
use crate::config::{defaults, duration};
use crate::model::{AppName, AppPolicy, Balance, Expect};

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
    /// Every other setting by its key: `balance`, `timeouts.hold`.
    pub settings: BTreeMap<String, String>,
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
        let timeouts = [
            ("head", router.listener.head),
            ("keepalive", router.listener.keepalive),
            ("stop", router.stop),
        ];
        Self {
            file: config.file.display().to_string(),
            http: texts(&router.http),
            domain: router.domain.to_string(),
            default_app: router.default_app.as_ref().map(ToString::to_string),
            workers: router.workers,
            access_log: match &router.access_log {
                AccessLog::Stdout => "stdout".into(),
                AccessLog::Off => "off".into(),
                AccessLog::File(path) => path.display().to_string(),
            },
            trusted_proxies: texts(&router.listener.trusted_proxies),
            timeouts: timeouts.map(|(key, value)| (key.to_owned(), duration::print(value))).into(),
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

    /// The `[router.timeouts]` of a file that says nothing of them.
    pub(crate) fn default_timeout(key: &str) -> Option<String> {
        let default = match key {
            "head" => defaults::HEAD,
            "keepalive" => defaults::KEEPALIVE,
            "stop" => defaults::STOP,
            _ => return None,
        };
        Some(duration::print(default))
    }
}

impl AppSummary {
    /// The settings of an app of which the file says nothing.
    pub(crate) fn default_settings() -> BTreeMap<String, String> {
        let mut settings = policy_settings(&defaults::POLICY);
        settings.extend(supervisor_settings(&defaults::SUPERVISOR_TIMEOUTS));
        settings
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
    let mut settings = policy_settings(&app.policy);
    let source = match &app.source {
        AppSource::Managed(managed) => {
            settings.extend(supervisor_settings(&managed.timeouts));
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
    AppSummary { domains, settings, source }
}

fn policy_settings(policy: &AppPolicy) -> BTreeMap<String, String> {
    // Taken apart in full, so that a field that is added does not compile until it is shown here.
    let AppPolicy { timeouts, balance, expect, maintenance, backlog, error_page, maintenance_page } =
        policy;
    let balance = match balance {
        Balance::P2c => "p2c",
        Balance::Random => "random",
        Balance::Least => "least",
    };
    let expect = match expect {
        Expect::Router => "router",
        Expect::Dyno => "dyno",
    };
    let page = |page: &Option<std::sync::Arc<str>>| match page {
        None => "the router's".to_owned(),
        Some(html) => format!("own ({} bytes, {:016x})", html.len(), fingerprint(html)),
    };
    let mut settings = BTreeMap::from([
        ("balance".to_owned(), balance.to_owned()),
        ("expect".to_owned(), expect.to_owned()),
        ("maintenance".to_owned(), maintenance.to_string()),
        ("backlog".to_owned(), backlog.to_string()),
        ("error_page".to_owned(), page(error_page)),
        ("maintenance_page".to_owned(), page(maintenance_page)),
    ]);
    let crate::model::AppTimeouts {
        hold,
        connect,
        first_byte,
        rolling,
        linger,
        drain,
        dyno_keepalive,
    } = *timeouts;
    for (key, value) in [
        ("hold", hold),
        ("connect", connect),
        ("first_byte", first_byte),
        ("rolling", rolling),
        ("linger", linger),
        ("drain", drain),
        ("dyno_keepalive", dyno_keepalive),
    ] {
        settings.insert(format!("timeouts.{key}"), duration::print(value));
    }
    settings
}

fn supervisor_settings(timeouts: &SupervisorTimeouts) -> BTreeMap<String, String> {
    let SupervisorTimeouts { boot, exit, cool_off_first, cool_off_max } = *timeouts;
    [("boot", boot), ("exit", exit), ("cool_off", cool_off_first), ("cool_off_max", cool_off_max)]
        .map(|(key, value)| (format!("timeouts.{key}"), duration::print(value)))
        .into()
}

fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}
