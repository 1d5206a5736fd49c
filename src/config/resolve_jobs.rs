//! The jobs of one app, as written → as used.

use std::collections::BTreeSet;

use toml::Spanned;

use crate::config::findings::Findings;
use crate::config::resolve_sizes::size_named;
use crate::config::written::{self, Job, Table};
use crate::config::{JobConfig, duration};
use crate::model::{Cron, Period, Schedule, Sizes};

/// The entries of `[[apps.NAME.jobs]]` that are well-formed. `key` is where they stand.
pub(crate) fn resolve_jobs(
    findings: &mut Findings<'_>,
    key: &str,
    written: &written::App,
    sizes: &Sizes,
) -> Vec<JobConfig> {
    if let (Some(first), None) = (written.jobs.first(), &written.dir) {
        let message = "jobs are for apps whose dynos dynomesh runs: there is no dir";
        findings.problem(first.span().start, key, message);
    }
    let mut names = BTreeSet::new();
    let mut jobs = Vec::new();
    for entry in &written.jobs {
        let Some(job) = resolve_job(findings, key, entry, sizes) else { continue };
        if names.insert(job.name.clone()) {
            jobs.push(job);
        } else {
            let message = format!("there are two jobs {:?}: give each a name of its own", job.name);
            findings.problem(entry.span().start, format!("{key}.name"), message);
        }
    }
    jobs
}

fn resolve_job(
    findings: &mut Findings<'_>,
    key: &str,
    entry: &Spanned<Table<Job>>,
    sizes: &Sizes,
) -> Option<JobConfig> {
    let (at, written): (_, &Job) = (entry.span().start, entry.get_ref());
    let schedule = schedule(findings, key, at, written);
    let size = written.size.as_ref();
    let size = size.and_then(|it| size_named(findings, &format!("{key}.size"), sizes, it));
    let Some(command) = written.command.as_ref().filter(|it| !it.get_ref().trim().is_empty())
    else {
        let message = "expected what the job runs, or a process type of the Procfile";
        findings.problem(at, format!("{key}.command"), message);
        return None;
    };
    let name = written.name.as_ref().unwrap_or(command).get_ref().clone();
    Some(JobConfig {
        name,
        command: command.get_ref().clone(),
        schedule: schedule?,
        size,
        overlap: written.overlap.unwrap_or_default(),
    })
}

fn schedule(findings: &mut Findings<'_>, key: &str, at: usize, written: &Job) -> Option<Schedule> {
    match (&written.every, &written.cron, &written.at) {
        (Some(every), None, clock) => {
            let text = &every.get_ref().0;
            let Some(period) = duration::parse(text).filter(|it| it.subsec_millis() == 0) else {
                let message = format!("expected {}, not {text:?}", duration::EXPECTED);
                findings.problem(every.span().start, format!("{key}.every"), message);
                return None;
            };
            let seconds = match clock {
                Some(clock) => clock_time(findings, &format!("{key}.at"), clock)?,
                None => 0,
            };
            Period::new(period.as_secs(), seconds)
                .map_err(|wrong| {
                    findings.problem(every.span().start, format!("{key}.every"), wrong)
                })
                .ok()
                .map(Schedule::Every)
        }
        (None, Some(cron), None) => Cron::parse(cron.get_ref())
            .map_err(|wrong| findings.problem(cron.span().start, format!("{key}.cron"), wrong))
            .ok()
            .map(Schedule::Cron),
        (None, Some(_), Some(clock)) => {
            let message = "at goes with every; a cron expression has its own time";
            findings.problem(clock.span().start, format!("{key}.at"), message);
            None
        }
        _ => {
            let message = "expected either every (a period) or cron (an expression)";
            findings.problem(at, key, message);
            None
        }
    }
}

/// `03:30`, in seconds.
fn clock_time(findings: &mut Findings<'_>, key: &str, written: &Spanned<String>) -> Option<u64> {
    let two_digits = |text: &str, below: u64| {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u64>().ok().filter(|number| digits && *number < below)
    };
    let text = written.get_ref();
    let time = text.split_once(':').and_then(|(hours, minutes)| {
        Some(two_digits(hours, 24)? * 3600 + two_digits(minutes, 60)? * 60)
    });
    if time.is_none() {
        let message = format!("expected a time like \"03:30\" (UTC), not {text:?}");
        findings.problem(written.span().start, key, message);
    }
    time
}

#[cfg(test)]
mod tests {
    use crate::config::JobConfig;
    use crate::config::fixture::Fixture;
    use crate::model::AppName;

    fn fixture(app: &str) -> Fixture {
        Fixture::new(&format!("[apps.shop]\n{app}\n"), &[("shop/Procfile", "web: serve\n")])
    }

    fn jobs(app: &str) -> Vec<JobConfig> {
        let config = fixture(&format!("dir = 'shop'\n{app}")).loaded();
        config.apps[&AppName::parse("shop").unwrap()].jobs.clone()
    }

    #[test]
    fn a_job_has_a_command_and_a_schedule() {
        let text = "[[apps.shop.jobs]]
            command = 'rake mail'
            every = '10m'
            [[apps.shop.jobs]]
            name = 'night'
            command = 'web --sweep'
            every = '1d'
            at = '03:30'
            size = 'Standard-2X'
            overlap = true
            [[apps.shop.jobs]]
            command = 'report'
            cron = '0  9 * * mon-fri'";
        let told: Vec<_> = jobs(text)
            .iter()
            .map(|job| {
                let size = job.size.as_ref().map_or("-", |size| size.name.as_str()).to_owned();
                format!("{}: {} ({}, {size}, {})", job.name, job.command, job.schedule, job.overlap)
            })
            .collect();
        assert_eq!(
            told,
            [
                "rake mail: rake mail (every 10m, -, false)",
                "night: web --sweep (every 1d at 03:30, standard-2x, true)",
                "report: report (cron 0 9 * * mon-fri, -, false)",
            ]
        );
    }

    #[track_caller]
    fn refused(app: &str, expected: &str) {
        let fixture = fixture(app);
        let error = fixture.load().unwrap_err().to_string();
        assert_eq!(fixture.relative(&error), expected, "{app}");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let job = |lines: &str| format!("dir = 'shop'\n[[apps.shop.jobs]]\n{lines}");
        let at = |line: u32, key: &str, message: &str| {
            format!("dynomesh.toml:{line}: apps.shop.jobs{key}: {message}")
        };
        let check = |lines: &str, expected: String| refused(&job(lines), &expected);
        check(
            "command = 'x'",
            at(3, "", "expected either every (a period) or cron (an expression)"),
        );
        check(
            "command = 'x'\nevery = '1h'\ncron = '* * * * *'",
            at(3, "", "expected either every (a period) or cron (an expression)"),
        );
        check(
            "every = '1h'",
            at(3, ".command", "expected what the job runs, or a process type of the Procfile"),
        );
        check(
            "command = 'x'\nevery = '7m'",
            at(5, ".every", "expected whole minutes of which a day is a multiple: 10m, 1h, 6h, 1d"),
        );
        check(
            "command = 'x'\nevery = 'often'",
            at(
                5,
                ".every",
                "expected a duration like \"30s\", \"500ms\", \"1h30m\" or \"30d\", not \"often\"",
            ),
        );
        check(
            "command = 'x'\nevery = '1h'\nat = '03:30'",
            at(5, ".every", "expected a time within the period, counted from its beginning"),
        );
        check(
            "command = 'x'\nevery = '1d'\nat = '3:30'",
            at(6, ".at", "expected a time like \"03:30\" (UTC), not \"3:30\""),
        );
        check(
            "command = 'x'\ncron = '* * * * *'\nat = '03:30'",
            at(6, ".at", "at goes with every; a cron expression has its own time"),
        );
        check(
            "command = 'x'\ncron = '60 * * * *'",
            at(5, ".cron", "expected 0 to 59 in the minute, not \"60\""),
        );
        let twice = "command = 'x'\nevery = '1h'\n[[apps.shop.jobs]]\ncommand = 'x'\nevery = '1d'";
        let message = "there are two jobs \"x\": give each a name of its own";
        check(twice, at(6, ".name", message));
    }

    #[test]
    fn jobs_are_for_apps_that_dynomesh_runs() {
        refused(
            "dynos = ['127.0.0.1:1']\n[[apps.shop.jobs]]\ncommand = 'x'\nevery = '1h'",
            "dynomesh.toml:3: apps.shop.jobs: jobs are for apps whose dynos dynomesh runs: there is no dir",
        );
    }
}
