//! Vectors of 16 float32 numbers, for each instruction set.
//!
//! Every instruction set adds the 16 numbers of a vector in the same order, so results differ by fused multiply-adds only.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

use half::f16;

use crate::Isa;

/// Numbers of a vector.
pub(crate) const LANES: usize = 16;

/// The instructions of a set. A value of an implementing type exists only in functions that are compiled for its set.
pub(crate) trait Simd: Copy {
    /// 16 numbers.
    type Floats: Copy;

    /// Whether four rows of queries are multiplied at once, which takes 24 of these vectors.
    const HAS_MANY_REGISTERS: bool;

    fn splat(self, value: f32) -> Self::Floats;
    fn load(self, numbers: &[f32; LANES]) -> Self::Floats;
    /// Widens little-endian float32 numbers.
    fn load_bytes(self, bytes: &[u8; 4 * LANES]) -> Self::Floats;
    /// Widens little-endian float16 numbers.
    fn load_halves(self, bytes: &[u8; 2 * LANES]) -> Self::Floats;
    /// Widens signed 8-bit numbers.
    fn load_codes(self, bytes: &[u8; LANES]) -> Self::Floats;
    fn store(self, numbers: &mut [f32; LANES], values: Self::Floats);
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a * b + c`
    fn mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// The sum of each vector: numbers 8 apart, then 4, 2 and 1.
    fn sums(self, vectors: [Self::Floats; 4]) -> [f32; 4];
}

/// What is compiled for each instruction set.
pub(crate) trait Work {
    /// Inline it always: that is what compiles it for the instruction set of the caller.
    fn run<S: Simd>(self, simd: S);
}

/// Runs work with the instructions of a set.
pub(crate) fn run(isa: Isa, work: impl Work) {
    match isa {
        Isa::Generic => work.run(Generic),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an Isa exists only where the processor supports it; these have AVX-512 F, BW and VL.
        Isa::Avx512Vnni | Isa::Amx => unsafe { avx512::run(work) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above; every instruction set of this architecture but the generic one has AVX2, FMA and F16C.
        _ => unsafe { avx2::run(work) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above; every processor of this architecture has NEON.
        _ => unsafe { neon::run(work) },
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        _ => unreachable!("not an instruction set of this processor"),
    }
}

/// Plain Rust for any processor.
#[derive(Clone, Copy)]
pub(crate) struct Generic;

impl Simd for Generic {
    type Floats = [f32; LANES];

    const HAS_MANY_REGISTERS: bool = false;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::Floats {
        [value; LANES]
    }

    #[inline(always)]
    fn load(self, numbers: &[f32; LANES]) -> Self::Floats {
        *numbers
    }

    #[inline(always)]
    fn load_bytes(self, bytes: &[u8; 4 * LANES]) -> Self::Floats {
        let (words, _) = bytes.as_chunks::<4>();
        std::array::from_fn(|lane| f32::from_le_bytes(words[lane]))
    }

    #[inline(always)]
    fn load_halves(self, bytes: &[u8; 2 * LANES]) -> Self::Floats {
        let (words, _) = bytes.as_chunks::<2>();
        std::array::from_fn(|lane| f16::from_le_bytes(words[lane]).to_f32())
    }

    #[inline(always)]
    fn load_codes(self, bytes: &[u8; LANES]) -> Self::Floats {
        bytes.map(|byte| f32::from(byte.cast_signed()))
    }

    #[inline(always)]
    fn store(self, numbers: &mut [f32; LANES], values: Self::Floats) {
        *numbers = values;
    }

    #[inline(always)]
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        std::array::from_fn(|lane| a[lane] * b[lane])
    }

    #[inline(always)]
    fn mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        // `f32::mul_add` is a slow function where the processor has no instruction for it
        std::array::from_fn(|lane| a[lane] * b[lane] + c[lane])
    }

    #[inline(always)]
    fn sums(self, vectors: [Self::Floats; 4]) -> [f32; 4] {
        vectors.map(sum)
    }
}

/// The sum of 16 numbers in the order that every instruction set adds them.
#[inline(always)]
pub(crate) fn sum(vector: [f32; LANES]) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|lane| vector[lane] + vector[lane + 8]);
    let four: [f32; 4] = std::array::from_fn(|lane| eight[lane] + eight[lane + 4]);
    let two = [four[0] + four[2], four[1] + four[3]];
    two[0] + two[1]
}
