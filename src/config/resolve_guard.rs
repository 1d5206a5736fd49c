//! By what an app's releases are judged and with what they begin, as written → as used.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use toml::Spanned;

use crate::config::findings::Findings;
use crate::config::values::duration_within;
use crate::config::written::{self, Optional, Table};
use crate::config::{Deploy, defaults, limits};
use crate::model::{Canary, Guard, Hundredths};

/// `key` makes the whole name of one of the app's keys.
pub(crate) fn guard(
    findings: &mut Findings<'_>,
    key: impl Fn(&str) -> String,
    written: Option<&Spanned<Table<written::Guard>>>,
) -> Option<Guard> {
    let written::Guard { errors, p95, within, requests } = &**written?.get_ref();
    let key = |it: &str| key(&format!("guard.{it}"));
    let default = defaults::GUARD;
    let bounds = limits::GUARD_WITHIN_MIN..=limits::TIMEOUT_MAX;
    // All of them cannot be more than all.
    let percent = ('%', Hundredths(0)..=Hundredths(9999));
    let share = "how much more of its requests a release may fail";
    let times = ('x', Hundredths(100)..=Hundredths(limits::GUARD_P95_MAX * 100));
    let time = "how many times as long requests may take";
    Some(Guard {
        errors: with_unit(findings, &key("errors"), errors, percent, share)
            .unwrap_or(default.errors),
        p95: with_unit(findings, &key("p95"), p95, times, time).or(default.p95),
        within: duration_within(findings, &key("within"), within, default.within, bounds),
        requests: requests_of(findings, &key("requests"), requests).unwrap_or(default.requests),
    })
}

/// `key` makes the whole name of one of the app's keys.
pub(crate) fn canary(
    findings: &mut Findings<'_>,
    key: impl Fn(&str) -> String,
    app: &written::App,
    deploy: Deploy,
) -> Option<Canary> {
    let written::App { canary, canary_for, .. } = app;
    if let (None, Some(time)) = (canary, canary_for) {
        let message =
            "is how long a canary has its part of the requests: it needs canary, how much that is";
        findings.problem(time.span().start, &key("canary_for"), message);
    }
    let at = canary.as_ref()?.span().start;
    refuse_in_place(findings, &key("canary"), at, deploy);
    let percent = ('%', Hundredths(1)..=limits::CANARY_MAX);
    let what = "how much of the requests a release gets at first";
    let bounds = limits::GUARD_WITHIN_MIN..=limits::TIMEOUT_MAX;
    let default = defaults::CANARY_FOR;
    Some(Canary {
        share: with_unit(findings, &key("canary"), canary, percent, what)?,
        time: duration_within(findings, &key("canary_for"), canary_for, default, bounds),
    })
}

/// For what needs the old dynos beside the new ones.
pub(crate) fn refuse_in_place(findings: &mut Findings<'_>, key: &str, at: usize, deploy: Deploy) {
    if deploy == Deploy::Restart {
        let message = "is for deploys that start the new dynos while the old ones are up: deploy = \"rolling\" or \"preboot\"";
        findings.problem(at, key, message);
    }
}

/// A number with this unit behind it, within bounds. `what` it is, to somebody who wrote it otherwise.
fn with_unit(
    findings: &mut Findings<'_>,
    key: &str,
    written: &Optional<String>,
    (unit, bounds): (char, RangeInclusive<Hundredths>),
    what: &str,
) -> Option<Hundredths> {
    let written = written.as_ref()?;
    let text = written.get_ref();
    let number = text.strip_suffix(unit).and_then(Hundredths::parse);
    let number = number.filter(|number| bounds.contains(number));
    if number.is_none() {
        let (min, max) = (bounds.start(), bounds.end());
        let message =
            format!("expected {what}, from \"{min}{unit}\" to \"{max}{unit}\", not {text:?}");
        findings.problem(written.span().start, key, message);
    }
    number
}

fn requests_of(
    findings: &mut Findings<'_>,
    key: &str,
    written: &Optional<u32>,
) -> Option<NonZeroU32> {
    let written = written.as_ref()?;
    let requests = NonZeroU32::new(*written.get_ref());
    if requests.is_none() {
        findings.problem(written.span().start, key, "expected 1 or more requests, not 0");
    }
    requests
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::fixture::Fixture;
    use crate::config::{AppSource, ManagedApp};
    use crate::model::AppName;

    fn fixture(lines: &str) -> Fixture {
        let text = format!("[apps.shop]\ndir = \"shop\"\n{lines}");
        Fixture::new(&text, &[("shop/Procfile", "web: serve\n")])
    }

    fn shop(lines: &str) -> ManagedApp {
        let config = fixture(lines).loaded();
        let shop = &config.apps[&AppName::parse("shop").unwrap()];
        let AppSource::Managed(shop) = &shop.source else { panic!("{:?}", shop.source) };
        shop.clone()
    }

    fn guard_of(lines: &str) -> Option<Guard> {
        shop(lines).guard
    }

    #[test]
    fn there_is_one_where_it_is_written() {
        assert_eq!(guard_of(""), None);
        assert_eq!(guard_of("[apps.shop.guard]"), Some(defaults::GUARD));
        let full = r#"guard = { errors = "0.5%", p95 = "1.5x", within = "10m", requests = 100 }"#;
        let expected = Guard {
            errors: Hundredths(50),
            p95: Some(Hundredths(150)),
            within: Duration::from_secs(600),
            requests: NonZeroU32::new(100).unwrap(),
        };
        assert_eq!(guard_of(full), Some(expected));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let check = |line: &str, expected: &str| {
            let fixture = fixture(&format!("[apps.shop.guard]\n{line}"));
            let said = fixture.load().unwrap_err().to_string();
            assert_eq!(
                fixture.relative(&said),
                format!("dynomesh.toml:4: apps.shop.guard.{expected}")
            );
        };
        for bad in ["100%", "5", "%", "-1%", "0.001%"] {
            check(
                &format!("errors = {bad:?}"),
                &format!(
                    "errors: expected how much more of its requests a release may fail, from \"0%\" to \"99.99%\", not {bad:?}"
                ),
            );
        }
        for bad in ["0.5x", "3", "1001x", "+50%"] {
            check(
                &format!("p95 = {bad:?}"),
                &format!(
                    "p95: expected how many times as long requests may take, from \"1x\" to \"1000x\", not {bad:?}"
                ),
            );
        }
        check("within = \"1s\"", "within: expected a duration from 5s to 1d, not 1s");
        check("requests = 0", "requests: expected 1 or more requests, not 0");
    }

    #[test]
    fn a_canary_has_its_part_for_its_time() {
        let canary_of = |lines: &str| shop(lines).canary;
        assert_eq!(canary_of(""), None);
        let default = Canary { share: Hundredths(500), time: defaults::CANARY_FOR };
        assert_eq!(canary_of("canary = \"5%\""), Some(default));
        let time = Duration::from_secs(3600);
        let expected = Some(Canary { share: Hundredths(50), time });
        assert_eq!(canary_of("canary = \"0.5%\"\ncanary_for = \"1h\""), expected);
    }

    #[test]
    fn a_canary_that_cannot_be_meant_is_refused() {
        let check = |lines: &str, expected: &str| {
            let fixture = fixture(lines);
            let said = fixture.load().unwrap_err().to_string();
            assert_eq!(fixture.relative(&said), format!("dynomesh.toml:{expected}"));
        };
        for bad in ["0%", "50.01%", "5", "0.001%"] {
            let expected = format!(
                "3: apps.shop.canary: expected how much of the requests a release gets at first, from \"0.01%\" to \"50%\", not {bad:?}"
            );
            check(&format!("canary = {bad:?}"), &expected);
        }
        let short = "4: apps.shop.canary_for: expected a duration from 5s to 1d, not 1s";
        check("canary = \"5%\"\ncanary_for = \"1s\"", short);
        let alone = "3: apps.shop.canary_for: is how long a canary has its part of the requests: it needs canary, how much that is";
        check("canary_for = \"5m\"", alone);
        let in_place = "4: apps.shop.canary: is for deploys that start the new dynos while the old ones are up: deploy = \"rolling\" or \"preboot\"";
        check("deploy = \"restart\"\ncanary = \"5%\"", in_place);
    }

    #[test]
    fn it_is_for_dynos_that_dynomesh_runs() {
        let text = "[apps.shop]\ndynos = [\"127.0.0.1:5001\"]\n[apps.shop.guard]\n";
        let said = Fixture::new(text, &[]).load().unwrap_err().to_string();
        let expected = "3: apps.shop.guard: is for dynos that dynomesh runs: it needs dir, a directory with a Procfile";
        assert!(said.ends_with(expected), "{said}");
    }
}
