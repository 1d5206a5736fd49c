//! What is counted of dynos, by the names that dashboards depend on.
//!
//! `dynomesh_errors_total` has two writers: H codes are the router's own counters, R codes are counted here.
//! Whoever renders both puts their lines under one heading.

use std::time::Duration;

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::model::{AppName, DynoState, ProcessType};

/// Dynos by app, process type and state.
pub(crate) const DYNOS: &str = "dynomesh_dynos";
/// Starts after a crash.
pub(crate) const RESTARTS: &str = "dynomesh_dyno_restarts_total";
/// From the start of a process to up.
pub(crate) const BOOT_SECONDS: &str = "dynomesh_dyno_boot_seconds";
/// Dynos that were added or taken away because of the load.
pub(crate) const AUTOSCALE_STEPS: &str = "dynomesh_autoscale_steps_total";
/// Checks of health that failed.
pub(crate) const HEALTH_FAILURES: &str = "dynomesh_dyno_health_failures_total";
/// H and R codes.
pub(crate) const ERRORS: &str = "dynomesh_errors_total";
/// Processes of dynos that the kernel killed for their memory.
pub(crate) const OOM_KILLS: &str = "dynomesh_dyno_oom_kills_total";
/// Lines of output that nobody will read.
pub(crate) const LINES_DROPPED: &str = "dynomesh_log_lines_dropped_total";

/// Says what each is, once a recorder is installed.
pub(crate) fn describe() {
    describe_gauge!(DYNOS, "Dynos by app, process type and state");
    describe_counter!(RESTARTS, "Starts of dynos after a crash");
    describe_counter!(AUTOSCALE_STEPS, "Dynos that were added or taken away because of the load");
    describe_counter!(HEALTH_FAILURES, "Checks of health that dynos failed");
    describe_histogram!(
        BOOT_SECONDS,
        Unit::Seconds,
        "From the start of a dyno's process until it was up"
    );
    describe_counter!(ERRORS, "Errors by Heroku's code");
    describe_counter!(OOM_KILLS, "Processes of dynos that the kernel killed for their memory");
    describe_counter!(LINES_DROPPED, "Lines of output of dynos that were dropped");
}

/// A dyno entered this state, or left it.
pub(crate) fn dynos(app: &AppName, process_type: &ProcessType, state: DynoState, change: f64) {
    let labels = [
        ("app", app.to_string()),
        ("type", process_type.to_string()),
        ("state", state.to_string()),
    ];
    gauge!(DYNOS, &labels).increment(change);
}

/// A dyno starts after a crash.
pub(crate) fn restarted(app: &AppName, process_type: &ProcessType) {
    counter!(RESTARTS, "app" => app.to_string(), "type" => process_type.to_string()).increment(1);
}

/// There is to be a dyno more (`up`) or one fewer (`down`).
pub(crate) fn autoscaled(app: &AppName, process_type: &ProcessType, direction: &'static str) {
    let labels = [
        ("app", app.to_string()),
        ("type", process_type.to_string()),
        ("direction", direction.to_owned()),
    ];
    counter!(AUTOSCALE_STEPS, &labels).increment(1);
}

/// A dyno that is up failed a check of its health.
pub(crate) fn health_failed(app: &AppName, process_type: &ProcessType) {
    counter!(HEALTH_FAILURES, "app" => app.to_string(), "type" => process_type.to_string())
        .increment(1);
}

/// A dyno came up.
pub(crate) fn booted(app: &AppName, process_type: &ProcessType, took: Duration) {
    histogram!(BOOT_SECONDS, "app" => app.to_string(), "type" => process_type.to_string())
        .record(took);
}

/// A dyno made this error.
pub(crate) fn error(app: &AppName, code: &'static str) {
    counter!(ERRORS, "app" => app.to_string(), "code" => code).increment(1);
}

/// The kernel killed so many processes of a dyno.
pub(crate) fn oom_kills(app: &AppName, process_type: &ProcessType, kills: u64) {
    counter!(OOM_KILLS, "app" => app.to_string(), "type" => process_type.to_string())
        .increment(kills);
}

/// Lines of an app were dropped.
pub(crate) fn lines_dropped(app: &AppName, lines: u64) {
    counter!(LINES_DROPPED, "app" => app.to_string()).increment(lines);
}
