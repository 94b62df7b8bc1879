//! The innermost loops: a panel of a weight times some rows, for each instruction set.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512vnni;
#[cfg(target_arch = "aarch64")]
mod neon;
mod plain;

#[cfg(target_arch = "x86_64")]
pub(crate) use amx::is_allowed as amx_is_allowed;

use crate::instructions::Kind;
use crate::layout::{BLOCK_INPUTS, Layout, PANEL_ROWS};
use crate::rounded::{Rows, RowsOf};
use crate::weight::Panel;
use crate::{Activation, Element, InstructionSet, Weight};

/// The function of a set's module; what is plain is given apart.
macro_rules! of_set {
    ($set:expr, $plain:expr, $function:ident $arguments:tt) => {
        match $set.kind() {
            Kind::Plain => $plain,
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an InstructionSet exists only where the processor has its instructions.
            Kind::Avx2 => unsafe { avx2::$function $arguments },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Kind::Avx512Vnni => unsafe { avx512vnni::$function $arguments },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Kind::Amx => unsafe { amx::$function $arguments },
            #[cfg(not(target_arch = "x86_64"))]
            Kind::Avx2 | Kind::Avx512Vnni | Kind::Amx => unreachable!("not on this processor"),
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Kind::Neon => unsafe { neon::$function $arguments },
            #[cfg(not(target_arch = "aarch64"))]
            Kind::Neon => unreachable!("not on this processor"),
        }
    };
}

/// The loop over codes that is compiled for their bits, for blocks of two groups and for zero points.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! for_each_form {
    ($codes:expr, $blocks:ident $arguments:tt) => {{
        let halves = $crate::product::has_halves($codes.layout.element);
        match ($codes.layout.element, halves, $codes.panel.zero_points.is_some()) {
            ($crate::Element::Int4(_), false, false) => $blocks::<4, false, false> $arguments,
            ($crate::Element::Int4(_), false, true) => $blocks::<4, false, true> $arguments,
            ($crate::Element::Int4(_), true, false) => $blocks::<4, true, false> $arguments,
            ($crate::Element::Int4(_), true, true) => $blocks::<4, true, true> $arguments,
            (_, false, false) => $blocks::<8, false, false> $arguments,
            (_, false, true) => $blocks::<8, false, true> $arguments,
            (_, true, false) => $blocks::<8, true, false> $arguments,
            (_, true, true) => $blocks::<8, true, true> $arguments,
        }
    }};
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use for_each_form;

/// Bytes of a piece of a block: 4 for each row of the panel.
const PIECE: usize = 4 * PANEL_ROWS;

/// What the loop over codes needs to know of a weight beside its panel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Codes<'a> {
    pub(crate) panel: Panel<'a>,
    pub(crate) layout: &'a Layout,
    /// Blocks of a group; 1 too where a block has two groups.
    pub(crate) blocks_of_group: usize,
}

/// The `[count, 32]` products of an expert's rows with one panel of its matrix.
pub(crate) fn multiply(
    set: InstructionSet,
    weight: &Weight<'_>,
    (expert, panel): (usize, usize),
    rows: &Rows,
    (first, count): (usize, usize),
    products: &mut [f32],
) {
    let layout = weight.layout();
    let panel = weight.panel(expert, panel);
    match rows {
        Rows::Floats(floats) => {
            let x = &floats.values[first * floats.columns..][..count * floats.columns];
            of_set!(
                set,
                plain::multiply_bf16(panel.codes, x, floats.columns, products),
                multiply_bf16(panel.codes, x, floats.columns, products)
            )
        }
        Rows::Rounded(rounded) => {
            let blocks_of_group =
                layout.element.group_size().map_or(1, |size| size.weights().div_ceil(BLOCK_INPUTS));
            let codes = Codes { panel, layout, blocks_of_group };
            let rows = RowsOf { rounded, first, count };
            of_set!(
                set,
                plain::multiply_codes(&codes, &rows, products),
                multiply_codes(&codes, &rows, products)
            )
        }
    }
}

/// A block of columns of all rows, each `[rows, ...]`.
pub(crate) struct Block<'a> {
    pub(crate) values: &'a mut [i8],
    pub(crate) scales: &'a mut [f32],
    pub(crate) sums: &'a mut [i32],
    pub(crate) factor: i32,
}

/// Rounds a block of rows, `[rows, 32]`.
pub(crate) fn round(set: InstructionSet, x: &[f32], block: &mut Block<'_>) {
    of_set!(set, round_rows(x, block), round(x, block))
}

/// [`Activation::gate`].
pub(crate) fn gate(
    set: InstructionSet,
    activation: Activation,
    products: &[f32],
    gated: &mut [f32],
    first: usize,
) {
    of_set!(set, activation.gate(products, gated, first), gate(activation, products, gated, first))
}

/// The loop of [`round`], inlined for each instruction set.
#[inline(always)]
fn round_rows(x: &[f32], block: &mut Block<'_>) {
    let parts = block.sums.len() / block.scales.len().max(1);
    let (x, _) = x.as_chunks::<BLOCK_INPUTS>();
    let (values, _) = block.values.as_chunks_mut::<BLOCK_INPUTS>();
    let sums = block.sums.chunks_exact_mut(parts.max(1));
    for (((x, values), scale), sums) in x.iter().zip(values).zip(block.scales.iter_mut()).zip(sums) {
        *scale = crate::rounded::round(x, values, sums, block.factor);
    }
}

/// Whether a block holds two groups.
fn has_halves(element: Element) -> bool {
    element.group_size().is_some_and(|size| size.weights() < BLOCK_INPUTS)
}
