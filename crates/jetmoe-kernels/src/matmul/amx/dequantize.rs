//! Panels in bfloat16, some blocks at a time.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use half::f16;
use jetmoe_format::PANEL_ROWS;

use super::tiles::{PAIRS, WeightTile};
use super::{CHUNK, Chunk, Target};
use crate::matmul::avx512vnni::{Avx512Vnni, LANES, VECTORS};
use crate::matmul::vnni::Vnni;
use crate::matmul::{LANE_GROUP_BYTES, QuantizedPanel, block_bytes};

/// The blocks of a chunk.
#[repr(align(64))]
pub(super) struct Dequantized(pub(super) [[WeightTile; VECTORS]; CHUNK]);

impl Dequantized {
    pub(super) fn uninitialized() -> Self {
        Dequantized([[[MaybeUninit::uninit(); PAIRS]; VECTORS]; CHUNK])
    }
}

/// Quarters of a block of 16 rows. One is dequantized at a time.
const QUARTERS: usize = 4;

/// Quarters of a block of a panel.
pub(super) const UNITS: usize = VECTORS * QUARTERS;

/// Dequantizes a chunk, a quarter of 16 rows of a block at a time.
pub(super) struct Dequantizer<'a, const BITS: usize, const GROUPS: usize, const ZERO_POINTS: bool> {
    weight: QuantizedPanel<'a>,
    /// The first block.
    first: usize,
    /// The next quarter, among those of all blocks.
    unit: usize,
    /// What is dequantized afterwards: codes, and scales.
    later: (*const u8, *const f16),
    /// Of these rows and this block, for each group of the block.
    scales: [__m512; GROUPS],
    /// What is added to a code times its scale, beginning with [`base`].
    offsets: [__m512; GROUPS],
}

impl<'a, const BITS: usize, const GROUPS: usize, const ZERO_POINTS: bool>
    Dequantizer<'a, BITS, GROUPS, ZERO_POINTS>
{
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
    pub(super) fn new(panels: &[Target<'a, '_>], chunk: Chunk, later: Chunk) -> Self {
        let (weight, then) = (panels[chunk.panel].0, panels[later.panel].0);
        let codes = then.panel.codes.as_ptr().wrapping_add(later.first * block_bytes(BITS));
        let group = later.first / then.blocks_per_group * GROUPS;
        let later = (codes, then.panel.scales.as_ptr().wrapping_add(group * PANEL_ROWS));
        let zeros = [_mm512_setzero_ps(); GROUPS];
        Dequantizer { weight, first: chunk.first, unit: 0, later, scales: zeros, offsets: zeros }
    }

    /// Dequantizes the next quarters: (code − zero point) · scale, rounded once to float32 and once to bfloat16. Prefetches as much of what
    /// comes later.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
    pub(super) fn dequantize(&mut self, units: usize, chunk: &mut Dequantized) {
        let (v, bytes) = (Avx512Vnni::new(), block_bytes(BITS));
        for _ in 0..units {
            let (block, vector, quarter) =
                (self.unit / UNITS, self.unit / QUARTERS % VECTORS, self.unit % QUARTERS);
            if quarter == 0 {
                let group = block / self.weight.blocks_per_group * GROUPS;
                v.prefetch(self.later.1.wrapping_add(group * PANEL_ROWS + vector * LANES));
                self.load_groups(self.first + block, vector);
            }
            for line in (0..bytes / UNITS).step_by(64) {
                v.prefetch(self.later.0.wrapping_add(self.unit * (bytes / UNITS) + line));
            }
            let codes = &self.weight.panel.codes[(self.first + block) * bytes..][..bytes];
            let codes = &codes[quarter * (bytes / QUARTERS)..][..bytes / QUARTERS];
            let group = quarter * GROUPS / QUARTERS;
            let lines = &mut chunk.0[block][vector][quarter * (PAIRS / QUARTERS)..][..PAIRS / QUARTERS];
            dequantize_quarter::<BITS>(codes, vector, self.scales[group], self.offsets[group], lines);
            self.unit += 1;
        }
    }

    /// Loads the scales and zero points of 16 rows and a block.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
    fn load_groups(&mut self, block: usize, vector: usize) {
        let v = Avx512Vnni::new();
        let QuantizedPanel { panel, layout, blocks_per_group } = self.weight;
        let shared = v.splat_float(f32::from(layout.scheme.format.default_zero_point()));
        for (index, (scale, offset)) in self.scales.iter_mut().zip(&mut self.offsets).enumerate() {
            let group = block / blocks_per_group * GROUPS + index;
            let first = group * PANEL_ROWS + vector * LANES;
            *scale = v.load_halves(&panel.scales[first..]);
            let zero_point = match panel.zero_points {
                Some(zero_points) if ZERO_POINTS => v.to_floats(v.load_bytes(&zero_points[first..])),
                _ => shared,
            };
            // Exact: a sum of at most 9 bits times a float16 number of 11 bits.
            let sum = _mm512_add_ps(v.splat_float(base(BITS)), zero_point);
            *offset = _mm512_sub_ps(v.zero(), v.multiply(sum, *scale));
        }
    }
}

/// A float32 number to which a code adds itself in the lowest bits of the mantissa that are used, from [`code_bit`] on: their sum, the
/// code and the zero point have few enough bits that nothing is rounded.
const fn base(bits: usize) -> f32 {
    if bits == 4 { 128.0 } else { 256.0 }
}

/// Where [`base`] takes a code.
const fn code_bit(bits: usize) -> u32 {
    if bits == 4 { 16 } else { 15 }
}

/// Dequantizes eight columns of 16 rows of a panel.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn dequantize_quarter<const BITS: usize>(
    codes: &[u8],
    vector: usize,
    scale: __m512,
    offset: __m512,
    lines: &mut [MaybeUninit<[u32; LANES]>],
) {
    let v = Avx512Vnni::new();
    let base_number = _mm512_castps_si512(v.splat_float(base(BITS)));
    let mask = _mm512_set1_epi32(((1 << BITS) - 1) << code_bit(BITS));
    let upper_halves = upper_halves();
    let mut lines = lines.iter_mut();
    let mut store = |codes: [__m512i; 2]| {
        let [even, odd] = codes.map(|codes| {
            // codes & mask | base
            let number = _mm512_ternarylogic_epi32::<0xEA>(codes, mask, base_number);
            let product = _mm512_fmadd_ps(_mm512_castsi512_ps(number), scale, offset);
            _mm512_add_epi32(_mm512_castps_si512(product), _mm512_set1_epi32(0x8000))
        });
        if let Some(line) = lines.next() {
            // SAFETY: writes 16 numbers, which the line has; the instruction accepts any alignment.
            unsafe {
                _mm512_storeu_si512(
                    line.as_mut_ptr().cast(),
                    _mm512_permutex2var_epi16(even, upper_halves, odd),
                )
            }
        }
    };
    for lane_group in codes.chunks_exact(LANE_GROUP_BYTES) {
        let x = v.load(&lane_group[vector * 4 * LANES..]);
        if BITS == 4 {
            // The low halves are columns 8 i to 8 i + 3, the high halves the next four.
            store([_mm512_slli_epi32::<16>(x), _mm512_slli_epi32::<8>(x)]);
            store([x, _mm512_srli_epi32::<8>(x)]);
            store([_mm512_slli_epi32::<12>(x), _mm512_slli_epi32::<4>(x)]);
            store([_mm512_srli_epi32::<4>(x), _mm512_srli_epi32::<12>(x)]);
        } else {
            store([_mm512_slli_epi32::<15>(x), _mm512_slli_epi32::<7>(x)]);
            store([_mm512_srli_epi32::<1>(x), _mm512_srli_epi32::<9>(x)]);
        }
    }
}

/// Selects the upper half of each lane of two vectors, in turn.
#[inline]
#[target_feature(enable = "avx512f")]
fn upper_halves() -> __m512i {
    let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    // 2 i + 1 of the first vector, and 32 + 2 i + 1 of the second
    let first = _mm512_add_epi32(_mm512_slli_epi32::<1>(lanes), _mm512_set1_epi32(33 << 16 | 1));
    _mm512_add_epi32(first, _mm512_slli_epi32::<17>(lanes))
}
