//! The loop that starts what is due.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::{MissedTickBehavior, interval};

use crate::config::{AppSource, Config, JobConfig, limits};
use crate::model::{AppName, ProcessType};
use crate::scheduler::timetable::{Due, JobKey, Missed, Timetable, jobs, missed};
use crate::store::Store;
use crate::supervisor::{RunOrder, Streams, Supervisor, written_out};
use crate::telemetry::AppLog;

/// What the loop has in hand.
pub struct Parts<'a, C, N> {
    /// The configuration in force.
    pub config: C,
    /// The present Unix second.
    pub now: N,
    /// Starts the dynos.
    pub supervisor: &'a Supervisor,
    /// Remembers the runs.
    pub store: &'a Store,
    /// Where it says what it does not start.
    pub log: AppLog,
}

/// Starts jobs when they are due, for ever. Looks at the wall clock each second: a machine that slept, or whose
/// clock was set, knows of it by no timer.
pub async fn keep<C, N>(parts: Parts<'_, C, N>)
where
    C: Fn() -> Arc<Config>,
    N: Fn() -> u64,
{
    let mut clock = interval(limits::JOBS_LOOK);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    parts.say_missed().await;
    let (mut timetable, mut started) = (Timetable::default(), Started::default());
    loop {
        clock.tick().await;
        for due in timetable.due(&(parts.config)(), (parts.now)()) {
            parts.see_to(due, &mut started).await;
        }
    }
}

/// The dyno that this daemon started last for each job.
type Started = BTreeMap<JobKey, String>;

impl<C, N> Parts<'_, C, N>
where
    C: Fn() -> Arc<Config>,
    N: Fn() -> u64,
{
    /// Says what was due since the last daemon saw to it.
    async fn say_missed(&self) {
        let runs = match self.store.job_runs().await {
            Ok(runs) => runs,
            Err(error) => return tracing::error!("when jobs ran last is not known: {error}"),
        };
        let now = (self.now)();
        for (app, job) in jobs(&(self.config)()) {
            if let Some(last) = runs.get(&(app.to_string(), job.name.clone())) {
                let missed = missed(&job.schedule, *last, now);
                self.say_times_missed(app, &job.name, missed, "no dynomesh was running");
            }
        }
    }

    fn say_times_missed(&self, app: &AppName, job: &str, missed: Missed, why: &str) {
        let Missed { times, and_more } = missed;
        if times == 0 {
            return;
        }
        let more = if and_more { "more than " } else { "" };
        let runs = if times == 1 { "run" } else { "runs" };
        self.say(app, format!("Missed {more}{times} {runs} of `{job}`: {why}"));
    }

    /// Starts a job, or says why not. Either way it was not missed, which the next daemon must know.
    async fn see_to(&self, due: Due, started: &mut Started) {
        let Due { app, job, at, missed } = due;
        self.say_times_missed(&app, &job.name, missed, "the machine slept, or its clock was set");
        let name = job.name.clone();
        self.start(&app, job, started).await;
        if let Err(error) = self.store.job_seen_to(app.as_str(), &name, at).await {
            tracing::error!("a run of the job {name:?} is not remembered: {error}");
        }
    }

    async fn start(&self, app: &AppName, job: JobConfig, started: &mut Started) {
        let process_type = ProcessType::parse("scheduler").expect("scheduler is well-formed");
        if !job.overlap
            && let Some(dyno) = self.still_runs(app, &job, &process_type, started)
        {
            return self.say(app, format!("Skipped `{}`: {dyno} still runs it", job.name));
        }
        let order = RunOrder {
            app: app.clone(),
            process_type,
            command: job.command,
            env: Default::default(),
            size: job.size,
            streams: Streams::Log,
        };
        match self.supervisor.run(order).await {
            Ok(begun) => drop(started.insert((app.clone(), job.name), begun.dyno.to_string())),
            Err(error) => self.say(app, format!("Failed to start `{}`: {error}", job.name)),
        }
    }

    /// The dyno that runs this job still. What an earlier daemon has started is known by its command alone; where
    /// two jobs have the same one, it counts for both.
    fn still_runs(
        &self,
        app: &AppName,
        job: &JobConfig,
        process_type: &ProcessType,
        started: &mut Started,
    ) -> Option<String> {
        let config = (self.config)();
        let commands = match &config.apps.get(app)?.source {
            AppSource::Managed(managed) => &managed.commands,
            AppSource::External(_) | AppSource::Blank => return None,
        };
        let command = written_out(&job.command, commands)?;
        let of_type = format!("{process_type}.");
        let mut dynos = self.supervisor.status();
        dynos.retain(|dyno| dyno.app == app.as_str() && dyno.dyno.starts_with(&of_type));
        // The name of one that has ended may be another one's by now.
        started.retain(|(of, _), name| of != app || dynos.iter().any(|dyno| dyno.dyno == *name));
        if let Some(name) = started.get(&(app.clone(), job.name.clone())) {
            return Some(name.clone());
        }
        let is_known = |name: &String| started.iter().any(|((of, _), it)| of == app && it == name);
        let running = dynos
            .into_iter()
            .find(|dyno| dyno.command.as_ref() == Some(&command) && !is_known(&dyno.dyno));
        running.map(|dyno| dyno.dyno)
    }

    fn say(&self, app: &AppName, message: String) {
        self.log.platform(app, &"scheduler", &message);
    }
}
