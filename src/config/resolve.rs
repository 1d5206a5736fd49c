//! As written → as used: parses every value, fills in defaults, reads the files that are named.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZero;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use toml::Spanned;

use crate::config::claims::Claims;
use crate::config::findings::{COMMAND, Findings};
use crate::config::nearest::nearest;
use crate::config::resolve_app::{AppResolver, timeouts_of_router};
use crate::config::resolve_certs::{resolve_acme, resolve_certs};
use crate::config::resolve_dynos::resolve_dynos;
use crate::config::resolve_endpoints::{resolve_endpoints, taken};
use crate::config::resolve_logs::resolve_logs;
use crate::config::resolve_sizes::resolve_sizes;
use crate::config::values::{absolute, listen_addr, make_absolute, socket_path, timeout};
use crate::config::written::{self, Optional, Written};
use crate::config::{AccessLog, AdminConfig, AppConfig, AppSource, Config, Notes, RouterConfig};
use crate::config::{defaults, limits};
use crate::model::{AppName, Domain, Endpoint, ListenAddr, ListenerPolicy, Sizes, Stated};

/// Makes the configuration as used. Where the findings have a problem afterwards it is not to be used:
/// stand-ins hold the places of what was wrong.
pub(crate) fn resolve(
    findings: &mut Findings<'_>,
    file: &Path,
    written: &Written,
    stated: &Stated,
) -> Config {
    let state_dir = state_dir(findings, written);
    let router = resolve_router(findings, &written.router);
    let admin = resolve_admin(findings, written, &state_dir, &router.endpoints);
    let dynos = resolve_dynos(findings, &written.dynos);
    let logs = resolve_logs(findings, &written.logs);
    let certs = resolve_certs(findings, &written.certs);
    let acme = resolve_acme(findings, written.acme.as_ref());
    let sizes = resolve_sizes(findings, &written.sizes);
    let context = Context { router: &router, sizes: &sizes, state_dir: &state_dir };
    let apps = resolve_apps(findings, written, stated, &context);
    warn_of_unseen_certificates(findings, written, &router);
    if let (Some(name), Some(written)) = (&router.default_app, &written.router.default_app)
        && !apps.contains_key(name)
    {
        let meant = nearest(name.as_str(), apps.keys().map(AppName::as_str));
        let meant = meant.map_or(String::new(), |meant| format!("; did you mean {meant}?"));
        let message = format!("there is no app {name} (there is: {}{meant})", list(apps.keys()));
        findings.problem(written.span().start, "router.default_app", message);
    }
    let lines = lines_of_fixed_keys(findings, written);
    let workers_per_core = written.router.workers.as_ref().is_none_or(|it| *it.get_ref() == 0);
    let notes = Notes { warnings: Vec::new(), workers_per_core, lines };
    let file = make_absolute(file);
    Config { file, router, admin, state_dir, dynos, logs, certs, acme, sizes, apps, notes }
}

/// Where the state is, absolute.
pub(crate) fn state_dir(findings: &Findings<'_>, written: &Written) -> PathBuf {
    let written = written.state.dir.as_ref();
    absolute(findings, written.map_or(defaults::STATE_DIR, |it| it.get_ref()))
}

/// What of the rest of the configuration an app is read with.
struct Context<'a> {
    router: &'a RouterConfig,
    sizes: &'a Sizes,
    state_dir: &'a Path,
}

fn resolve_router(findings: &mut Findings<'_>, written: &written::Router) -> RouterConfig {
    RouterConfig {
        endpoints: resolve_endpoints(findings, written),
        domain: resolve_domain(findings, &written.domain),
        default_app: resolve_default_app(findings, &written.default_app),
        workers: resolve_workers(findings, &written.workers),
        access_log: resolve_access_log(findings, &written.access_log),
        listener: resolve_listener(findings, written),
        stop: timeout(findings, "router.timeouts.stop", &written.timeouts.stop, defaults::STOP),
    }
}

fn resolve_listener(findings: &mut Findings<'_>, written: &written::Router) -> ListenerPolicy {
    let default = defaults::LISTENER;
    let mut timer = |key, written, default| {
        timeout(findings, &format!("router.timeouts.{key}"), written, default)
    };
    ListenerPolicy {
        handshake: timer("handshake", &written.timeouts.handshake, default.handshake),
        head: timer("head", &written.timeouts.head, default.head),
        keepalive: timer("keepalive", &written.timeouts.keepalive, default.keepalive),
        trusted_proxies: resolve_trusted_proxies(findings, &written.trusted_proxies),
    }
}

fn resolve_domain(findings: &mut Findings<'_>, written: &Optional<String>) -> Box<str> {
    let Some(written) = written else { return defaults::DOMAIN.into() };
    let wrong = match Domain::parse(written.get_ref()) {
        Ok(Domain::Exact(domain)) => return domain,
        Ok(Domain::Wildcard(_)) => "apps answer at NAME.domain: write the domain without *.",
        Err(wrong) => wrong,
    };
    findings.problem(written.span().start, "router.domain", wrong);
    defaults::DOMAIN.into()
}

fn resolve_default_app(findings: &mut Findings<'_>, written: &Optional<String>) -> Option<AppName> {
    let written = written.as_ref()?;
    AppName::parse(written.get_ref())
        .map_err(|wrong| findings.problem(written.span().start, "router.default_app", wrong))
        .ok()
}

fn resolve_workers(findings: &mut Findings<'_>, written: &Optional<usize>) -> usize {
    let cores =
        || std::thread::available_parallelism().map_or(1, NonZero::get).min(limits::WORKERS_MAX);
    match written.as_ref().map(|it| (it.span().start, *it.get_ref())) {
        None | Some((_, 0)) => cores(),
        Some((_, workers)) if workers <= limits::WORKERS_MAX => workers,
        Some((at, workers)) => {
            let message = format!(
                "expected 0 (one per core) to {} threads, not {workers}",
                limits::WORKERS_MAX
            );
            findings.problem(at, "router.workers", message);
            cores()
        }
    }
}

fn resolve_access_log(findings: &mut Findings<'_>, written: &Optional<String>) -> AccessLog {
    let Some(written) = written else { return AccessLog::Stdout };
    let path = match written.get_ref().as_str() {
        "stdout" => return AccessLog::Stdout,
        "off" => return AccessLog::Off,
        path => absolute(findings, path),
    };
    let wrong = match path.parent() {
        _ if written.get_ref().is_empty() => {
            Some("expected \"stdout\", \"off\" or a file".to_owned())
        }
        _ if path.is_dir() => Some(format!("{} is a directory, not a file", path.display())),
        Some(dir) if !dir.is_dir() => Some(format!("there is no directory {}", dir.display())),
        _ => None,
    };
    if let Some(wrong) = wrong {
        findings.problem(written.span().start, "router.access_log", wrong);
    }
    AccessLog::File(path)
}

fn resolve_trusted_proxies(findings: &mut Findings<'_>, written: &written::List) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for item in written.as_ref().map_or(&[][..], |it| it.get_ref()) {
        let text = item.get_ref();
        match text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
            Ok(network) => networks.push(network),
            Err(_) => {
                let message = format!(
                    "expected an address like 10.0.0.1 or a network like 10.0.0.0/8, not {text:?}"
                );
                findings.problem(item.span().start, "router.trusted_proxies", message);
            }
        }
    }
    networks
}

fn resolve_admin(
    findings: &mut Findings<'_>,
    written: &Written,
    state_dir: &Path,
    endpoints: &[Endpoint],
) -> AdminConfig {
    const KEY: &str = "admin.http";
    let router = &written.router;
    let written = &written.admin;
    let http = written.http.as_ref().and_then(|it| listen_addr(findings, KEY, it));
    if let (Some(addr), Some(written)) = (&http, &written.http)
        && let Some(message) = taken(router, endpoints, addr)
    {
        findings.problem(written.span().start, KEY, message);
    }
    let api_names = resolve_api_names(findings, &written.api_names);
    let api = written.api.as_ref().and_then(|it| resolve_api(findings, it, &api_names));
    let socket = match &written.socket {
        Some(written) => {
            let path = state_dir.join(written.get_ref());
            socket_path(findings, "admin.socket", written, &path)
        }
        None => Some(state_dir.join(defaults::SOCKET)),
    };
    AdminConfig { http, api, api_names, socket: socket.unwrap_or_default() }
}

/// By TLS it may be asked from anywhere, but then somebody has to say under which name.
fn resolve_api(
    findings: &mut Findings<'_>,
    written: &Spanned<String>,
    names: &[Box<str>],
) -> Option<SocketAddr> {
    const KEY: &str = "admin.api";
    let message = match listen_addr(findings, KEY, written)? {
        ListenAddr::Tcp(addr) if addr.ip().is_unspecified() && names.is_empty() => {
            "every address of the machine, and no name to ask for: say in api_names by which names or addresses others reach it"
        }
        ListenAddr::Tcp(addr) => return Some(addr),
        ListenAddr::Unix(_) => {
            "the heroku CLI speaks to addresses like 127.0.0.1:5000; for a unix socket there is admin.socket"
        }
    };
    findings.problem(written.span().start, KEY, message);
    None
}

fn resolve_api_names(findings: &mut Findings<'_>, written: &written::List) -> Vec<Box<str>> {
    const KEY: &str = "admin.api_names";
    let mut names = Vec::new();
    for name in written.as_ref().map_or(&[][..], |it| it.get_ref()) {
        match (Domain::parse(name.get_ref()), name.get_ref().parse::<IpAddr>()) {
            (_, Ok(addr)) => names.push(addr.to_string().into()),
            (Ok(Domain::Exact(name)), _) => names.push(name),
            _ => {
                let message = format!(
                    "expected a name like mesh.example.com, or an address, not {:?}",
                    name.get_ref()
                );
                findings.problem(name.span().start, KEY, message);
            }
        }
    }
    names
}

fn resolve_apps(
    findings: &mut Findings<'_>,
    written: &Written,
    stated: &Stated,
    context: &Context<'_>,
) -> BTreeMap<AppName, AppConfig> {
    let mut apps = Vec::new();
    for (name, app) in written.apps.iter() {
        match AppName::parse(name.get_ref()) {
            Ok(parsed) => apps.push((parsed, name.span().start, &**app)),
            Err(wrong) => {
                findings.problem(name.span().start, format!("apps.{}", name.get_ref()), wrong)
            }
        }
    }
    let unwritten = written::App::default();
    let made = stated.apps.iter().filter(|(_, app)| app.made).map(|(name, _)| name);
    let made = made.filter(|name| !written.apps.contains_key(name.as_str()));
    apps.extend(made.map(|name| (name.clone(), COMMAND, &unwritten)));

    let Context { router, sizes, state_dir } = context;
    let timeouts = timeouts_of_router(findings, &written.router.timeouts);
    let names = apps.iter().map(|(name, ..)| name);
    let mut claims = Claims::new(&router.domain, router.default_app.as_ref(), names);
    let resolved: BTreeMap<AppName, AppConfig> = apps
        .into_iter()
        .map(|(name, at, written)| {
            let stated = stated.apps.get(&name);
            let app = AppResolver { name: &name, at, written, stated, sizes, state_dir };
            let config = app.resolve(findings, &mut claims, timeouts);
            (name, config)
        })
        .collect();
    note_shared_dynos(findings, written, &resolved);
    refuse_redirects_to_nowhere(findings, written, router);
    resolved
}

/// Plain requests of an app with `force_https` are told to come again by HTTPS, where somebody has to be: a
/// listener, or a peer that is trusted to say that HTTPS ended there, as all are on a Unix socket.
fn refuse_redirects_to_nowhere(
    findings: &mut Findings<'_>,
    written: &Written,
    router: &RouterConfig,
) {
    let may_speak = |it: &Endpoint| it.tls || matches!(it.addr, ListenAddr::Unix(_));
    let trusts = !router.listener.trusted_proxies.is_empty();
    if trusts || router.endpoints.iter().any(may_speak) {
        return;
    }
    for (name, app) in written.apps.iter() {
        if let Some(forced) = &app.force_https
            && *forced.get_ref()
        {
            let message = "nobody would answer the redirected requests: router.https is empty, and there is no router.trusted_proxies that could end HTTPS in front of it";
            let key = format!("apps.{}.force_https", name.get_ref());
            findings.problem(forced.span().start, key, message);
        }
    }
}

/// Without HTTPS a certificate is shown to nobody.
fn warn_of_unseen_certificates(
    findings: &mut Findings<'_>,
    written: &Written,
    router: &RouterConfig,
) {
    if router.endpoints.iter().any(|it| it.tls) {
        return;
    }
    let certs = written.certs.first().map(|it| ("certs", it.span().start));
    let acme = written.acme.as_ref().map(|it| ("acme", it.span().start));
    for (key, at) in certs.into_iter().chain(acme) {
        findings.warn(at, key, "router.https is empty: no client will see a certificate");
    }
}

/// Two apps may stand before one process, but it is more often a slip.
fn note_shared_dynos(
    findings: &mut Findings<'_>,
    written: &Written,
    apps: &BTreeMap<AppName, AppConfig>,
) {
    let mut seen = HashSet::new();
    for (name, app) in apps {
        let AppSource::External(dynos) = &app.source else { continue };
        let Some(list) = written.apps.get(name.as_str()).and_then(|it| it.dynos.as_ref()) else {
            continue;
        };
        for dyno in dynos {
            if !seen.insert(dyno) {
                let message = format!("{dyno} is a dyno of another app too");
                findings.warn(list.span().start, format!("apps.{name}.dynos"), message);
            }
        }
    }
}

/// Where the keys stand that a running daemon cannot take up anew, for
/// [`Config::reload_refusals`].
fn lines_of_fixed_keys(
    findings: &Findings<'_>,
    written: &Written,
) -> BTreeMap<&'static str, usize> {
    let start = |it: &Optional<String>| it.as_ref().map(|it| it.span().start);
    [
        ("router.workers", written.router.workers.as_ref().map(|it| it.span().start)),
        ("admin.http", start(&written.admin.http)),
        ("admin.api", start(&written.admin.api)),
        ("admin.api_names", written.admin.api_names.as_ref().map(|it| it.span().start)),
        ("admin.socket", start(&written.admin.socket)),
        ("state.dir", start(&written.state.dir)),
        ("dynos.isolation", start(&written.dynos.isolation)),
        ("dynos.uids", start(&written.dynos.uids)),
        ("dynos.network", start(&written.dynos.network)),
        ("dynos.addresses", start(&written.dynos.addresses)),
    ]
    .into_iter()
    .filter_map(|(key, at)| Some((key, findings.line(at?))))
    .collect()
}

fn list<T: ToString>(items: impl Iterator<Item = T>) -> String {
    let items: Vec<String> = items.map(|it| it.to_string()).collect();
    if items.is_empty() { "none".into() } else { items.join(", ") }
}
