//! As written → as used, for what holds for every dyno: `[dynos]`.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use toml::Spanned;

use crate::config::findings::Findings;
use crate::config::values::{absolute, choice};
use crate::config::written::{self, Optional};
use crate::config::{DynosConfig, IsolationWanted};
use crate::config::{defaults, limits};

/// Makes `[dynos]` as used.
pub(crate) fn resolve_dynos(findings: &mut Findings<'_>, written: &written::Dynos) -> DynosConfig {
    let choices = [
        ("auto", IsolationWanted::Auto),
        ("required", IsolationWanted::Required),
        ("none", IsolationWanted::None),
    ];
    let isolation = &written.isolation;
    let exposed = written.expose.as_ref().map_or(&[][..], |it| it.get_ref());
    DynosConfig {
        isolation: choice(findings, "dynos.isolation", isolation, &choices, IsolationWanted::Auto),
        uids: resolve_uids(findings, &written.uids),
        expose: exposed.iter().filter_map(|path| resolve_exposed(findings, path)).collect(),
    }
}

fn resolve_uids(findings: &mut Findings<'_>, written: &Optional<String>) -> RangeInclusive<u32> {
    let Some(written) = written else { return defaults::UIDS };
    match parse_uids(written.get_ref()) {
        Some(uids) => uids,
        None => {
            let [min, max] = [limits::UIDS.start(), limits::UIDS.end()];
            let message = format!(
                "expected a range like \"200000-265535\", the smaller first, from {min} to {max}, not {:?}",
                written.get_ref()
            );
            findings.problem(written.span().start, "dynos.uids", message);
            defaults::UIDS
        }
    }
}

/// `FIRST-LAST`, both lent.
fn parse_uids(text: &str) -> Option<RangeInclusive<u32>> {
    let (first, last) = text.split_once('-')?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
        let number = digits.then(|| text.parse().ok())?;
        number.filter(|number| limits::UIDS.contains(number))
    };
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some(first..=last)
}

/// What is shown to dynos has to be there now: a slip would otherwise be seen only when one starts.
fn resolve_exposed(findings: &mut Findings<'_>, written: &Spanned<String>) -> Option<PathBuf> {
    let path = absolute(findings, written.get_ref());
    let wrong = if path.canonicalize().is_ok_and(|real| real == Path::new("/")) {
        "expected a part of the host: / would be all of it".to_owned()
    } else if !path.exists() {
        format!("there is no {}", path.display())
    } else {
        return Some(path);
    };
    findings.problem(written.span().start, "dynos.expose", wrong);
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture::Fixture;

    #[test]
    fn uids_are_a_range_of_users_that_nobody_is() {
        let check = |text, expected| assert_eq!(parse_uids(text), expected, "{text}");
        check("200000-265535", Some(200_000..=265_535));
        check("70000-70000", Some(70_000..=70_000));
        check("65536-4294967293", Some(65_536..=4_294_967_293));
        for bad in [
            "",
            "-",
            "200000",
            "200000-",
            "-200000",
            "200001-200000",
            "1000-2000",
            "65535-70000",
            "70000-4294967294",
            "70000-4294967296",
            "+70000-70001",
            "70000 - 70001",
            "a-b",
            "0x10-2",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let config = "[dynos]\nisolation = \"some\"\nuids = \"1-2\"\nexpose = [\"/\", \"gone\"]\n";
        let fixture = Fixture::new(config, &[]);
        let said = fixture.relative(&fixture.load().unwrap_err().to_string());
        let expected = [
            "dynomesh.toml:2: dynos.isolation: expected \"auto\" or \"required\" or \"none\", not \"some\"",
            "dynomesh.toml:3: dynos.uids: expected a range like \"200000-265535\", the smaller first, from 65536 to 4294967293, not \"1-2\"",
            "dynomesh.toml:4: dynos.expose: expected a part of the host: / would be all of it",
            "dynomesh.toml:4: dynos.expose: there is no gone",
        ];
        assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn isolation_can_be_required() {
        let dynos = Fixture::new("[dynos]\nisolation = \"required\"\n", &[]).loaded().dynos;
        assert_eq!(dynos.isolation, IsolationWanted::Required);
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let config = "[dynos]\nisolation = \"none\"\nexpose = [\"tools\", \"/usr\"]\n";
        let fixture = Fixture::new(config, &[("tools/node", "")]);
        let dynos = fixture.loaded().dynos;
        assert_eq!(dynos.isolation, IsolationWanted::None);
        assert_eq!(dynos.uids, defaults::UIDS);
        assert_eq!(dynos.expose, [fixture.path("tools"), "/usr".into()]);
    }
}
