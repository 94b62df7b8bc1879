//! AVX-512: one vector of 16 numbers.

use std::arch::x86_64::*;

use super::avx2::sums_of_eight;
use super::{LANES, Simd, Work};

/// The instructions. Exists only in the functions of this file.
#[derive(Clone, Copy)]
struct Avx512(());

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
pub(super) fn run(work: impl Work) {
    work.run(Avx512(()));
}

impl Simd for Avx512 {
    type Floats = __m512;

    const HAS_MANY_REGISTERS: bool = true;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::Floats {
        // SAFETY: self exists, so the processor has AVX-512.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    fn load(self, numbers: &[f32; LANES]) -> Self::Floats {
        // SAFETY: as above; reads the 16 numbers of the array, at any alignment.
        unsafe { _mm512_loadu_ps(numbers.as_ptr()) }
    }

    #[inline(always)]
    fn load_bytes(self, bytes: &[u8; 4 * LANES]) -> Self::Floats {
        // SAFETY: as above; reads the 64 bytes of the array, at any alignment.
        unsafe { _mm512_loadu_ps(bytes.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load_halves(self, bytes: &[u8; 2 * LANES]) -> Self::Floats {
        // SAFETY: as above; reads the 32 bytes of the array, at any alignment.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(bytes.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_codes(self, bytes: &[u8; LANES]) -> Self::Floats {
        // SAFETY: as above; reads the 16 bytes of the array, at any alignment.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(bytes.as_ptr().cast()))) }
    }

    #[inline(always)]
    fn store(self, numbers: &mut [f32; LANES], values: Self::Floats) {
        // SAFETY: as above; writes the 16 numbers of the array, at any alignment.
        unsafe { _mm512_storeu_ps(numbers.as_mut_ptr(), values) }
    }

    #[inline(always)]
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        // SAFETY: self exists, so the processor has AVX-512.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        // SAFETY: self exists, so the processor has AVX-512.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn sums(self, vectors: [Self::Floats; 4]) -> [f32; 4] {
        let [a, b, c, d] = vectors;
        // SAFETY: self exists, so the processor has AVX-512, and with it AVX2.
        unsafe { sums_of_eight([add_halves(a), add_halves(b), add_halves(c), add_halves(d)]) }
    }
}

/// Adds the upper 8 numbers to the lower ones.
#[inline]
#[target_feature(enable = "avx512f,avx2")]
fn add_halves(vector: __m512) -> __m256 {
    let upper = _mm512_castps_pd(vector);
    let upper = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(upper));
    _mm256_add_ps(_mm512_castps512_ps256(vector), upper)
}
