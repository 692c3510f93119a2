//! Events a second through the join, from memory: healthy connections, both ends on this node.

#[path = "../tests/healthy/mod.rs"]
mod healthy;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use healthy::{EVENTS, Healthy};

/// Connections in one measured run: as many as end within half a second on a busy node.
const CONNECTIONS: u64 = 5_000;

fn join(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("join");
    group.throughput(Throughput::Elements(CONNECTIONS * EVENTS));
    group.bench_function("healthy connections", |bencher| {
        let mut healthy = Healthy::new();
        healthy.play(CONNECTIONS);
        bencher.iter_batched_ref(|| (), |()| healthy.play(CONNECTIONS), BatchSize::SmallInput);
    });
    group.finish();
}

criterion_group!(benches, join);
criterion_main!(benches);
