//! The configuration as plain values that can be shown to people and sent between processes: `check` asks
//! the daemon for its own and compares.
//!
//! Invariant: no value of a config var, only its fingerprint.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::config_var::fingerprint;
use crate::config::{
    AccessLog, AcmeConfig, AppConfig, AppSource, CertFiles, CertSource, Config, Deploy,
    HealthCheck, IsolationWanted, JobConfig, LogFiles, LogsConfig, ManagedApp, NetworkWanted,
    RouterConfig, SupervisorTimeouts, Upkeep,
};
use crate::config::{bytes, defaults, duration};
use crate::model::{
    Affinity, AppName, AppPolicy, AppTimeouts, Autoscale, Balance, Canary, CpuShare, DrainUrl,
    Endpoint, Expect, Guard, ListenerPolicy, ProcessType, Size, SizeLimits, Sizes,
    StatedCertificate, TrafficLimits,
};

/// What a configuration says, without secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The file, absolute.
    pub file: String,
    /// `router.http`
    pub http: Vec<String>,
    /// `router.https`
    pub https: Vec<String>,
    /// `router.proxy_protocol`
    pub proxy_protocol: Vec<String>,
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
    /// `[router.timeouts]` that are no app's: `handshake`, `head`, `keepalive`, `stop`.
    pub timeouts: BTreeMap<String, String>,
    /// `admin.http`
    pub admin_http: Option<String>,
    /// `admin.api`
    pub admin_api: Option<String>,
    /// `admin.api_names`
    pub admin_api_names: Vec<String>,
    /// `admin.socket`
    pub admin_socket: String,
    /// `state.dir`
    pub state_dir: String,
    /// `dynos.isolation`
    pub isolation: String,
    /// `dynos.uids`
    pub uids: String,
    /// `dynos.network`
    pub network: String,
    /// `dynos.addresses`
    pub addresses: String,
    /// `dynos.expose`
    pub expose: Vec<String>,
    /// `[logs]`: every setting by its key; empty where all are as by default.
    pub logs: BTreeMap<String, String>,
    /// `[[certs]]`, each as one text.
    pub certs: Vec<String>,
    /// `[acme]`: every setting by its key.
    pub acme: Option<BTreeMap<String, String>>,
    /// Heroku's sizes and those of the file, each as one text.
    pub sizes: BTreeMap<String, String>,
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
    /// Where its log is sent to, without secrets but with the fingerprint of what is not shown.
    pub drains: Vec<String>,
    /// Certificates that commands gave it.
    #[serde(default)]
    pub certificates: Vec<String>,
    /// What it runs by the clock, each as one text, by name.
    pub jobs: BTreeMap<String, String>,
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
        /// The name of each process type's size.
        sizes: BTreeMap<String, String>,
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
            http: addresses(router, |it| !it.tls),
            https: addresses(router, |it| it.tls),
            proxy_protocol: addresses(router, |it| it.proxy_protocol),
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
            timeouts: listener_timeouts(&router.listener, router.stop),
            admin_http: config.admin.http.as_ref().map(ToString::to_string),
            admin_api: config.admin.api.as_ref().map(ToString::to_string),
            admin_api_names: config.admin.api_names.iter().map(ToString::to_string).collect(),
            admin_socket: config.admin.socket.display().to_string(),
            state_dir: config.state_dir.display().to_string(),
            isolation: match config.dynos.isolation {
                IsolationWanted::Auto => "auto".into(),
                IsolationWanted::Required => "required".into(),
                IsolationWanted::None => "none".into(),
            },
            uids: uids(&config.dynos.uids),
            network: match config.dynos.network {
                NetworkWanted::Host => "host".into(),
                NetworkWanted::Private => "private".into(),
            },
            addresses: config.dynos.addresses.to_string(),
            expose: config.dynos.expose.iter().map(|it| it.display().to_string()).collect(),
            logs: logs(&config.logs),
            certs: config.certs.iter().map(cert_source).collect(),
            acme: config.acme.as_ref().map(acme),
            sizes: config.sizes.iter().map(|it| (it.name.to_string(), size(it))).collect(),
            apps: config
                .apps
                .iter()
                .map(|(name, app)| (name.to_string(), sum_up(config, name, app)))
                .collect(),
            warnings: texts(&config.notes.warnings),
        }
    }

    /// The users that are lent where the file says nothing of them.
    pub(crate) fn default_uids() -> String {
        uids(&defaults::UIDS)
    }

    /// The addresses that are lent where the file says nothing of them.
    pub(crate) fn default_addresses() -> String {
        defaults::ADDRESSES.to_string()
    }

    /// Heroku's sizes, which are there without a word of the file.
    pub(crate) fn default_sizes() -> BTreeMap<String, String> {
        Sizes::heroku().iter().map(|it| (it.name.to_string(), size(it))).collect()
    }

    /// Its timeouts where the file says nothing of them.
    pub(crate) fn default_timeouts() -> BTreeMap<String, String> {
        listener_timeouts(&defaults::LISTENER, defaults::STOP)
    }
}

impl AppSummary {
    /// Its settings where the file says nothing of them.
    pub(crate) fn default_settings() -> BTreeMap<String, String> {
        let mut of_app = settings(&defaults::POLICY, defaults::ACME_OF_APP);
        of_app.extend(dyno_settings(
            Sizes::DEFAULT,
            defaults::DEPLOY,
            None,
            defaults::RUNTIME_METRICS,
        ));
        of_app.insert("autoscale".into(), autoscale_setting(&BTreeMap::new()));
        of_app.insert("guard".into(), guard_setting(None));
        of_app.insert("canary".into(), canary_setting(None));
        of_app.insert("keep_warm".into(), or_off(None));
        of_app.extend(upkeep_settings(&defaults::UPKEEP));
        of_app
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
    let mut settings = settings(&app.policy, app.acme);
    let source = match &app.source {
        AppSource::Managed(managed) => {
            let ManagedApp { size, deploy, recycle_on_r14, runtime_metrics, .. } = managed;
            let size = size.name.as_str();
            settings.extend(dyno_settings(size, *deploy, *recycle_on_r14, *runtime_metrics));
            settings.insert("autoscale".into(), autoscale_setting(&managed.autoscale));
            settings.insert("guard".into(), guard_setting(managed.guard));
            settings.insert("canary".into(), canary_setting(managed.canary));
            settings.insert("keep_warm".into(), or_off(managed.keep_warm));
            settings.extend(upkeep_settings(&managed.upkeep));
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
                sizes: managed
                    .sizes
                    .iter()
                    .map(|(it, size)| (it.to_string(), size.name.to_string()))
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
    let jobs = app.jobs.iter().map(job).collect();
    let drains = app.drains.iter().map(drain).collect();
    let certificates = app.certificates.iter().map(certificate).collect();
    AppSummary { domains, settings, timeouts, source, drains, certificates, jobs }
}

/// With a mark of its chain: another one under the same name is another certificate.
fn certificate(it: &StatedCertificate) -> String {
    format!("{} for {} ({:016x})", it.name, texts(&it.names).join(", "), fingerprint(&it.chain))
}

fn drain(url: &DrainUrl) -> String {
    match url.has_more() {
        true => format!("{url} ({:016x})", fingerprint(url.as_str())),
        false => url.to_string(),
    }
}

// The structs are taken apart in full below, so that a field that is added does not compile until it is
// shown here.

fn logs(logs: &LogsConfig) -> BTreeMap<String, String> {
    let LogsConfig { files, ca_file } = logs;
    let mut of_logs = BTreeMap::new();
    if let Some(LogFiles { dir, max_size, keep }) = files {
        of_logs.insert("dir".to_owned(), dir.display().to_string());
        of_logs.insert("max_size".to_owned(), bytes::print(*max_size));
        of_logs.insert("keep".to_owned(), keep.to_string());
    }
    if let Some(ca_file) = ca_file {
        of_logs.insert("ca_file".to_owned(), ca_file.display().to_string());
    }
    of_logs
}

fn settings(policy: &AppPolicy, acme: bool) -> BTreeMap<String, String> {
    let AppPolicy {
        timeouts: _,
        balance,
        expect,
        maintenance,
        backlog,
        force_https,
        http2_to_dyno,
        affinity,
        slow_start,
        limits,
        client_limits,
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
    let affinity = match affinity {
        Affinity::Off => "off",
        Affinity::Cookie => "cookie",
        Affinity::Address => "address",
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
        ("acme", acme.to_string()),
        ("force_https", force_https.to_string()),
        ("http2_to_dyno", http2_to_dyno.to_string()),
        ("affinity", affinity.to_owned()),
        ("slow_start", or_off(*slow_start)),
        ("limits", traffic_limits(limits)),
        ("client_limits", traffic_limits(client_limits)),
        ("error_page", page(error_page)),
        ("maintenance_page", page(maintenance_page)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// Settings of an app whose dynos dynomesh runs.
fn dyno_settings(
    size: &str,
    deploy: Deploy,
    recycle_on_r14: Option<Duration>,
    runtime_metrics: bool,
) -> BTreeMap<String, String> {
    let deploy = match deploy {
        Deploy::Rolling => "rolling",
        Deploy::Preboot => "preboot",
        Deploy::Restart => "restart",
    };
    [
        ("size", size.to_owned()),
        ("deploy", deploy.to_owned()),
        ("recycle_on_r14", recycle_on_r14.map_or("never".into(), duration::print)),
        ("runtime_metrics", runtime_metrics.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// `web 1 to 5 dynos for p95 500ms, up after 10s, down after 5m`
fn autoscale_setting(rules: &BTreeMap<ProcessType, Autoscale>) -> String {
    let of_type = |(process_type, rules): (&ProcessType, &Autoscale)| {
        let Autoscale { min, max, target, up_after, down_after } = rules;
        let [up_after, down_after] = [*up_after, *down_after].map(duration::print);
        format!(
            "{process_type} {min} to {max} dynos for {target}, up after {up_after}, down after {down_after}"
        )
    };
    let rules: Vec<_> = rules.iter().map(of_type).collect();
    if rules.is_empty() { "off".into() } else { rules.join("; ") }
}

/// `errors 5%, p95 3x, within 2m, from 20 requests on`
fn guard_setting(guard: Option<Guard>) -> String {
    let Some(guard) = guard else { return "off".into() };
    let Guard { errors: _, p95: _, within, requests } = guard;
    format!("{guard}, within {}, from {requests} requests on", duration::print(within))
}

/// `5% for 5m`
fn canary_setting(canary: Option<Canary>) -> String {
    let print = |Canary { share, time }| format!("{share}% for {}", duration::print(time));
    canary.map_or_else(|| "off".into(), print)
}

/// `256MB, cpu_share 1, 256 processes, sleeps after 30m, $5 a month`
fn size(size: &Size) -> String {
    let Size { name: _, limits, sleep_after, price } = size;
    let SizeLimits { memory, cpu, cpus, processes } = *limits;
    let mut text = bytes::print(memory);
    text.push_str(&match cpu {
        CpuShare::Shared(shares) => format!(", cpu_share {shares}"),
        CpuShare::Dedicated => ", dedicated".to_owned(),
    });
    if let Some(thousandths) = cpus {
        text.push_str(&format!(", at most {} cpus", f64::from(thousandths) / 1000.0));
    }
    text.push_str(&format!(", {processes} processes"));
    if let Some(idle) = sleep_after {
        text.push_str(&format!(", sleeps after {}", duration::print(*idle)));
    }
    text.push_str(&format!(", ${} a month", f64::from(*price) / 100.0));
    text
}

fn upkeep_settings(upkeep: &Upkeep) -> BTreeMap<String, String> {
    let Upkeep { health, cycle, freeze_after } = upkeep;
    [
        ("health", health.as_ref().map_or_else(|| "off".to_owned(), health_check)),
        ("cycle", or_off(*cycle)),
        ("freeze_after", or_off(*freeze_after)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

fn or_off(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "off".to_owned(), duration::print)
}

fn health_check(check: &HealthCheck) -> String {
    let HealthCheck { path, interval, timeout, unhealthy_after, restart_after } = check;
    let [interval, timeout] = [*interval, *timeout].map(duration::print);
    let restart = match restart_after {
        Some(failures) => format!(", restart after {failures}"),
        None => String::new(),
    };
    format!(
        "{path} each {interval} within {timeout}, unhealthy after {unhealthy_after} failures{restart}"
    )
}

fn traffic_limits(limits: &TrafficLimits) -> String {
    let TrafficLimits { requests_per_second, connections, in_flight } = limits;
    let limits: Vec<String> = [
        ("requests_per_second", requests_per_second),
        ("connections", connections),
        ("in_flight", in_flight),
    ]
    .into_iter()
    .filter_map(|(key, limit)| limit.map(|limit| format!("{key} {limit}")))
    .collect();
    if limits.is_empty() { "none".into() } else { limits.join(", ") }
}

fn job(job: &JobConfig) -> (String, String) {
    let JobConfig { name, command, schedule, size, overlap } = job;
    let size = size.as_ref().map_or(String::new(), |size| format!(", {}", size.name));
    let overlap = if *overlap { ", may overlap" } else { "" };
    let command = if name == command { String::new() } else { format!(", {command}") };
    (name.clone(), format!("{schedule}{size}{overlap}{command}"))
}

fn cert_source(source: &CertSource) -> String {
    // Its line may change while it remains the same.
    let CertSource { line: _, files } = source;
    match files {
        CertFiles::Pair { cert, key } => format!("{} with {}", cert.display(), key.display()),
        CertFiles::Dir(dir) => format!("every pair in {}", dir.display()),
    }
}

fn acme(acme: &AcmeConfig) -> BTreeMap<String, String> {
    let AcmeConfig { directory, contact, renew_before, ca_file } = acme;
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "none".into());
    [
        ("directory", directory.clone()),
        ("contact", or_none((!contact.is_empty()).then(|| contact.join(", ")))),
        ("renew_before", duration::print(*renew_before)),
        ("ca_file", or_none(ca_file.as_ref().map(|it| it.display().to_string()))),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// As the file has it.
fn uids(uids: &RangeInclusive<u32>) -> String {
    format!("{}-{}", uids.start(), uids.end())
}

fn addresses(router: &RouterConfig, which: impl Fn(&Endpoint) -> bool) -> Vec<String> {
    router.endpoints.iter().filter(|it| which(it)).map(|it| it.addr.to_string()).collect()
}

fn app_timeouts(timeouts: &AppTimeouts) -> BTreeMap<String, String> {
    let AppTimeouts { hold, connect, first_byte, rolling, linger, drain, ws_drain, dyno_keepalive } =
        *timeouts;
    printed([
        ("hold", hold),
        ("connect", connect),
        ("first_byte", first_byte),
        ("rolling", rolling),
        ("linger", linger),
        ("drain", drain),
        ("ws_drain", ws_drain),
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

fn listener_timeouts(listener: &ListenerPolicy, stop: Duration) -> BTreeMap<String, String> {
    let ListenerPolicy { handshake, head, keepalive, trusted_proxies: _ } = *listener;
    printed([("handshake", handshake), ("head", head), ("keepalive", keepalive), ("stop", stop)])
}

fn printed<const N: usize>(timeouts: [(&str, Duration); N]) -> BTreeMap<String, String> {
    timeouts.map(|(key, value)| (key.to_owned(), duration::print(value))).into()
}

fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}
