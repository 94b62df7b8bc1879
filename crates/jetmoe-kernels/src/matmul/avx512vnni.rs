//! AVX-512 with VNNI: 16 rows of a panel at a time.

use std::arch::x86_64::*;

use half::f16;
use jetmoe_format::{PANEL_ROWS, PackedLayout, Panel};

use super::avx2::{PREFETCH_DISTANCE, prefetch};
use super::float32::{self, FloatRows};
use super::vnni::{self, Vnni};
use super::{LANE_GROUP_BYTES, QuantizedPanel, dispatch_code_width};
use crate::Activation;
use crate::packed_input::{ActivationRows, ActivationTileMut};

/// 32-bit lanes of a vector: rows of a panel that it holds one number of.
pub(super) const LANES: usize = 16;
/// Vectors of a lane group.
pub(super) const VECTORS: usize = PANEL_ROWS / LANES;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn multiply_codes(weight: &QuantizedPanel<'_>, rows: &ActivationRows<'_>, products: &mut [f32]) {
    dispatch_code_width!(weight, multiply_rows(weight, rows, products));
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn multiply_rows<const BITS: usize, const GROUPS: usize, const ZERO_POINTS: bool>(
    weight: &QuantizedPanel<'_>,
    rows: &ActivationRows<'_>,
    products: &mut [f32],
) {
    vnni::multiply::<_, VECTORS, BITS, GROUPS, ZERO_POINTS>(Avx512Vnni::new(), weight, rows, products);
}

/// The proof that the processor has the instructions.
#[derive(Clone, Copy)]
pub(super) struct Avx512Vnni(());

impl Avx512Vnni {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
    pub(super) fn new() -> Self {
        Avx512Vnni(())
    }
}

// SAFETY of all blocks: a value exists only where the processor has the instructions; loads and stores accept any alignment, and take
// a slice of as many bytes as they read or write.
#[allow(clippy::undocumented_unsafe_blocks, reason = "above")]
impl Vnni for Avx512Vnni {
    type Integers = __m512i;
    type Floats = __m512;

    const LANES: usize = LANES;
    const INTERLEAVED: usize = 6;

    #[inline(always)]
    fn load(self, bytes: &[u8]) -> __m512i {
        let bytes = &bytes[..4 * LANES];
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load_bytes(self, bytes: &[u8]) -> __m512i {
        let bytes = &bytes[..LANES];
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(bytes.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_halves(self, numbers: &[f16]) -> __m512 {
        let numbers = &numbers[..LANES];
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(numbers.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_floats(self, numbers: &[f32]) -> __m512 {
        let numbers = &numbers[..LANES];
        unsafe { _mm512_loadu_ps(numbers.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, numbers: &mut [f32], values: __m512) {
        let numbers = &mut numbers[..LANES];
        unsafe { _mm512_storeu_ps(numbers.as_mut_ptr(), values) }
    }

    #[inline(always)]
    fn zero(self) -> __m512 {
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    fn splat(self, value: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(value) }
    }

    #[inline(always)]
    fn splat_float(self, value: f32) -> __m512 {
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    fn halves(self, bytes: __m512i) -> [__m512i; 2] {
        unsafe {
            let mask = _mm512_set1_epi8(0x0F);
            [_mm512_and_si512(bytes, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), mask)]
        }
    }

    #[inline(always)]
    fn negated(self, numbers: __m512i) -> __m512i {
        unsafe {
            let negated = _mm512_sub_epi32(_mm512_setzero_si512(), numbers);
            _mm512_and_si512(negated, _mm512_set1_epi32(0xFFFF))
        }
    }

    #[inline(always)]
    fn dot(self, sums: __m512i, unsigned: __m512i, signed: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sums, unsigned, signed) }
    }

    #[inline(always)]
    fn dot16(self, sums: __m512i, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_dpwssd_epi32(sums, a, b) }
    }

    #[inline(always)]
    fn to_floats(self, numbers: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(numbers) }
    }

    #[inline(always)]
    fn multiply(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn multiply_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn prefetch<T>(self, address: *const T) {
        unsafe { prefetch(address) }
    }
}

/// Input rows of a bfloat16 tile. With a whole panel their sums take half of the 32 registers.
const MR: usize = 8;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn multiply_bf16(panel: &[u8], x: &[f32], columns: usize, products: &mut [f32]) {
    let tiles = products.chunks_mut(MR * PANEL_ROWS).zip(x.chunks(MR * columns));
    for (products, x) in tiles {
        match products.len() / PANEL_ROWS {
            1 => multiply_bf16_tile::<1>(panel, x, columns, products),
            2 => multiply_bf16_tile::<2>(panel, x, columns, products),
            3 => multiply_bf16_tile::<3>(panel, x, columns, products),
            4 => multiply_bf16_tile::<4>(panel, x, columns, products),
            5 => multiply_bf16_tile::<5>(panel, x, columns, products),
            6 => multiply_bf16_tile::<6>(panel, x, columns, products),
            7 => multiply_bf16_tile::<7>(panel, x, columns, products),
            _ => multiply_bf16_tile::<MR>(panel, x, columns, products),
        }
    }
}

/// Multiplies in float32: the instructions for bfloat16 products would round `x`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn multiply_bf16_tile<const ROWS: usize>(panel: &[u8], x: &[f32], columns: usize, products: &mut [f32]) {
    let (lane_groups, _) = panel.as_chunks::<LANE_GROUP_BYTES>();
    let x: [&[[f32; 2]]; ROWS] =
        std::array::from_fn(|row| &x[row * columns..][..columns].as_chunks().0[..lane_groups.len()]);
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
    for (index, lane_group) in lane_groups.iter().enumerate() {
        let (vectors, _) = lane_group.as_chunks::<64>();
        for (vector, bytes) in vectors.iter().enumerate() {
            prefetch(bytes.as_ptr().wrapping_add(PREFETCH_DISTANCE));
            // Widen an even and the following odd column: a bfloat16 is the upper half of a float32.
            let bytes = load(bytes);
            let even = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bytes));
            let odd = _mm512_castsi512_ps(_mm512_and_si512(bytes, _mm512_set1_epi32(0xFFFF_0000_u32 as i32)));
            for (sums, x) in sums.iter_mut().zip(x) {
                let pair = x[index];
                sums[vector] = _mm512_fmadd_ps(even, _mm512_set1_ps(pair[0]), sums[vector]);
                sums[vector] = _mm512_fmadd_ps(odd, _mm512_set1_ps(pair[1]), sums[vector]);
            }
        }
    }
    for (products, sums) in products.chunks_exact_mut(PANEL_ROWS).zip(sums) {
        for (vector, sum) in sums.into_iter().enumerate() {
            store(&mut products[vector * LANES..], sum);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn multiply_float32(
    panels: &[Panel<'_, f32>],
    layout: &PackedLayout,
    rows: &FloatRows,
    products: &mut [f32],
) {
    float32::multiply::<true>(panels, layout, rows, products);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn quantize<'a>(rows: impl Iterator<Item = &'a [f32]>, tile: &mut ActivationTileMut<'_>) {
    tile.quantize(rows);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn gate(activation: Activation, products: &[f32], gated: &mut [f32], first: usize) {
    activation.gate(products, gated, first);
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: reads 64 bytes, which the array has; the instruction accepts any alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// Stores into the first 16 numbers.
#[inline]
#[target_feature(enable = "avx512f")]
fn store(numbers: &mut [f32], values: __m512) {
    let numbers = &mut numbers[..LANES];
    // SAFETY: writes 16 numbers, which the slice has; the instruction accepts any alignment.
    unsafe { _mm512_storeu_ps(numbers.as_mut_ptr(), values) }
}
