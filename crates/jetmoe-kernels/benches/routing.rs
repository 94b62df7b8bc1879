//! What it takes to bring the rows that chose an expert together, which every product of experts begins with.
//!
//! `cargo xtask bench --micro` runs it.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use jetmoe_kernels::{Result, Routes};

/// Numbers of experts and of those that a token chooses: JetMoE-8B, and a model of many small experts.
const MIXTURES: [(usize, usize); 2] = [(8, 2), (64, 8)];
const TOKENS: [usize; 4] = [1, 16, 512, 4096];

fn main() -> Result<()> {
    let mut criterion = Criterion::default().configure_from_args();
    for (experts, per_row) in MIXTURES {
        let mut group = criterion.benchmark_group(format!("{per_row} of {experts} experts"));
        for tokens in TOKENS {
            let chosen = choices(tokens, experts, per_row);
            Routes::new(&chosen, per_row, experts)?; // so that nothing below is an error that nobody sees
            group.throughput(Throughput::Elements(tokens as u64));
            group.bench_with_input(BenchmarkId::new("tokens", tokens), &chosen, |bencher, chosen| {
                bencher.iter(|| Routes::new(black_box(chosen), per_row, experts));
            });
        }
        group.finish();
    }
    criterion.final_summary();
    Ok(())
}

/// Experts without an order that a processor could foresee.
fn choices(tokens: usize, experts: usize, per_row: usize) -> Vec<i64> {
    let mut state = 1_u64;
    let mut first = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % experts
    };
    let rows = (0..tokens).flat_map(|_| {
        let first = first();
        (0..per_row).map(move |choice| ((first + choice * 3) % experts) as i64)
    });
    rows.collect()
}
