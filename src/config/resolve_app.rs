//! One app, as written → as used.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::config::claims::Claims;
use crate::config::findings::{COMMAND, Findings};
use crate::config::nearest::nearest;
use crate::config::procfile::{self, Procfile};
use crate::config::resolve_autoscale::autoscale;
use crate::config::resolve_guard::{canary, guard, refuse_in_place};
use crate::config::resolve_jobs::resolve_jobs;
use crate::config::resolve_logs::resolve_drains;
use crate::config::resolve_sizes::size_named;
use crate::config::resolve_upkeep::upkeep;
use crate::config::said::{Said, said};
use crate::config::values::{
    choice, dyno_addr, make_absolute, timeout, timeout_or_zero, traffic_limit,
};
use crate::config::written::{self, Optional};
use crate::config::{AppConfig, AppSource, Deploy, ManagedApp, SupervisorTimeouts, slug_dir};
use crate::config::{config_var, defaults, duration, env_file, limits, text_file};
use crate::model::{
    Affinity, AppName, AppPolicy, AppTimeouts, Balance, Domain, DynoAddr, Expect, Feature,
    Formation, ProcessType, Size, Sizes, StatedApp, TrafficLimits,
};

/// The timers that hold for an app that has none of its own: `[router.timeouts]`.
pub(crate) fn timeouts_of_router(
    findings: &mut Findings<'_>,
    written: &written::RouterTimeouts,
) -> AppTimeouts {
    let default = defaults::APP_TIMEOUTS;
    AppTimeouts {
        hold: timeout(findings, "router.timeouts.hold", &written.hold, default.hold),
        connect: timeout(findings, "router.timeouts.connect", &written.connect, default.connect),
        first_byte: timeout(
            findings,
            "router.timeouts.first_byte",
            &written.first_byte,
            default.first_byte,
        ),
        rolling: timeout(findings, "router.timeouts.rolling", &written.rolling, default.rolling),
        linger: timeout(findings, "router.timeouts.linger", &written.linger, default.linger),
        drain: timeout(findings, "router.timeouts.drain", &written.drain, default.drain),
        ws_drain: timeout_or_zero(
            findings,
            "router.timeouts.ws_drain",
            &written.ws_drain,
            default.ws_drain,
        ),
        dyno_keepalive: timeout_or_zero(
            findings,
            "router.timeouts.dyno_keepalive",
            &written.dyno_keepalive,
            default.dyno_keepalive,
        ),
    }
}

/// One app, and where what is said of it stands.
pub(crate) struct AppResolver<'a> {
    pub(crate) name: &'a AppName,
    /// Where the name stands.
    pub(crate) at: usize,
    pub(crate) written: &'a written::App,
    /// What commands said. It holds where the file says nothing.
    pub(crate) stated: Option<&'a StatedApp>,
    /// The config vars that it has by its add-ons.
    pub(crate) attached: BTreeMap<String, String>,
    /// Every size that there is.
    pub(crate) sizes: &'a Sizes,
    pub(crate) state_dir: &'a Path,
}

impl AppResolver<'_> {
    /// Makes one app as used. Problems go to the findings; stand-ins hold the places of what was wrong.
    pub(crate) fn resolve(
        &self,
        findings: &mut Findings<'_>,
        claims: &mut Claims,
        timeouts: AppTimeouts,
    ) -> AppConfig {
        let written = self.written;
        let mut said = said(findings, self.at, written);
        AppConfig {
            domains: self.domains(findings, claims),
            acme: written.acme.unwrap_or(defaults::ACME_OF_APP),
            certificates: self.stated.map(|it| it.certificates.clone()).unwrap_or_default(),
            policy: self.policy(findings, timeouts),
            source: self.source(findings, &mut said),
            drains: resolve_drains(
                findings,
                &self.key("drains"),
                &written.drains,
                self.stated.map_or(&[], |it| &it.drains),
            ),
            jobs: resolve_jobs(findings, &self.key("jobs"), written, self.sizes),
            said,
        }
    }

    fn key(&self, key: &str) -> String {
        format!("apps.{}.{key}", self.name)
    }

    fn domains(&self, findings: &mut Findings<'_>, claims: &mut Claims) -> Vec<Domain> {
        let mut domains = Vec::new();
        for item in self.written.domains.as_ref().map_or(&[][..], |it| it.get_ref()) {
            let at = item.span().start;
            match Domain::parse(item.get_ref()) {
                Ok(_) if item.get_ref().parse::<Ipv4Addr>().is_ok() => {
                    let message = format!(
                        "{} is an address, not a name: requests for addresses go to router.default_app",
                        item.get_ref()
                    );
                    findings.problem(at, self.key("domains"), message);
                }
                Ok(domain) if claims.claim(findings, at, self.name, &domain) => {
                    domains.push(domain)
                }
                Ok(_) => {}
                Err(wrong) => {
                    findings.problem(
                        at,
                        self.key("domains"),
                        format!("{:?}: {wrong}", item.get_ref()),
                    );
                }
            }
        }
        for domain in self.stated.iter().flat_map(|it| &it.domains) {
            if claims.claim(findings, COMMAND, self.name, &domain.domain) {
                domains.push(domain.domain.clone());
            }
        }
        domains
    }

    fn policy(&self, findings: &mut Findings<'_>, base: AppTimeouts) -> AppPolicy {
        let written = self.written;
        let balances =
            [("p2c", Balance::P2c), ("random", Balance::Random), ("least", Balance::Least)];
        let expects = [("router", Expect::Router), ("dyno", Expect::Dyno)];
        let affinities =
            [("off", Affinity::Off), ("cookie", Affinity::Cookie), ("address", Affinity::Address)];
        let default = defaults::POLICY;
        AppPolicy {
            timeouts: self.timeouts(findings, base),
            balance: choice(
                findings,
                &self.key("balance"),
                &written.balance,
                &balances,
                default.balance,
            ),
            expect: choice(
                findings,
                &self.key("expect"),
                &written.expect,
                &expects,
                default.expect,
            ),
            maintenance: written
                .maintenance
                .as_ref()
                .map(|it| *it.get_ref())
                .or(self.stated.and_then(|it| it.maintenance))
                .unwrap_or(default.maintenance),
            backlog: self.backlog(findings),
            force_https: written
                .force_https
                .as_ref()
                .map_or(default.force_https, |it| *it.get_ref()),
            http2_to_dyno: written.http2_to_dyno.unwrap_or(default.http2_to_dyno),
            affinity: choice(
                findings,
                &self.key("affinity"),
                &written.affinity,
                &affinities,
                match self.feature(Feature::SessionAffinity) {
                    Some(true) => Affinity::Cookie,
                    Some(false) => Affinity::Off,
                    None => default.affinity,
                },
            ),
            slow_start: written.slow_start.is_some().then(|| {
                timeout(findings, &self.key("slow_start"), &written.slow_start, limits::TIMEOUT_MAX)
            }),
            limits: self.limits(findings, "limits", &written.limits),
            client_limits: self.limits(findings, "client_limits", &written.client_limits),
            error_page: self.page(findings, "error_page", &written.error_page),
            maintenance_page: self.page(findings, "maintenance_page", &written.maintenance_page),
        }
    }

    fn timeouts(&self, findings: &mut Findings<'_>, base: AppTimeouts) -> AppTimeouts {
        let written = &self.written.timeouts;
        let key = |key| self.key(&format!("timeouts.{key}"));
        AppTimeouts {
            hold: timeout(findings, &key("hold"), &written.hold, base.hold),
            connect: timeout(findings, &key("connect"), &written.connect, base.connect),
            first_byte: timeout(findings, &key("first_byte"), &written.first_byte, base.first_byte),
            rolling: timeout(findings, &key("rolling"), &written.rolling, base.rolling),
            linger: timeout(findings, &key("linger"), &written.linger, base.linger),
            drain: timeout(findings, &key("drain"), &written.drain, base.drain),
            ws_drain: timeout_or_zero(findings, &key("ws_drain"), &written.ws_drain, base.ws_drain),
            dyno_keepalive: timeout_or_zero(
                findings,
                &key("dyno_keepalive"),
                &written.dyno_keepalive,
                base.dyno_keepalive,
            ),
        }
    }

    fn limits(
        &self,
        findings: &mut Findings<'_>,
        table: &str,
        written: &written::TrafficLimits,
    ) -> TrafficLimits {
        let written::TrafficLimits { requests_per_second, connections, in_flight } = written;
        let mut limit =
            |key, written| traffic_limit(findings, &self.key(&format!("{table}.{key}")), written);
        TrafficLimits {
            requests_per_second: limit("requests_per_second", requests_per_second),
            connections: limit("connections", connections),
            in_flight: limit("in_flight", in_flight),
        }
    }

    fn backlog(&self, findings: &mut Findings<'_>) -> u32 {
        match &self.written.backlog {
            None => defaults::POLICY.backlog,
            Some(written) => {
                let backlog = *written.get_ref();
                if backlog > limits::BACKLOG_MAX {
                    let message =
                        format!("expected 0 to {} requests, not {backlog}", limits::BACKLOG_MAX);
                    findings.problem(written.span().start, self.key("backlog"), message);
                }
                backlog
            }
        }
    }

    fn page(
        &self,
        findings: &mut Findings<'_>,
        key: &str,
        written: &Optional<String>,
    ) -> Option<Arc<str>> {
        let written = written.as_ref()?;
        let path = findings.path(written.get_ref());
        match text_file::read(&path) {
            Ok(html) => Some(html.into()),
            Err(wrong) => {
                findings.problem(
                    written.span().start,
                    self.key(key),
                    format!("{}: {wrong}", path.display()),
                );
                None
            }
        }
    }

    fn source(&self, findings: &mut Findings<'_>, said: &mut Said) -> AppSource {
        if let Some(dynos) = &self.written.dynos {
            if self.written.dir.is_some() {
                let message =
                    "an app has either dir (dynomesh runs its dynos) or dynos (somebody else does)";
                findings.problem(dynos.span().start, self.key("dynos"), message);
            } else {
                self.refuse_what_needs_dir(findings);
            }
            return AppSource::External(self.dynos(findings, dynos.span().start, dynos.get_ref()));
        }
        // What the file says of dynos holds once there are some.
        let Some((at, dir)) = self.dir(findings) else {
            if self.at == COMMAND {
                return AppSource::Blank;
            }
            let message =
                "the app has neither dir nor dynos: requests are answered with H81, Blank app";
            findings.warn(self.at, format!("apps.{}", self.name), message);
            return AppSource::Blank;
        };
        let timeouts = self.supervisor_timeouts(findings);
        let upkeep = upkeep(findings, |key| self.key(key), self.written);
        let config_vars = self.config_vars(findings, said);
        let commands = self.procfile(findings, at, &dir);
        let Some(commands) = commands else { return AppSource::Blank };
        let mut formation = self.formation(findings, &commands);
        let key = |key: &str| self.key(key);
        let autoscale = autoscale(findings, key, self.written, self.stated, &mut formation);
        let (size, sizes) = self.sizes(findings, &commands);
        let deploy = self.deploy(findings);
        AppSource::Managed(ManagedApp {
            dir: make_absolute(&dir),
            commands,
            formation,
            autoscale,
            size,
            sizes,
            deploy,
            guard: guard(findings, |key| self.key(key), self.written.guard.as_ref()),
            canary: canary(findings, |key| self.key(key), self.written, deploy),
            keep_warm: self.keep_warm(findings, deploy),
            release: None,
            recycle_on_r14: self.recycle_on_r14(findings),
            runtime_metrics: self
                .written
                .runtime_metrics
                .as_ref()
                .map_or(defaults::RUNTIME_METRICS, |it| *it.get_ref()),
            config_vars,
            timeouts,
            upkeep: Arc::new(upkeep),
        })
    }

    fn deploy(&self, findings: &mut Findings<'_>) -> Deploy {
        let deploys = [
            ("rolling", Deploy::Rolling),
            ("preboot", Deploy::Preboot),
            ("restart", Deploy::Restart),
        ];
        let default = match self.feature(Feature::Preboot) {
            Some(true) => Deploy::Preboot,
            Some(false) | None => defaults::DEPLOY,
        };
        choice(findings, &self.key("deploy"), &self.written.deploy, &deploys, default)
    }

    fn keep_warm(&self, findings: &mut Findings<'_>, deploy: Deploy) -> Option<Duration> {
        let written = self.written.keep_warm.as_ref()?;
        let key = self.key("keep_warm");
        refuse_in_place(findings, &key, written.span().start, deploy);
        Some(timeout(findings, &key, &self.written.keep_warm, limits::TIMEOUT_MAX))
    }

    /// Whether a command turned it on or off.
    fn feature(&self, feature: Feature) -> Option<bool> {
        self.stated?.features.get(&feature).copied()
    }

    /// The directory of the file, else that of what was deployed; with the place that says so.
    fn dir(&self, findings: &Findings<'_>) -> Option<(usize, PathBuf)> {
        if let Some(written) = &self.written.dir {
            return Some((written.span().start, findings.path(written.get_ref())));
        }
        let slug = self.stated?.slug.as_ref()?;
        Some((COMMAND, slug_dir(self.state_dir, slug)))
    }

    fn refuse_what_needs_dir(&self, findings: &mut Findings<'_>) {
        let written = self.written;
        let timeouts = &written.timeouts;
        let start = |it: &Optional<written::DurationText>| it.as_ref().map(|it| it.span().start);
        for (key, at) in [
            ("formation", written.formation.as_ref().map(|it| it.span().start)),
            ("autoscale", written.autoscale.as_ref().map(|it| it.span().start)),
            ("size", written.size.as_ref().map(|it| it.span().start)),
            ("sizes", written.sizes.as_ref().map(|it| it.span().start)),
            ("deploy", written.deploy.as_ref().map(|it| it.span().start)),
            ("canary", written.canary.as_ref().map(|it| it.span().start)),
            ("canary_for", start(&written.canary_for)),
            ("keep_warm", start(&written.keep_warm)),
            ("guard", written.guard.as_ref().map(|it| it.span().start)),
            ("recycle_on_r14", start(&written.recycle_on_r14)),
            ("runtime_metrics", written.runtime_metrics.as_ref().map(|it| it.span().start)),
            ("env_file", written.env_file.as_ref().map(|it| it.span().start)),
            ("config", written.config.as_ref().map(|it| it.span().start)),
            ("slow_start", start(&written.slow_start)),
            ("health", written.health.as_ref().map(|it| it.span().start)),
            ("cycle", start(&written.cycle)),
            ("freeze_after", start(&written.freeze_after)),
            ("timeouts.boot", start(&timeouts.boot)),
            ("timeouts.exit", start(&timeouts.exit)),
            ("timeouts.cool_off", start(&timeouts.cool_off)),
            ("timeouts.cool_off_max", start(&timeouts.cool_off_max)),
        ] {
            if let Some(at) = at {
                let message =
                    "is for dynos that dynomesh runs: it needs dir, a directory with a Procfile";
                findings.problem(at, self.key(key), message);
            }
        }
    }

    fn dynos(
        &self,
        findings: &mut Findings<'_>,
        at: usize,
        written: &[toml::Spanned<String>],
    ) -> Vec<DynoAddr> {
        let key = self.key("dynos");
        if written.is_empty() {
            findings.problem(at, &key, "expected at least one address of a dyno");
        }
        let mut dynos: Vec<DynoAddr> = Vec::new();
        for item in written {
            let Some(addr) = dyno_addr(findings, &key, item) else { continue };
            if dynos.contains(&addr) {
                findings.problem(item.span().start, &key, format!("{addr} stands here twice"));
            } else {
                dynos.push(addr);
            }
        }
        dynos
    }

    fn procfile(
        &self,
        findings: &mut Findings<'_>,
        at: usize,
        dir: &Path,
    ) -> Option<BTreeMap<ProcessType, String>> {
        let key = self.key("dir");
        if !dir.is_dir() {
            let dir = make_absolute(dir);
            findings.problem(at, key, format!("there is no directory {}", dir.display()));
            return None;
        }
        let path = dir.join("Procfile");
        let text = match text_file::read(&path) {
            Ok(text) => text,
            Err(wrong) => {
                findings.problem(at, key, format!("{}: {wrong}", path.display()));
                return None;
            }
        };
        match procfile::parse(&text) {
            Ok(Procfile { commands, warnings }) => {
                findings.warnings_in(&path, warnings);
                if commands.is_empty() {
                    findings.warn(
                        at,
                        key,
                        format!("{} has no process type: nothing runs", path.display()),
                    );
                }
                Some(commands)
            }
            Err(mistakes) => {
                findings.problems_in(&path, mistakes);
                None
            }
        }
    }

    fn formation(
        &self,
        findings: &mut Findings<'_>,
        commands: &BTreeMap<ProcessType, String>,
    ) -> Formation {
        let mut formation: Formation =
            commands.keys().map(|it| (it.clone(), u32::from(it.is_web()))).collect();
        // What was said of a type that the Procfile does not have any more waits for it to come back.
        for (name, count) in self.stated.iter().flat_map(|it| &it.formation) {
            formation.entry(name.clone()).and_modify(|wanted| *wanted = *count);
        }
        for (name, count) in self.written.formation.iter().flat_map(|it| it.get_ref()) {
            let key = self.key(&format!("formation.{}", name.get_ref()));
            match formation.iter_mut().find(|(it, _)| it.as_str() == name.get_ref()) {
                Some((_, wanted)) => *wanted = *count.get_ref(),
                None => {
                    let message = self.no_process_type(name.get_ref(), commands);
                    findings.problem(name.span().start, &key, message);
                }
            }
            if *count.get_ref() > limits::FORMATION_MAX {
                let message = format!("expected 0 to {} dynos", limits::FORMATION_MAX);
                findings.problem(count.span().start, &key, message);
            }
        }
        formation
    }

    /// The app's own size, and that of each process type.
    fn sizes(
        &self,
        findings: &mut Findings<'_>,
        commands: &BTreeMap<ProcessType, String>,
    ) -> (Arc<Size>, BTreeMap<ProcessType, Arc<Size>>) {
        let written = self.written.size.as_ref();
        let default = || Some(self.sizes.find(Sizes::DEFAULT)?.clone());
        let size = written
            .and_then(|it| size_named(findings, &self.key("size"), self.sizes, it))
            .or_else(default)
            .expect("the default is one of Heroku's sizes");
        let mut sizes: BTreeMap<_, _> =
            commands.keys().map(|it| (it.clone(), size.clone())).collect();
        for (name, named) in self.stated.iter().flat_map(|it| &it.sizes) {
            // A size of the file that is not there any more: the app's own, then.
            if let (Some(size), Some(named)) = (sizes.get_mut(name), self.sizes.find(named)) {
                *size = named.clone();
            }
        }
        for (name, written) in self.written.sizes.iter().flat_map(|it| it.get_ref()) {
            let key = self.key(&format!("sizes.{}", name.get_ref()));
            let named = size_named(findings, &key, self.sizes, written);
            match sizes.iter_mut().find(|(it, _)| it.as_str() == name.get_ref()) {
                Some((_, size)) => *size = named.unwrap_or_else(|| size.clone()),
                None => {
                    let message = self.no_process_type(name.get_ref(), commands);
                    findings.problem(name.span().start, &key, message);
                }
            }
        }
        (size, sizes)
    }

    fn recycle_on_r14(&self, findings: &mut Findings<'_>) -> Option<Duration> {
        let written = &self.written.recycle_on_r14;
        let key = self.key("recycle_on_r14");
        written.as_ref().map(|_| timeout(findings, &key, written, limits::TIMEOUT_MAX))
    }

    fn no_process_type(&self, written: &str, commands: &BTreeMap<ProcessType, String>) -> String {
        let known: Vec<&str> = commands.keys().map(ProcessType::as_str).collect();
        let known = match (nearest(written, known.iter().copied()), known.as_slice()) {
            (Some(meant), [_, _, ..]) => {
                format!("it has: {}; did you mean {meant}?", known.join(", "))
            }
            (_, []) => "it has none".to_owned(),
            _ => format!("it has: {}", known.join(", ")),
        };
        format!("the Procfile of {} has no process type {written:?} ({known})", self.name)
    }

    fn config_vars(
        &self,
        findings: &mut Findings<'_>,
        said: &mut Said,
    ) -> BTreeMap<String, String> {
        let mut vars = self.stated.map(|it| it.config_vars.clone()).unwrap_or_default();
        vars.extend(self.attached.clone());
        if let Some(written) = &self.written.env_file {
            let path = findings.path(written.get_ref());
            match text_file::read(&path) {
                Ok(text) => {
                    let file = env_file::parse(&text);
                    let line = findings.line(written.span().start);
                    file.vars.keys().for_each(|name| said.also(name, line));
                    vars.extend(file.vars);
                    findings.warnings_in(&path, file.warnings);
                }
                Err(wrong) => {
                    let message = format!("{}: {wrong}", path.display());
                    findings.problem(written.span().start, self.key("env_file"), message);
                }
            }
        }
        for (name, value) in self.written.config.iter().flat_map(|it| it.get_ref()) {
            let key = self.key(&format!("config.{}", name.get_ref()));
            let checked = config_var::check_config_var(name.get_ref(), value.get_ref());
            match checked {
                Ok(()) => {
                    vars.insert(name.get_ref().clone(), value.get_ref().clone());
                }
                Err(wrong) => findings.problem(name.span().start, key, wrong),
            }
        }
        vars
    }

    fn supervisor_timeouts(&self, findings: &mut Findings<'_>) -> SupervisorTimeouts {
        let written = &self.written.timeouts;
        let key = |key| self.key(&format!("timeouts.{key}"));
        let default = defaults::SUPERVISOR_TIMEOUTS;
        let cool_off_first =
            timeout(findings, &key("cool_off"), &written.cool_off, default.cool_off_first);
        let cool_off_max =
            timeout(findings, &key("cool_off_max"), &written.cool_off_max, default.cool_off_max);
        if let Some(at) = written.cool_off.as_ref().or(written.cool_off_max.as_ref())
            && cool_off_first > cool_off_max
        {
            let [first, max] = [cool_off_first, cool_off_max].map(duration::print);
            let message =
                format!("the first cool-off ({first}) is longer than cool_off_max ({max})");
            findings.problem(at.span().start, key("cool_off"), message);
        }
        SupervisorTimeouts {
            boot: timeout(findings, &key("boot"), &written.boot, default.boot),
            exit: timeout(findings, &key("exit"), &written.exit, default.exit),
            cool_off_first,
            cool_off_max,
        }
    }
}
