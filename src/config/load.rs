//! The file → the configuration as used, or all that is wrong with it.

use std::path::{Path, PathBuf};

use crate::config::findings::Findings;
use crate::config::{Config, ConfigError, ConfigProblem};
use crate::config::{read, resolve, text_file};
use crate::model::Stated;

/// Where the configuration is looked for, in this order.
const DEFAULT_PATHS: [&str; 2] = ["config/dynomesh.toml", "/etc/dynomesh/dynomesh.toml"];

/// The configuration file for somebody who names none: the first that is there, else the first.
pub fn default_path() -> PathBuf {
    let found = DEFAULT_PATHS.iter().find(|path| Path::new(path).exists());
    PathBuf::from(found.unwrap_or(&DEFAULT_PATHS[0]))
}

/// The text of a configuration file, and what was made of it so far.
#[derive(Clone, Debug)]
pub struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// Reads the file. Blocks on the disk.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |message| {
            let file = path.to_path_buf();
            let problem = ConfigProblem { file, line: None, column: None, key: None, message };
            ConfigError { problems: vec![problem] }
        };
        let text = text_file::read(path).map_err(unreadable)?;
        Ok(Self { path: path.to_path_buf(), text })
    }

    /// A text that is at hand. What it names is looked for beside `path`.
    pub fn of_text(path: &Path, text: String) -> Self {
        Self { path: path.to_path_buf(), text }
    }

    /// The name of the file, without its directory.
    pub fn file_name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Where the state is, absolute: what commands said has to be read before the rest can be.
    pub fn state_dir(&self) -> Result<PathBuf, ConfigError> {
        let written = read::read(&self.path, &self.text)?;
        Ok(resolve::state_dir(&Findings::new(&self.path, &self.text), &written))
    }

    /// Checks it, and every file that it names, together with what commands said. The error has all that is wrong.
    ///
    /// Blocks on the disk; `serve` calls it once, then at each reload and for each command that changes something.
    pub fn resolve(&self, stated: &Stated) -> Result<Config, ConfigError> {
        let written = read::read(&self.path, &self.text)?;
        let mut findings = Findings::new(&self.path, &self.text);
        let mut config = resolve::resolve(&mut findings, &self.path, &written, stated);
        config.notes.warnings = findings.verdict()?;
        Ok(config)
    }
}

/// Reads and checks a configuration as if commands had said nothing.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    Source::read(path)?.resolve(&Stated::default())
}

/// Where what is in the slug of this name is.
pub fn slug_dir(state_dir: &Path, slug: &str) -> PathBuf {
    state_dir.join(SLUGS_DIR).join(slug).join(SLUG_TREE)
}

/// Where slugs are, in the state directory.
pub const SLUGS_DIR: &str = "slugs";
/// What is in a slug, beside the list of it.
pub const SLUG_TREE: &str = "app";

#[cfg(test)]
mod tests {
    use crate::config::fixture::Fixture;
    use crate::config::{AccessLog, AppSource, ManagedApp};
    use crate::model::{
        Affinity, AppName, Balance, Domain, DynoAddr, Endpoint, Expect, ListenAddr,
    };

    use super::*;

    const FILES: [(&str, &str); 6] = [
        ("shop/Procfile", "web: serve\nworker: work\n"),
        ("shop/.env", "A=env\nB=env\nPORT=1\n"),
        ("only/Procfile", "web: serve\n"),
        ("odd/Procfile", "Web_1: a\n"),
        ("broken/Procfile", "web serve\nworker:\n"),
        ("page.html", "<p>"),
    ];

    /// Each line of what is said, without the name of the configuration itself.
    #[track_caller]
    fn check(config: &str, expected: &[&str]) {
        let fixture = Fixture::new(config, &FILES);
        let said = fixture.load().map_or_else(|error| error.to_string(), |_| String::new());
        let said = fixture.relative(&said);
        let lines: Vec<_> =
            said.lines().map(|it| it.trim_start_matches("dynomesh.toml:")).collect();
        assert_eq!(lines, expected, "{config}");
    }

    #[track_caller]
    fn app(config: &Config, name: &str) -> crate::config::AppConfig {
        config.apps[&AppName::parse(name).unwrap()].clone()
    }

    #[track_caller]
    fn managed(config: &Config, name: &str) -> ManagedApp {
        match app(config, name).source {
            AppSource::Managed(managed) => managed,
            other => panic!("{name} is {other:?}"),
        }
    }

    #[test]
    fn an_empty_file_is_a_configuration() {
        let fixture = Fixture::new("", &[]);
        let config = fixture.loaded();
        let endpoint = |addr, tls| Endpoint {
            addr: ListenAddr::parse(addr).unwrap(),
            tls,
            proxy_protocol: false,
        };
        assert_eq!(
            config.router.endpoints,
            [endpoint("127.0.0.1:8080", false), endpoint("127.0.0.1:8443", true)]
        );
        assert!(config.router.workers >= 1);
        assert_eq!(config.state_dir, fixture.path("state"));
        assert_eq!(config.admin.socket, fixture.path("state/dynomesh.sock"));
        assert_eq!((config.admin.http, config.apps.len()), (None, 0));
    }

    #[test]
    fn values_become_what_they_mean() {
        let config = r#"
            [router]
            http = ["127.0.0.1:0", "127.0.0.1:0", "unix:run.sock"]
            https = []
            domain = "Example.COM."
            workers = 3
            access_log = "access.log"
            trusted_proxies = ["10.0.0.0/8", "::1"]
            timeouts = { handshake = "3s", hold = "1h", first_byte = "2s", dyno_keepalive = "0s", stop = "1s" }
            [apps.shop]
            dir = "shop"
            domains = ["Shop.test", "*.shop.test", "shop.example.com"]
            formation = { worker = 2 }
            balance = "least"
            expect = "dyno"
            backlog = 0
            maintenance = true
            acme = false
            force_https = true
            http2_to_dyno = true
            affinity = "cookie"
            limits = { requests_per_second = 100, connections = 1000, in_flight = 500 }
            client_limits = { in_flight = 5 }
            error_page = "page.html"
            env_file = "shop/.env"
            config = { A = "file", C = "file" }
            timeouts = { first_byte = "7s", boot = "3s", cool_off = "100ms" }
            [apps.legacy]
            dynos = ["127.0.0.1:5001", "unix:legacy.sock"]
        "#;
        let fixture = Fixture::new(config, &FILES);
        let config = fixture.loaded();
        let router = &config.router;
        assert_eq!(
            (router.endpoints.len(), &*router.domain, router.workers),
            (3, "example.com", 3)
        );
        assert_eq!(
            router.endpoints[2].addr.to_string(),
            format!("unix:{}", fixture.path("run.sock").display())
        );
        assert_eq!(router.access_log, AccessLog::File(fixture.path("access.log")));
        assert_eq!(router.listener.trusted_proxies.len(), 2);
        assert_eq!(router.listener.handshake.as_secs(), 3);

        let shop = app(&config, "shop");
        assert_eq!(shop.domains.len(), 3);
        assert_eq!(shop.domains[1], Domain::Wildcard("shop.test".into()));
        assert_eq!((shop.policy.balance, shop.policy.expect), (Balance::Least, Expect::Dyno));
        assert_eq!((shop.policy.backlog, shop.policy.maintenance), (0, true));
        assert_eq!(
            (shop.acme, shop.policy.force_https, shop.policy.http2_to_dyno),
            (false, true, true)
        );
        assert_eq!(shop.policy.affinity, Affinity::Cookie);
        let limits = [shop.policy.limits, shop.policy.client_limits].map(|it| {
            [it.requests_per_second, it.connections, it.in_flight].map(|it| it.map_or(0, u32::from))
        });
        assert_eq!(limits, [[100, 1000, 500], [0, 0, 5]]);
        assert_eq!(shop.policy.error_page.as_deref(), Some("<p>"));
        let timeouts = shop.policy.timeouts;
        assert_eq!((timeouts.hold.as_secs(), timeouts.first_byte.as_secs()), (3600, 7));
        assert!(timeouts.dyno_keepalive.is_zero());

        let shop = managed(&config, "shop");
        assert_eq!(shop.dir, fixture.path("shop"));
        let formation: Vec<_> =
            shop.formation.iter().map(|(it, count)| (it.as_str(), *count)).collect();
        assert_eq!(formation, [("web", 1), ("worker", 2)]);
        let vars: Vec<_> =
            shop.config_vars.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(vars, [("A", "file"), ("B", "env"), ("C", "file")]);
        assert_eq!((shop.timeouts.boot.as_secs(), shop.timeouts.exit.as_secs()), (3, 30));

        let legacy = app(&config, "legacy");
        let dynos = vec![
            DynoAddr::parse("127.0.0.1:5001").unwrap(),
            DynoAddr::Unix(fixture.path("legacy.sock")),
        ];
        assert_eq!(legacy.source, AppSource::External(dynos));
        assert_eq!(legacy.policy.timeouts.first_byte.as_secs(), 2);

        let warnings: Vec<_> = config.notes.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(fixture.relative(&warnings.join("\n")).lines().count(), 1, "{warnings:?}");
        assert!(warnings[0].contains("shop/.env:3:1:"), "{warnings:?}");
    }

    #[test]
    fn all_problems_are_reported_in_the_order_of_the_file() {
        check(
            r#"[router]
http = ["localhost:80"]
domain = "*.test"
default_app = "shop"
workers = 257
access_log = "none/access.log"
trusted_proxies = ["10.0.0.0/99"]
timeouts = { head = "1", keepalive = "0s", stop = "25h", dyno_keepalive = "50ms" }
[admin]
http = "x"
"#,
            &[
                "2: router.http: expected an address like 127.0.0.1:8080, [::1]:8080 or unix:/run/x.sock, not \"localhost:80\"",
                "3: router.domain: apps answer at NAME.domain: write the domain without *.",
                "4: router.default_app: there is no app shop (there is: none)",
                "5: router.workers: expected 0 (one per core) to 256 threads, not 257",
                "6: router.access_log: there is no directory none",
                "7: router.trusted_proxies: expected an address like 10.0.0.1 or a network like 10.0.0.0/8, not \"10.0.0.0/99\"",
                "8: router.timeouts.head: expected a duration like \"30s\", \"500ms\", \"1h30m\" or \"30d\", not \"1\"",
                "8: router.timeouts.keepalive: expected a duration from 100ms to 1d, not 0s",
                "8: router.timeouts.stop: expected a duration from 100ms to 1d, not 25h",
                "8: router.timeouts.dyno_keepalive: expected a duration from 100ms to 1d, not 50ms",
                "10: admin.http: expected an address like 127.0.0.1:8080, [::1]:8080 or unix:/run/x.sock, not \"x\"",
            ],
        );
    }

    #[test]
    fn a_formation_has_only_types_of_the_procfile() {
        check(
            "[apps.only]\ndir = \"only\"\n[apps.only.formation]\nworker = 1",
            &[
                "4: apps.only.formation.worker: the Procfile of only has no process type \"worker\" (it has: web)",
            ],
        );
        check(
            "[apps.shop]\ndir = \"shop\"\nformation = { workers = 1, web = 1001 }",
            &[
                "3: apps.shop.formation.web: expected 0 to 1000 dynos",
                "3: apps.shop.formation.workers: the Procfile of shop has no process type \"workers\" (it has: web, worker; did you mean worker?)",
            ],
        );
    }

    #[test]
    fn procfiles_are_checked() {
        check(
            "[apps.a]\ndir = \"broken\"\nformation = { worker = 1 }",
            &[
                "broken/Procfile:1:4: expected `:` after `web`, found ' '",
                "broken/Procfile:2:8: `worker` has no command",
            ],
        );
        check(
            "[apps.a]\ndir = \"none\"\n[apps.b]\ndir = \".\"",
            &[
                "2: apps.a.dir: there is no directory none",
                "4: apps.b.dir: ./Procfile: no such file",
            ],
        );
        let fixture = Fixture::new("[apps.odd]\ndir = \"odd\"\n[apps.blank]", &FILES);
        let said: Vec<_> =
            fixture.loaded().notes.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            fixture.relative(&said.join("\n")).lines().collect::<Vec<_>>(),
            [
                "dynomesh.toml:3: apps.blank: the app has neither dir nor dynos: requests are answered with H81, Blank app",
                "odd/Procfile:1:1: `Web_1` is read as `web-1`",
            ]
        );
    }

    #[test]
    fn an_app_has_one_source() {
        check(
            "[apps.a]\ndir = \"only\"\ndynos = [\"127.0.0.1:1\"]",
            &[
                "3: apps.a.dynos: an app has either dir (dynomesh runs its dynos) or dynos (somebody else does)",
            ],
        );
        check(
            "[apps.a]\ndynos = []\nenv_file = \"x\"\ntimeouts.boot = \"1s\"",
            &[
                "2: apps.a.dynos: expected at least one address of a dyno",
                "3: apps.a.env_file: is for dynos that dynomesh runs: it needs dir, a directory with a Procfile",
                "4: apps.a.timeouts.boot: is for dynos that dynomesh runs: it needs dir, a directory with a Procfile",
            ],
        );
        check(
            "[apps.a]\ndynos = [\"127.0.0.1:1\",\n\"127.0.0.1:1\",\n\"127.0.0.1:0\"]",
            &[
                "3: apps.a.dynos: 127.0.0.1:1 stands here twice",
                "4: apps.a.dynos: expected an address with a port that is not 0, not \"127.0.0.1:0\"",
            ],
        );
    }

    #[test]
    fn what_an_app_asks_of_the_edge_is_checked() {
        check(
            "[apps.a]\ndynos = [\"127.0.0.1:1\"]\naffinity = \"sticky\"\nlimits = { in_flight = 0, connections = 1 }\n[apps.a.client_limits]\nrequests_per_second = 0",
            &[
                "3: apps.a.affinity: expected \"off\" or \"cookie\" or \"address\", not \"sticky\"",
                "4: apps.a.limits.in_flight: expected 1 or more, not 0: absent means no limit",
                "6: apps.a.client_limits.requests_per_second: expected 1 or more, not 0: absent means no limit",
            ],
        );
    }

    #[test]
    fn https_is_forced_where_somebody_speaks_it() {
        let app = "[apps.a]\ndynos = [\"127.0.0.1:1\"]\nforce_https = true";
        check(
            &format!("router.https = []\n{app}"),
            &[
                "4: apps.a.force_https: nobody would answer the redirected requests: router.https is empty, and there is no router.trusted_proxies that could end HTTPS in front of it",
            ],
        );
        for router in [
            "",
            "https = []\ntrusted_proxies = [\"10.0.0.1\"]",
            "https = []\nhttp = [\"unix:run.sock\"]",
        ] {
            check(&format!("[router]\n{router}\n{app}"), &[]);
        }
        check("router.https = []\n[apps.a]\ndynos = [\"127.0.0.1:1\"]\nforce_https = false", &[]);
    }

    #[test]
    fn a_domain_belongs_to_one_app() {
        let config = r#"router.default_app = "b"
[apps.a]
dynos = ["127.0.0.1:1"]
domains = ["x.test", "x.test", "b.localhost", "a.localhost"]
[apps.b]
dynos = ["127.0.0.1:2"]
domains = ["X.test", "localhost"]
[apps.c]
dynos = ["127.0.0.1:3"]
domains = ["localhost", "a b", "10.0.0.1"]
"#;
        check(
            config,
            &[
                "4: apps.a.domains: x.test stands on line 4 already",
                "4: apps.a.domains: b.localhost is the name that apps.b has of itself",
                "7: apps.b.domains: x.test belongs to apps.a (line 4)",
                "10: apps.c.domains: localhost belongs to apps.b (line 7)",
                "10: apps.c.domains: \"a b\": a domain is made of labels like shop.example.com, and may begin with *. (write names beyond ASCII in punycode, xn--…)",
                "10: apps.c.domains: 10.0.0.1 is an address, not a name: requests for addresses go to router.default_app",
            ],
        );
    }

    #[test]
    fn values_of_config_vars_are_never_shown() {
        let good = "[apps.a]\ndir = \"only\"\nconfig = { TOKEN = \"hunter2\" }";
        let config = Fixture::new(good, &FILES).loaded();
        assert_eq!(managed(&config, "a").config_vars["TOKEN"], "hunter2");
        assert!(!format!("{config:?}").contains("hunter2"));

        let bad = "[apps.a]\ndir = \"only\"\nconfig = { PORT = \"hunter2\", \"A-B\" = \"hunter2\", C = \"hunter2\\u0000\" }";
        let said = Fixture::new(bad, &FILES).load().unwrap_err().to_string();
        assert_eq!(said.lines().count(), 3, "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }

    #[test]
    fn small_mistakes_are_found() {
        check(
            "[apps.Shop]\n",
            &[
                "1: apps.Shop: an app's name has lower-case letters, digits and dashes, and begins with a letter",
            ],
        );
        check(
            "[apps.a]\ndir = \"only\"\nbalance = \"p2p\"\nbacklog = 1000001\nerror_page = \"no.html\"",
            &[
                "3: apps.a.balance: expected \"p2c\" or \"random\" or \"least\", not \"p2p\"",
                "4: apps.a.backlog: expected 0 to 1000000 requests, not 1000001",
                "5: apps.a.error_page: no.html: no such file",
            ],
        );
        check(
            "[apps.a]\ndir = \"only\"\ntimeouts = { cool_off = \"10m\" }",
            &[
                "3: apps.a.timeouts.cool_off: the first cool-off (10m) is longer than cool_off_max (5m)",
            ],
        );
        check(
            "router.default_app = \"shp\"\n[apps.shop]\ndir = \"only\"",
            &["1: router.default_app: there is no app shp (there is: shop; did you mean shop?)"],
        );
        check(
            "router.http = [\"127.0.0.1:1\", \"127.0.0.1:1\"]\nadmin.http = \"127.0.0.1:1\"",
            &[
                "1: router.http: 127.0.0.1:1 stands here twice",
                "2: admin.http: 127.0.0.1:1 is in router.http already",
            ],
        );
        check(
            "[admin]\napi = \"0.0.0.0:5000\"",
            &[
                "2: admin.api: every address of the machine, and no name to ask for: say in api_names by which names or addresses others reach it",
            ],
        );
        check(
            "[admin]\napi = \"unix:api.sock\"\napi_names = [\"*.test\", \"a b\", \"10.0.0.1\", \"Mesh.test.\"]",
            &[
                "2: admin.api: the heroku CLI speaks to addresses like 127.0.0.1:5000; for a unix socket there is admin.socket",
                "3: admin.api_names: expected a name like mesh.example.com, or an address, not \"*.test\"",
                "3: admin.api_names: expected a name like mesh.example.com, or an address, not \"a b\"",
            ],
        );
        let text = "[admin]\napi = \"10.0.0.9:5000\"\napi_names = [\"Mesh.test.\", \"127.0.0.1\"]";
        assert_eq!(
            Fixture::new(text, &[]).loaded().admin.names_of_api(),
            ["10.0.0.9", "127.0.0.1", "::1", "localhost", "mesh.test"].map(Into::into)
        );
        let long = format!("[admin]\nsocket = \"/{}\"", "x".repeat(107));
        let said = Fixture::new(&long, &[]).load().unwrap_err().to_string();
        assert!(said.contains(":2: admin.socket: a socket's path has at most 107 bytes"), "{said}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = load(Path::new("none/dynomesh.toml")).unwrap_err();
        assert_eq!(error.to_string(), "none/dynomesh.toml: no such file");
    }
}
