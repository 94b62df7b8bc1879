//! AMX: products of bfloat16 numbers, 16 input rows times 16 rows of a panel in one instruction, for experts that many rows chose.
//!
//! A panel is dequantized to bfloat16, some blocks at a time, and multiplied with rows that are rounded to bfloat16; sums are
//! float32. The intrinsics are not stable in Rust yet, so tile instructions are written in assembly.

#[cfg(not(jetmoe_emulated_tiles))]
use std::arch::asm;
use std::arch::x86_64::*;

use jetmoe_format::{BLOCK_INPUTS, PANEL_ROWS};

use super::avx512vnni::{self, Avx512Vnni, LANES, VECTORS};
use super::vnni::{self, Vnni};
use super::{LANE_GROUP_BYTES, QuantizedPanel, block_bytes, dispatch_code_width};
use crate::packed_input::{ActivationRows, Form};

// bfloat16 weights take float32 input, which there are no tiles for.
pub(super) use super::avx512vnni::{gate, multiply_bf16, multiply_float32, quantize};

/// Rows of a tile register.
const TILE_ROWS: usize = 16;

/// Pairs of columns of a block: lines of a tile register of weights.
const PAIRS: usize = BLOCK_INPUTS / 2;

/// Blocks that are dequantized before their products: 64 KiB, for the second-level cache.
const BLOCKS: usize = 32;

/// Blocks of a panel in bfloat16: for each pair of columns and row of the panel the even column in the lower half of a lane.
#[repr(align(64))]
struct Dequantized([[[u32; PANEL_ROWS]; PAIRS]; BLOCKS]);

/// Products of 16 input rows with a panel.
type Sums = [[f32; PANEL_ROWS]; TILE_ROWS];

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn multiply_codes(weight: &QuantizedPanel<'_>, rows: &ActivationRows<'_>, products: &mut [f32]) {
    match rows.tile.form {
        Form::Int8 => avx512vnni::multiply_codes(weight, rows, products),
        Form::Bfloat16 => dispatch_code_width!(weight, multiply_bfloats(weight, rows, products)),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn multiply_bfloats<const BITS: usize, const GROUPS: usize, const ZERO_POINTS: bool>(
    weight: &QuantizedPanel<'_>,
    rows: &ActivationRows<'_>,
    products: &mut [f32],
) {
    products.fill(0.0);
    let (products, _) = products.as_chunks_mut::<PANEL_ROWS>();
    let (whole, rest) = products.as_chunks_mut::<TILE_ROWS>();
    // The rows that remain, and others that the tile does not have.
    let mut last: Sums = [[0.0; PANEL_ROWS]; TILE_ROWS];
    let mut dequantized = Dequantized([[[0; PANEL_ROWS]; PAIRS]; BLOCKS]);
    let tiles = Tiles::configure();
    let (x, _) = rows.bfloats().as_chunks::<BLOCK_INPUTS>();
    let count = rows.tile.rows;
    for (index, codes) in weight.panel.codes.chunks(BLOCKS * block_bytes(BITS)).enumerate() {
        let first = index * BLOCKS;
        let codes = codes.chunks_exact(block_bytes(BITS));
        let blocks = codes.len();
        for ((block, codes), dequantized) in (first..).zip(codes).zip(&mut dequantized.0) {
            dequantize::<BITS, GROUPS, ZERO_POINTS>(weight, block, codes, dequantized);
        }
        let weights = &dequantized.0[..blocks];
        let x = &x[first * count..];
        let (pairs, odd) = whole.as_chunks_mut::<2>();
        for (index, [sums, more]) in pairs.iter_mut().enumerate() {
            tiles.add_two(weights, &x[2 * index * TILE_ROWS..], count, sums, more);
        }
        let first_odd = 2 * pairs.len() * TILE_ROWS;
        for sums in odd.iter_mut() {
            tiles.add_one(weights, &x[first_odd..], count, sums);
        }
        if !rest.is_empty() {
            tiles.add_one(weights, &x[count - rest.len()..], count, &mut last);
        }
    }
    rest.copy_from_slice(&last[..rest.len()]);
}

/// Dequantizes a block: (code − zero point) · scale, rounded once to float32 and once to bfloat16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn dequantize<const BITS: usize, const GROUPS: usize, const ZERO_POINTS: bool>(
    weight: &QuantizedPanel<'_>,
    block: usize,
    codes: &[u8],
    dequantized: &mut [[u32; PANEL_ROWS]; PAIRS],
) {
    let v = Avx512Vnni::new();
    vnni::prefetch_scales::<_, BITS, GROUPS>(v, weight, block);
    let shared = v.splat_float(f32::from(weight.layout.scheme.format.default_zero_point()));
    for vector in 0..VECTORS {
        let (mut scales, mut offsets) = ([v.zero(); GROUPS], [v.zero(); GROUPS]);
        for (index, (scale, offset)) in scales.iter_mut().zip(&mut offsets).enumerate() {
            let group = block / weight.blocks_per_group * GROUPS + index;
            let first = group * PANEL_ROWS + vector * LANES;
            *scale = v.load_halves(&weight.panel.scales[first..]);
            let zero_point = match weight.panel.zero_points {
                Some(zero_points) if ZERO_POINTS => v.to_floats(v.load_bytes(&zero_points[first..])),
                _ => shared,
            };
            *offset = _mm512_sub_ps(v.zero(), v.multiply(zero_point, *scale));
        }
        let mut pair = |pair: usize, even: __m512i, odd: __m512i| {
            let group = pair * GROUPS / PAIRS;
            let (even, odd) = (_mm512_cvtepi32_ps(even), _mm512_cvtepi32_ps(odd));
            let (scale, offset) = (scales[group], offsets[group]);
            let half = _mm512_set1_epi32(0x8000);
            let even = _mm512_castps_si512(_mm512_fmadd_ps(even, scale, offset));
            let odd = _mm512_castps_si512(_mm512_fmadd_ps(odd, scale, offset));
            let even = _mm512_srli_epi32::<16>(_mm512_add_epi32(even, half));
            let odd = _mm512_add_epi32(odd, half);
            // the upper half of `odd`, the lower of `even`
            let both = _mm512_mask_blend_epi16(0xAAAA_AAAA, even, odd);
            let line: &mut [u32; LANES] = match dequantized[pair][vector * LANES..].first_chunk_mut() {
                Some(line) => line,
                None => unreachable!("a panel has 32 rows"),
            };
            // SAFETY: writes 16 numbers, which the array has; the instruction accepts any alignment.
            unsafe { _mm512_storeu_si512(line.as_mut_ptr().cast(), both) }
        };
        for (index, lane_group) in codes.chunks_exact(LANE_GROUP_BYTES).enumerate() {
            let bytes = v.load(&lane_group[vector * 4 * LANES..]);
            let mask = _mm512_set1_epi32(if BITS == 4 { 0x0F } else { 0xFF });
            let code = |bytes: __m512i| _mm512_and_si512(bytes, mask);
            if BITS == 4 {
                // The low halves are columns 8 i to 8 i + 3, the high halves the next four.
                pair(4 * index, code(bytes), code(_mm512_srli_epi32::<8>(bytes)));
                let upper = (_mm512_srli_epi32::<16>(bytes), _mm512_srli_epi32::<24>(bytes));
                pair(4 * index + 1, code(upper.0), code(upper.1));
                let high = (_mm512_srli_epi32::<4>(bytes), _mm512_srli_epi32::<12>(bytes));
                pair(4 * index + 2, code(high.0), code(high.1));
                let upper = (_mm512_srli_epi32::<20>(bytes), _mm512_srli_epi32::<28>(bytes));
                pair(4 * index + 3, code(upper.0), code(upper.1));
            } else {
                pair(2 * index, code(bytes), code(_mm512_srli_epi32::<8>(bytes)));
                let upper = (_mm512_srli_epi32::<16>(bytes), _mm512_srli_epi32::<24>(bytes));
                pair(2 * index + 1, code(upper.0), code(upper.1));
            }
        }
    }
}

/// The tile registers of this thread, configured while a value of this type lives: 16 lines of 64 bytes each.
///
/// Tiles 0 to 3 are the sums of two times 16 input rows with both vectors of a panel, 4 and 5 the input rows, 6 and 7 weights.
struct Tiles(());

/// The operand of `ldtilecfg`.
#[cfg(not(jetmoe_emulated_tiles))]
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Tiles {
    #[cfg(not(jetmoe_emulated_tiles))]
    fn configure() -> Self {
        let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
        row_bytes[..8].fill(64);
        rows[..8].fill(TILE_ROWS as u8);
        let configuration = Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows };
        // SAFETY: reads the 64 bytes of the configuration, which the first palette allows: 16 rows of 64 bytes for 8 tiles. This
        // code runs only where the system permits tiles.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, readonly, preserves_flags));
        }
        Tiles(())
    }

    #[cfg(jetmoe_emulated_tiles)]
    fn configure() -> Self {
        Tiles(())
    }

    /// Adds the products of 32 input rows with blocks of the panel. `x` begins at the first of them, and each block has `count` rows.
    #[cfg(not(jetmoe_emulated_tiles))]
    fn add_two(
        &self,
        weights: &[[[u32; PANEL_ROWS]; PAIRS]],
        x: &[[u16; BLOCK_INPUTS]],
        count: usize,
        sums: &mut Sums,
        more: &mut Sums,
    ) {
        let Some(last) = weights.len().checked_sub(1) else { return };
        let x = &x[..last * count + 2 * TILE_ROWS];
        // SAFETY: reads 16 lines of 64 bytes for each tile: of `x` 32 rows of each block, which the slice has by the line above; of
        // each block's weights both halves; reads and writes both arrays of sums. All tiles are configured while `self` lives.
        unsafe {
            asm!(
                "tileloadd tmm0, [{sums} + {line}]",
                "tileloadd tmm1, [{sums} + {line} + 64]",
                "tileloadd tmm2, [{more} + {line}]",
                "tileloadd tmm3, [{more} + {line} + 64]",
                "2:",
                "tileloadd tmm6, [{weights} + {line}]",
                "tileloadd tmm7, [{weights} + {line} + 64]",
                "tileloadd tmm4, [{x} + {row}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{x} + {row} + 1024]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {weights}, 2048",
                "add {x}, {step}",
                "dec {blocks}",
                "jnz 2b",
                "tilestored [{sums} + {line}], tmm0",
                "tilestored [{sums} + {line} + 64], tmm1",
                "tilestored [{more} + {line}], tmm2",
                "tilestored [{more} + {line} + 64], tmm3",
                sums = in(reg) sums,
                more = in(reg) more,
                line = in(reg) 4 * PANEL_ROWS,
                weights = inout(reg) weights.as_ptr() => _,
                x = inout(reg) x.as_ptr() => _,
                row = in(reg) 2 * BLOCK_INPUTS,
                step = in(reg) count * 2 * BLOCK_INPUTS,
                blocks = inout(reg) weights.len() => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }

    #[cfg(jetmoe_emulated_tiles)]
    fn add_two(
        &self,
        weights: &[[[u32; PANEL_ROWS]; PAIRS]],
        x: &[[u16; BLOCK_INPUTS]],
        count: usize,
        sums: &mut Sums,
        more: &mut Sums,
    ) {
        self.add_one(weights, x, count, sums);
        self.add_one(weights, &x[TILE_ROWS..], count, more);
    }

    /// As [`Tiles::add_two`], for 16 input rows.
    #[cfg(not(jetmoe_emulated_tiles))]
    fn add_one(
        &self,
        weights: &[[[u32; PANEL_ROWS]; PAIRS]],
        x: &[[u16; BLOCK_INPUTS]],
        count: usize,
        sums: &mut Sums,
    ) {
        let Some(last) = weights.len().checked_sub(1) else { return };
        let x = &x[..last * count + TILE_ROWS];
        // SAFETY: as above, with 16 rows.
        unsafe {
            asm!(
                "tileloadd tmm0, [{sums} + {line}]",
                "tileloadd tmm1, [{sums} + {line} + 64]",
                "2:",
                "tileloadd tmm6, [{weights} + {line}]",
                "tileloadd tmm7, [{weights} + {line} + 64]",
                "tileloadd tmm4, [{x} + {row}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "add {weights}, 2048",
                "add {x}, {step}",
                "dec {blocks}",
                "jnz 2b",
                "tilestored [{sums} + {line}], tmm0",
                "tilestored [{sums} + {line} + 64], tmm1",
                sums = in(reg) sums,
                line = in(reg) 4 * PANEL_ROWS,
                weights = inout(reg) weights.as_ptr() => _,
                x = inout(reg) x.as_ptr() => _,
                row = in(reg) 2 * BLOCK_INPUTS,
                step = in(reg) count * 2 * BLOCK_INPUTS,
                blocks = inout(reg) weights.len() => _,
                out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}

/// What the instructions compute, so that the rest of this module is tested on processors without them:
/// `RUSTFLAGS='--cfg jetmoe_emulated_tiles'`.
#[cfg(jetmoe_emulated_tiles)]
impl Tiles {
    fn add_one(
        &self,
        weights: &[[[u32; PANEL_ROWS]; PAIRS]],
        x: &[[u16; BLOCK_INPUTS]],
        count: usize,
        sums: &mut Sums,
    ) {
        for (block, weights) in weights.iter().enumerate() {
            for (x, sums) in x[block * count..][..TILE_ROWS].iter().zip(sums.iter_mut()) {
                for (x, weights) in x.as_chunks::<2>().0.iter().zip(weights) {
                    let [even, odd] = x.map(|x| f32::from_bits(u32::from(x) << 16));
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        *sum += f32::from_bits(weight << 16) * even;
                        *sum += f32::from_bits(weight & 0xFFFF_0000) * odd;
                    }
                }
            }
        }
    }
}

#[cfg(not(jetmoe_emulated_tiles))]
impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: releases the tile registers of this thread, which no code uses any more.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) }
    }
}
