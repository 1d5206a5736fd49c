//! Sizes of dynos, as written → as used.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use toml::Spanned;

use crate::config::findings::Findings;
use crate::config::nearest::nearest;
use crate::config::values::duration_within;
use crate::config::written::{self, Optional};
use crate::config::{bytes, limits};
use crate::model::{CpuShare, Size, SizeLimits, SizeName, Sizes};

type Table = written::Table<BTreeMap<Spanned<String>, Spanned<written::Table<written::Size>>>>;

/// Heroku's sizes and those of the file.
pub(crate) fn resolve_sizes(findings: &mut Findings<'_>, written: &Table) -> Sizes {
    let mut sizes = Sizes::heroku();
    for (name, size) in written.iter() {
        let at = name.span().start;
        let resolver = SizeResolver { name: name.get_ref(), at, written: size.get_ref() };
        let Some(size) = resolver.size(findings) else { continue };
        if !sizes.add(size) {
            let message = format!(
                "{} is one of Heroku's sizes: choose another name for your own",
                name.get_ref()
            );
            findings.problem(at, format!("sizes.{}", name.get_ref()), message);
        }
    }
    sizes
}

/// The size of this name; where there is none, says which there are.
pub(crate) fn size_named(
    findings: &mut Findings<'_>,
    key: &str,
    sizes: &Sizes,
    written: &Spanned<String>,
) -> Option<Arc<Size>> {
    let found = sizes.find(written.get_ref());
    if found.is_none() {
        let names = || sizes.iter().map(|it| it.name.as_str());
        let meant = nearest(&written.get_ref().to_ascii_lowercase(), names());
        let meant = meant.map_or(String::new(), |meant| format!("; did you mean {meant}?"));
        let message = format!(
            "there is no size {:?} (there is: {}{meant})",
            written.get_ref(),
            names().collect::<Vec<_>>().join(", ")
        );
        findings.problem(written.span().start, key, message);
    }
    found.cloned()
}

struct SizeResolver<'a> {
    name: &'a str,
    /// Where the name stands.
    at: usize,
    written: &'a written::Size,
}

impl SizeResolver<'_> {
    fn key(&self, key: &str) -> String {
        format!("sizes.{}.{key}", self.name)
    }

    fn size(&self, findings: &mut Findings<'_>) -> Option<Size> {
        let limits = SizeLimits {
            memory: self.memory(findings),
            cpu: self.cpu(findings),
            cpus: self.number(findings, "cpus", &self.written.cpus, limits::CPUS, 1000.0),
            processes: self.processes(findings),
        };
        let price = self.number(findings, "price", &self.written.price, limits::PRICE, 100.0);
        let sleep_after = self.written.sleep_after.as_ref().map(|_| {
            let bounds = limits::TIMEOUT_MIN..=limits::TIMEOUT_MAX;
            let key = self.key("sleep_after");
            duration_within(findings, &key, &self.written.sleep_after, *bounds.end(), bounds)
        });
        match SizeName::parse(self.name) {
            Ok(name) => Some(Size { name, limits, sleep_after, price: price.unwrap_or(0) }),
            Err(wrong) => {
                findings.problem(self.at, format!("sizes.{}", self.name), wrong);
                None
            }
        }
    }

    fn memory(&self, findings: &mut Findings<'_>) -> u64 {
        let bounds = limits::MEMORY_MIN..=limits::MEMORY_MAX;
        let Some(written) = &self.written.memory else {
            let message = format!("is missing: expected {}", bytes::EXPECTED);
            findings.problem(self.at, self.key("memory"), message);
            return limits::MEMORY_MIN;
        };
        let text = &written.get_ref().0;
        let message = match bytes::parse(text) {
            Some(memory) if bounds.contains(&memory) => return memory,
            Some(_) => {
                let [min, max] = [*bounds.start(), *bounds.end()].map(bytes::print);
                format!("expected {min} to {max}, not {text}")
            }
            None => format!("expected {}, not {text:?}", bytes::EXPECTED),
        };
        findings.problem(written.span().start, self.key("memory"), message);
        limits::MEMORY_MIN
    }

    fn cpu(&self, findings: &mut Findings<'_>) -> CpuShare {
        let dedicated = self.written.dedicated.unwrap_or(false);
        let Some(share) = &self.written.cpu_share else {
            return if dedicated { CpuShare::Dedicated } else { CpuShare::Shared(1) };
        };
        let shares = *share.get_ref();
        let message = if dedicated {
            "a size has either cpu_share or dedicated = true".to_owned()
        } else if !(1..=CpuShare::MAX).contains(&shares) {
            format!("expected 1 to {} (1 is what standard-1x gets), not {shares}", CpuShare::MAX)
        } else {
            return CpuShare::Shared(shares);
        };
        findings.problem(share.span().start, self.key("cpu_share"), message);
        CpuShare::Shared(1)
    }

    fn processes(&self, findings: &mut Findings<'_>) -> u32 {
        let Some(written) = &self.written.processes else { return limits::PROCESSES };
        let processes = *written.get_ref();
        let bounds = limits::PROCESSES_MIN..=limits::PROCESSES_MAX;
        if !bounds.contains(&processes) {
            let message =
                format!("expected {} to {}, not {processes}", bounds.start(), bounds.end());
            findings.problem(written.span().start, self.key("processes"), message);
        }
        processes
    }

    /// A number within bounds, of which `scale` parts are counted.
    fn number(
        &self,
        findings: &mut Findings<'_>,
        key: &str,
        written: &Optional<written::Number>,
        bounds: RangeInclusive<f64>,
        scale: f64,
    ) -> Option<u32> {
        let written = written.as_ref()?;
        let number = written.get_ref().0;
        if !bounds.contains(&number) {
            let message = format!("expected {} to {}, not {number}", bounds.start(), bounds.end());
            findings.problem(written.span().start, self.key(key), message);
            return None;
        }
        Some((number * scale).round() as u32)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::config::fixture::Fixture;
    use crate::config::{AppSource, Config, ManagedApp};
    use crate::model::{AppName, CpuShare, ProcessType};

    fn fixture(config: &str) -> Fixture {
        Fixture::new(config, &[("shop/Procfile", "web: serve\nworker: work\n")])
    }

    fn shop(config: &Config) -> &ManagedApp {
        match &config.apps[&AppName::parse("shop").unwrap()].source {
            AppSource::Managed(app) => app,
            _ => unreachable!(),
        }
    }

    fn size_of(app: &ManagedApp, process_type: &str) -> String {
        app.sizes[&ProcessType::parse(process_type).unwrap()].name.to_string()
    }

    #[test]
    fn a_type_has_its_own_size_or_the_apps_or_the_default() {
        let config = fixture("[apps.shop]\ndir = 'shop'").loaded();
        let app = shop(&config);
        assert_eq!((size_of(app, "web"), app.runtime_metrics), ("basic".into(), false));
        let config = fixture(
            "[apps.shop]\ndir = 'shop'\nsize = 'Standard-2X'\nsizes = { worker = 'nap' }
            recycle_on_r14 = '5m'\nruntime_metrics = true
            [sizes.nap]\nmemory = '1.5GB'\ncpu_share = 3\ncpus = 0.5\nprocesses = 40\nsleep_after = '10m'\nprice = 2.5
            [sizes.big]\nmemory = '32GB'\ndedicated = true",
        )
        .loaded();
        let app = shop(&config);
        assert_eq!(
            (size_of(app, "web"), size_of(app, "worker")),
            ("standard-2x".into(), "nap".into())
        );
        assert_eq!(app.size.name.as_str(), "standard-2x");
        assert_eq!(
            (app.recycle_on_r14, app.runtime_metrics),
            (Some(Duration::from_secs(300)), true)
        );
        let nap = config.sizes.find("nap").unwrap();
        assert_eq!((nap.limits.memory, nap.limits.cpu), (1536 << 20, CpuShare::Shared(3)));
        assert_eq!((nap.limits.cpus, nap.limits.processes), (Some(500), 40));
        assert_eq!((nap.sleep_after, nap.price), (Some(Duration::from_secs(600)), 250));
        let big = config.sizes.find("BIG").unwrap();
        assert_eq!((big.limits.cpu, big.limits.processes), (CpuShare::Dedicated, 256));
        assert_eq!((big.sleep_after, big.price, big.limits.cpus), (None, 0, None));
    }

    #[track_caller]
    fn check(config: &str, expected: &[&str]) {
        let error = fixture(config).load().unwrap_err();
        let said = error.to_string();
        let said: Vec<&str> =
            said.lines().map(|line| line.split_once("dynomesh.toml:").unwrap().1).collect();
        assert_eq!(said, expected, "{config}");
    }

    #[test]
    fn mistakes_are_named_with_what_would_be_right() {
        const KNOWN: &str = "basic, eco, performance-l, performance-m, private-l, private-m, private-s, standard-1x, standard-2x";
        check(
            "[apps.shop]\ndir = 'shop'\nsize = 'standart-1x'\nsizes = { web = 'huge', wroker = 'eco' }",
            &[
                &format!(
                    "3: apps.shop.size: there is no size \"standart-1x\" (there is: {KNOWN}; did you mean standard-1x?)"
                ),
                &format!("4: apps.shop.sizes.web: there is no size \"huge\" (there is: {KNOWN})"),
                "4: apps.shop.sizes.wroker: the Procfile of shop has no process type \"wroker\" (it has: web, worker; did you mean worker?)",
            ],
        );
        check(
            "[sizes.nap]",
            &["1: sizes.nap.memory: is missing: expected an amount like \"512MB\" or \"2.5GB\""],
        );
        check(
            "[sizes.nap]\nmemory = 512",
            &[
                "2: sizes.nap.memory: invalid type: integer `512`, expected an amount like \"512MB\" or \"2.5GB\"",
            ],
        );
        check(
            "[sizes.nap]\nmemory = '1KB'\ncpu_share = 0\ncpus = 0\nprocesses = 1\nsleep_after = '1ms'\nprice = -1",
            &[
                "2: sizes.nap.memory: expected an amount like \"512MB\" or \"2.5GB\", not \"1KB\"",
                "3: sizes.nap.cpu_share: expected 1 to 100 (1 is what standard-1x gets), not 0",
                "4: sizes.nap.cpus: expected 0.01 to 1024, not 0",
                "5: sizes.nap.processes: expected 8 to 1000000, not 1",
                "6: sizes.nap.sleep_after: expected a duration from 100ms to 1d, not 1ms",
                "7: sizes.nap.price: expected 0 to 1000000, not -1",
            ],
        );
        check(
            "[sizes.nap]\nmemory = '1MB'\ncpu_share = 2\ndedicated = true",
            &[
                "2: sizes.nap.memory: expected 16MB to 16384GB, not 1MB",
                "3: sizes.nap.cpu_share: a size has either cpu_share or dedicated = true",
            ],
        );
        check(
            "[sizes.eco]\nmemory = '1GB'\n[sizes.Big]\nmemory = '1GB'",
            &[
                "1: sizes.eco: eco is one of Heroku's sizes: choose another name for your own",
                "3: sizes.Big: a size's name has lower-case letters, digits and dashes, begins with a letter, and has at most 63 characters",
            ],
        );
    }

    #[test]
    fn dynos_that_somebody_else_runs_have_no_size() {
        const MESSAGE: &str =
            "is for dynos that dynomesh runs: it needs dir, a directory with a Procfile";
        check(
            "[apps.shop]\ndynos = ['127.0.0.1:5001']\nsize = 'eco'\nsizes = { web = 'eco' }\nrecycle_on_r14 = '5m'\nruntime_metrics = true",
            &[
                &format!("3: apps.shop.size: {MESSAGE}"),
                &format!("4: apps.shop.sizes: {MESSAGE}"),
                &format!("5: apps.shop.recycle_on_r14: {MESSAGE}"),
                &format!("6: apps.shop.runtime_metrics: {MESSAGE}"),
            ],
        );
    }
}
