//! The loop that starts what is due.

use std::sync::Arc;

use tokio::time::{MissedTickBehavior, interval};

use crate::config::{AppSource, Config, limits};
use crate::model::{AppName, ProcessType};
use crate::scheduler::timetable::{Due, Missed, Timetable, jobs, missed};
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
    let mut timetable = Timetable::default();
    loop {
        clock.tick().await;
        for due in timetable.due(&(parts.config)(), (parts.now)()) {
            parts.start(due).await;
        }
    }
}

impl<C, N> Parts<'_, C, N>
where
    C: Fn() -> Arc<Config>,
    N: Fn() -> u64,
{
    /// Says what was due since the last daemon's last runs.
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

    async fn start(&self, due: Due) {
        let Due { app, job, at, missed } = due;
        self.say_times_missed(&app, &job.name, missed, "the machine slept, or its clock was set");
        let process_type = ProcessType::parse("scheduler").expect("scheduler is well-formed");
        if !job.overlap
            && let Some(dyno) = self.still_runs(&app, &process_type, &job.command)
        {
            return self.say(&app, format!("Skipped `{}`: {dyno} still runs it", job.name));
        }
        let order = RunOrder {
            app: app.clone(),
            process_type,
            command: job.command,
            env: Default::default(),
            size: job.size,
            streams: Streams::Log,
        };
        if let Err(error) = self.supervisor.run(order).await {
            return self.say(&app, format!("Failed to start `{}`: {error}", job.name));
        }
        if let Err(error) = self.store.job_ran(app.as_str(), &job.name, at).await {
            tracing::error!("a run of the job {:?} is not remembered: {error}", job.name);
        }
    }

    /// The dyno that runs this command still, be it one that an earlier daemon started.
    fn still_runs(
        &self,
        app: &AppName,
        process_type: &ProcessType,
        command: &str,
    ) -> Option<String> {
        let config = (self.config)();
        let commands = match &config.apps.get(app)?.source {
            AppSource::Managed(managed) => &managed.commands,
            AppSource::External(_) | AppSource::Blank => return None,
        };
        let command = written_out(command, commands)?;
        let of_type = format!("{process_type}.");
        let dynos = self.supervisor.status();
        let running = dynos.into_iter().find(|dyno| {
            dyno.app == app.as_str()
                && dyno.dyno.starts_with(&of_type)
                && dyno.command.as_ref() == Some(&command)
        });
        running.map(|dyno| dyno.dyno)
    }

    fn say(&self, app: &AppName, message: String) {
        self.log.platform(app, &"scheduler", &message);
    }
}
