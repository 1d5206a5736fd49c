//! Which jobs are due. Pure: the loop asks, with the time.

use std::collections::BTreeMap;

use crate::config::{Config, JobConfig, limits};
use crate::model::{AppName, Schedule};

/// By what a job is known: its app and its name.
pub(in crate::scheduler) type JobKey = (AppName, String);

/// When each job is due next.
#[derive(Default)]
pub(in crate::scheduler) struct Timetable {
    next: BTreeMap<JobKey, Entry>,
    /// The latest Unix second that it has seen.
    latest: u64,
}

struct Entry {
    schedule: Schedule,
    /// `None`: never again.
    next: Option<u64>,
}

/// A job that is to be started now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::scheduler) struct Due {
    pub(in crate::scheduler) app: AppName,
    pub(in crate::scheduler) job: JobConfig,
    /// The Unix second for which it is.
    pub(in crate::scheduler) at: u64,
    /// How often it was due before that, and nobody looked.
    pub(in crate::scheduler) missed: Missed,
}

/// How often something was due and not started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::scheduler) struct Missed {
    pub(in crate::scheduler) times: usize,
    /// There were more, which nobody counts.
    pub(in crate::scheduler) and_more: bool,
}

impl Timetable {
    /// The jobs of this configuration that are due at this Unix second. A job that is new, or has another schedule
    /// now, is due from now on; so is every job where the clock was set far back.
    pub(in crate::scheduler) fn due(&mut self, config: &Config, now: u64) -> Vec<Due> {
        let mut before = std::mem::take(&mut self.next);
        if now + limits::CLOCK_SET_BACK.as_secs() < self.latest {
            // Until the old times came again nothing would run. What has run runs twice instead.
            before.clear();
            self.latest = now;
        }
        self.latest = self.latest.max(now);
        let mut due = Vec::new();
        for (app, job) in jobs(config) {
            let key = (app.clone(), job.name.clone());
            let known = before.remove(&key).filter(|entry| entry.schedule == job.schedule);
            let next = match known.map(|entry| entry.next) {
                Some(Some(at)) if at <= now => {
                    let (at, missed) = last_of(&job.schedule, at, now);
                    due.push(Due { app: app.clone(), job: job.clone(), at, missed });
                    job.schedule.next_after(now)
                }
                Some(next) => next,
                None => job.schedule.next_after(now),
            };
            self.next.insert(key, Entry { schedule: job.schedule.clone(), next });
        }
        due
    }
}

/// Every job with its app.
pub(in crate::scheduler) fn jobs(config: &Config) -> impl Iterator<Item = (&AppName, &JobConfig)> {
    config.apps.iter().flat_map(|(name, app)| app.jobs.iter().map(move |job| (name, job)))
}

/// How often a job was due after this Unix second, up to and with `now`.
pub(in crate::scheduler) fn missed(schedule: &Schedule, last: u64, now: u64) -> Missed {
    match schedule.next_after(last) {
        Some(first) if first <= now => {
            let (_, missed) = last_of(schedule, first, now);
            Missed { times: missed.times + 1, ..missed }
        }
        _ => Missed::default(),
    }
}

/// The last time that it was due up to `now`, from a time on at which it was, and how often before that.
fn last_of(schedule: &Schedule, first: u64, now: u64) -> (u64, Missed) {
    let (mut at, mut missed) = (first, Missed::default());
    while let Some(next) = schedule.next_after(at).filter(|next| *next <= now) {
        if missed.times == limits::MISSED_RUNS_COUNTED {
            missed.and_more = true;
            break;
        }
        at = next;
        missed.times += 1;
    }
    (at, missed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Cron, Period};

    const MIDNIGHT: u64 = 1_795_219_200;

    fn every(minutes: u64) -> Schedule {
        Schedule::Every(Period::new(minutes * 60, 0).unwrap())
    }

    /// A configuration whose app shop has these jobs.
    fn config(jobs: &[(&str, Schedule)]) -> Config {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("Procfile"), "web: serve\n").unwrap();
        let file = dir.path().join("dynomesh.toml");
        std::fs::write(&file, "[apps.shop]\ndir = '.'\n").unwrap();
        let mut config = crate::config::load(&file).unwrap();
        let job = |(name, schedule): &(&str, Schedule)| JobConfig {
            name: (*name).into(),
            command: "true".into(),
            schedule: schedule.clone(),
            size: None,
            overlap: false,
        };
        config.apps.values_mut().for_each(|app| app.jobs = jobs.iter().map(job).collect());
        config
    }

    fn told(due: &[Due]) -> Vec<(&str, u64, usize)> {
        due.iter().map(|due| (&*due.job.name, due.at - MIDNIGHT, due.missed.times)).collect()
    }

    #[test]
    fn a_job_is_due_once_each_time() {
        let config = config(&[("ten", every(10)), ("hour", every(60))]);
        let mut timetable = Timetable::default();
        let mut at = |seconds: u64| timetable.due(&config, MIDNIGHT + seconds);
        assert_eq!(at(0), [], "that it is there now does not make it due");
        assert_eq!(at(599), []);
        assert_eq!(told(&at(600)), [("ten", 600, 0)]);
        assert_eq!(at(600), []);
        assert_eq!(told(&at(1_201)), [("ten", 1_200, 0)]);
        // The machine slept: the last is started, those before it are counted.
        assert_eq!(told(&at(3_600)), [("ten", 3_600, 3), ("hour", 3_600, 0)]);
    }

    #[test]
    fn another_schedule_begins_anew_and_a_removed_job_is_forgotten() {
        let mut timetable = Timetable::default();
        let ten = config(&[("job", every(10))]);
        let hour = config(&[("job", every(60))]);
        timetable.due(&ten, MIDNIGHT);
        assert_eq!(timetable.due(&hour, MIDNIGHT + 700), []);
        assert_eq!(told(&timetable.due(&hour, MIDNIGHT + 3_600)), [("job", 3_600, 0)]);
        timetable.due(&config(&[]), MIDNIGHT + 3_700);
        assert_eq!(timetable.due(&hour, MIDNIGHT + 7_300), []);
    }

    #[test]
    fn a_clock_that_is_set_back_starts_nothing_twice() {
        let config = config(&[("job", every(10))]);
        let mut timetable = Timetable::default();
        timetable.due(&config, MIDNIGHT);
        assert_eq!(told(&timetable.due(&config, MIDNIGHT + 600)), [("job", 600, 0)]);
        assert_eq!(timetable.due(&config, MIDNIGHT + 300), []);
        assert_eq!(timetable.due(&config, MIDNIGHT + 700), []);
        assert_eq!(told(&timetable.due(&config, MIDNIGHT + 1_200)), [("job", 1_200, 0)]);
    }

    #[test]
    fn a_clock_that_was_far_ahead_stops_no_job_for_as_long() {
        let config = config(&[("job", every(10)), ("day", every(1440))]);
        let (mut timetable, year) = (Timetable::default(), 365 * 86_400);
        timetable.due(&config, MIDNIGHT + year);
        assert_eq!(timetable.due(&config, MIDNIGHT), []);
        assert_eq!(told(&timetable.due(&config, MIDNIGHT + 600)), [("job", 600, 0)]);
        // A little back is no reason for a second run of what runs once a day.
        let next = MIDNIGHT + 86_400;
        assert_eq!(timetable.due(&config, next + 10).len(), 2);
        assert_eq!(timetable.due(&config, next - 10), []);
        assert_eq!(timetable.due(&config, next + 20), []);
    }

    #[test]
    fn missed_runs_are_counted_up_to_a_bound() {
        let check = |last, now, times, and_more| {
            let expected = Missed { times, and_more };
            assert_eq!(missed(&every(10), MIDNIGHT + last, MIDNIGHT + now), expected);
        };
        check(0, 599, 0, false);
        check(0, 600, 1, false);
        check(0, 1_800, 3, false);
        let max = limits::MISSED_RUNS_COUNTED;
        check(0, 600 * (max as u64 + 1), max + 1, false);
        check(0, 600 * (max as u64 + 2), max + 1, true);
    }

    proptest! {
        #[test]
        fn every_time_is_started_or_counted(steps in prop::collection::vec(1..5_000_u64, 1..40)) {
            let schedule = Schedule::Cron(Cron::parse("*/10 * * * *").unwrap());
            let config = config(&[("job", schedule.clone())]);
            let mut timetable = Timetable::default();
            timetable.due(&config, MIDNIGHT);
            let (mut now, mut seen) = (MIDNIGHT, 0);
            for step in steps {
                now += step;
                for due in timetable.due(&config, now) {
                    prop_assert!(due.at <= now && due.at + 600 > now);
                    seen += 1 + due.missed.times;
                }
            }
            prop_assert_eq!(seen as u64, (now - MIDNIGHT) / 600);
        }
    }
}
