//! By what an app's releases are judged, as written → as used.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use toml::Spanned;

use crate::config::findings::Findings;
use crate::config::values::duration_within;
use crate::config::written::{self, Optional, Table};
use crate::config::{defaults, limits};
use crate::model::{Guard, Hundredths};

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
    use crate::config::AppSource;
    use crate::config::fixture::Fixture;
    use crate::model::AppName;

    fn fixture(lines: &str) -> Fixture {
        let text = format!("[apps.shop]\ndir = \"shop\"\n{lines}");
        Fixture::new(&text, &[("shop/Procfile", "web: serve\n")])
    }

    fn guard_of(lines: &str) -> Option<Guard> {
        let config = fixture(lines).loaded();
        let shop = &config.apps[&AppName::parse("shop").unwrap()];
        let AppSource::Managed(shop) = &shop.source else { panic!("{:?}", shop.source) };
        shop.guard
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
    fn it_is_for_dynos_that_dynomesh_runs() {
        let text = "[apps.shop]\ndynos = [\"127.0.0.1:5001\"]\n[apps.shop.guard]\n";
        let said = Fixture::new(text, &[]).load().unwrap_err().to_string();
        let expected = "3: apps.shop.guard: is for dynos that dynomesh runs: it needs dir, a directory with a Procfile";
        assert!(said.ends_with(expected), "{said}");
    }
}
