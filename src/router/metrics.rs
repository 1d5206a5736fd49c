//! The request counters: one set per app and worker, written by that worker alone, summed when scraped.
//!
//! A histogram of the metrics crate costs 113 to 245 ns a sample and grows until somebody drains it; a plain
//! load and store on a line that no other thread writes costs next to nothing.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::router::reply::Refusal;
use crate::router::traffic::Limit;

/// How many buckets of the histogram have an upper bound. In a number of its own: evaluated for a type, a function of
/// this crate that makes the bounds would be compiled while it is found out whether that type can be sent.
const BOUNDED: usize = 14;

/// Those bounds: up to the 30 s of H12 and beyond.
const BUCKETS: [Duration; BOUNDED] = {
    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }
    [
        ms(1),
        ms(5),
        ms(10),
        ms(25),
        ms(50),
        ms(100),
        ms(250),
        ms(500),
        ms(1000),
        ms(2500),
        ms(5000),
        ms(10_000),
        ms(30_000),
        ms(60_000),
    ]
};

const FAMILIES: [(&str, &str, &str); 6] = [
    (
        "dynomesh_requests_total",
        "counter",
        "Requests that have ended, by the status that was sent (499: none was).",
    ),
    (
        "dynomesh_request_duration_seconds",
        "histogram",
        "From a request's whole head to the last byte of its answer.",
    ),
    (
        "dynomesh_errors_total",
        "counter",
        "Requests that the router answered or cut, by Heroku's code.",
    ),
    (
        "dynomesh_retries_total",
        "counter",
        "Requests that were sent again, to the same dyno or another.",
    ),
    (
        "dynomesh_late_answers_total",
        "counter",
        "Answers that came after their client was answered 503, or had left.",
    ),
    (
        "dynomesh_limited_requests_total",
        "counter",
        "Requests that were refused (H22), by the limit that they met.",
    ),
];

/// The counters of one app on one worker.
pub(crate) struct AppCounters {
    app: Box<str>,
    /// By class and then by the rest: 100 numbers for a class once it was seen.
    statuses: [OnceLock<Box<[AtomicU64; 100]>>; 5],
    errors: [AtomicU64; Refusal::CODES.len()],
    buckets: [AtomicU64; BOUNDED + 1],
    micros: AtomicU64,
    retries: AtomicU64,
    late: AtomicU64,
    limited: [AtomicU64; Limit::ALL.len()],
}

impl AppCounters {
    /// Counts a request that has ended.
    pub(crate) fn request(
        &self,
        status: u16,
        refusal: Option<Refusal>,
        duration: Duration,
        retries: u32,
    ) {
        let (class, rest) = (usize::from(status / 100).clamp(1, 5) - 1, usize::from(status % 100));
        let class =
            self.statuses[class].get_or_init(|| Box::new([const { AtomicU64::new(0) }; 100]));
        add(&class[rest], 1);
        add(&self.buckets[BUCKETS.partition_point(|bound| *bound < duration)], 1);
        add(&self.micros, duration.as_micros() as u64);
        if let Some(refusal) = refusal {
            let code = refusal.row().code;
            if let Some(index) = Refusal::CODES.iter().position(|it| *it == code) {
                add(&self.errors[index], 1);
            }
        }
        if let Some(Refusal::TooManyRequests(limit)) = refusal {
            add(&self.limited[limit as usize], 1);
        }
        if retries > 0 {
            add(&self.retries, retries.into());
        }
    }

    /// Counts the end of a lingering request.
    pub(crate) fn late(&self) {
        add(&self.late, 1);
    }
}

/// One writer per counter, so no read-modify-write is needed.
fn add(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed) + by, Ordering::Relaxed);
}

/// All counters of all workers.
#[derive(Default)]
pub(crate) struct Registry {
    counters: Mutex<Vec<Arc<AppCounters>>>,
    /// Connections that ended in the middle of a head.
    pub(crate) incomplete_heads: AtomicU64,
    /// Exchanges that ended in a panic.
    pub(crate) panics: AtomicU64,
    /// Times accepting paused, because of the bound on connections or for want of descriptors.
    pub(crate) accept_pauses: AtomicU64,
    /// Connections that were closed for want of a good PROXY header from a trusted proxy.
    pub(crate) bad_headers: AtomicU64,
    /// HTTP/2 connections that were cut because of frames that only cost.
    pub(crate) http2_floods: AtomicU64,
    /// TLS handshakes that have ended.
    pub(crate) handshakes: Handshakes,
}

/// TLS handshakes that have ended, by how.
#[derive(Default)]
pub(crate) struct Handshakes {
    /// With a key exchange and a signature.
    pub(crate) full: AtomicU64,
    /// With a ticket of ours.
    pub(crate) resumed: AtomicU64,
    /// The client left, or spoke something else, or there were too many at a time.
    pub(crate) failed: AtomicU64,
    /// They took too long.
    pub(crate) timed_out: AtomicU64,
}

impl Handshakes {
    fn render(&self, out: &mut String) {
        const NAME: &str = "dynomesh_tls_handshakes_total";
        let _ = writeln!(
            out,
            "# HELP {NAME} TLS handshakes that have ended, by how.\n# TYPE {NAME} counter"
        );
        for (result, counter) in [
            ("full", &self.full),
            ("resumed", &self.resumed),
            ("failed", &self.failed),
            ("timeout", &self.timed_out),
        ] {
            let value = counter.load(Ordering::Relaxed);
            let _ = writeln!(out, "{NAME}{{result=\"{result}\"}} {value}");
        }
    }
}

impl Registry {
    /// A set of counters for one worker. It is forgotten once the worker drops it.
    pub(crate) fn counters(&self, app: &str) -> Arc<AppCounters> {
        let counters = Arc::new(AppCounters {
            app: app.into(),
            statuses: [const { OnceLock::new() }; 5],
            errors: [const { AtomicU64::new(0) }; Refusal::CODES.len()],
            buckets: [const { AtomicU64::new(0) }; BOUNDED + 1],
            micros: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            late: AtomicU64::new(0),
            limited: [const { AtomicU64::new(0) }; Limit::ALL.len()],
        });
        self.counters.lock().unwrap_or_else(PoisonError::into_inner).push(counters.clone());
        counters
    }

    /// Appends everything in Prometheus' text format.
    pub(crate) fn render(&self, out: &mut String) {
        let totals = self.totals();
        for (name, kind, help) in FAMILIES {
            // Writing to a String does not fail.
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (app, total) in &totals {
                total.render(out, name, app);
            }
        }
        let plain = [
            (
                "dynomesh_incomplete_requests_total",
                "Connections that ended in the middle of a head.",
                &self.incomplete_heads,
            ),
            (
                "dynomesh_panics_total",
                "Requests that ended in a panic of the router.",
                &self.panics,
            ),
            (
                "dynomesh_accept_pauses_total",
                "Times that accepting paused for want of connections or descriptors.",
                &self.accept_pauses,
            ),
            (
                "dynomesh_bad_proxy_headers_total",
                "Connections that were closed for want of a good PROXY header from a trusted proxy.",
                &self.bad_headers,
            ),
            (
                "dynomesh_http2_floods_total",
                "HTTP/2 connections that were cut for sending too many frames that only cost.",
                &self.http2_floods,
            ),
        ];
        for (name, help, counter) in plain {
            let value = counter.load(Ordering::Relaxed);
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}");
        }
        self.handshakes.render(out);
    }

    fn totals(&self) -> BTreeMap<Box<str>, Total> {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody but this list holds the counters of an app that has left the table.
        counters.retain(|counters| Arc::strong_count(counters) > 1);
        let mut totals = BTreeMap::<_, Total>::new();
        for counters in &*counters {
            totals.entry(counters.app.clone()).or_default().add(counters);
        }
        totals
    }
}

/// The counters of one app over all workers.
#[derive(Default)]
struct Total {
    statuses: BTreeMap<usize, u64>,
    errors: [u64; Refusal::CODES.len()],
    buckets: [u64; BOUNDED + 1],
    micros: u64,
    retries: u64,
    late: u64,
    limited: [u64; Limit::ALL.len()],
}

impl Total {
    fn add(&mut self, counters: &AppCounters) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (class, counts) in counters.statuses.iter().enumerate() {
            for (rest, count) in
                counts.get().into_iter().flat_map(|counts| counts.iter().enumerate())
            {
                let count = read(count);
                if count > 0 {
                    *self.statuses.entry((class + 1) * 100 + rest).or_default() += count;
                }
            }
        }
        for (total, counter) in self.errors.iter_mut().zip(&counters.errors) {
            *total += read(counter);
        }
        for (total, counter) in self.buckets.iter_mut().zip(&counters.buckets) {
            *total += read(counter);
        }
        self.micros += read(&counters.micros);
        self.retries += read(&counters.retries);
        self.late += read(&counters.late);
        for (total, counter) in self.limited.iter_mut().zip(&counters.limited) {
            *total += read(counter);
        }
    }

    /// App names are labels of DNS, or `-`: they need no escaping.
    fn render(&self, out: &mut String, family: &str, app: &str) {
        match family {
            "dynomesh_requests_total" => {
                for (status, count) in &self.statuses {
                    let _ = writeln!(out, "{family}{{app=\"{app}\",status=\"{status}\"}} {count}");
                }
            }
            "dynomesh_errors_total" => {
                for (code, count) in
                    Refusal::CODES.iter().zip(self.errors).filter(|(_, count)| *count > 0)
                {
                    let _ = writeln!(out, "{family}{{app=\"{app}\",code=\"{code}\"}} {count}");
                }
            }
            "dynomesh_request_duration_seconds" => self.render_histogram(out, family, app),
            "dynomesh_limited_requests_total" => {
                let counts = Limit::ALL.iter().zip(self.limited).filter(|(_, count)| *count > 0);
                for (limit, count) in counts {
                    let limit = limit.key();
                    let _ = writeln!(out, "{family}{{app=\"{app}\",limit=\"{limit}\"}} {count}");
                }
            }
            "dynomesh_retries_total" => {
                let _ = writeln!(out, "{family}{{app=\"{app}\"}} {}", self.retries);
            }
            _ => {
                let _ = writeln!(out, "{family}{{app=\"{app}\"}} {}", self.late);
            }
        }
    }

    fn render_histogram(&self, out: &mut String, family: &str, app: &str) {
        let mut below = 0;
        for (count, bound) in self.buckets.iter().zip(BUCKETS) {
            below += count;
            let bound = bound.as_secs_f64();
            let _ = writeln!(out, "{family}_bucket{{app=\"{app}\",le=\"{bound}\"}} {below}");
        }
        let all: u64 = self.buckets.iter().sum();
        let seconds = self.micros as f64 / 1e6;
        let _ = writeln!(out, "{family}_bucket{{app=\"{app}\",le=\"+Inf\"}} {all}");
        let _ = writeln!(
            out,
            "{family}_sum{{app=\"{app}\"}} {seconds}\n{family}_count{{app=\"{app}\"}} {all}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_over_workers_and_forgotten_with_their_app() {
        let registry = Registry::default();
        let (one, two) = (registry.counters("shop"), registry.counters("shop"));
        let gone = registry.counters("old");
        one.request(200, None, Duration::from_millis(1), 0);
        two.request(200, None, Duration::from_millis(30), 1);
        two.request(503, Some(Refusal::RequestTimeout), Duration::from_secs(90), 0);
        one.request(429, Some(Refusal::TooManyRequests(Limit::ClientInFlight)), Duration::ZERO, 0);
        gone.request(200, None, Duration::ZERO, 0);
        drop(gone);
        let mut text = String::new();
        registry.render(&mut text);
        for line in [
            "dynomesh_requests_total{app=\"shop\",status=\"200\"} 2",
            "dynomesh_requests_total{app=\"shop\",status=\"503\"} 1",
            "dynomesh_errors_total{app=\"shop\",code=\"H12\"} 1",
            "dynomesh_request_duration_seconds_bucket{app=\"shop\",le=\"0.001\"} 2",
            "dynomesh_request_duration_seconds_bucket{app=\"shop\",le=\"60\"} 3",
            "dynomesh_request_duration_seconds_bucket{app=\"shop\",le=\"+Inf\"} 4",
            "dynomesh_request_duration_seconds_sum{app=\"shop\"} 90.031",
            "dynomesh_retries_total{app=\"shop\"} 1",
            "dynomesh_errors_total{app=\"shop\",code=\"H22\"} 1",
            "dynomesh_limited_requests_total{app=\"shop\",limit=\"client_limits.in_flight\"} 1",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} in\n{text}");
        }
        assert!(!text.contains("old"));
    }
}
