//! AMX: 16 input rows times 16 rows of a panel in one instruction, for experts that many rows chose.
//!
//! The intrinsics are not stable in Rust yet, so tile instructions are written in assembly. A tile's sums are exact integers
//! of one group, or of one block where a group spans several; AVX-512 scales and adds them.

use std::arch::asm;

use jetmoe_format::{BLOCK_INPUTS, PANEL_ROWS};

use super::avx512vnni::{self, Avx512Vnni, LANES, VECTORS, load_integers, store_bytes};
use super::vnni::{self, add_totals, load_groups};
use super::{LANE_GROUP_BYTES, LANE_GROUPS, QuantizedPanel, block_bytes, dispatch_code_width};
use crate::packed_input::ActivationRows;

/// Rows of a tile.
const TILE_ROWS: usize = 16;
/// The least number of rows that tiles are used for. For fewer, unpacking codes and storing sums is most of the work, and
/// `avx512vnni` is faster (`docs/kernels.md`).
const MIN_ROWS: usize = 16;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn multiply_codes(weight: &QuantizedPanel<'_>, rows: &ActivationRows<'_>, products: &mut [f32]) {
    if rows.tile.rows < MIN_ROWS {
        return avx512vnni::multiply_codes(weight, rows, products);
    }
    dispatch_code_width!(weight, multiply_rows(weight, rows, products));
}

// bfloat16 weights take float32 input, which there are no tiles for.
pub(super) use super::avx512vnni::{gate, multiply_bf16, multiply_float32, quantize};

/// The codes of a block, a byte each, in the layout of 8-bit weights.
#[repr(align(64))]
struct Unpacked([u8; PANEL_ROWS * BLOCK_INPUTS]);

/// The sums of a tile of input rows with each vector of a panel.
#[repr(align(64))]
#[derive(Clone, Copy)]
struct Totals([[[i32; LANES]; TILE_ROWS]; VECTORS]);

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn multiply_rows<const BITS: usize, const GROUPS: usize, const ZERO_POINTS: bool>(
    weight: &QuantizedPanel<'_>,
    rows: &ActivationRows<'_>,
    products: &mut [f32],
) {
    let v = Avx512Vnni::new();
    let bytes_per_block = block_bytes(BITS);
    let (products, _) = products.as_chunks_mut::<PANEL_ROWS>();
    products.as_flattened_mut().fill(0.0);
    let mut unpacked = Unpacked([0; PANEL_ROWS * BLOCK_INPUTS]);
    let mut totals = [Totals([[[0; LANES]; TILE_ROWS]; VECTORS]); GROUPS];
    let tiles = Tiles::configure(BLOCK_INPUTS / GROUPS, products.len() % TILE_ROWS);
    for (block, codes) in weight.panel.codes.chunks_exact(bytes_per_block).enumerate() {
        let x = rows.block(block);
        vnni::prefetch::<_, VECTORS, BITS, GROUPS>(v, weight, block, codes);
        let codes = if BITS == 4 { unpack(codes, &mut unpacked) } else { codes };
        let (lane_groups, _) = codes.as_chunks::<LANE_GROUP_BYTES>();
        let groups = load_groups::<_, VECTORS, GROUPS, ZERO_POINTS>(v, weight, block);
        let rows = x.values.chunks(TILE_ROWS).zip(x.scales.chunks(TILE_ROWS));
        let rows = rows.zip(x.sums.as_chunks::<GROUPS>().0.chunks(TILE_ROWS));
        for (((values, scales), sums), products) in rows.zip(products.chunks_mut(TILE_ROWS)) {
            // The integer products of 16 rows, group by group.
            for (group, totals) in totals.iter_mut().enumerate() {
                tiles.multiply(values, group, lane_groups, totals);
            }
            // Zero points and scales, as without tiles.
            for (vector, groups) in groups.iter().enumerate() {
                let rows = scales.iter().zip(sums).zip(products.iter_mut());
                for (row, ((scale, sums), products)) in rows.enumerate() {
                    let row_totals =
                        std::array::from_fn(|group: usize| load_integers(&totals[group].0[vector][row]));
                    let products = &mut products[vector * LANES..];
                    add_totals::<_, GROUPS, ZERO_POINTS>(v, row_totals, groups, (*scale, sums), products);
                }
            }
        }
    }
}

/// Unpacks 4-bit codes to bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn unpack<'a>(block: &[u8], unpacked: &'a mut Unpacked) -> &'a [u8] {
    let (lines, _) = unpacked.0.as_chunks_mut::<64>();
    let weights = vnni::unpack::<_, VECTORS, 4>(Avx512Vnni::new(), block);
    for (weights, line) in weights.as_flattened().iter().zip(lines) {
        store_bytes(line, *weights);
    }
    &unpacked.0
}

/// The tile registers of this thread, configured while a value of this type lives.
///
/// Tiles 0 and 1 are the sums of 16 input rows with both vectors of a panel, 2 the input rows, 3 and 4 codes. Tiles 5 to 7
/// are like 0 to 2 for the remaining rows, where the rows are not a multiple of 16.
struct Tiles {
    /// Columns that are multiplied at once, those of a group within a block: 32 or 16.
    columns: usize,
    remaining_rows: usize,
}

/// The operand of `ldtilecfg`.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Tiles {
    fn configure(columns: usize, remaining_rows: usize) -> Self {
        let mut configuration =
            Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        let mut set_tile = |tile: usize, rows: usize, bytes: usize| {
            if rows > 0 {
                configuration.rows[tile] = rows as u8;
                configuration.row_bytes[tile] = bytes as u16;
            }
        };
        for (sums, rows) in [(0, TILE_ROWS), (5, remaining_rows)] {
            set_tile(sums, rows, 4 * LANES);
            set_tile(sums + 1, rows, 4 * LANES);
            set_tile(sums + 2, rows, columns);
        }
        set_tile(3, columns / 4, 4 * LANES);
        set_tile(4, columns / 4, 4 * LANES);
        // SAFETY: reads the 64 bytes of the configuration, which the first palette allows: at most 16 rows of at most 64
        // bytes. This code runs only where the system permits tiles.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, readonly, preserves_flags));
        }
        Tiles { columns, remaining_rows }
    }

    /// Computes the sums of one group of a block for at most 16 input rows.
    #[inline(always)]
    fn multiply(
        &self,
        values: &[[i8; BLOCK_INPUTS]],
        group: usize,
        lane_groups: &[[u8; LANE_GROUP_BYTES]],
        totals: &mut Totals,
    ) {
        let lane_groups_per_group = LANE_GROUPS * self.columns / BLOCK_INPUTS;
        let lane_groups = &lane_groups[group * lane_groups_per_group..][..lane_groups_per_group];
        // The group's columns are within each row of values.
        let values_of_group = values.as_ptr().cast::<i8>().wrapping_add(group * self.columns);
        let fits = (group + 1) * self.columns <= BLOCK_INPUTS;
        macro_rules! multiply_tile {
            ($first:literal, $second:literal, $rows:literal) => {
                // SAFETY: reads `columns` bytes of each input row, and `columns / 4` lane groups of 128 bytes, which the
                // slices have; writes a line of 64 bytes for each row and vector, which `totals` has. The tiles are
                // configured with these sizes, and no other code configures them while `self` lives.
                unsafe {
                    asm!(
                        concat!("tilezero tmm", $first),
                        concat!("tilezero tmm", $second),
                        concat!("tileloadd tmm", $rows, ", [{values} + {row}]"),
                        "tileloadd tmm3, [{codes} + {lane_group}]",
                        "tileloadd tmm4, [{codes} + {lane_group} + 64]",
                        concat!("tdpbsud tmm", $first, ", tmm", $rows, ", tmm3"),
                        concat!("tdpbsud tmm", $second, ", tmm", $rows, ", tmm4"),
                        concat!("tilestored [{totals} + {line}], tmm", $first),
                        concat!("tilestored [{totals} + {line} + 1024], tmm", $second),
                        values = in(reg) values_of_group,
                        row = in(reg) BLOCK_INPUTS,
                        codes = in(reg) lane_groups.as_ptr(),
                        lane_group = in(reg) LANE_GROUP_BYTES,
                        totals = in(reg) totals,
                        line = in(reg) 4 * LANES,
                        out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                        out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                        options(nostack, preserves_flags),
                    )
                }
            };
        }
        match values.len() {
            TILE_ROWS if fits => multiply_tile!("0", "1", "2"),
            rows if rows == self.remaining_rows && fits => multiply_tile!("5", "6", "7"),
            _ => {}
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: releases the tile registers of this thread, which no code uses any more.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) }
    }
}
