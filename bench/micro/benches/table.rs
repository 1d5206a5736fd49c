//! The route table: looking a host up, and replacing all of it or one app's dynos.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use dynomesh::model::Host;
use dynomesh::table::{Place, Publisher, Ring, Roster, Standing, Table};
use micro::{app, domain, lineup, routes};

criterion_group!(benches, find, ring, replace);
criterion_main!(benches);

/// A request's host to its app, each time another one, so that a large table is not all in the cache.
fn find(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("find");
    for domains in [10, 1_000, 100_000] {
        let table = Table::new(routes(
            (0..domains).map(|it| app(it, Roster::new(Standing::NoWeb))).collect(),
        ));
        let hosts: Vec<String> = (0..domains).map(domain).collect();
        let mut next = 0;
        group.bench_function(BenchmarkId::new("domains", domains), |bencher| {
            bencher.iter(|| {
                // A prime step visits all of them in an order that no prefetcher follows.
                next = (next + 7_919) % domains;
                let host = Host::parse(black_box(&hosts[next]))?;
                table.find(&host).map(|app| app.id)
            });
        });
    }
    group.finish();
}

/// A client to its dyno, and what a publisher pays for that.
fn ring(criterion: &mut Criterion) {
    let places = |count| {
        let place = |number| Place { label: format!("web.{number}"), number };
        (1..=count).map(place).collect::<Vec<_>>()
    };
    let mut group = criterion.benchmark_group("ring");
    for dynos in [10, 1_000] {
        let ring = Ring::new(places(dynos)).expect("there are dynos");
        let mut next = 0_u32;
        group.bench_function(BenchmarkId::new("walk", dynos), |bencher| {
            bencher.iter(|| {
                next = next.wrapping_add(7_919);
                ring.walk(black_box(&next.to_be_bytes())).next()
            });
        });
        group.bench_function(BenchmarkId::new("make", dynos), |bencher| {
            bencher.iter_batched(|| places(dynos), Ring::new, BatchSize::LargeInput);
        });
    }
    group.finish();
}

/// 100,000 apps with a domain and 10 dynos each: a million dynos.
fn replace(criterion: &mut Criterion) {
    let rosters: Vec<Arc<Roster>> = (0..100_000).map(|_| Roster::new(Standing::NoWeb)).collect();
    let apps = || {
        rosters.iter().cloned().enumerate().map(|(number, roster)| app(number, roster)).collect()
    };
    let publisher = Publisher::new(Table::new(routes(apps())));
    for roster in &rosters {
        publisher.publish_lineup(roster, lineup(10));
    }

    let mut group = criterion.benchmark_group("replace in 100,000 domains × 1,000,000 dynos");
    group.sample_size(10).warm_up_time(Duration::from_secs(1));
    group.bench_function("index the routes", |bencher| {
        bencher.iter_batched(|| routes(apps()), Table::new, BatchSize::PerIteration);
    });
    group.bench_function("publish a table and free the old one", |bencher| {
        let table = || Table::new(routes(apps()));
        bencher.iter_batched(table, |table| publisher.publish(table), BatchSize::PerIteration);
    });
    group.bench_function("publish a table that a reader still holds", |bencher| {
        let table = || (publisher.table(), Table::new(routes(apps())));
        // The old one is returned, so that its end is not timed.
        let publish = |(held, table)| {
            publisher.publish(table);
            held
        };
        bencher.iter_batched(table, publish, BatchSize::PerIteration);
        publisher.bury();
    });
    group.bench_function("publish one app's dynos", |bencher| {
        bencher.iter_batched(
            || lineup(9),
            |lineup| publisher.publish_lineup(&rosters[0], lineup),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}
