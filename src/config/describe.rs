//! What `serve` would do with a configuration, in words.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use crate::config::{AppSummary, SourceSummary, Summary};

impl Summary {
    /// Listeners, apps with their domains and dynos, what differs from the defaults, and warnings.
    pub fn describe(&self) -> String {
        let mut out = String::new();
        self.write(&mut out).expect("writing to a string does not fail");
        out
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "{}", self.file)?;
        writeln!(out, "router")?;
        line(out, "http", &list(&self.http))?;
        line(out, "https", &list(&self.https))?;
        if !self.proxy_protocol.is_empty() {
            line(out, "PROXY header", &self.proxy_protocol.join(", "))?;
        }
        line(out, "domain", &format!("apps answer at NAME.{}", self.domain))?;
        line(out, "default app", self.default_app.as_deref().unwrap_or("none"))?;
        let per_core = if self.workers_per_core { " (one per core)" } else { "" };
        line(out, "workers", &format!("{}{per_core}", self.workers))?;
        line(out, "access log", &self.access_log)?;
        if !self.trusted_proxies.is_empty() {
            line(out, "trusts", &self.trusted_proxies.join(", "))?;
        }
        write_timeouts(out, &self.timeouts, &Self::default_timeouts())?;
        writeln!(out, "admin")?;
        match &self.admin_http {
            Some(addr) => line(out, "http", &format!("{addr} (/metrics /healthz /readyz)"))?,
            None => line(out, "http", "none")?,
        }
        if let Some(addr) = &self.admin_api {
            line(out, "api", &format!("{addr} (Heroku's Platform API, for whoever has a token)"))?;
        }
        if !self.admin_api_names.is_empty() {
            line(out, "api names", &self.admin_api_names.join(", "))?;
        }
        line(out, "socket", &self.admin_socket)?;
        writeln!(out, "state")?;
        line(out, "dir", &self.state_dir)?;
        self.write_dynos(out)?;
        if !self.logs.is_empty() {
            writeln!(out, "logs")?;
        }
        for (key, value) in &self.logs {
            line(out, key, value)?;
        }
        if !self.certs.is_empty() {
            writeln!(out, "certs")?;
        }
        for source in &self.certs {
            writeln!(out, "  {source}")?;
        }
        if let Some(acme) = &self.acme {
            writeln!(out, "acme")?;
            for (key, value) in acme {
                line(out, key, value)?;
            }
        }
        let sizes = Self::default_sizes();
        let mut own = self.sizes.iter().filter(|(name, _)| !sizes.contains_key(*name)).peekable();
        if own.peek().is_some() {
            writeln!(out, "sizes")?;
        }
        for (name, size) in own {
            line(out, name, size)?;
        }
        for (name, app) in &self.apps {
            writeln!(out, "app {name}")?;
            app.write(out)?;
        }
        if self.apps.is_empty() {
            writeln!(out, "no apps")?;
        }
        if !self.warnings.is_empty() {
            writeln!(out, "warnings")?;
        }
        for warning in &self.warnings {
            writeln!(out, "  {warning}")?;
        }
        Ok(())
    }

    /// What holds for every dyno, where that is not as it is by default.
    fn write_dynos(&self, out: &mut String) -> fmt::Result {
        let of_note: Vec<(&str, String)> = [
            ("isolation", (self.isolation != "auto").then(|| self.isolation.clone())),
            ("uids", (self.uids != Self::default_uids()).then(|| self.uids.clone())),
            ("network", (self.network != "host").then(|| self.network.clone())),
            (
                "addresses",
                (self.addresses != Self::default_addresses()).then(|| self.addresses.clone()),
            ),
            ("expose", (!self.expose.is_empty()).then(|| self.expose.join(", "))),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect();
        if !of_note.is_empty() {
            writeln!(out, "dynos")?;
        }
        of_note.iter().try_for_each(|(key, value)| line(out, key, value))
    }
}

impl AppSummary {
    fn write(&self, out: &mut String) -> fmt::Result {
        line(out, "domains", &self.domains.join(", "))?;
        match &self.source {
            SourceSummary::Managed { dir, commands, formation, sizes, config_vars } => {
                line(out, "dir", dir)?;
                for (process_type, command) in commands {
                    let count = formation.get(process_type).copied().unwrap_or_default();
                    line(out, process_type, &format!("{count} × {command}"))?;
                }
                let of_app = self.settings.get("size");
                let own: Vec<String> = sizes
                    .iter()
                    .filter(|(_, size)| Some(*size) != of_app)
                    .map(|(process_type, size)| format!("{process_type} {size}"))
                    .collect();
                if !own.is_empty() {
                    line(out, "sizes", &own.join(", "))?;
                }
                if !config_vars.is_empty() {
                    let names: Vec<&str> = config_vars.keys().map(String::as_str).collect();
                    line(out, "config vars", &names.join(", "))?;
                }
            }
            SourceSummary::External(dynos) => line(out, "dynos", &dynos.join(", "))?,
            SourceSummary::Blank => line(out, "dynos", "none: requests are answered with H81")?,
        }
        if !self.drains.is_empty() {
            line(out, "drains", &self.drains.join(", "))?;
        }
        for certificate in &self.certificates {
            line(out, "certificate", certificate)?;
        }
        for (name, job) in &self.jobs {
            line(out, "job", &format!("{name}: {job}"))?;
        }
        let defaults = Self::default_settings();
        for (key, value) in &self.settings {
            if defaults.get(key).is_none_or(|default| default != value) {
                line(out, key, value)?;
            }
        }
        write_timeouts(out, &self.timeouts, &Self::default_timeouts())
    }
}

/// The timers that are not as they are by default, on one line.
fn write_timeouts(
    out: &mut String,
    timeouts: &BTreeMap<String, String>,
    defaults: &BTreeMap<String, String>,
) -> fmt::Result {
    let of_note: Vec<String> = timeouts
        .iter()
        .filter(|(key, value)| defaults.get(*key).is_none_or(|default| default != *value))
        .map(|(key, value)| format!("{key} {value}"))
        .collect();
    if of_note.is_empty() { Ok(()) } else { line(out, "timeouts", &of_note.join(", ")) }
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "none".into() } else { items.join(", ") }
}

fn line(out: &mut String, key: &str, value: &str) -> fmt::Result {
    writeln!(out, "  {key:<12} {value}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture::Fixture;

    #[test]
    fn what_serve_would_do() {
        let config = r#"
            [router]
            http = ["127.0.0.1:8080", "[::1]:8080"]
            default_app = "shop"
            workers = 2
            https = []
            trusted_proxies = ["10.0.0.0/8"]
            timeouts = { keepalive = "2m", first_byte = "10s" }
            [admin]
            http = "127.0.0.1:9090"
            [dynos]
            isolation = "none"
            uids = "70000-70999"
            addresses = "10.9.0.0/16"
            expose = ["shop", "/usr"]
            [apps.shop]
            dir = "shop"
            domains = ["*.shop.test"]
            formation = { web = 2 }
            config = { TOKEN = "hunter2" }
            error_page = "page.html"
            timeouts = { exit = "10s", ws_drain = "0s" }
            deploy = "preboot"
            guard = { p95 = "3x" }
            canary = "5%"
            keep_warm = "10m"
            size = "eco"
            sizes = { worker = "nap" }
            recycle_on_r14 = "5m"
            [sizes.nap]
            memory = "256MB"
            [logs]
            dir = "logs"
            keep = 2
            [apps.legacy]
            dynos = ["127.0.0.1:5001"]
            drains = ["syslog://10.0.0.1:514"]
            [apps.blank]
            maintenance = true
        "#;
        let files =
            [("shop/Procfile", "web: serve -p $PORT\nWorker: work\n"), ("page.html", "<p>")];
        let fixture = Fixture::new(config, &files);
        let said = fixture.relative(&Summary::of(&fixture.loaded()).describe());
        let expected = "\
dynomesh.toml
router
  http         127.0.0.1:8080, [::1]:8080
  https        none
  domain       apps answer at NAME.localhost
  default app  shop
  workers      2
  access log   stdout
  trusts       10.0.0.0/8
  timeouts     keepalive 2m
admin
  http         127.0.0.1:9090 (/metrics /healthz /readyz)
  socket       state/dynomesh.sock
state
  dir          state
dynos
  isolation    none
  uids         70000-70999
  addresses    10.9.0.0/16
  expose       shop, /usr
logs
  dir          logs
  keep         2
  max_size     10MB
sizes
  nap          256MB, cpu_share 1, 256 processes, $0 a month
app blank
  domains      blank.localhost
  dynos        none: requests are answered with H81
  maintenance  true
  timeouts     first_byte 10s
app legacy
  domains      legacy.localhost
  dynos        127.0.0.1:5001
  drains       syslog://10.0.0.1:514
  timeouts     first_byte 10s
app shop
  domains      shop.localhost, localhost, *.shop.test
  dir          shop
  web          2 × serve -p $PORT
  worker       0 × work
  sizes        worker nap
  config vars  TOKEN
  canary       5% for 5m
  deploy       preboot
  error_page   own (3 bytes, HASH)
  guard        errors 5%, p95 3x, within 2m, from 20 requests on
  keep_warm    10m
  recycle_on_r14 5m
  size         eco
  timeouts     exit 10s, first_byte 10s, ws_drain 0s
warnings
  dynomesh.toml:38: apps.blank: the app has neither dir nor dynos: requests are answered with H81, Blank app
  shop/Procfile:2:1: `Worker` is read as `worker`
";
        let hash = format!("{:016x}", crate::config::config_var::fingerprint("<p>"));
        assert_eq!(said.replace(&hash, "HASH"), expected);
    }

    #[test]
    fn what_holds_at_the_edge() {
        let config = r#"
            [router]
            http = []
            proxy_protocol = ["127.0.0.1:8443"]
            trusted_proxies = ["10.0.0.1"]
            workers = 1
            timeouts = { handshake = "3s" }
            [[certs]]
            cert = "shop.pem"
            key = "shop.key"
            [[certs]]
            dir = "certs"
            [acme]
            agree_to_terms = true
            contact = ["mailto:a@shop.test", "mailto:b@shop.test"]
            [apps.shop]
            dynos = ["127.0.0.1:5001"]
            acme = false
            force_https = true
            http2_to_dyno = true
            affinity = "address"
            limits = { in_flight = 500, requests_per_second = 100 }
            client_limits = { connections = 10 }
        "#;
        let files = [("shop.pem", ""), ("shop.key", ""), ("certs/a.pem", "")];
        let fixture = Fixture::new(config, &files);
        let said = fixture.relative(&Summary::of(&fixture.loaded()).describe());
        let expected = "\
dynomesh.toml
router
  http         none
  https        127.0.0.1:8443
  PROXY header 127.0.0.1:8443
  domain       apps answer at NAME.localhost
  default app  none
  workers      1
  access log   stdout
  trusts       10.0.0.1/32
  timeouts     handshake 3s
admin
  http         none
  socket       state/dynomesh.sock
state
  dir          state
certs
  shop.pem with shop.key
  every pair in certs
acme
  ca_file      none
  contact      mailto:a@shop.test, mailto:b@shop.test
  directory    https://acme-v02.api.letsencrypt.org/directory
  renew_before 30d
app shop
  domains      shop.localhost
  dynos        127.0.0.1:5001
  acme         false
  affinity     address
  client_limits connections 10
  force_https  true
  http2_to_dyno true
  limits       requests_per_second 100, in_flight 500
";
        assert_eq!(
            said.replace(&format!("{}", fixture.path("certs").display()), "certs"),
            expected
        );
    }
}
