//! The page that Prometheus reads.
//!
//! What is counted per request comes from the router, what is counted elsewhere from the metrics crate.
//! What simply is (requests in flight, the table's version) is read at the moment of asking.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::certs::{AcmeState, AcmeStatus, Report, Source};
use crate::control::Running;
use crate::control::exposition::{Family, merge};
use crate::supervisor::{DynoStatus, DynoUsage};
use crate::table::{Dyno, Table};

/// Renders every metric.
pub(in crate::control) fn render(running: &Running) -> String {
    let mut counted = String::new();
    running.router.render_metrics(&mut counted);
    let mut present = String::new();
    render_table(&running.publisher.table(), &mut present);
    render_certificates(&running.router.certs().report(), SystemTime::now(), &mut present);
    render_usage(&running.supervisor.status(), &mut present);
    render_daemon(running, &mut present);
    render_acme(&running.acme.states(), &mut present);
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
        family.sample(&[("app", &app.name)], app.roster.held().load(Ordering::Relaxed));
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
        family.sample(labels, dyno.lingering().load(Ordering::Relaxed));
    });
}

fn each_dyno(table: &Table, mut visit: impl FnMut(&[(&str, &dyn Display)], &Dyno)) {
    for app in table.apps() {
        let lineup = app.roster.lineup();
        for dyno in &lineup.dynos {
            visit(&[("app", &app.name), ("dyno", dyno.name())], dyno);
        }
        // One of the others has its name.
        if let Some(canary) = &lineup.canary {
            visit(&[("app", &app.name), ("dyno", &"canary")], &canary.dyno);
        }
    }
}

/// What each dyno took when it was last looked at. Whoever is leaving has no say beside one of the same name.
fn render_usage(dynos: &[DynoStatus], out: &mut String) {
    let with_usage = dynos.iter().filter_map(|it| Some(((&it.app, &it.dyno), it.usage.as_ref()?)));
    let dynos: BTreeMap<(&String, &String), &DynoUsage> = with_usage.collect();
    let mut family = Family::gauge(
        out,
        "dynomesh_dyno_memory_bytes",
        "Memory of a dyno: its processes' own (rss), pages of files (cache), swap, and its quota.",
    );
    for ((app, dyno), usage) in &dynos {
        let kinds = [
            ("rss", usage.rss),
            ("cache", usage.cache),
            ("swap", usage.swap),
            ("quota", usage.quota),
        ];
        for (kind, bytes) in kinds {
            if let Some(bytes) = bytes {
                family.sample(&[("app", app), ("dyno", dyno), ("kind", &kind)], bytes);
            }
        }
    }
    let mut family =
        Family::gauge(out, "dynomesh_dyno_load", "Runnable tasks of a dyno, averaged.");
    for ((app, dyno), usage) in &dynos {
        for (period, load) in ["1m", "5m", "15m"].iter().zip(usage.load) {
            let labels: [(&str, &dyn Display); 3] =
                [("app", app), ("dyno", dyno), ("period", period)];
            family.sample(&labels, format_args!("{load:.2}"));
        }
    }
    let each = |family: &mut Family<'_>, value: fn(&DynoUsage) -> Option<f64>| {
        for ((app, dyno), usage) in &dynos {
            if let Some(value) = value(usage) {
                family.sample(&[("app", app), ("dyno", dyno)], value);
            }
        }
    };
    let mut family = Family::gauge(out, "dynomesh_dyno_tasks", "Processes and threads of a dyno.");
    each(&mut family, |usage| usage.tasks.map(|tasks| tasks as f64));
    let mut family = Family::counter(
        out,
        "dynomesh_dyno_cpu_seconds_total",
        "CPU time of a dyno since its process was started.",
    );
    each(&mut family, |usage| usage.cpu_seconds);
    let mut family = Family::counter(
        out,
        "dynomesh_dyno_cpu_throttled_seconds_total",
        "For how long a dyno's CPU quota held it up.",
    );
    each(&mut family, |usage| usage.throttled_seconds);
}

fn render_certificates(reports: &[Report], now: SystemTime, out: &mut String) {
    // Two certificates may have one name, with keys of two kinds: the first to expire is the one to know of.
    let mut ends: BTreeMap<(&str, Source), SystemTime> = BTreeMap::new();
    for report in reports {
        let end = ends.entry((&report.name, report.source)).or_insert(report.not_after);
        *end = report.not_after.min(*end);
    }
    let mut family = Family::gauge(
        out,
        "dynomesh_certificate_expiry_timestamp_seconds",
        "When a certificate expires, by the first of its names and where it comes from.",
    );
    for ((name, source), end) in &ends {
        family.sample(&[("name", name), ("source", source)], seconds_from(UNIX_EPOCH, *end));
    }
    let mut family = Family::gauge(
        out,
        "dynomesh_certificate_remaining_seconds",
        "Time until a certificate expires (a day has 86400 seconds), negative afterwards.",
    );
    for ((name, source), end) in &ends {
        let left = seconds_from(now, *end);
        family.sample(&[("name", name), ("source", source)], format_args!("{left:.0}"));
    }
}

/// From one moment to the other, negative if that is the earlier one.
fn seconds_from(from: SystemTime, to: SystemTime) -> f64 {
    to.duration_since(from)
        .map_or_else(|error| -error.duration().as_secs_f64(), |it| it.as_secs_f64())
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
}

fn render_acme(states: &[AcmeStatus], out: &mut String) {
    let mut family = Family::gauge(
        out,
        "dynomesh_acme_domains",
        "Domains with automatic certificates, by how they stand.",
    );
    for word in AcmeState::WORDS {
        let count = states.iter().filter(|status| status.state == word).count();
        family.sample(&[("state", &word)], count);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::control::scene::Scene;

    #[test]
    fn what_a_dyno_takes_is_told_once() {
        let status = |dyno: &str, usage| DynoStatus {
            app: "shop".into(),
            dyno: dyno.into(),
            state: "up".into(),
            usage,
            ..DynoStatus::default()
        };
        let usage = |rss| DynoUsage {
            rss: Some(rss),
            quota: Some(512),
            cpu_seconds: Some(1.5),
            tasks: Some(3),
            load: [0.5, 0.25, 0.125],
            ..DynoUsage::default()
        };
        let mut out = String::new();
        let dynos = [
            status("web.1", Some(usage(1))),
            status("web.1", Some(usage(2))),
            status("web.2", None),
        ];
        render_usage(&dynos, &mut out);
        let samples: Vec<&str> = out.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            [
                r#"dynomesh_dyno_memory_bytes{app="shop",dyno="web.1",kind="rss"} 2"#,
                r#"dynomesh_dyno_memory_bytes{app="shop",dyno="web.1",kind="quota"} 512"#,
                r#"dynomesh_dyno_load{app="shop",dyno="web.1",period="1m"} 0.50"#,
                r#"dynomesh_dyno_load{app="shop",dyno="web.1",period="5m"} 0.25"#,
                r#"dynomesh_dyno_load{app="shop",dyno="web.1",period="15m"} 0.12"#,
                r#"dynomesh_dyno_tasks{app="shop",dyno="web.1"} 3"#,
                r#"dynomesh_dyno_cpu_seconds_total{app="shop",dyno="web.1"} 1.5"#,
            ]
        );
    }

    #[test]
    fn the_table_is_read_as_it_is() {
        let scene = Scene::new("[apps.shop]\ndir = \"app\"\n[apps.blank]\n");
        let dyno = scene.up("shop");
        let leases = [dyno.lease(), dyno.lease()];
        dyno.lingering().store(1, Ordering::Relaxed);
        let table = scene.publisher.table();
        table.apps()[0].roster.held().store(7, Ordering::Relaxed);
        let mut out = String::new();
        render_table(&table, &mut out);
        drop(leases);
        let samples: Vec<_> = out.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            [
                "dynomesh_table_version 1",
                "dynomesh_held_requests{app=\"blank\"} 7",
                "dynomesh_held_requests{app=\"shop\"} 0",
                "dynomesh_in_flight{app=\"shop\",dyno=\"web.1\"} 2",
                "dynomesh_lingering_requests{app=\"shop\",dyno=\"web.1\"} 1",
            ]
        );
    }

    #[test]
    fn domains_with_automatic_certificates_are_counted_by_state() {
        let status = |state| AcmeStatus { name: "a".into(), state, reason: None, expires: None };
        let mut out = String::new();
        render_acme(&[status("OK"), status("Failing"), status("OK")], &mut out);
        let samples: Vec<_> = out.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            [
                "dynomesh_acme_domains{state=\"Waiting\"} 0",
                "dynomesh_acme_domains{state=\"Verified\"} 0",
                "dynomesh_acme_domains{state=\"OK\"} 2",
                "dynomesh_acme_domains{state=\"Failing\"} 1",
            ]
        );
    }

    #[test]
    fn of_certificates_with_one_name_the_first_to_expire_counts() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let day = Duration::from_secs(86_400);
        let report =
            |name: &str, source, not_after| Report { name: name.into(), source, not_after };
        let reports = [
            report("shop.test", Source::File, now + 90 * day),
            report("shop.test", Source::File, now + 3 * day / 2),
            report("shop.test", Source::Acme, now - day),
            report("local CA", Source::LocalCa, now + 3650 * day),
        ];
        let mut out = String::new();
        render_certificates(&reports, now, &mut out);
        let samples: Vec<_> = out.lines().filter(|line| !line.starts_with('#')).collect();
        let (at, left) = (
            "dynomesh_certificate_expiry_timestamp_seconds",
            "dynomesh_certificate_remaining_seconds",
        );
        assert_eq!(
            samples,
            [
                format!("{at}{{name=\"local CA\",source=\"local\"}} 316360000"),
                format!("{at}{{name=\"shop.test\",source=\"file\"}} 1129600"),
                format!("{at}{{name=\"shop.test\",source=\"acme\"}} 913600"),
                format!("{left}{{name=\"local CA\",source=\"local\"}} 315360000"),
                format!("{left}{{name=\"shop.test\",source=\"file\"}} 129600"),
                format!("{left}{{name=\"shop.test\",source=\"acme\"}} -86400"),
            ]
        );
    }
}
