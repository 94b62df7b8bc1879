//! The tile registers, and what they are loaded with.

#[cfg(not(jetmoe_emulated_tiles))]
use std::arch::asm;
use std::mem::MaybeUninit;

use jetmoe_format::{BLOCK_INPUTS, PANEL_ROWS};

use crate::matmul::avx512vnni::{LANES, VECTORS};
#[cfg(jetmoe_emulated_tiles)]
use crate::packed_input::STRIP_ROWS;

/// Rows of a tile register.
#[cfg(not(jetmoe_emulated_tiles))]
const TILE_ROWS: usize = 16;

/// Pairs of columns of a block: lines of a tile register of weights.
pub(super) const PAIRS: usize = BLOCK_INPUTS / 2;

/// 16 rows of a block of a panel in bfloat16, the right operand of a tile product: for each pair of columns and row of the panel the
/// even column in the lower half of a lane.
pub(super) type WeightTile = [MaybeUninit<[u32; LANES]>; PAIRS];

/// Tile products of a block with a strip.
pub(super) const PRODUCTS: usize = 4;

/// Loads a tile of contiguous lines of 64 bytes. They are valid for reads.
#[cfg(not(jetmoe_emulated_tiles))]
macro_rules! load_tile {
    ($instruction:literal, $lines:expr) => {
        asm!(
            concat!($instruction, ", [{lines} + {line}]"),
            lines = in(reg) $lines,
            line = in(reg) 64_usize,
            options(nostack, readonly, preserves_flags),
        )
    };
}

#[cfg(not(jetmoe_emulated_tiles))]
macro_rules! multiply_tiles {
    ($instruction:literal) => {
        asm!($instruction, options(nostack, nomem, preserves_flags))
    };
}

/// The tile registers of this thread: lines of 64 bytes, configured for the rows of a strip while a value of this type lives.
///
/// Tiles 0 to 3 are the sums of two times up to 16 input rows with both vectors of a panel, 4 and 5 the input rows, 6 and 7 weights.
#[cfg(not(jetmoe_emulated_tiles))]
pub(super) struct Tiles {
    /// Rows of the strip.
    rows: usize,
}

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

#[cfg(not(jetmoe_emulated_tiles))]
impl Tiles {
    pub(super) fn new() -> Self {
        Tiles { rows: 0 }
    }

    /// Configures the tiles for a strip.
    fn configure(&mut self, rows: usize) {
        self.rows = rows;
        let (upper, lower) = (rows.min(TILE_ROWS) as u8, rows.saturating_sub(TILE_ROWS) as u8);
        let mut configuration =
            Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        let of_tiles = [upper, upper, lower, lower, upper, lower, TILE_ROWS as u8, TILE_ROWS as u8];
        for (tile, rows) in of_tiles.into_iter().enumerate().filter(|(_, rows)| *rows > 0) {
            configuration.row_bytes[tile] = 64;
            configuration.rows[tile] = rows;
        }
        // SAFETY: reads the 64 bytes of the configuration, which the first palette allows: up to 16 rows of 64 bytes for 8 tiles.
        // This code runs only where the system permits tiles.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, readonly, preserves_flags));
        }
    }

    /// Begins the sums of a strip, with zeros or with those of the chunks before.
    #[inline(always)]
    pub(super) fn begin(&mut self, sums: &[[f32; PANEL_ROWS]], zeros: bool) {
        if self.rows != sums.len() {
            self.configure(sums.len());
        }
        // SAFETY: reads a line of 64 bytes for each row of a tile: both halves of all rows of the sums. The tiles that the strip has
        // are configured.
        unsafe {
            if zeros {
                asm!(
                    "tilezero tmm0", "tilezero tmm1",
                    out("tmm0") _, out("tmm1") _,
                    options(nostack, nomem, preserves_flags),
                );
                if sums.len() > TILE_ROWS {
                    asm!(
                        "tilezero tmm2", "tilezero tmm3",
                        out("tmm2") _, out("tmm3") _,
                        options(nostack, nomem, preserves_flags),
                    );
                }
                return;
            }
            asm!(
                "tileloadd tmm0, [{sums} + {line}]",
                "tileloadd tmm1, [{sums} + {line} + 64]",
                sums = in(reg) sums.as_ptr(),
                line = in(reg) 4 * PANEL_ROWS,
                out("tmm0") _, out("tmm1") _,
                options(nostack, readonly, preserves_flags),
            );
            if sums.len() > TILE_ROWS {
                asm!(
                    "tileloadd tmm2, [{sums} + {line}]",
                    "tileloadd tmm3, [{sums} + {line} + 64]",
                    sums = in(reg) &raw const sums[TILE_ROWS],
                    line = in(reg) 4 * PANEL_ROWS,
                    out("tmm2") _, out("tmm3") _,
                    options(nostack, readonly, preserves_flags),
                );
            }
        }
    }

    /// Loads the operands of the first products: a block of the panel, and of the strip's rows.
    ///
    /// # Safety
    /// The weights are written, and `x` has as many rows as the strip.
    #[inline(always)]
    pub(super) unsafe fn load(&mut self, weights: &[WeightTile; VECTORS], x: &[[u16; BLOCK_INPUTS]]) {
        debug_assert_eq!(x.len(), self.rows);
        // SAFETY: by the contract of this function, as `load_tile!` says.
        unsafe {
            load_tile!("tileloadd tmm6", weights.as_ptr());
            load_tile!("tileloaddt1 tmm4", x.as_ptr());
            load_tile!("tileloadd tmm7", weights[1].as_ptr());
            if x.len() > TILE_ROWS {
                load_tile!("tileloaddt1 tmm5", x[TILE_ROWS..].as_ptr());
            }
        }
    }

    /// Adds the products of the loaded operands, and loads the next ones, each as soon as the last product with the one before it is begun.
    /// Calls `between` after each product, [`PRODUCTS`] times.
    ///
    /// # Safety
    /// The next weights are written, and their `x` has as many rows as the strip.
    #[inline(always)]
    pub(super) unsafe fn multiply(
        &mut self,
        next: Option<(&[WeightTile; VECTORS], &[[u16; BLOCK_INPUTS]])>,
        mut between: impl FnMut(),
    ) {
        let two = self.rows > TILE_ROWS;
        // SAFETY: the tiles that the strip has are configured and loaded; by the contract of this function, as `load_tile!` says.
        unsafe {
            multiply_tiles!("tdpbf16ps tmm0, tmm4, tmm6");
            between();
            multiply_tiles!("tdpbf16ps tmm1, tmm4, tmm7");
            if let Some((_, x)) = next {
                load_tile!("tileloaddt1 tmm4", x.as_ptr());
            }
            between();
            if two {
                multiply_tiles!("tdpbf16ps tmm2, tmm5, tmm6");
            }
            if let Some((weights, _)) = next {
                load_tile!("tileloadd tmm6", weights.as_ptr());
            }
            between();
            if two {
                multiply_tiles!("tdpbf16ps tmm3, tmm5, tmm7");
            }
            if let Some((weights, x)) = next {
                load_tile!("tileloadd tmm7", weights[1].as_ptr());
                if two {
                    load_tile!("tileloaddt1 tmm5", x[TILE_ROWS..].as_ptr());
                }
            }
            between();
        }
    }

    /// Stores the sums of the strip.
    #[inline(always)]
    pub(super) fn end(&mut self, sums: &mut [[f32; PANEL_ROWS]]) {
        assert_eq!(sums.len(), self.rows, "the sums of another strip");
        // SAFETY: writes a line of 64 bytes for each row of a tile: both halves of all rows of the sums. The tiles that the strip has
        // are configured.
        unsafe {
            asm!(
                "tilestored [{sums} + {line}], tmm0",
                "tilestored [{sums} + {line} + 64], tmm1",
                sums = in(reg) sums.as_mut_ptr(),
                line = in(reg) 4 * PANEL_ROWS,
                options(nostack, preserves_flags),
            );
            if sums.len() > TILE_ROWS {
                asm!(
                    "tilestored [{sums} + {line}], tmm2",
                    "tilestored [{sums} + {line} + 64], tmm3",
                    sums = in(reg) &raw mut sums[TILE_ROWS],
                    line = in(reg) 4 * PANEL_ROWS,
                    options(nostack, preserves_flags),
                );
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

/// What the instructions compute, so that the rest of this module is tested on processors without them:
/// `RUSTFLAGS='--cfg jetmoe_emulated_tiles'`.
#[cfg(jetmoe_emulated_tiles)]
pub(super) struct Tiles {
    sums: [[f32; PANEL_ROWS]; STRIP_ROWS],
    weights: [WeightTile; VECTORS],
    x: [[u16; BLOCK_INPUTS]; STRIP_ROWS],
}

#[cfg(jetmoe_emulated_tiles)]
impl Tiles {
    pub(super) fn new() -> Self {
        Tiles {
            sums: [[f32::NAN; PANEL_ROWS]; STRIP_ROWS],
            weights: [[MaybeUninit::new([0; LANES]); PAIRS]; VECTORS],
            x: [[0; BLOCK_INPUTS]; STRIP_ROWS],
        }
    }

    pub(super) fn begin(&mut self, sums: &[[f32; PANEL_ROWS]], zeros: bool) {
        self.sums.as_flattened_mut().fill(0.0);
        if !zeros {
            self.sums[..sums.len()].copy_from_slice(sums);
        }
    }

    pub(super) unsafe fn load(&mut self, weights: &[WeightTile; VECTORS], x: &[[u16; BLOCK_INPUTS]]) {
        self.weights = *weights;
        self.x[..x.len()].copy_from_slice(x);
    }

    pub(super) unsafe fn multiply(
        &mut self,
        next: Option<(&[WeightTile; VECTORS], &[[u16; BLOCK_INPUTS]])>,
        mut between: impl FnMut(),
    ) {
        for (x, sums) in self.x.iter().zip(&mut self.sums) {
            for (weights, sums) in self.weights.iter().zip(sums.as_chunks_mut::<LANES>().0) {
                for (x, weights) in x.as_chunks::<2>().0.iter().zip(weights) {
                    let [even, odd] = x.map(|x| f32::from_bits(u32::from(x) << 16));
                    // SAFETY: by the contract of the function that loaded the weights.
                    for (sum, weight) in sums.iter_mut().zip(unsafe { weights.assume_init() }) {
                        *sum += f32::from_bits(weight << 16) * even;
                        *sum += f32::from_bits(weight & 0xFFFF_0000) * odd;
                    }
                }
            }
        }
        if let Some((weights, x)) = next {
            // SAFETY: by the contract of this function.
            unsafe { self.load(weights, x) };
        }
        (0..PRODUCTS).for_each(|_| between());
    }

    pub(super) fn end(&mut self, sums: &mut [[f32; PANEL_ROWS]]) {
        sums.copy_from_slice(&self.sums[..sums.len()]);
    }
}
