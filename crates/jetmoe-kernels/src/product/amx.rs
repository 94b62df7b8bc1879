//! AMX: 16 rows times 16 rows of a panel in one instruction, for experts that many rows chose.
//!
//! Rust's intrinsics are not stable yet, so the tiles are worked with in assembly. A tile's sums are exact integers of one
//! group, or of one block where a group has several; AVX-512 scales and adds them.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

use super::avx2::HALF;
use super::avx512vnni::{self, LANES, add, ask_ahead, groups, load_integers, store_bytes, weights};
use super::{Codes, PIECE, for_each_form};
use crate::layout::{BLOCK_INPUTS, PANEL_ROWS};
use crate::rounded::RowsOf;

/// Rows of a tile.
const TILE: usize = 16;
/// Rows from which on tiles are used: for fewer, unpacking and storing sums is most of the work.
const MANY: usize = 8;
/// Rows that are multiplied with a block before the next: their sums lie in the first cache.
const ROWS: usize = 4 * TILE;

/// Whether the processor has tiles of 8-bit integers and the system lets this process use them, which is asked for once.
pub(crate) fn is_allowed() -> bool {
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    *ALLOWED.get_or_init(|| {
        const TILE_AND_INT8: u32 = 1 << 24 | 1 << 25;
        __cpuid_count(0, 0).eax >= 7
            && __cpuid_count(7, 0).edx & TILE_AND_INT8 == TILE_AND_INT8
            && ask_for_permission()
            && computes()
    })
}

/// Whether a tile of known numbers is multiplied as this file expects, which no processor was there to show: rows with a
/// sign, codes without.
fn computes() -> bool {
    let value = |row: usize, column: usize| ((row * 37 + column * 11) % 255) as u8 as i8;
    let code = |place: usize, column: usize| ((place * 29 + column * 71) % 256) as u8;
    let values: [[i8; BLOCK_INPUTS]; TILE] =
        std::array::from_fn(|row| std::array::from_fn(|column| value(row, column)));
    let mut codes = Unpacked([0; PANEL_ROWS * BLOCK_INPUTS]);
    for (index, byte) in codes.0.iter_mut().enumerate() {
        *byte = code(index % PIECE / 4, index / PIECE * 4 + index % 4);
    }
    let mut totals = Totals([[[0; LANES]; TILE]; PANEL_ROWS / LANES]);
    let (halves, _) = codes.0.as_chunks::<{ HALF * PIECE }>();
    Tiles::new(BLOCK_INPUTS, 0).multiply(&values, 0, halves, &mut totals);
    let expected = |row: usize, place: usize| -> i32 {
        (0..BLOCK_INPUTS).map(|column| i32::from(value(row, column)) * i32::from(code(place, column))).sum()
    };
    (0..TILE).all(|row| {
        (0..PANEL_ROWS).all(|place| totals.0[place / LANES][row][place % LANES] == expected(row, place))
    })
}

/// Linux gives room for the tiles' contents to processes that ask.
#[cfg(target_os = "linux")]
fn ask_for_permission() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const REQUEST_PERMISSION: u64 = 0x1023;
    const TILE_DATA: u64 = 18;
    let mut result = ARCH_PRCTL;
    // SAFETY: a system call that touches no memory of this process; it changes these registers only.
    unsafe {
        asm!(
            "syscall",
            inout("rax") result,
            in("rdi") REQUEST_PERMISSION,
            in("rsi") TILE_DATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn ask_for_permission() -> bool {
    false
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn multiply_codes(codes: &Codes<'_>, rows: &RowsOf<'_>, products: &mut [f32]) {
    if rows.count < MANY {
        return avx512vnni::multiply_codes(codes, rows, products);
    }
    for_each_form!(codes, blocks(codes, rows, products));
}

// bfloat16 meets rows in float32, which there are no tiles for
pub(super) use super::avx512vnni::{gate, multiply_bf16, round};

/// Codes of a block, a byte each, as those of 8 bits lie in a weight.
#[repr(align(64))]
struct Unpacked([u8; PANEL_ROWS * BLOCK_INPUTS]);

/// Sums of a tile's rows with both sides of a panel.
#[repr(align(64))]
#[derive(Clone, Copy)]
struct Totals([[[i32; LANES]; TILE]; PANEL_ROWS / LANES]);

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn blocks<const BITS: usize, const HALVES: bool, const POINTS: bool>(
    codes: &Codes<'_>,
    rows: &RowsOf<'_>,
    products: &mut [f32],
) {
    let parts = if HALVES { 2 } else { 1 };
    let (products, _) = products.as_chunks_mut::<PANEL_ROWS>();
    products.as_flattened_mut().fill(0.0);
    let mut unpacked = Unpacked([0; PANEL_ROWS * BLOCK_INPUTS]);
    let mut totals = [Totals([[[0; LANES]; TILE]; PANEL_ROWS / LANES]); 2];
    let tiles = Tiles::new(BLOCK_INPUTS / parts, products.len() % TILE);
    for (index, products) in products.chunks_mut(ROWS).enumerate() {
        let rows = rows.part(index * ROWS, products.len());
        for (block, bytes) in codes.panel.codes.chunks_exact(codes.layout.element.block_bytes()).enumerate() {
            let x = rows.block(block);
            ask_ahead(codes, block, bytes);
            let bytes = if BITS == 4 { unpack(bytes, &mut unpacked) } else { bytes };
            let (halves, _) = bytes.as_chunks::<{ HALF * PIECE }>();
            let groups = [0, 1].map(|side| groups::<HALVES, POINTS>(codes, block, side));
            let rows = x.values.chunks(TILE).zip(x.scales.chunks(TILE)).zip(x.sums.chunks(TILE * parts));
            for (((values, scales), sums), products) in rows.zip(products.chunks_mut(TILE)) {
                for (part, totals) in totals.iter_mut().enumerate().take(parts) {
                    tiles.multiply(values, part, halves, totals);
                }
                for (side, groups) in groups.iter().enumerate() {
                    let rows = scales.iter().zip(sums.chunks_exact(parts)).zip(products.iter_mut());
                    for (row, ((scale, sums), products)) in rows.enumerate() {
                        let of_row = [0, 1].map(|part: usize| load_integers(&totals[part].0[side][row]));
                        let products = &mut products[side * LANES..];
                        add::<HALVES, POINTS>(of_row, groups, *scale, sums, products);
                    }
                }
            }
        }
    }
}

/// Codes of 4 bits as bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn unpack<'a>(bytes: &[u8], unpacked: &'a mut Unpacked) -> &'a [u8] {
    let (lines, _) = unpacked.0.as_chunks_mut::<64>();
    for side in 0..PANEL_ROWS / LANES {
        let weights = weights::<4>(bytes, side);
        for (weights, lines) in weights.iter().zip(lines.chunks_exact_mut(PANEL_ROWS / LANES)) {
            store_bytes(&mut lines[side], *weights);
        }
    }
    &unpacked.0
}

/// The tiles of this thread while a value of this type lives.
///
/// 0 and 1 are sums of 16 rows with either side of a panel, 2 these rows, 3 and 4 codes, and 5 to 7 are as 0 to 2 for the
/// rows that are left where they are not a multiple of 16.
struct Tiles {
    /// Columns that are multiplied at once: 32, or 16 where a block has two groups.
    columns: usize,
    rest: usize,
}

/// What `ldtilecfg` takes.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Tiles {
    fn new(columns: usize, rest: usize) -> Self {
        let mut configuration =
            Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        let mut tile = |tile: usize, rows: usize, bytes: usize| {
            if rows > 0 {
                configuration.rows[tile] = rows as u8;
                configuration.row_bytes[tile] = bytes as u16;
            }
        };
        for (sums, rows) in [(0, TILE), (5, rest)] {
            tile(sums, rows, 4 * LANES);
            tile(sums + 1, rows, 4 * LANES);
            tile(sums + 2, rows, columns);
        }
        tile(3, columns / 4, 4 * LANES);
        tile(4, columns / 4, 4 * LANES);
        // SAFETY: reads the 64 bytes of the configuration; it is within what the first palette allows: at most 16 rows
        // of at most 64 bytes. This instruction set is only there where the system gave the permission.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, readonly, preserves_flags));
        }
        Tiles { columns, rest }
    }

    /// The sums of a part of a block for at most 16 rows.
    #[inline(always)]
    fn multiply(
        &self,
        values: &[[i8; BLOCK_INPUTS]],
        part: usize,
        codes: &[[u8; HALF * PIECE]],
        totals: &mut Totals,
    ) {
        let codes = &codes[part..][..self.columns / (4 * HALF)];
        // both are within a row, by the columns that there are
        let values_of_part = values.as_ptr().cast::<i8>().wrapping_add(part * self.columns);
        let fits = part * self.columns < BLOCK_INPUTS;
        macro_rules! multiply {
            ($first:literal, $second:literal, $rows:literal) => {
                // SAFETY: reads `columns` bytes of each of the rows, and four columns from each of `columns / 4` pieces
                // of 128 bytes, which the slices have; writes a line of 64 bytes for each row and side, which there is
                // room for. The tiles have been given these sizes, and nobody else gives them others meanwhile.
                unsafe {
                    asm!(
                        concat!("tilezero tmm", $first),
                        concat!("tilezero tmm", $second),
                        concat!("tileloadd tmm", $rows, ", [{values} + {row}]"),
                        "tileloadd tmm3, [{codes} + {piece}]",
                        "tileloadd tmm4, [{codes} + {piece} + 64]",
                        concat!("tdpbsud tmm", $first, ", tmm", $rows, ", tmm3"),
                        concat!("tdpbsud tmm", $second, ", tmm", $rows, ", tmm4"),
                        concat!("tilestored [{totals} + {line}], tmm", $first),
                        concat!("tilestored [{totals} + {line} + 1024], tmm", $second),
                        values = in(reg) values_of_part,
                        row = in(reg) BLOCK_INPUTS,
                        codes = in(reg) codes.as_ptr(),
                        piece = in(reg) PIECE,
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
            TILE if fits => multiply!("0", "1", "2"),
            rows if rows == self.rest && fits => multiply!("5", "6", "7"),
            _ => {}
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: gives the tiles of this thread back, which nobody uses any more.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) }
    }
}
