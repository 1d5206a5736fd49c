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
