//! Products in float32 arithmetic.

use jetmoe_format::{BLOCK_INPUTS, PANEL_ROWS, PackedWeight, Panel};

use crate::linear::{MAX_ROWS_AT_ONCE, check_linear, copy_from_panels, for_each_row};
use crate::matmul::{FloatRows, multiply_float32};
use crate::parallel::parallel_for_each;
use crate::{Error, ExecContext, Result};

/// Panels of a task. What they dequantize of the weight stays in the second-level cache, and each load of a row serves
/// all of them.
const PANELS: usize = 4;

/// As [`linear`](crate::linear), with activations that are not quantized: every weight is dequantized, and products and sums
/// are float32. For graphs whose results must not depend on the quantization of activations.
///
/// # Errors
/// Mismatched sizes, or a bfloat16 weight, which `linear` multiplies in float32.
pub fn linear_float32(
    context: ExecContext<'_>,
    x: &[f32],
    weight: &PackedWeight<'_, f32>,
    y: &mut [f32],
) -> Result<()> {
    if !weight.layout().scheme.format.is_quantized() {
        return Err(Error::NotQuantized);
    }
    check_linear(x, weight, y)?;
    let layout = weight.layout();
    let (inputs, outputs) = (layout.inputs, layout.outputs);
    let columns = layout.blocks() * BLOCK_INPUTS;
    let panels: Vec<Panel<'_, f32>> = (0..layout.panels()).map(|panel| weight.panel(0, panel)).collect();
    for (x, y) in x.chunks(MAX_ROWS_AT_ONCE * inputs).zip(y.chunks_mut(MAX_ROWS_AT_ONCE * outputs)) {
        let rows = y.len() / outputs;
        let input = FloatRows::pack(x, inputs, columns);
        // [panels, rows, 32]
        let mut products = vec![0.0; panels.len() * rows * PANEL_ROWS];
        let tasks = panels.chunks(PANELS).zip(products.chunks_mut(PANELS * rows * PANEL_ROWS));
        parallel_for_each(context.threads, tasks, |(panels, products)| {
            multiply_float32(context.isa, panels, layout, &input, products);
        });
        for_each_row(context, y, outputs, |row, y| copy_from_panels(&products, rows, row, y));
    }
    Ok(())
}
