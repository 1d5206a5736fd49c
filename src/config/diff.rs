//! What a reload would change: the difference of two configurations, in words.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::config::{AppSummary, Config, ConfigProblem, SourceSummary, Summary};

/// The changes from one configuration to another. Prints one per line, nothing where there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// The router first, then the apps by name.
    pub changes: Vec<Change>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What kind of change.
    pub mark: Mark,
    /// `app shop: web 1 → 2 dynos`
    pub what: String,
}

/// What kind of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Is there afterwards, was not before.
    Added,
    /// Was there before, is not afterwards.
    Removed,
    /// Is another than before.
    Changed,
    /// Cannot change while the daemon runs: the reload would be refused.
    Refused,
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, change) in self.changes.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            change.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.mark {
            Mark::Added => '+',
            Mark::Removed => '-',
            Mark::Changed => '~',
            Mark::Refused => '!',
        };
        write!(f, "{mark} {}", self.what)
    }
}

impl Diff {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Whether a reload would be refused.
    pub fn is_refused(&self) -> bool {
        self.changes.iter().any(|change| change.mark == Mark::Refused)
    }

    fn push(&mut self, mark: Mark, what: String) {
        self.changes.push(Change { mark, what });
    }

    fn changed(&mut self, what: &str, old: &str, new: &str) {
        if old != new {
            self.push(Mark::Changed, format!("{what}: {old} → {new}"));
        }
    }

    /// Items of two lists, each of which is in a list once.
    fn items(&mut self, what: &str, old: &[String], new: &[String]) {
        for item in old.iter().filter(|item| !new.contains(item)) {
            self.push(Mark::Removed, format!("{what} {item}"));
        }
        for item in new.iter().filter(|item| !old.contains(item)) {
            self.push(Mark::Added, format!("{what} {item}"));
        }
    }
}

/// What changes from `old` to `new`.
pub fn diff(old: &Summary, new: &Summary) -> Diff {
    let mut diff = Diff::default();
    for fixed in fixed_keys(old, new) {
        let Fixed { key, old, new } = fixed;
        diff.push(Mark::Refused, format!("{key}: {old} → {new} (restart the daemon for it)"));
    }
    diff.items("listener", &old.http, &new.http);
    diff.items("HTTPS listener", &old.https, &new.https);
    diff.items("PROXY header at", &old.proxy_protocol, &new.proxy_protocol);
    diff.changed("domain", &old.domain, &new.domain);
    diff.changed("default app", or_none(&old.default_app), or_none(&new.default_app));
    diff.changed("access log", &old.access_log, &new.access_log);
    diff.items("trusted proxy", &old.trusted_proxies, &new.trusted_proxies);
    diff.items("exposed", &old.expose, &new.expose);
    for (key, old, new) in differing(&old.timeouts, &new.timeouts) {
        diff.changed(&format!("timeouts.{key}"), text(old), text(new));
    }
    for (key, old, new) in differing(&old.logs, &new.logs) {
        diff.changed(&format!("logs.{key}"), text(old), text(new));
    }
    diff.items("certs", &old.certs, &new.certs);
    diff_acme(&mut diff, old.acme.as_ref(), new.acme.as_ref());
    for (name, old, new) in differing(&old.sizes, &new.sizes) {
        diff.changed(&format!("size {name}"), text(old), text(new));
    }
    for (name, old, new) in differing(&old.apps, &new.apps) {
        match (old, new) {
            (Some(old), Some(new)) => diff_app(&mut diff, name, old, new),
            (Some(old), None) => diff.push(Mark::Removed, format!("app {name} ({})", brief(old))),
            (None, new) => diff
                .push(Mark::Added, format!("app {name} ({})", new.map(brief).unwrap_or_default())),
        }
    }
    diff
}

type Settings = BTreeMap<String, String>;

fn diff_acme(diff: &mut Diff, old: Option<&Settings>, new: Option<&Settings>) {
    let directory = |it: &Settings| format!("acme ({})", text(it.get("directory")));
    match (old, new) {
        (Some(old), Some(new)) => {
            for (key, old, new) in differing(old, new) {
                diff.changed(&format!("acme.{key}"), text(old), text(new));
            }
        }
        (Some(old), None) => diff.push(Mark::Removed, directory(old)),
        (None, Some(new)) => diff.push(Mark::Added, directory(new)),
        (None, None) => {}
    }
}

fn diff_app(diff: &mut Diff, name: &str, old: &AppSummary, new: &AppSummary) {
    diff.items(&format!("app {name}: domain"), &old.domains, &new.domains);
    diff_source(diff, name, old, new);
    diff.items(&format!("app {name}: drain"), &old.drains, &new.drains);
    for (job, old, new) in differing(&old.jobs, &new.jobs) {
        diff.changed(&format!("app {name}: job {job:?}"), text(old), text(new));
    }
    for (key, old, new) in differing(&old.settings, &new.settings) {
        // What only one of two kinds of source has comes and goes with it.
        if let (Some(old), Some(new)) = (old, new) {
            diff.changed(&format!("app {name}: {key}"), old, new);
        }
    }
    for (key, old, new) in differing(&old.timeouts, &new.timeouts) {
        if let (Some(old), Some(new)) = (old, new) {
            diff.changed(&format!("app {name}: timeouts.{key}"), old, new);
        }
    }
}

fn diff_source(diff: &mut Diff, name: &str, old: &AppSummary, new: &AppSummary) {
    use SourceSummary::{External, Managed};
    match (&old.source, &new.source) {
        (External(old), External(new)) => diff.items(&format!("app {name}: dyno"), old, new),
        (
            Managed { dir, commands, formation, sizes, config_vars },
            Managed {
                dir: new_dir,
                commands: new_commands,
                formation: new_formation,
                sizes: new_sizes,
                config_vars: new_vars,
            },
        ) => {
            diff.changed(&format!("app {name}: dir"), dir, new_dir);
            for (process_type, old, new) in differing(commands, new_commands) {
                diff.changed(&format!("app {name}: {process_type} runs"), text(old), text(new));
            }
            for (process_type, old, new) in differing(formation, new_formation) {
                let count = |it: Option<&u32>| it.copied().unwrap_or_default().to_string();
                diff.changed(
                    &format!("app {name}: {process_type} dynos"),
                    &count(old),
                    &count(new),
                );
            }
            for (process_type, old, new) in differing(sizes, new_sizes) {
                diff.changed(&format!("app {name}: {process_type} size"), text(old), text(new));
            }
            for (var, old, new) in differing(config_vars, new_vars) {
                let mark = match (old, new) {
                    (None, _) => Mark::Added,
                    (_, None) => Mark::Removed,
                    _ => Mark::Changed,
                };
                diff.push(mark, format!("app {name}: config var {var}"));
            }
        }
        (old_source, new_source) if old_source != new_source => {
            diff.changed(&format!("app {name}"), &brief(old), &brief(new));
        }
        _ => {}
    }
}

/// An app in half a line.
fn brief(app: &AppSummary) -> String {
    match &app.source {
        SourceSummary::Managed { dir, formation, .. } => {
            let formation: Vec<_> =
                formation.iter().map(|(it, count)| format!("{it}={count}")).collect();
            format!("{}: {dir}", formation.join(" "))
        }
        SourceSummary::External(dynos) => format!("dynos {}", dynos.join(", ")),
        SourceSummary::Blank => "no dynos".into(),
    }
}

/// A key that cannot change while the daemon runs, and does.
struct Fixed {
    key: &'static str,
    old: String,
    new: String,
}

/// Worker threads hold connections, the socket is how commands find the daemon, and state is where its
/// dynos are written down: none of them can move while it runs.
fn fixed_keys(old: &Summary, new: &Summary) -> Vec<Fixed> {
    let values = |it: &Summary| {
        [
            ("router.workers", it.workers.to_string()),
            ("admin.http", or_none(&it.admin_http).to_owned()),
            ("admin.api", or_none(&it.admin_api).to_owned()),
            ("admin.api_names", it.admin_api_names.join(", ")),
            ("admin.socket", it.admin_socket.clone()),
            ("state.dir", it.state_dir.clone()),
            ("dynos.isolation", it.isolation.clone()),
            ("dynos.uids", it.uids.clone()),
            ("dynos.network", it.network.clone()),
            ("dynos.addresses", it.addresses.clone()),
        ]
    };
    values(old)
        .into_iter()
        .zip(values(new))
        .filter(|(old, new)| old != new)
        // How many cores there are is asked at each reading, and may have changed (affinity, quota); nobody
        // asked for another number of workers by that.
        .filter(|((key, _), _)| {
            *key != "router.workers" || !(old.workers_per_core && new.workers_per_core)
        })
        .map(|((key, old), (_, new))| Fixed { key, old, new })
        .collect()
}

impl Config {
    /// Why a running daemon with this configuration must refuse `new`: the keys that cannot change by a
    /// reload and do. Empty where it may reload.
    pub fn reload_refusals(&self, new: &Config) -> Vec<ConfigProblem> {
        fixed_keys(&Summary::of(self), &Summary::of(new))
            .into_iter()
            .map(|Fixed { key, old, new: value }| ConfigProblem {
                file: PathBuf::clone(&new.file),
                line: new.notes.lines.get(key).copied(),
                column: None,
                key: Some(key.to_owned()),
                message: format!(
                    "cannot change from {old} to {value} by a reload; restart the daemon for it"
                ),
            })
            .collect()
    }
}

/// The keys under which two maps differ, with what each has there.
fn differing<'a, V: PartialEq>(
    old: &'a BTreeMap<String, V>,
    new: &'a BTreeMap<String, V>,
) -> impl Iterator<Item = (&'a str, Option<&'a V>, Option<&'a V>)> {
    let added = new.keys().filter(|key| !old.contains_key(*key));
    let mut keys: Vec<&String> = old.keys().chain(added).collect();
    keys.sort();
    keys.into_iter()
        .map(|key| (key.as_str(), old.get(key), new.get(key)))
        .filter(|(_, old, new)| old != new)
}

fn or_none(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or("none")
}

fn text(value: Option<&String>) -> &str {
    value.map_or("nothing", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture::Fixture;

    const OLD: &str = r#"
        [router]
        http = ["127.0.0.1:1", "127.0.0.1:2"]
        workers = 1
        [apps.shop]
        dir = "shop"
        domains = ["a.test"]
        config = { KEPT = "1", CHANGED = "hunter2", GONE = "1" }
        [apps.legacy]
        dynos = ["127.0.0.1:5001", "127.0.0.1:5002"]
        [apps.gone]
        dynos = ["127.0.0.1:5009"]
        [apps.moved]
        dynos = ["127.0.0.1:5010"]
    "#;

    const NEW: &str = r#"
        [router]
        http = ["127.0.0.1:2", "127.0.0.1:3"]
        workers = 2
        default_app = "shop"
        access_log = "off"
        timeouts = { head = "30s" }
        [admin]
        http = "127.0.0.1:9"
        [dynos]
        uids = "70000-70999"
        network = "private"
        addresses = "10.9.0.0/16"
        expose = ["shop"]
        [apps.shop]
        dir = "shop"
        domains = ["b.test"]
        formation = { web = 3 }
        config = { KEPT = "1", CHANGED = "hunter3", ADDED = "1" }
        maintenance = true
        timeouts = { boot = "5s" }
        [apps.legacy]
        dynos = ["127.0.0.1:5002", "127.0.0.1:5003"]
        [apps.moved]
        dir = "shop"
        [apps.new]
        dir = "shop"
    "#;

    fn fixture() -> Fixture {
        Fixture::new(OLD, &[("shop/Procfile", "web: serve\nworker: work\n")])
    }

    fn old_and_new(fixture: &Fixture) -> (Config, Config) {
        let old = fixture.loaded();
        std::fs::write(fixture.path("dynomesh.toml"), NEW).unwrap();
        (old, fixture.loaded())
    }

    #[test]
    fn every_change_is_a_line() {
        let fixture = fixture();
        let (old, new) = old_and_new(&fixture);
        let diff = diff(&Summary::of(&old), &Summary::of(&new));
        assert!(diff.is_refused());
        let said = fixture.relative(&diff.to_string());
        assert!(!said.contains("hunter"), "{said}");
        assert_eq!(
            said.lines().collect::<Vec<_>>(),
            [
                "! router.workers: 1 → 2 (restart the daemon for it)",
                "! admin.http: none → 127.0.0.1:9 (restart the daemon for it)",
                "! dynos.uids: 200000-265535 → 70000-70999 (restart the daemon for it)",
                "! dynos.network: host → private (restart the daemon for it)",
                "! dynos.addresses: 10.213.0.0/16 → 10.9.0.0/16 (restart the daemon for it)",
                "- listener 127.0.0.1:1",
                "+ listener 127.0.0.1:3",
                "~ default app: none → shop",
                "~ access log: stdout → off",
                "+ exposed shop",
                "~ timeouts.head: 1m → 30s",
                "- app gone (dynos 127.0.0.1:5009)",
                "- app legacy: dyno 127.0.0.1:5001",
                "+ app legacy: dyno 127.0.0.1:5003",
                "~ app moved: dynos 127.0.0.1:5010 → web=1 worker=0: shop",
                "+ app new (web=1 worker=0: shop)",
                "- app shop: domain a.test",
                "+ app shop: domain localhost",
                "+ app shop: domain b.test",
                "~ app shop: web dynos: 1 → 3",
                "+ app shop: config var ADDED",
                "~ app shop: config var CHANGED",
                "- app shop: config var GONE",
                "~ app shop: maintenance: false → true",
                "~ app shop: timeouts.boot: 1m → 5s",
            ]
        );
    }

    #[test]
    fn changes_of_sizes_are_lines_too() {
        let old =
            "[sizes.nap]\nmemory = '256MB'\n[apps.shop]\ndir = 'shop'\nsizes = { worker = 'nap' }";
        let new = "[sizes.nap]\nmemory = '0.5GB'\ncpus = 0.5\nprice = 2.5\nsleep_after = '30m'
            [sizes.big]\nmemory = '32GB'\ndedicated = true
            [apps.shop]\ndir = 'shop'\nsize = 'eco'\nsizes = { web = 'big' }\nrecycle_on_r14 = '5m'\nruntime_metrics = true";
        let fixture = Fixture::new(old, &[("shop/Procfile", "web: serve\nworker: work\n")]);
        let old = Summary::of(&fixture.loaded());
        std::fs::write(fixture.path("dynomesh.toml"), new).unwrap();
        let new = Summary::of(&fixture.loaded());
        assert_eq!(
            diff(&old, &new).to_string().lines().collect::<Vec<_>>(),
            [
                "~ size big: nothing → 32GB, dedicated, 256 processes, $0 a month",
                "~ size nap: 256MB, cpu_share 1, 256 processes, $0 a month → 512MB, cpu_share 1, at most 0.5 cpus, 256 processes, sleeps after 30m, $2.5 a month",
                "~ app shop: web size: basic → big",
                "~ app shop: worker size: nap → eco",
                "~ app shop: recycle_on_r14: never → 5m",
                "~ app shop: runtime_metrics: false → true",
                "~ app shop: size: basic → eco",
            ]
        );
    }

    #[test]
    fn changes_of_jobs_are_lines_too() {
        let job = |lines: &str| format!("[[apps.shop.jobs]]\n{lines}\n");
        let old = job("command = 'a'\nevery = '10m'") + &job("command = 'b'\nevery = '1d'");
        let new = job("command = 'b'\nevery = '1d'\nat = '03:30'\noverlap = true")
            + &job("name = 'c'\ncommand = 'd'\ncron = '0 * * * *'\nsize = 'eco'");
        let app = "[apps.shop]\ndir = 'shop'\n";
        let fixture = Fixture::new(&(app.to_owned() + &old), &[("shop/Procfile", "web: serve\n")]);
        let old = Summary::of(&fixture.loaded());
        std::fs::write(fixture.path("dynomesh.toml"), app.to_owned() + &new).unwrap();
        let new = Summary::of(&fixture.loaded());
        assert_eq!(
            diff(&old, &new).to_string().lines().collect::<Vec<_>>(),
            [
                "~ app shop: job \"a\": every 10m → nothing",
                "~ app shop: job \"b\": every 1d → every 1d at 03:30, may overlap",
                "~ app shop: job \"c\": nothing → cron 0 * * * *, eco, d",
            ]
        );
        let described = new.describe();
        assert!(described.contains("\n  job          c: cron 0 * * * *, eco, d\n"), "{described}");
    }

    #[test]
    fn changes_at_the_edge_are_lines_too() {
        let app = "[apps.shop]\ndynos = [\"127.0.0.1:1\"]\n";
        let old = format!(
            "{app}affinity = \"cookie\"\n[acme]\nagree_to_terms = true\n[[certs]]\ndir = \"a\"\n"
        );
        let new = format!(
            r#"
            [router]
            http = ["127.0.0.1:8443"]
            https = ["127.0.0.1:8080"]
            proxy_protocol = ["127.0.0.1:8080"]
            trusted_proxies = ["::1"]
            timeouts = {{ handshake = "1s" }}
            {app}
            acme = false
            force_https = true
            limits = {{ connections = 7 }}
            [acme]
            agree_to_terms = true
            directory = "https://ca.test/"
            [[certs]]
            cert = "b/x.pem"
            key = "b/x.key"
            [[certs]]
            dir = "a"
            "#
        );
        let files = [("a/x", ""), ("b/x.pem", ""), ("b/x.key", "")];
        let fixture = Fixture::new(&old, &files);
        let old = Summary::of(&fixture.loaded());
        std::fs::write(fixture.path("dynomesh.toml"), new).unwrap();
        let new = Summary::of(&fixture.loaded());
        assert_eq!(
            fixture.relative(&diff(&old, &new).to_string()).lines().collect::<Vec<_>>(),
            [
                "- listener 127.0.0.1:8080",
                "+ listener 127.0.0.1:8443",
                "- HTTPS listener 127.0.0.1:8443",
                "+ HTTPS listener 127.0.0.1:8080",
                "+ PROXY header at 127.0.0.1:8080",
                "+ trusted proxy ::1/128",
                "~ timeouts.handshake: 10s → 1s",
                "+ certs b/x.pem with b/x.key",
                "~ acme.directory: https://acme-v02.api.letsencrypt.org/directory → https://ca.test/",
                "~ app shop: acme: true → false",
                "~ app shop: affinity: cookie → off",
                "~ app shop: force_https: false → true",
                "~ app shop: limits: none → connections 7",
            ]
        );
        let without = Summary { acme: None, ..new.clone() };
        let change = "acme (https://ca.test/)";
        assert_eq!(diff(&without, &new).to_string(), format!("+ {change}"));
        assert_eq!(diff(&new, &without).to_string(), format!("- {change}"));
    }

    #[test]
    fn equal_configurations_do_not_differ() {
        let (old, new) = old_and_new(&fixture());
        for config in [old, new] {
            let sent = serde_json::to_string(&Summary::of(&config)).unwrap();
            assert!(!sent.contains("hunter"), "{sent}");
            let received: Summary = serde_json::from_str(&sent).unwrap();
            assert!(diff(&received, &Summary::of(&config)).is_empty());
            assert_eq!(config.reload_refusals(&config), []);
        }
    }

    #[test]
    fn a_reload_that_cannot_be_is_refused_with_the_line() {
        let fixture = fixture();
        let (old, new) = old_and_new(&fixture);
        let refusals: Vec<_> = old.reload_refusals(&new).iter().map(ToString::to_string).collect();
        assert_eq!(
            refusals.iter().map(|it| fixture.relative(it)).collect::<Vec<_>>(),
            [
                "dynomesh.toml:4: router.workers: cannot change from 1 to 2 by a reload; restart the daemon for it",
                "dynomesh.toml:9: admin.http: cannot change from none to 127.0.0.1:9 by a reload; restart the daemon for it",
                "dynomesh.toml:11: dynos.uids: cannot change from 200000-265535 to 70000-70999 by a reload; restart the daemon for it",
                "dynomesh.toml:12: dynos.network: cannot change from host to private by a reload; restart the daemon for it",
                "dynomesh.toml:13: dynos.addresses: cannot change from 10.213.0.0/16 to 10.9.0.0/16 by a reload; restart the daemon for it",
            ]
        );
        // Two configurations that leave the number to the machine agree, whatever it is.
        let (mut here, mut elsewhere) = (old.clone(), old.clone());
        here.notes.workers_per_core = true;
        elsewhere.notes.workers_per_core = true;
        elsewhere.router.workers += 1;
        assert_eq!(here.reload_refusals(&elsewhere), []);
        // A key that was taken out has no line.
        assert_eq!(new.reload_refusals(&old)[1].line, None);
    }
}
