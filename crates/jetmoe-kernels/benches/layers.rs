//! One MLP layer of JetMoE-8B, 4-bit weights in groups of 32, for several numbers of tokens: time, beside what the machine
//! can read and compute, measured in turns in the same run. Layers follow each other from memory, so none is in a cache.
//!
//! `cargo bench -p jetmoe-kernels --bench layers -- [--threads N] [--rounds N] [--layers N] [--tokens 1,16,128,512]`
//! prints a line of JSON for the machine and one for each number of tokens. `cargo xtask bench --kernels` reads them.

#![allow(clippy::print_stdout)] // what a benchmark found

mod layer;

use std::hint::black_box;
use std::time::Instant;

use half::f16;
use jetmoe_kernels::*;
use pulp::{Arch, Simd, WithSimd};
use rayon::{ThreadPool, ThreadPoolBuilder};

use self::layer::{EXPERTS, HIDDEN, INTERMEDIATE, PER_TOKEN, SEED, choices, median, random};

/// Threads of a pool of rayon's.
struct Pool(ThreadPool);

impl Threads for Pool {
    fn count(&self) -> usize {
        self.0.current_num_threads()
    }

    fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        self.0.broadcast(|context| work(context.index()));
    }
}

/// The tensors of one layer.
struct Layer {
    gate_and_up: (Layout, Vec<u8>, Vec<f16>),
    down: (Layout, Vec<u8>, Vec<f16>),
}

impl Layer {
    fn random(state: &mut u64) -> Self {
        let element = Element::Int4(GroupSize::G32);
        let mut weight = |outputs, inputs, order| {
            let layout = Layout { experts: EXPERTS, outputs, inputs, element, order };
            let mut codes = vec![0_u8; layout.codes_shape().iter().product()];
            for bytes in codes.chunks_exact_mut(8) {
                bytes.copy_from_slice(&random(state).to_le_bytes());
            }
            let groups = layout.scales_shape().iter().product();
            let scales = vec![f16::from_f32(0.01); groups];
            (layout, codes, scales)
        };
        Layer {
            gate_and_up: weight(2 * INTERMEDIATE, HIDDEN, RowOrder::Halves),
            down: weight(HIDDEN, INTERMEDIATE, RowOrder::AsStored),
        }
    }

    fn mlp(&self) -> Result<Mlp<'_>> {
        let (gate_and_up, down) = (view(&self.gate_and_up)?, view(&self.down)?);
        Ok(Mlp { gate_and_up, down, activation: Activation::Silu })
    }
}

fn view((layout, codes, scales): &(Layout, Vec<u8>, Vec<f16>)) -> Result<Weight<'_>> {
    Weight::new(*layout, codes, Some(scales), None)
}

/// Bytes per second that all threads read together.
fn read(pool: &Pool, bytes: &[&[u8]]) -> f64 {
    let count = pool.count();
    let begun = Instant::now();
    pool.run(&|index| {
        for bytes in bytes {
            let share = bytes.len() / count;
            let (lines, _) = bytes[index * share..][..share].as_chunks::<64>();
            let mut sums = [0_u64; 8];
            for line in lines {
                let (words, _) = line.as_chunks::<8>();
                for (sum, word) in sums.iter_mut().zip(words) {
                    *sum = sum.wrapping_add(u64::from_le_bytes(*word));
                }
            }
            black_box(sums);
        }
    });
    bytes.iter().map(|bytes| bytes.len()).sum::<usize>() as f64 / begun.elapsed().as_secs_f64()
}

/// Multiply-adds of every sum of a thread: some 20 ms.
const MULTIPLY_ADDS: usize = 1 << 22;
/// Independent sums. Four cycles of latency in two units need 8; AVX has 16 registers.
const SUMS: usize = 12;

/// Float32 operations per second that all threads do together in registers; a multiply-add is two.
fn arithmetic(pool: &Pool) -> f64 {
    let begun = Instant::now();
    pool.run(&|_| {
        black_box(Arch::new().dispatch(MultiplyAdds { start: black_box(0.5) }));
    });
    let operations = 2 * pool.count() * MULTIPLY_ADDS * SUMS * Arch::new().dispatch(Lanes);
    operations as f64 / begun.elapsed().as_secs_f64()
}

/// Float32 numbers in a vector.
struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) -> usize {
        S::F32_LANES
    }
}

/// Multiply-adds that wait for nothing but registers.
struct MultiplyAdds {
    start: f32,
}

impl WithSimd for MultiplyAdds {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        // stays between the start and its limit 1, so no number becomes slow by being denormal or infinite
        let (factor, summand) = (simd.splat_f32s(0.5), simd.splat_f32s(self.start));
        let mut sums = [simd.splat_f32s(self.start); SUMS];
        for _ in 0..MULTIPLY_ADDS {
            for sum in &mut sums {
                *sum = simd.mul_add_f32s(*sum, factor, summand);
            }
        }
        sums.iter().map(|sum| simd.reduce_sum_f32s(*sum)).sum()
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let options = layer::Options::new();
    let threads = options.number("--threads", "2")?;
    let pool = Pool(ThreadPoolBuilder::new().num_threads(threads).build()?);
    let tokens = options.tokens()?;
    let mut state = SEED;
    let layers: Vec<Layer> =
        (0..options.number("--layers", "8")?).map(|_| Layer::random(&mut state)).collect();
    let bytes: Vec<&[u8]> =
        layers.iter().flat_map(|layer| [layer.gate_and_up.1.as_slice(), &layer.down.1]).collect();
    let instructions = InstructionSet::chosen()?;
    let compute = Compute { instructions, threads: &pool };
    let mut times = vec![Vec::new(); tokens.len()];
    let (mut bandwidths, mut peaks) = (Vec::new(), Vec::new());
    for _ in 0..options.number("--rounds", "5")? {
        bandwidths.push(read(&pool, &bytes));
        peaks.push(arithmetic(&pool));
        for (tokens, times) in tokens.iter().zip(&mut times) {
            let x: Vec<f32> =
                (0..tokens * HIDDEN).map(|_| random(&mut state) as f32 / u64::MAX as f32 - 0.5).collect();
            let chosen = choices(*tokens);
            let gates = vec![0.5; tokens * PER_TOKEN];
            let mut y = vec![0.0; tokens * HIDDEN];
            let runs = layer::layers_of(*tokens, layers.len());
            let begun = Instant::now();
            for layer in layers.iter().take(runs) {
                let choices = Choices { experts: &chosen, per_row: PER_TOKEN };
                expert_mlp(compute, &x, choices, &gates, &layer.mlp()?, &mut y)?;
                black_box(&mut y);
            }
            times.push(begun.elapsed().as_secs_f64() / runs as f64);
        }
    }
    let mlp = layers[0].mlp()?;
    let expert = mlp.gate_and_up.expert_bytes() + mlp.down.expert_bytes();
    let bandwidth = median(bandwidths);
    // whatever disturbs makes slower
    let peak = peaks.into_iter().fold(0.0, f64::max);
    let available: Vec<String> = InstructionSet::available().iter().map(|set| format!("\"{set}\"")).collect();
    println!(
        "{{\"instructions\":\"{instructions}\",\"available\":[{}],\"threads\":{threads},\
         \"read_bytes_per_second\":{bandwidth:.0},\"float32_operations_per_second\":{peak:.0}}}",
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
