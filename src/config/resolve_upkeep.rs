//! How an app's dynos are looked after while they are up, as written → as used.

use std::num::NonZeroU32;
use std::sync::Arc;

use crate::config::findings::Findings;
use crate::config::values::{duration_within, timeout};
use crate::config::written::{self, Optional};
use crate::config::{HealthCheck, Upkeep, defaults, limits};

/// `key` makes the whole name of one of the app's keys.
pub(crate) fn upkeep(
    findings: &mut Findings<'_>,
    key: impl Fn(&str) -> String,
    written: &written::App,
) -> Upkeep {
    let written::App { cycle, freeze_after, .. } = written;
    Upkeep {
        health: health(findings, &key, written),
        cycle: cycle.is_some().then(|| {
            let bounds = limits::CYCLE_MIN..=limits::CYCLE_MAX;
            duration_within(findings, &key("cycle"), cycle, limits::CYCLE_MAX, bounds)
        }),
        freeze_after: freeze_after
            .is_some()
            .then(|| timeout(findings, &key("freeze_after"), freeze_after, limits::TIMEOUT_MAX)),
    }
}

fn health(
    findings: &mut Findings<'_>,
    key: impl Fn(&str) -> String,
    written: &written::App,
) -> Option<HealthCheck> {
    let written::App { health, health_interval, health_timeout, .. } = written;
    let written::App { unhealthy_after, restart_after, .. } = written;
    let Some(path) = health else {
        refuse_what_needs_a_path(findings, key, written);
        return None;
    };
    let default = defaults::HEALTH;
    let check = HealthCheck {
        path: health_path(findings, &key("health"), path),
        interval: timeout(findings, &key("health_interval"), health_interval, default.interval),
        timeout: timeout(findings, &key("health_timeout"), health_timeout, default.timeout),
        unhealthy_after: failures(findings, &key("unhealthy_after"), unhealthy_after)
            .unwrap_or(default.unhealthy_after),
        restart_after: failures(findings, &key("restart_after"), restart_after),
    };
    if let (Some(written), Some(restart_after)) = (restart_after, check.restart_after)
        && restart_after < check.unhealthy_after
    {
        let message = format!(
            "expected {} (unhealthy_after) or more failures in a row, not {restart_after}: a dyno is restarted after it was passed over",
            check.unhealthy_after
        );
        findings.problem(written.span().start, key("restart_after"), message);
    }
    Some(check)
}

/// A path for a request line: what a client could ask for (RFC 9112 §3.2.1), without a fragment.
fn health_path(
    findings: &mut Findings<'_>,
    key: &str,
    written: &toml::Spanned<String>,
) -> Arc<str> {
    let path = written.get_ref();
    let plain = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !path.starts_with('/') || !plain || path.len() > limits::HEALTH_PATH_MAX {
        let message = format!(
            "expected a path like \"/up\", of at most {} visible ASCII characters, not {path:?}",
            limits::HEALTH_PATH_MAX
        );
        findings.problem(written.span().start, key, message);
    }
    path.as_str().into()
}

/// A number of failures in a row.
fn failures(findings: &mut Findings<'_>, key: &str, written: &Optional<u32>) -> Option<NonZeroU32> {
    let written = written.as_ref()?;
    let number = NonZeroU32::new(*written.get_ref());
    if number.is_none() {
        findings.problem(written.span().start, key, "expected 1 or more failures in a row, not 0");
    }
    number
}

fn refuse_what_needs_a_path(
    findings: &mut Findings<'_>,
    key: impl Fn(&str) -> String,
    written: &written::App,
) {
    let start = |it: &Optional<written::DurationText>| it.as_ref().map(|it| it.span().start);
    let number = |it: &Optional<u32>| it.as_ref().map(|it| it.span().start);
    for (name, at) in [
        ("health_interval", start(&written.health_interval)),
        ("health_timeout", start(&written.health_timeout)),
        ("unhealthy_after", number(&written.unhealthy_after)),
        ("restart_after", number(&written.restart_after)),
    ] {
        if let Some(at) = at {
            let message = "needs health, the path at which web dynos are asked how they are";
            findings.problem(at, key(name), message);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::fixture::Fixture;
    use crate::config::{AppSource, Config, Deploy};
    use crate::model::AppName;

    const FILES: [(&str, &str); 1] = [("shop/Procfile", "web: serve\n")];

    fn upkeep_of(config: &Config) -> Upkeep {
        let shop = &config.apps[&AppName::parse("shop").unwrap()];
        let AppSource::Managed(shop) = &shop.source else { panic!("{:?}", shop.source) };
        Upkeep::clone(&shop.upkeep)
    }

    /// Lines of `[apps.shop]`, from line 3 of the file on, and what is said of them.
    fn check(source: &str, lines: &str, expected: &[&str]) {
        let fixture = Fixture::new(&format!("[apps.shop]\n{source}\n{lines}"), &FILES);
        let said = fixture.load().map_or_else(|error| error.to_string(), |_| String::new());
        let said = fixture.relative(&said);
        let said: Vec<_> = said.lines().map(|it| it.trim_start_matches("dynomesh.toml:")).collect();
        assert_eq!(said, expected, "{lines}");
    }

    #[test]
    fn all_of_it_is_off_unless_it_is_written() {
        let config = Fixture::new("[apps.shop]\ndir = \"shop\"", &FILES).loaded();
        assert_eq!(upkeep_of(&config), Upkeep::default());
        let written = "[apps.shop]\ndir = \"shop\"\nhealth = \"/up?deep=1\"\nhealth_interval = \"1m\"\nunhealthy_after = 2\nrestart_after = 5\ncycle = \"7d\"\nfreeze_after = \"1m\"\nslow_start = \"30s\"";
        let config = Fixture::new(written, &FILES).loaded();
        let failures = |number| NonZeroU32::new(number).unwrap();
        let health = HealthCheck {
            path: "/up?deep=1".into(),
            interval: Duration::from_secs(60),
            timeout: Duration::from_secs(5),
            unhealthy_after: failures(2),
            restart_after: Some(failures(5)),
        };
        let days = |days: u64| Duration::from_secs(days * 86_400);
        let expected = Upkeep {
            health: Some(health),
            cycle: Some(days(7)),
            freeze_after: Some(Duration::from_secs(60)),
        };
        assert_eq!(upkeep_of(&config), expected);
        let shop = &config.apps[&AppName::parse("shop").unwrap()];
        assert_eq!(shop.policy.slow_start, Some(Duration::from_secs(30)));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        check(
            "dir = \"shop\"",
            "health = \"up\"\nunhealthy_after = 0\nrestart_after = 2\ncycle = \"10s\"\nfreeze_after = \"1\"\nslow_start = 30",
            &[
                "8: apps.shop.slow_start: invalid type: integer `30`, expected a duration like \"30s\", \"500ms\", \"1h30m\" or \"30d\"",
            ],
        );
        check(
            "dir = \"shop\"",
            "health = \"up\"\nunhealthy_after = 0\nrestart_after = 2\ncycle = \"10s\"\nfreeze_after = \"1\"\nslow_start = \"25h\"",
            &[
                "3: apps.shop.health: expected a path like \"/up\", of at most 1024 visible ASCII characters, not \"up\"",
                "4: apps.shop.unhealthy_after: expected 1 or more failures in a row, not 0",
                "5: apps.shop.restart_after: expected 3 (unhealthy_after) or more failures in a row, not 2: a dyno is restarted after it was passed over",
                "6: apps.shop.cycle: expected a duration from 1m to 365d, not 10s",
                "7: apps.shop.freeze_after: expected a duration like \"30s\", \"500ms\", \"1h30m\" or \"30d\", not \"1\"",
                "8: apps.shop.slow_start: expected a duration from 100ms to 1d, not 25h",
            ],
        );
    }

    #[test]
    fn another_release_takes_the_place_in_one_of_three_ways() {
        let deploy = |line: &str| {
            let written = format!("[apps.shop]\ndir = \"shop\"\n{line}");
            let config = Fixture::new(&written, &FILES).loaded();
            let shop = &config.apps[&AppName::parse("shop").unwrap()];
            let AppSource::Managed(shop) = &shop.source else { panic!("{:?}", shop.source) };
            (shop.deploy, shop.release)
        };
        assert_eq!(deploy(""), (Deploy::Rolling, None), "the file knows no numbers");
        assert_eq!(deploy("deploy = \"rolling\"").0, Deploy::Rolling);
        assert_eq!(deploy("deploy = \"preboot\"").0, Deploy::Preboot);
        assert_eq!(deploy("deploy = \"restart\"").0, Deploy::Restart);
        check(
            "dir = \"shop\"",
            "deploy = \"blue-green\"\ntimeouts = { ws_drain = \"25h\" }",
            &[
                "3: apps.shop.deploy: expected \"rolling\" or \"preboot\" or \"restart\", not \"blue-green\"",
                "4: apps.shop.timeouts.ws_drain: expected a duration from 100ms to 1d, not 25h",
            ],
        );
        check(
            "dir = \"shop\"",
            "deploy = \"restart\"\nkeep_warm = \"10m\"",
            &[
                "4: apps.shop.keep_warm: is for deploys that start the new dynos while the old ones are up: deploy = \"rolling\" or \"preboot\"",
            ],
        );
    }

    #[test]
    fn what_belongs_to_something_else_is_not_ignored_in_silence() {
        check(
            "dir = \"shop\"",
            "health_timeout = \"1s\"\nrestart_after = 2",
            &[
                "3: apps.shop.health_timeout: needs health, the path at which web dynos are asked how they are",
                "4: apps.shop.restart_after: needs health, the path at which web dynos are asked how they are",
            ],
        );
        let needs_dir =
            "is for dynos that dynomesh runs: it needs dir, a directory with a Procfile";
        let keys = ["deploy", "health", "cycle", "freeze_after", "slow_start"];
        let lines = keys.map(|key| match key {
            "deploy" => "deploy = \"restart\"".to_owned(),
            "health" => "health = \"/up\"".to_owned(),
            key => format!("{key} = \"1h\""),
        });
        let expected: Vec<_> = (3..)
            .zip(keys)
            .map(|(line, key)| format!("{line}: apps.shop.{key}: {needs_dir}"))
            .collect();
        let expected: Vec<_> = expected.iter().map(String::as_str).collect();
        check("dynos = [\"127.0.0.1:1\"]", &lines.join("\n"), &expected);
    }
}
