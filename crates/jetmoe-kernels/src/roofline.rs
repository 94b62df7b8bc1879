//! The limits of a machine that a kernel is compared with: memory bandwidth, and arithmetic in float32 and in 8-bit integers.
//!
//! Each function measures once. Other programs only make a measurement slower, so the best of several counts.

use std::hint::black_box;
use std::time::Instant;

use pulp::{Arch, Simd, WithSimd};

pub use self::int8::int8_operations_per_second;
use crate::Threads;

mod int8;

/// Bytes per second that all threads together read sequentially. The buffers should be larger than any cache.
pub fn read_bytes_per_second(threads: &dyn Threads, buffers: &[&[u8]]) -> f64 {
    let count = threads.count();
    let started = Instant::now();
    threads.run(&|index| {
        for buffer in buffers {
            let share = buffer.len() / count;
            let (lines, _) = buffer[index * share..][..share].as_chunks::<64>();
            black_box(Arch::new().dispatch(|| sum_lines(lines)));
        }
    });
    buffers.iter().map(|buffer| buffer.len()).sum::<usize>() as f64 / started.elapsed().as_secs_f64()
}

/// Independent sums, so that no addition waits for another one.
#[inline(always)]
fn sum_lines(lines: &[[u8; 64]]) -> [u64; 8] {
    let mut sums = [0_u64; 8];
    for line in lines {
        let (words, _) = line.as_chunks::<8>();
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum = sum.wrapping_add(u64::from_le_bytes(*word));
        }
    }
    sums
}

/// Multiply-adds of every accumulator of a thread: some 20 ms.
const MULTIPLY_ADDS: usize = 1 << 23;
/// Independent sums. Four cycles of latency in two units need 8; AVX has 16 registers.
const ACCUMULATORS: usize = 12;

/// Float32 operations per second that all threads together compute in registers, a multiply-add counted as two. On x86 the
/// vectors have at most 256 bits.
pub fn float32_operations_per_second(threads: &dyn Threads) -> f64 {
    let started = Instant::now();
    threads.run(&|_| {
        black_box(Arch::new().dispatch(MultiplyAdds { start: black_box(0.5) }));
    });
    let lanes = Arch::new().dispatch(Lanes);
    (2 * threads.count() * MULTIPLY_ADDS * ACCUMULATORS * lanes) as f64 / started.elapsed().as_secs_f64()
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

/// Multiply-adds that read registers only.
struct MultiplyAdds {
    start: f32,
}

impl WithSimd for MultiplyAdds {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        // The sums stay between the start and their limit 1, so none becomes subnormal or infinite, which would be slower.
        let (factor, summand) = (simd.splat_f32s(0.5), simd.splat_f32s(self.start));
        let mut sums = [simd.splat_f32s(self.start); ACCUMULATORS];
        for _ in 0..MULTIPLY_ADDS {
            for sum in &mut sums {
                *sum = simd.mul_add_f32s(*sum, factor, summand);
            }
        }
        sums.iter().map(|sum| simd.reduce_sum_f32s(*sum)).sum()
    }
}

#[cfg(test)]
mod tests;
