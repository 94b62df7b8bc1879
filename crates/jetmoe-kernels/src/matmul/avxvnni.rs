//! AVX2 with the dot product of VNNI (AVX-VNNI), without AVX-512: 8 rows of a panel at a time.

use std::arch::x86_64::*;

use half::f16;
use jetmoe_format::PANEL_ROWS;

use super::avx2::prefetch;
use super::vnni::{self, Vnni};
use super::{QuantizedPanel, dispatch_code_width};
use crate::packed_input::ActivationRows;

// Nothing but dot products of bytes is different.
pub(super) use super::avx2::{gate, multiply_bf16, multiply_float32, quantize};

/// 32-bit lanes of a vector: rows of a panel that it holds one number of.
const LANES: usize = 8;
/// Vectors of a lane group.
const VECTORS: usize = PANEL_ROWS / LANES;

#[target_feature(enable = "avxvnni,avx2,fma,f16c")]
pub(super) fn multiply_codes(weight: &QuantizedPanel<'_>, rows: &ActivationRows<'_>, products: &mut [f32]) {
    dispatch_code_width!(weight, multiply_rows(weight, rows, products));
}

#[target_feature(enable = "avxvnni,avx2,fma,f16c")]
fn multiply_rows<const BITS: usize, const GROUPS: usize, const ZERO_POINTS: bool>(
    weight: &QuantizedPanel<'_>,
    rows: &ActivationRows<'_>,
    products: &mut [f32],
) {
    vnni::multiply::<_, VECTORS, BITS, GROUPS, ZERO_POINTS>(AvxVnni::new(), weight, rows, products);
}

/// The proof that the processor has the instructions.
#[derive(Clone, Copy)]
pub(super) struct AvxVnni(());

impl AvxVnni {
    #[inline]
    #[target_feature(enable = "avxvnni,avx2,fma,f16c")]
    pub(super) fn new() -> Self {
        AvxVnni(())
    }
}

// SAFETY of all blocks: a value exists only where the processor has the instructions; loads and stores accept any alignment, and take
// a slice of as many bytes as they read or write.
#[allow(clippy::undocumented_unsafe_blocks, reason = "above")]
impl Vnni for AvxVnni {
    type Integers = __m256i;
    type Floats = __m256;

    const LANES: usize = LANES;
    const INTERLEAVED: usize = 2;

    #[inline(always)]
    fn load(self, bytes: &[u8]) -> __m256i {
        let bytes = &bytes[..4 * LANES];
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load_bytes(self, bytes: &[u8]) -> __m256i {
        let bytes = &bytes[..LANES];
        unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(bytes.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_halves(self, numbers: &[f16]) -> __m256 {
        let numbers = &numbers[..LANES];
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(numbers.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_floats(self, numbers: &[f32]) -> __m256 {
        let numbers = &numbers[..LANES];
        unsafe { _mm256_loadu_ps(numbers.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, numbers: &mut [f32], values: __m256) {
        let numbers = &mut numbers[..LANES];
        unsafe { _mm256_storeu_ps(numbers.as_mut_ptr(), values) }
    }

    #[inline(always)]
    fn zero(self) -> __m256 {
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    fn splat(self, value: i32) -> __m256i {
        unsafe { _mm256_set1_epi32(value) }
    }

    #[inline(always)]
    fn splat_float(self, value: f32) -> __m256 {
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    fn halves(self, bytes: __m256i) -> [__m256i; 2] {
        unsafe {
            let mask = _mm256_set1_epi8(0x0F);
            [_mm256_and_si256(bytes, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask)]
        }
    }

    #[inline(always)]
    fn negated(self, numbers: __m256i) -> __m256i {
        unsafe {
            let negated = _mm256_sub_epi32(_mm256_setzero_si256(), numbers);
            _mm256_and_si256(negated, _mm256_set1_epi32(0xFFFF))
        }
    }

    #[inline(always)]
    fn dot(self, sums: __m256i, unsigned: __m256i, signed: __m256i) -> __m256i {
        unsafe { _mm256_dpbusd_avx_epi32(sums, unsigned, signed) }
    }

    #[inline(always)]
    fn dot16(self, sums: __m256i, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_dpwssd_avx_epi32(sums, a, b) }
    }

    #[inline(always)]
    fn to_floats(self, numbers: __m256i) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(numbers) }
    }

    #[inline(always)]
    fn multiply(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn multiply_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn prefetch<T>(self, address: *const T) {
        unsafe { prefetch(address) }
    }
}
