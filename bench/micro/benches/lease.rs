//! A slot on a dyno, taken and given back, by one thread and while another does the same.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use criterion::{Criterion, criterion_group, criterion_main};
use dynomesh::table::Dyno;
use micro::dyno;

criterion_group!(benches, lease);
criterion_main!(benches);

fn lease(criterion: &mut Criterion) {
    let (ours, others) = (dyno(1), dyno(2));
    let mut group = criterion.benchmark_group("lease");
    group.bench_function("one thread", |bencher| bencher.iter(|| black_box(&ours).lease()));
    group.bench_function("two threads, two dynos", |bencher| {
        beside_another_thread(&others, || bencher.iter(|| black_box(&ours).lease()));
    });
    group.bench_function("two threads, one dyno", |bencher| {
        beside_another_thread(&ours, || bencher.iter(|| black_box(&ours).lease()));
    });
    group.finish();
}

fn beside_another_thread(dyno: &Arc<Dyno>, measure: impl FnOnce()) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                drop(black_box(dyno).lease());
            }
        });
        measure();
        done.store(true, Ordering::Relaxed);
    });
}
