//! The time to sort tokens by expert, the first step of every product of experts.
//!
//! `cargo xtask bench --micro` runs it.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use jetmoe_kernels::{Result, TokenPermutation};

/// Numbers of experts, and of experts per token: JetMoE-8B, and a model of many small experts.
const MIXTURES: [(usize, usize); 2] = [(8, 2), (64, 8)];
const TOKENS: [usize; 4] = [1, 16, 512, 4096];

fn main() -> Result<()> {
    let mut criterion = Criterion::default().configure_from_args();
    for (experts, k) in MIXTURES {
        let mut group = criterion.benchmark_group(format!("{k} of {experts} experts"));
        for tokens in TOKENS {
            let chosen = choices(tokens, experts, k);
            TokenPermutation::new(&chosen, k, experts)?; // reports an error, which the loop below would hide
            group.throughput(Throughput::Elements(tokens as u64));
            group.bench_with_input(BenchmarkId::new("tokens", tokens), &chosen, |bencher, chosen| {
                bencher.iter(|| TokenPermutation::new(black_box(chosen), k, experts));
            });
        }
        group.finish();
    }
    criterion.final_summary();
    Ok(())
}

/// Random experts, so that the processor cannot predict them.
fn choices(tokens: usize, experts: usize, k: usize) -> Vec<i64> {
    let mut random = fastrand::Rng::with_seed(1);
    let rows = (0..tokens).flat_map(|_| {
        let first = random.usize(..experts);
        (0..k).map(move |choice| ((first + choice * 3) % experts) as i64)
    });
    rows.collect()
}
