//! By what the numbers of an app's dynos follow its requests, as written → as used.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use toml::Spanned;

use crate::config::findings::Findings;
use crate::config::values::duration_within;
use crate::config::written::{self, Optional};
use crate::config::{defaults, duration, limits};
use crate::model::{Autoscale, Formation, ProcessType, StatedApp, StatedAutoscale, Target};

/// What is said to somebody who wrote a target otherwise.
const EXPECTED: &str = r#"a target like "p95 500ms", "in_flight 20" or "queue 50ms""#;

/// Makes the rules of each process type, and has the formation begin within their bounds. `key` makes the whole
/// name of one of the app's keys. What commands said holds where the file has no word about the number of web dynos.
pub(crate) fn autoscale(
    findings: &mut Findings<'_>,
    key: impl Fn(&str) -> String,
    written: &written::App,
    stated: Option<&StatedApp>,
    formation: &mut Formation,
) -> BTreeMap<ProcessType, Autoscale> {
    let mut rules = BTreeMap::new();
    for (name, of_type) in written.autoscale.iter().flat_map(|it| it.get_ref()) {
        let at = name.span().start;
        let key = |it: &str| key(&format!("autoscale.{}{it}", name.get_ref()));
        let Some((process_type, count)) =
            formation.iter_mut().find(|(it, _)| it.as_str() == name.get_ref())
        else {
            let message = "the Procfile has no such process type";
            findings.problem(at, key(""), message);
            continue;
        };
        if !process_type.is_web() {
            refuse_all_but_web(findings, key, at, of_type.get_ref());
            continue;
        }
        let of_type = Written { key: &key, at, table: of_type.get_ref() }.resolve(findings);
        let begins = written.formation.iter().flat_map(|it| it.get_ref());
        let begins = begins.into_iter().find(|(it, _)| it.get_ref() == name.get_ref());
        match begins {
            // Said by a command before there were bounds, so that it is nobody's mistake.
            None if stated.is_some_and(|it| it.formation.contains_key(process_type)) => {
                *count = (*count).clamp(of_type.min, of_type.max);
            }
            None => *count = of_type.min,
            Some((begins, _)) if !(of_type.min..=of_type.max).contains(count) => {
                let Autoscale { min, max, .. } = of_type;
                let message = format!(
                    "the app begins with {count} {process_type} dynos (formation): expected {min} to {max} (autoscale)"
                );
                findings.problem(begins.span().start, key(""), message);
            }
            Some(_) => {}
        }
        rules.insert(process_type.clone(), of_type);
    }
    let web = ProcessType::web();
    if let Some(StatedAutoscale { min, max, p95 }) = stated.and_then(|it| it.autoscale)
        && !is_said(written, &web)
        && let Some(count) = formation.get_mut(&web)
    {
        *count = (*count).clamp(min, max);
        let defaults::Autoscale { up_after, down_after } = defaults::AUTOSCALE;
        let target = Target::P95(p95);
        rules.insert(web, Autoscale { min, max, target, up_after, down_after });
    }
    rules
}

/// Whether the file has a word about the number of dynos of a type.
fn is_said(written: &written::App, process_type: &ProcessType) -> bool {
    let formation = written.formation.iter().flat_map(|it| it.get_ref().keys());
    let autoscale = written.autoscale.iter().flat_map(|it| it.get_ref().keys());
    formation.chain(autoscale).any(|name| name.get_ref() == process_type.as_str())
}

/// All targets are about requests.
fn refuse_all_but_web(
    findings: &mut Findings<'_>,
    key: impl Fn(&str) -> String,
    at: usize,
    written: &written::Autoscale,
) {
    let target = written.target.as_ref();
    let word = target.and_then(|it| it.get_ref().split_whitespace().next()).unwrap_or("target");
    let message = format!(
        "{word} is about requests, which go to web dynos alone: say in formation how many there are of this type"
    );
    findings.problem(target.map_or(at, |it| it.span().start), key(".target"), message);
}

/// The rules of one process type.
struct Written<'a, K> {
    key: K,
    /// Where the process type stands.
    at: usize,
    table: &'a written::Autoscale,
}

impl<K: Fn(&str) -> String> Written<'_, K> {
    fn resolve(&self, findings: &mut Findings<'_>) -> Autoscale {
        let min = self.bound(findings, ".min", &self.table.min).unwrap_or(1);
        let max = self.bound(findings, ".max", &self.table.max);
        let message = if max.is_none() && self.table.max.is_none() {
            Some((self.at, "is missing: how many dynos there may be at most".to_owned()))
        } else {
            let below = max.filter(|max| *max < min).zip(self.table.max.as_ref());
            below.map(|(max, it)| {
                (it.span().start, format!("expected {min} (min) or more dynos, not {max}"))
            })
        };
        if let Some((at, message)) = message {
            findings.problem(at, (self.key)(".max"), message);
        }
        let default = defaults::AUTOSCALE;
        Autoscale {
            min,
            max: max.unwrap_or(min),
            target: self.target(findings),
            up_after: self.time(findings, ".up_after", &self.table.up_after, default.up_after),
            down_after: self.time(
                findings,
                ".down_after",
                &self.table.down_after,
                default.down_after,
            ),
        }
    }

    fn bound(
        &self,
        findings: &mut Findings<'_>,
        key: &str,
        written: &Optional<u32>,
    ) -> Option<u32> {
        let written = written.as_ref()?;
        let count = *written.get_ref();
        if (1..=limits::FORMATION_MAX).contains(&count) {
            return Some(count);
        }
        let message = format!("expected 1 to {} dynos, not {count}", limits::FORMATION_MAX);
        findings.problem(written.span().start, (self.key)(key), message);
        None
    }

    fn time(
        &self,
        findings: &mut Findings<'_>,
        key: &str,
        written: &Optional<written::DurationText>,
        default: Duration,
    ) -> Duration {
        let bounds = limits::AUTOSCALE_AFTER_MIN..=limits::TIMEOUT_MAX;
        duration_within(findings, &(self.key)(key), written, default, bounds)
    }

    fn target(&self, findings: &mut Findings<'_>) -> Target {
        let (at, message) = match &self.table.target {
            None => (self.at, format!("is missing: expected {EXPECTED}")),
            Some(written) => match parse(written) {
                Ok(target) => return target,
                Err(wrong) => (written.span().start, wrong),
            },
        };
        findings.problem(at, (self.key)(".target"), message);
        Target::InFlight(NonZeroU32::MIN)
    }
}

fn parse(written: &Spanned<String>) -> Result<Target, String> {
    let text = written.get_ref();
    let wrong = || format!("expected {EXPECTED}, not {text:?}");
    let (word, value) = text.split_once(' ').ok_or_else(wrong)?;
    let time = || {
        let bounds = limits::AUTOSCALE_TIMES;
        let time = duration::parse(value).ok_or_else(wrong)?;
        let [min, max] = [*bounds.start(), *bounds.end()].map(duration::print);
        let outside = || format!("expected {word} with a time from {min} to {max}, not {value}");
        bounds.contains(&time).then_some(time).ok_or_else(outside)
    };
    let requests = || {
        let digits = value.bytes().all(|it| it.is_ascii_digit());
        digits.then(|| value.parse().ok()).flatten().ok_or_else(wrong)
    };
    match word {
        "p95" => time().map(Target::P95),
        "queue" => time().map(Target::Queue),
        "in_flight" => requests().map(Target::InFlight),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture::Fixture;
    use crate::config::{AppSource, ManagedApp, Source};
    use crate::model::{AppName, Id, Stated};

    const FILES: [(&str, &str); 1] = [("shop/Procfile", "web: serve\nworker: work\n")];

    fn fixture(lines: &str) -> Fixture {
        Fixture::new(&format!("[apps.shop]\ndir = \"shop\"\n{lines}"), &FILES)
    }

    /// The shop of a file with these lines from its third on.
    fn shop(lines: &str) -> ManagedApp {
        let config = fixture(lines).loaded();
        let shop = &config.apps[&AppName::parse("shop").unwrap()];
        let AppSource::Managed(shop) = &shop.source else { panic!("{:?}", shop.source) };
        shop.clone()
    }

    /// The same, and commands said this: a number, if any, and bounds with a p95 of 700 ms.
    fn stated_shop(lines: &str, count: Option<u32>, bounds: (u32, u32)) -> ManagedApp {
        let mut stated = StatedApp::new(Id::of_random([1; 16]), 0, false);
        stated.formation.extend(count.map(|count| (ProcessType::web(), count)));
        let (min, max) = bounds;
        stated.autoscale = Some(StatedAutoscale { min, max, p95: Duration::from_millis(700) });
        let name = AppName::parse("shop").unwrap();
        let fixture = fixture(lines);
        let source = Source::read(&fixture.path("dynomesh.toml")).unwrap();
        let stated = Stated { apps: BTreeMap::from([(name.clone(), stated)]) };
        let config = source.resolve(&stated).unwrap();
        let AppSource::Managed(shop) = &config.apps[&name].source else { panic!("no dynos") };
        shop.clone()
    }

    /// What is said of a file with these lines from its third on.
    fn check(lines: &str, expected: &[&str]) {
        let fixture = fixture(lines);
        let said = fixture.load().map_or_else(|error| error.to_string(), |_| String::new());
        let said = fixture.relative(&said);
        let said: Vec<_> = said.lines().map(|it| it.trim_start_matches("dynomesh.toml:")).collect();
        assert_eq!(said, expected, "{lines}");
    }

    #[test]
    fn a_target_and_its_bounds_are_all_that_is_needed() {
        let secs = Duration::from_secs;
        for (target, expected) in [
            ("p95 500ms", Target::P95(Duration::from_millis(500))),
            ("in_flight 20", Target::InFlight(NonZeroU32::new(20).unwrap())),
            ("queue 1m", Target::Queue(secs(60))),
        ] {
            let shop =
                shop(&format!("autoscale.web = {{ min = 2, max = 5, target = {target:?} }}"));
            let rules = shop.autoscale[&ProcessType::web()];
            let (up_after, down_after) = (secs(10), secs(300));
            assert_eq!(rules, Autoscale { min: 2, max: 5, target: expected, up_after, down_after });
            // It begins with the least, where formation says nothing else.
            assert_eq!(shop.formation[&ProcessType::web()], 2);
        }
        // No command changes what has no effect.
        let config = fixture("\nautoscale.web = { max = 5, target = \"in_flight 1\" }").loaded();
        let shop = &config.apps[&AppName::parse("shop").unwrap()];
        assert_eq!(shop.said.line("formation.web"), Some(4));
    }

    #[test]
    fn it_may_begin_with_more_and_take_its_time() {
        let secs = Duration::from_secs;
        let table = "formation = { web = 4 }\n[apps.shop.autoscale.web]\nmax = 5\ntarget = \"in_flight 1\"\nup_after = \"2s\"\ndown_after = \"1m\"";
        let shop = shop(table);
        let rules = shop.autoscale[&ProcessType::web()];
        assert_eq!((rules.min, rules.up_after, rules.down_after), (1, secs(2), secs(60)));
        assert_eq!(shop.formation[&ProcessType::web()], 4);
    }

    #[test]
    fn a_command_decides_where_the_file_has_no_word_about_web() {
        let secs = Duration::from_secs;
        let stated = Autoscale {
            min: 2,
            max: 4,
            target: Target::P95(Duration::from_millis(700)),
            up_after: secs(10),
            down_after: secs(300),
        };
        let check = |lines: &str, count: Option<u32>, expected: (u32, Option<Autoscale>)| {
            let shop = stated_shop(lines, count, (2, 4));
            let web = ProcessType::web();
            let found = (shop.formation[&web], shop.autoscale.get(&web).copied());
            assert_eq!(found, expected, "{lines} {count:?}");
        };
        // There are as many as there were, within the bounds.
        check("", None, (2, Some(stated)));
        check("", Some(0), (2, Some(stated)));
        check("", Some(3), (3, Some(stated)));
        check("", Some(9), (4, Some(stated)));
        check("formation = { worker = 1 }", Some(3), (3, Some(stated)));
        check("formation = { web = 1 }", Some(3), (1, None));
        let target = Target::InFlight(NonZeroU32::new(1).unwrap());
        let written = Autoscale { min: 1, max: 9, target, ..stated };
        let line = "autoscale.web = { max = 9, target = \"in_flight 1\" }";
        check(line, None, (1, Some(written)));
        check(line, Some(3), (3, Some(written)));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let target = |target: &str, expected: &str| {
            let line = format!("autoscale.web = {{ max = 5, target = {target:?} }}");
            check(&line, &[&format!("3: apps.shop.autoscale.web.target: {expected}")]);
        };
        for bad in ["p95", "", "p95 500", "p95  500ms", "p99 500ms", "in_flight 0", "in_flight +1"]
        {
            target(
                bad,
                &format!(
                    "expected a target like \"p95 500ms\", \"in_flight 20\" or \"queue 50ms\", not {bad:?}"
                ),
            );
        }
        target("queue 0s", "expected queue with a time from 1ms to 1h, not 0s");
        target("p95 2h", "expected p95 with a time from 1ms to 1h, not 2h");
        check(
            "[apps.shop.autoscale.web]\nmin = 0\nmax = 1001\nup_after = \"1s\"\n",
            &[
                "3: apps.shop.autoscale.web.target: is missing: expected a target like \"p95 500ms\", \"in_flight 20\" or \"queue 50ms\"",
                "4: apps.shop.autoscale.web.min: expected 1 to 1000 dynos, not 0",
                "5: apps.shop.autoscale.web.max: expected 1 to 1000 dynos, not 1001",
                "6: apps.shop.autoscale.web.up_after: expected a duration from 2s to 1d, not 1s",
            ],
        );
        check(
            "[apps.shop.autoscale.web]\nmin = 3\nmax = 2\ntarget = \"in_flight 1\"\n",
            &["5: apps.shop.autoscale.web.max: expected 3 (min) or more dynos, not 2"],
        );
        check(
            "autoscale.web = { target = \"in_flight 1\" }",
            &["3: apps.shop.autoscale.web.max: is missing: how many dynos there may be at most"],
        );
    }

    #[test]
    fn what_nobody_can_see_is_no_target() {
        check(
            "[apps.shop.autoscale]\nworker = { max = 5, target = \"p95 500ms\" }\nclock = { max = 5 }",
            &[
                "4: apps.shop.autoscale.worker.target: p95 is about requests, which go to web dynos alone: say in formation how many there are of this type",
                "5: apps.shop.autoscale.clock: the Procfile has no such process type",
            ],
        );
    }

    #[test]
    fn it_begins_within_its_bounds() {
        check(
            "formation = { web = 7 }\nautoscale.web = { min = 2, max = 5, target = \"in_flight 1\" }",
            &[
                "3: apps.shop.autoscale.web: the app begins with 7 web dynos (formation): expected 2 to 5 (autoscale)",
            ],
        );
    }
}
