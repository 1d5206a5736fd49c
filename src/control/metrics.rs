//! The page that Prometheus reads.
//!
//! What is counted per request comes from the router, what is counted elsewhere from the metrics crate.
//! What simply is (requests in flight, the table's version) is read at the moment of asking.

use crate::control::Running;
use crate::control::exposition::{Family, merge};
use crate::table::Table;

/// Renders every metric.
pub(in crate::control) fn render(running: &Running) -> String {
    let mut counted = String::new();
    running.router.render_metrics(&mut counted);
    let mut present = String::new();
    render_table(&running.publisher.table(), &mut present);
    render_daemon(running, &mut present);
    merge(&[&counted, &running.recorded.render(), &present])
}

fn render_table(table: &Table, out: &mut String) {
    Family::gauge(
        out,
        "dynomesh_table_version",
        "Version of the route table, grows with each change.",
    )
    .sample(&[], table.version());
    let mut family = Family::gauge(out, "dynomesh_held_requests", "Requests that wait for a dyno.");
    for app in table.apps() {
        family.sample(&[("app", &app.name)], app.roster.waiting_now());
    }
    let mut family = Family::gauge(
        out,
        "dynomesh_in_flight",
        "Requests in flight on a dyno, lingering ones included.",
    );
    each_dyno(table, |labels, dyno| family.sample(labels, dyno.in_flight()));
    let mut family = Family::gauge(
        out,
        "dynomesh_lingering_requests",
        "Requests in flight whose client was answered or has left.",
    );
    each_dyno(table, |labels, dyno| {
        family.sample(labels, dyno.lingering().load(std::sync::atomic::Ordering::Relaxed));
    });
}

fn each_dyno(
    table: &Table,
    mut visit: impl FnMut(&[(&str, &dyn std::fmt::Display)], &crate::table::Dyno),
) {
    for app in table.apps() {
        for dyno in &app.roster.lineup().dynos {
            visit(&[("app", &app.name), ("dyno", dyno.name())], dyno);
        }
    }
}

fn render_daemon(running: &Running, out: &mut String) {
    let stalled = running.stalled();
    let mut family = Family::gauge(
        out,
        "dynomesh_worker_stall_seconds",
        "Seconds since a worker that does not answer last did; 0 while it answers.",
    );
    for worker in 0..running.config.load().router.workers {
        let stall =
            stalled.iter().find(|(index, _)| *index == worker).map_or(0.0, |(_, seconds)| *seconds);
        family.sample(&[("worker", &worker)], stall);
    }
    let dropped: u64 = running.lines.iter().map(crate::telemetry::Lines::dropped).sum();
    Family::counter(out, "dynomesh_log_lines_dropped_total", "Log lines that were dropped.")
        .sample(&[("app", &"-")], dropped);
}
