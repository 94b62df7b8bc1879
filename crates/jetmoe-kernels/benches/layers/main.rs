//! One MLP layer of JetMoE-8B, 4-bit weights in groups of 32, for several numbers of tokens: its time, next to the memory
//! bandwidth and the arithmetic peak of the machine, measured alternately in one run. Each layer has weights of its own, so
//! that none is in a cache.
//!
//! `cargo bench -p jetmoe-kernels --bench layers -- [--threads N] [--rounds N] [--layers N] [--tokens 1,16,128,512]`
//! prints a line of JSON for the machine and one for each number of tokens. `cargo xtask bench --kernels` reads them.

#![allow(clippy::print_stdout, reason = "the result of a benchmark")]

mod layer;

use std::hint::black_box;
use std::time::Instant;

use half::f16;
use jetmoe_format::{PackedLayout, PackedWeight, RowOrder};
use jetmoe_kernels::roofline::{
    float32_operations_per_second, int8_operations_per_second, read_bytes_per_second,
};
use jetmoe_kernels::*;
use memmap2::MmapMut;
use rayon::{ThreadPool, ThreadPoolBuilder};

use self::layer::{EXPERTS, HIDDEN, INTERMEDIATE, SEED, TOP_K, choices, median};

/// A thread pool of rayon.
struct Pool(ThreadPool);

impl Threads for Pool {
    fn count(&self) -> usize {
        self.0.current_num_threads()
    }

    fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        self.0.broadcast(|context| work(context.index()));
    }
}

/// Layout, codes, which begin at a page as in an artifact, and scales.
type Weight = (PackedLayout, MmapMut, Vec<f16>);

/// The tensors of one layer.
struct Layer {
    gate_and_up: Weight,
    down: Weight,
}

impl Layer {
    fn random(random: &mut fastrand::Rng) -> std::io::Result<Self> {
        let Ok(scheme) = PackedLayout::scheme(4, 32, false) else { unreachable!("a supported scheme") };
        let mut random_weight = |outputs, inputs, order| {
            let layout = PackedLayout { experts: EXPERTS, outputs, inputs, scheme, order };
            let mut codes = MmapMut::map_anon(layout.codes_shape().iter().product())?;
            random.fill(&mut codes);
            let groups = layout.scales_shape().iter().product();
            let scales = vec![f16::from_f32(0.01); groups];
            Ok::<Weight, std::io::Error>((layout, codes, scales))
        };
        Ok(Layer {
            gate_and_up: random_weight(2 * INTERMEDIATE, HIDDEN, RowOrder::Halves)?,
            down: random_weight(HIDDEN, INTERMEDIATE, RowOrder::AsStored)?,
        })
    }

    fn mlp(&self) -> Result<Mlp<'_>> {
        let (gate_and_up, down) = (view(&self.gate_and_up)?, view(&self.down)?);
        Ok(Mlp { gate_and_up, down, activation: Activation::Silu })
    }
}

fn view((layout, codes, scales): &Weight) -> Result<PackedWeight<'_>> {
    Ok(PackedWeight::new(*layout, codes, Some(scales), None)?)
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let options = layer::Options::new();
    let threads = options.number("--threads", "2")?;
    let pool = Pool(ThreadPoolBuilder::new().num_threads(threads).build()?);
    let tokens = options.tokens()?;
    let mut random = fastrand::Rng::with_seed(SEED);
    let layers: Vec<Layer> = (0..options.number("--layers", "8")?)
        .map(|_| Layer::random(&mut random))
        .collect::<std::io::Result<_>>()?;
    let bytes: Vec<&[u8]> =
        layers.iter().flat_map(|layer| [&layer.gate_and_up.1[..], &layer.down.1]).collect();
    let isa = Isa::from_env_or_best()?;
    let context = ExecContext { isa, threads: &pool };
    let mut times = vec![Vec::new(); tokens.len()];
    let (mut bandwidths, mut peaks, mut int8_peaks) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.number("--rounds", "5")? {
        bandwidths.push(read_bytes_per_second(&pool, &bytes));
        peaks.push(float32_operations_per_second(&pool));
        int8_peaks.extend(int8_operations_per_second(&pool, isa));
        for (tokens, times) in tokens.iter().zip(&mut times) {
            let x: Vec<f32> = (0..tokens * HIDDEN).map(|_| random.f32() - 0.5).collect();
            let chosen = choices(*tokens);
            let gates = vec![0.5; tokens * TOP_K];
            let mut y = vec![0.0; tokens * HIDDEN];
            let runs = layer::layers_of(*tokens, layers.len());
            let started = Instant::now();
            for layer in layers.iter().take(runs) {
                let top_k = TopK { experts: &chosen, k: TOP_K };
                expert_mlp(context, &x, top_k, &gates, &layer.mlp()?, &mut y)?;
                black_box(&mut y);
            }
            times.push(started.elapsed().as_secs_f64() / runs as f64);
        }
    }
    let mlp = layers[0].mlp()?;
    let expert = mlp.gate_and_up.expert_bytes() + mlp.down.expert_bytes();
    let bandwidth = median(bandwidths);
    // Other programs only make it lower.
    let peak = peaks.into_iter().fold(0.0, f64::max);
    let int8_peak = int8_peaks.into_iter().reduce(f64::max);
    let int8_peak = int8_peak.map_or("null".to_owned(), |peak| format!("{peak:.0}"));
    let available: Vec<String> = Isa::available().iter().map(|isa| format!("\"{isa}\"")).collect();
    println!(
        "{{\"instructions\":\"{isa}\",\"available\":[{}],\"threads\":{threads},\
         \"read_bytes_per_second\":{bandwidth:.0},\"float32_operations_per_second\":{peak:.0},\
         \"int8_operations_per_second\":{int8_peak}}}",
        available.join(",")
    );
    for (tokens, times) in tokens.iter().zip(times) {
        let time = median(times);
        let operations = layer::operations(*tokens);
        let bytes = layer::chosen_experts(*tokens) * expert;
        println!(
            "{{\"tokens\":{tokens},\"milliseconds\":{:.3},\"operations\":{operations},\"weight_bytes\":{bytes},\
             \"gflops\":{:.1},\"share_of_read\":{:.3}}}",
            1e3 * time,
            operations as f64 / time / 1e9,
            bytes as f64 / time / bandwidth
        );
    }
    Ok(())
}
