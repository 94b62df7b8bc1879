//! The innermost loops: one panel of a weight times some rows, for each instruction set.
//!
//! All kernels see a block of a panel as *lane groups*: [`LANE_GROUP_BYTES`] bytes with one 4-byte lane for each row of the
//! panel. An instruction set with vectors of n lanes works on n rows of the panel at a time. Integer products are exact, so
//! instruction sets differ by the order of float32 additions only.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512vnni;
#[cfg(target_arch = "x86_64")]
mod avxvnni;
mod float32;
mod generic;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neoni8mm;
#[cfg(target_arch = "x86_64")]
mod vnni;

use crate::packed_input::{ActivationRows, ActivationTileMut, Form, PackedInput, Tile};
use crate::{Activation, Isa};

/// Calls the function of this name in the module of an instruction set.
macro_rules! dispatch_isa {
    ($isa:expr, $function:ident $arguments:tt) => {
        match $isa {
            Isa::Generic => generic::$function $arguments,
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an Isa exists only where the processor supports it.
            Isa::Avx2 => unsafe { avx2::$function $arguments },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::AvxVnni => unsafe { avxvnni::$function $arguments },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx512Vnni => unsafe { avx512vnni::$function $arguments },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Amx => unsafe { amx::$function $arguments },
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::AvxVnni | Isa::Avx512Vnni | Isa::Amx => unreachable!("not an instruction set of this processor"),
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Isa::Neon => unsafe { neon::$function $arguments },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Isa::NeonI8mm => unsafe { neoni8mm::$function $arguments },
            #[cfg(not(target_arch = "aarch64"))]
            Isa::Neon | Isa::NeonI8mm => unreachable!("not an instruction set of this processor"),
        }
    };
}

/// Calls a function that is compiled for the bits of a code, the groups that share a block, and whether there are zero
/// points.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! dispatch_code_width {
    ($weight:expr, $function:ident $arguments:tt) => {{
        let groups = $crate::packed_input::groups_per_block($weight.layout);
        match ($weight.layout.scheme.format, groups, $weight.panel.zero_points.is_some()) {
            (jetmoe_format::WeightFormat::Int4, 1, false) => $function::<4, 1, false> $arguments,
            (jetmoe_format::WeightFormat::Int4, 1, true) => $function::<4, 1, true> $arguments,
            (jetmoe_format::WeightFormat::Int4, _, false) => $function::<4, 2, false> $arguments,
            (jetmoe_format::WeightFormat::Int4, _, true) => $function::<4, 2, true> $arguments,
            (jetmoe_format::WeightFormat::Int8, 1, false) => $function::<8, 1, false> $arguments,
            (jetmoe_format::WeightFormat::Int8, 1, true) => $function::<8, 1, true> $arguments,
            (jetmoe_format::WeightFormat::Int8, _, false) => $function::<8, 2, false> $arguments,
            (jetmoe_format::WeightFormat::Int8, _, true) => $function::<8, 2, true> $arguments,
            (jetmoe_format::WeightFormat::F32 | jetmoe_format::WeightFormat::F16 | jetmoe_format::WeightFormat::Bf16, ..) => {
                unreachable!("floating-point weights have no codes")
            }
        }
    }};
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use dispatch_code_width;
use jetmoe_format::{BLOCK_INPUTS, PANEL_ROWS, PackedLayout, PackedWeight, Panel};

pub(crate) use self::float32::FloatRows;

/// Columns that a lane holds: the operands of one dot product instruction.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const LANE_COLUMNS: usize = 4;

/// Bytes of a lane group: one lane of 4 bytes for each row of the panel.
const LANE_GROUP_BYTES: usize = 4 * PANEL_ROWS;

/// Lane groups of a block whose codes take a byte each.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const LANE_GROUPS: usize = BLOCK_INPUTS / LANE_COLUMNS;

/// Bytes of a block of a panel. Kernels compute them from a constant, so that the compiler unrolls the loops over a block.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const fn block_bytes(bits: usize) -> usize {
    PANEL_ROWS * BLOCK_INPUTS * bits / 8
}

/// One panel of a quantized weight.
#[derive(Debug, Clone, Copy)]
struct QuantizedPanel<'a> {
    panel: Panel<'a>,
    layout: &'a PackedLayout,
    /// Blocks that share a group; 1 also where two groups share a block.
    blocks_per_group: usize,
}

/// Computes the `[rows, 32]` products of a tile with consecutive panels of its expert's matrix, one for each of `products`.
pub(crate) fn multiply<'a>(
    isa: Isa,
    weight: &PackedWeight<'_>,
    first_panel: usize,
    input: &PackedInput,
    tile: Tile,
    products: impl Iterator<Item = &'a mut [f32]>,
) {
    let layout = weight.layout();
    let panels = products.zip(first_panel..);
    let panels = panels.map(|(products, panel)| (weight.panel(tile.expert, panel), products));
    match input {
        PackedInput::Float(floats) => {
            let x = &floats.values[tile.first * floats.columns..][..tile.rows * floats.columns];
            for (panel, products) in panels {
                dispatch_isa!(isa, multiply_bf16(panel.codes, x, floats.columns, products));
            }
        }
        PackedInput::Quantized(activations) => {
            let blocks_per_group = layout.group_size().map_or(1, |size| size.div_ceil(BLOCK_INPUTS));
            let rows = ActivationRows { activations, tile };
            let panels = panels
                .map(|(panel, products)| (QuantizedPanel { panel, layout, blocks_per_group }, products));
            match tile.form {
                Form::Int8 => {
                    for (panel, products) in panels {
                        dispatch_isa!(isa, multiply_codes(&panel, &rows, products));
                    }
                }
                #[cfg(target_arch = "x86_64")]
                // SAFETY: tiles have this form only where the processor supports AMX.
                Form::Bfloat16 => unsafe {
                    amx::multiply_bfloats(layout, &mut panels.collect::<Vec<_>>(), &rows)
                },
                #[cfg(not(target_arch = "x86_64"))]
                Form::Bfloat16 => unreachable!("not a form of this processor"),
            }
        }
    }
}

/// Computes the products of rows with consecutive panels of codes in float32, `[panels, rows, 32]`.
pub(crate) fn multiply_float32(
    isa: Isa,
    panels: &[Panel<'_, f32>],
    layout: &PackedLayout,
    rows: &FloatRows,
    products: &mut [f32],
) {
    dispatch_isa!(isa, multiply_float32(panels, layout, rows, products))
}

/// Quantizes one block of columns of the rows of a tile.
pub(crate) fn quantize<'a>(
    isa: Isa,
    rows: impl Iterator<Item = &'a [f32]>,
    tile: &mut ActivationTileMut<'_>,
) {
    dispatch_isa!(isa, quantize(rows, tile))
}

/// Calls [`Activation::gate`].
pub(crate) fn gate(isa: Isa, activation: Activation, products: &[f32], gated: &mut [f32], first: usize) {
    dispatch_isa!(isa, gate(activation, products, gated, first))
}
