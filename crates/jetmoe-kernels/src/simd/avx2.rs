//! AVX2 with FMA and F16C: two vectors of 8 numbers.

use std::arch::x86_64::*;

use super::{LANES, Simd, Work};

/// The instructions. Exists only in the functions of this file.
#[derive(Clone, Copy)]
struct Avx2(());

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn run(work: impl Work) {
    work.run(Avx2(()));
}

impl Simd for Avx2 {
    type Floats = [__m256; 2];

    const HAS_MANY_REGISTERS: bool = false;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::Floats {
        // SAFETY: self exists, so the processor has AVX2.
        unsafe { [_mm256_set1_ps(value); 2] }
    }

    #[inline(always)]
    fn load(self, numbers: &[f32; LANES]) -> Self::Floats {
        let numbers = numbers.as_ptr();
        // SAFETY: as above; reads the 16 numbers of the array, at any alignment.
        unsafe { [_mm256_loadu_ps(numbers), _mm256_loadu_ps(numbers.add(8))] }
    }

    #[inline(always)]
    fn load_bytes(self, bytes: &[u8; 4 * LANES]) -> Self::Floats {
        let numbers = bytes.as_ptr().cast::<f32>();
        // SAFETY: as above; reads the 64 bytes of the array, at any alignment.
        unsafe { [_mm256_loadu_ps(numbers), _mm256_loadu_ps(numbers.add(8))] }
    }

    #[inline(always)]
    fn load_halves(self, bytes: &[u8; 2 * LANES]) -> Self::Floats {
        let halves = bytes.as_ptr().cast::<__m128i>();
        // SAFETY: as above; reads the 32 bytes of the array, at any alignment.
        unsafe { [_mm256_cvtph_ps(_mm_loadu_si128(halves)), _mm256_cvtph_ps(_mm_loadu_si128(halves.add(1)))] }
    }

    #[inline(always)]
    fn load_codes(self, bytes: &[u8; LANES]) -> Self::Floats {
        // SAFETY: as above; reads the 16 bytes of the array, at any alignment.
        unsafe {
            let codes = _mm_loadu_si128(bytes.as_ptr().cast());
            let second = _mm_unpackhi_epi64(codes, codes);
            [
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(second)),
            ]
        }
    }

    #[inline(always)]
    fn store(self, numbers: &mut [f32; LANES], values: Self::Floats) {
        let numbers = numbers.as_mut_ptr();
        // SAFETY: as above; writes the 16 numbers of the array, at any alignment.
        unsafe {
            _mm256_storeu_ps(numbers, values[0]);
            _mm256_storeu_ps(numbers.add(8), values[1]);
        }
    }

    #[inline(always)]
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        // SAFETY: self exists, so the processor has AVX2.
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        // SAFETY: self exists, so the processor has FMA.
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }

    #[inline(always)]
    fn sums(self, vectors: [Self::Floats; 4]) -> [f32; 4] {
        let [a, b, c, d] = vectors;
        // SAFETY: self exists, so the processor has AVX2.
        unsafe {
            sums_of_eight([
                _mm256_add_ps(a[0], a[1]),
                _mm256_add_ps(b[0], b[1]),
                _mm256_add_ps(c[0], c[1]),
                _mm256_add_ps(d[0], d[1]),
            ])
        }
    }
}

/// The sum of each vector: numbers 4 apart, then 2 and 1.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn sums_of_eight(vectors: [__m256; 4]) -> [f32; 4] {
    let [a, b, c, d] = vectors;
    let (a, b, c, d) = (add_halves(a), add_halves(b), add_halves(c), add_halves(d));
    let ab = _mm_add_ps(_mm_movelh_ps(a, b), _mm_movehl_ps(b, a));
    let cd = _mm_add_ps(_mm_movelh_ps(c, d), _mm_movehl_ps(d, c));
    let sums = _mm_add_ps(_mm_shuffle_ps::<0b10_00_10_00>(ab, cd), _mm_shuffle_ps::<0b11_01_11_01>(ab, cd));
    let mut numbers = [0.0; 4];
    // SAFETY: writes the 4 numbers of the array, at any alignment.
    unsafe { _mm_storeu_ps(numbers.as_mut_ptr(), sums) };
    numbers
}

/// Adds the upper 4 numbers to the lower ones.
#[inline]
#[target_feature(enable = "avx2")]
fn add_halves(vector: __m256) -> __m128 {
    _mm_add_ps(_mm256_castps256_ps128(vector), _mm256_extractf128_ps::<1>(vector))
}
