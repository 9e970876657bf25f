//! Every kernel on 32 rows that lie in the cache: `cargo bench -p vecino-index [-- FILTER]`.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vecino_index::Kernel;
use vecino_index::kernel_cases::{ROWS, cases};

fn kernels(criterion: &mut Criterion) {
    for dim in [128, 384, 1536] {
        for kernel in Kernel::available() {
            for mut case in cases(kernel, dim) {
                let mut group = criterion.benchmark_group(format!("{} {dim}", case.name));
                group.throughput(Throughput::Elements(ROWS as u64));
                group.bench_function(kernel.name(), |bencher| bencher.iter(&mut case.call));
                group.finish();
            }
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(std::time::Duration::from_millis(200))
        .measurement_time(std::time::Duration::from_millis(500));
    targets = kernels
}
criterion_main!(benches);
