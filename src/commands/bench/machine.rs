//! The limits of the machine, measured: read bandwidth and peak arithmetic.

use std::hint::black_box;
use std::thread;
use std::time::Instant;

use jetmoe_rt::available_memory;
use pulp::{Arch, Simd, WithSimd};
use serde::Serialize;
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

/// The machine and its limits with [`Machine::threads`] threads.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    /// Name of the processor.
    pub(crate) processor: String,
    /// Threads of the measurement.
    pub(crate) threads: usize,
    /// Memory in bytes.
    pub(crate) memory_bytes: u64,
    /// Sequential read bandwidth from memory, beyond all caches.
    pub(crate) read_bytes_per_second: f64,
    /// Float32 operations per second in registers, where a multiply-add counts as two. At most 256-bit vectors on x86.
    pub(crate) operations_per_second: f64,
}

/// Larger than any last-level cache.
const BUFFER_BYTES: u64 = 1 << 30;
/// The fastest attempt counts, because disturbance only slows down.
const ATTEMPTS: usize = 5;
/// Multiply-adds per accumulator and attempt, about 50 ms.
const ROUNDS: usize = 1 << 24;
/// Independent sums. A latency of four cycles in two units needs 8; AVX has 16 registers.
const ACCUMULATORS: usize = 12;

impl Machine {
    /// Measures with this many threads [default: the number of processors].
    pub(crate) fn measure(threads: Option<usize>) -> anyhow::Result<Self> {
        let threads = match threads {
            Some(threads) => threads,
            None => thread::available_parallelism()?.get(),
        };
        let wanted = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        let system = System::new_with_specifics(wanted)?;
        let name = system.cpus().first().map_or("", |processor| processor.brand().trim());
        Ok(Machine {
            processor: if name.is_empty() { std::env::consts::ARCH } else { name }.to_owned(),
            threads,
            memory_bytes: system.total_memory(),
            read_bytes_per_second: read_bytes_per_second(threads),
            operations_per_second: operations_per_second(threads),
        })
    }
}

/// Seconds of the fastest attempt to run `work` once per part, each part on a thread of its own.
fn fastest<T: Sync>(parts: &[T], work: impl Fn(&T) + Sync) -> f64 {
    let attempts = (0..ATTEMPTS).map(|_| {
        let begun = Instant::now();
        thread::scope(|scope| {
            for part in parts {
                scope.spawn(|| work(part));
            }
        });
        begun.elapsed().as_secs_f64()
    });
    attempts.fold(f64::INFINITY, f64::min)
}

fn read_bytes_per_second(threads: usize) -> f64 {
    // at most a quarter of the available memory
    let bytes = available_memory().map_or(BUFFER_BYTES, |available| BUFFER_BYTES.min(available / 4));
    let words = (bytes / 8) as usize;
    // written, so that every page is resident and none is the shared zero page
    let buffer: Vec<u64> = (0..words as u64).collect();
    let parts: Vec<&[u64]> = buffer.chunks(words.div_ceil(threads).max(1)).collect();
    let seconds = fastest(&parts, |part| {
        let sum = Arch::new().dispatch(|| part.iter().fold(0_u64, |sum, word| sum.wrapping_add(*word)));
        black_box(sum);
    });
    (words * 8) as f64 / seconds
}

fn operations_per_second(threads: usize) -> f64 {
    let parts = vec![0.5_f32; threads];
    let seconds = fastest(&parts, |start| {
        black_box(Arch::new().dispatch(MultiplyAdds { start: black_box(*start) }));
    });
    (2 * threads * ROUNDS * ACCUMULATORS * Arch::new().dispatch(Lanes)) as f64 / seconds
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

/// Multiply-adds on registers only.
struct MultiplyAdds {
    start: f32,
}

impl WithSimd for MultiplyAdds {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        // sums stay between the start and the limit 1, because denormal and infinite numbers are slow
        let (factor, summand) = (simd.splat_f32s(0.5), simd.splat_f32s(self.start));
        let mut sums = [simd.splat_f32s(self.start); ACCUMULATORS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = simd.mul_add_f32s(*sum, factor, summand);
            }
        }
        sums.iter().map(|sum| simd.reduce_sum_f32s(*sum)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_a_name_and_limits() {
        let machine = Machine::measure(Some(1)).unwrap();
        assert_eq!(machine.threads, 1);
        assert!(!machine.processor.is_empty() && machine.memory_bytes > 0, "{machine:?}");
        assert!(machine.read_bytes_per_second > 0.0 && machine.operations_per_second > 0.0, "{machine:?}");
    }

    #[test]
    fn the_multiply_adds_are_done() {
        let lanes = Arch::new().dispatch(Lanes);
        let sum = Arch::new().dispatch(MultiplyAdds { start: 0.5 });
        assert_eq!(sum, (lanes * ACCUMULATORS) as f32);
    }
}
