//! `dynomesh ps:wait`: until an app runs what was released last

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use http::Method;
use tokio::time::sleep;

use crate::cli::app::{App, Daemon};
use crate::cli::releases::current_version;
use crate::control::DynoObject;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(500);

/// Wait until every dyno of an app runs its newest release
#[derive(clap::Args)]
pub(in crate::cli) struct Wait {
    /// Of this process type alone
    #[arg(short, long = "type", value_name = "TYPE")]
    process_type: Option<String>,
    #[command(flatten)]
    app: App,
    #[command(flatten)]
    daemon: Daemon,
}

impl Wait {
    pub(in crate::cli) fn run(&self) -> anyhow::Result<ExitCode> {
        let app = self.app.name(&self.daemon)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.context("start a runtime")?;
        let mut said = false;
        loop {
            let version = current_version(&self.daemon, &app)?;
            let newest = version.trim_start_matches('v').parse()?;
            let mut dynos: Vec<DynoObject> =
                self.daemon.ask(Method::GET, &format!("/apps/{app}/dynos"))?;
            dynos.retain(|dyno| is_waited_for(dyno, self.process_type.as_deref()));
            let there = dynos.iter().filter(|dyno| is_there(dyno, newest)).count();
            match there == dynos.len() {
                true if said => {
                    eprintln!("{there} / {there}, done");
                    return Ok(ExitCode::SUCCESS);
                }
                true => return Ok(ExitCode::SUCCESS),
                false if !said => {
                    eprint!("Waiting for every dyno to be running {version}... ");
                    said = true;
                }
                false => {}
            }
            runtime.block_on(async { sleep(EVERY).await });
        }
    }
}

/// One-off dynos end by themselves, and run whatever they began with.
fn is_waited_for(dyno: &DynoObject, process_type: Option<&str>) -> bool {
    match process_type {
        Some(wanted) => dyno.process_type == wanted,
        None => !matches!(dyno.process_type.as_str(), "run" | "scheduler" | "release"),
    }
}

/// One that sleeps will wake up with the newest release.
fn is_there(dyno: &DynoObject, newest: u64) -> bool {
    let runs_newest = dyno.release.as_ref().is_some_and(|it| it.version >= newest);
    match dyno.state.as_str() {
        "up" => runs_newest,
        "idle" | "external" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{AppObject, ReleaseObject};

    #[test]
    fn dynos_of_the_formation_have_to_run_the_newest_release() {
        let dyno = |process_type: &str, state: &str, version: Option<u64>| DynoObject {
            app: AppObject { name: "shop".into() },
            name: format!("{process_type}.1"),
            process_type: process_type.into(),
            command: String::new(),
            size: String::new(),
            state: state.into(),
            updated_at: String::new(),
            release: version.map(|version| ReleaseObject { version }),
            attach_url: None,
        };
        assert!(is_waited_for(&dyno("web", "up", None), None));
        assert!(!is_waited_for(&dyno("run", "up", None), None));
        assert!(!is_waited_for(&dyno("web", "up", None), Some("worker")));
        for (state, version, expected) in [
            ("up", Some(3), true),
            ("up", Some(4), true),
            ("up", Some(2), false),
            ("up", None, false),
            ("starting", Some(3), false),
            ("crashed", Some(3), false),
            ("idle", Some(2), true),
            ("external", None, true),
        ] {
            assert_eq!(is_there(&dyno("web", state, version), 3), expected, "{state} {version:?}");
        }
    }
}
