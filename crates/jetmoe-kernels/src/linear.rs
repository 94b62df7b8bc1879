//! Products of rows with the matrices of their experts.

use jetmoe_format::{BLOCK_INPUTS, PANEL_ROWS, PackedWeight, RowOrder, Scale};

use crate::aligned::Aligned;
use crate::error::length;
use crate::matmul::{multiply, quantize};
use crate::packed_input::{ActivationTileMut, PackedInput};
use crate::parallel::{ROWS_PER_TASK, Task, for_each_tile, panels_per_task, parallel_for_each, rows, tasks};
use crate::token_permutation::{Place, TokenPermutation};
use crate::{Error, Isa, Result, Threads};

/// What executes a product.
#[derive(Clone, Copy)]
pub struct ExecContext<'a> {
    /// The instruction set.
    pub isa: Isa,
    /// The threads that share the work.
    pub threads: &'a dyn Threads,
}

/// The experts that a router chose. Their gates are an argument of the products that use them.
#[derive(Debug, Clone, Copy)]
pub struct TopK<'a> {
    /// Expert indices, `[rows, k]`.
    pub experts: &'a [i64],
    /// Experts of each row.
    pub k: usize,
}

impl TopK<'_> {
    pub(crate) fn rows(&self) -> usize {
        self.experts.len() / self.k.max(1)
    }

    pub(crate) fn permutation(&self, weight: &PackedWeight<'_>) -> Result<TokenPermutation> {
        length("the choices", self.experts.len(), self.rows() * self.k)?;
        TokenPermutation::new(self.experts, self.k, weight.layout().experts)
    }
}

/// Rows that [`linear`] multiplies at once. A long prompt with a large vocabulary thus needs little more memory than its
/// result.
pub(crate) const MAX_ROWS_AT_ONCE: usize = 512;

/// `x · Wᵀ` for a weight with one matrix: from `[rows, inputs]` to `[rows, outputs]`.
///
/// # Errors
/// Mismatched sizes.
pub fn linear(context: ExecContext<'_>, x: &[f32], weight: &PackedWeight<'_>, y: &mut [f32]) -> Result<()> {
    check_linear(x, weight, y)?;
    let (inputs, outputs) = (weight.layout().inputs, weight.layout().outputs);
    for (x, y) in x.chunks(MAX_ROWS_AT_ONCE * inputs).zip(y.chunks_mut(MAX_ROWS_AT_ONCE * outputs)) {
        let rows = y.len() / outputs;
        let permutation = TokenPermutation::identity(rows);
        let input = pack_input(context, x, inputs, &permutation, 1, weight);
        let products = multiply_panels(context, &input, &permutation, weight);
        for_each_row(context, y, outputs, |row, y| copy_from_panels(&products, rows, row, y));
    }
    Ok(())
}

/// Multiplies each row with the matrices of its experts: from `[rows, inputs]` to `[rows, k, outputs]`.
///
/// # Errors
/// Mismatched sizes, or an expert that is out of range.
pub fn expert_linear(
    context: ExecContext<'_>,
    x: &[f32],
    top_k: TopK<'_>,
    weight: &PackedWeight<'_>,
    y: &mut [f32],
) -> Result<()> {
    require_stored_order(weight)?;
    let (inputs, outputs) = (weight.layout().inputs, weight.layout().outputs);
    length("x", x.len(), top_k.rows() * inputs)?;
    length("y", y.len(), top_k.experts.len() * outputs)?;
    let permutation = top_k.permutation(weight)?;
    let input = pack_input(context, x, inputs, &permutation, top_k.k, weight);
    let products = multiply_panels(context, &input, &permutation, weight);
    let (places, panels) = (permutation.places(), weight.layout().panels());
    for_each_row(context, y, outputs, |assignment, y| {
        let Place { first, rows, row } = places[assignment];
        copy_from_panels(&products[first * panels * PANEL_ROWS..], rows, row, y);
    });
    Ok(())
}

/// Multiplies each assignment with the matrix of its expert and with its gate, and sums over the assignments of a row: from
/// `[rows, k, inputs]` with gates `[rows, k]` to `[rows, outputs]`.
///
/// # Errors
/// Mismatched sizes, or an expert that is out of range.
pub fn expert_linear_sum(
    context: ExecContext<'_>,
    x: &[f32],
    top_k: TopK<'_>,
    gates: &[f32],
    weight: &PackedWeight<'_>,
    y: &mut [f32],
) -> Result<()> {
    require_stored_order(weight)?;
    let (inputs, outputs) = (weight.layout().inputs, weight.layout().outputs);
    length("x", x.len(), top_k.experts.len() * inputs)?;
    length("the gates", gates.len(), top_k.experts.len())?;
    length("y", y.len(), top_k.rows() * outputs)?;
    let permutation = top_k.permutation(weight)?;
    let input = pack_input(context, x, inputs, &permutation, 1, weight);
    multiply_and_sum(context, &input, &permutation, top_k.k, gates, weight, y);
    Ok(())
}

/// Dequantizes rows of a weight with one matrix: from row indices `[rows]` to `[rows, inputs]`.
///
/// # Errors
/// Mismatched sizes, or a row index out of range.
pub fn gather_rows(row_indices: &[i64], weight: &PackedWeight<'_>, y: &mut [f32]) -> Result<()> {
    require_stored_order(weight)?;
    let layout = weight.layout();
    length("y", y.len(), row_indices.len() * layout.inputs)?;
    for (index, y) in row_indices.iter().zip(y.chunks_exact_mut(layout.inputs)) {
        let row = usize::try_from(*index).ok().filter(|row| *row < layout.outputs);
        let row = row.ok_or(Error::RowOutOfRange { found: *index, rows: layout.outputs })?;
        weight.dequantize_row(0, row / PANEL_ROWS, row % PANEL_ROWS, y);
    }
    Ok(())
}

/// Checks the sizes of a product of all rows with one matrix.
pub(crate) fn check_linear<S: Scale>(x: &[f32], weight: &PackedWeight<'_, S>, y: &[f32]) -> Result<()> {
    require_stored_order(weight)?;
    let layout = weight.layout();
    let rows = x.len() / layout.inputs;
    length("x", x.len(), rows * layout.inputs)?;
    length("y", y.len(), rows * layout.outputs)?;
    length("the matrices of a weight for all rows", layout.experts, 1)
}

/// Refuses a weight whose panels have their rows in another order than the result.
pub(crate) fn require_stored_order<S: Scale>(weight: &PackedWeight<'_, S>) -> Result<()> {
    match weight.layout().order {
        RowOrder::AsStored => Ok(()),
        RowOrder::Halves => Err(Error::Interleaved),
    }
}

/// Gathers the rows of `x` in the order of the assignments, in the form that the weight is multiplied with. Assignment `a`
/// takes row `a / assignments_per_row`.
pub(crate) fn pack_input(
    context: ExecContext<'_>,
    x: &[f32],
    columns: usize,
    permutation: &TokenPermutation,
    assignments_per_row: usize,
    weight: &PackedWeight<'_>,
) -> PackedInput {
    let assignments = permutation.assignments();
    let row = |assignment: usize| &x[assignment / assignments_per_row * columns..][..columns];
    let tiles = permutation.tiles(context.isa);
    let mut input = PackedInput::new(weight, &tiles);
    match &mut input {
        PackedInput::Float(floats) => {
            for (assignment, packed) in assignments.iter().zip(floats.values.chunks_exact_mut(floats.columns))
            {
                packed[..columns].copy_from_slice(row(*assignment));
            }
        }
        PackedInput::Quantized(activations) => {
            let quantize_block = |task: Task<'_, '_, ActivationTileMut<'_>>| {
                let first = task.first * BLOCK_INPUTS;
                let width = BLOCK_INPUTS.min(columns - first);
                for (tile, part) in task.tiles.iter().zip(task.targets) {
                    let assignments = &assignments[tile.first..][..tile.rows];
                    let rows = assignments.iter().map(|assignment| &row(*assignment)[first..][..width]);
                    quantize(context.isa, rows, part);
                }
            };
            let mut parts = activations.blocks_mut(&tiles);
            let blocks = tasks(&tiles, &mut parts, weight.layout().blocks(), 1, <[_]>::len);
            // Waking threads takes as long as quantizing this many rows.
            if assignments.len() < 8 {
                blocks.for_each(quantize_block);
            } else {
                parallel_for_each(context.threads, blocks, quantize_block);
            }
        }
    }
    input
}

/// Computes all products expert by expert and panel by panel, `[experts][panels, rows of the expert, 32]`. Each task writes a contiguous
/// part of its own.
fn multiply_panels(
    context: ExecContext<'_>,
    input: &PackedInput,
    permutation: &TokenPermutation,
    weight: &PackedWeight<'_>,
) -> Aligned<f32> {
    let (assignments, tiles) = (permutation.assignments().len(), permutation.tiles(context.isa));
    let mut products = Aligned::any(weight.layout().panels() * assignments * PANEL_ROWS);
    if assignments == 0 {
        return products;
    }
    let panels = weight.layout().panels();
    let per_task = panels_per_task(panels, &tiles, context.threads);
    let tasks = tasks(&tiles, &mut products, panels, per_task, |tiles| rows(tiles) * PANEL_ROWS);
    parallel_for_each(context.threads, tasks, |Task { tiles, first, targets }| {
        let panel_size = rows(tiles) * PANEL_ROWS;
        for_each_tile(tiles, targets.len() / panel_size, |panels, _, tile| {
            let products = targets[panels.start * panel_size..].chunks_mut(panel_size).take(panels.len());
            let offset = (tile.first - tiles[0].first) * PANEL_ROWS;
            let of_tile = products.map(|products| &mut products[offset..][..tile.rows * PANEL_ROWS]);
            multiply(context.isa, weight, first + panels.start, input, tile, of_tile);
        });
    });
    products
}

/// The products of all assignments, multiplied by their gates and summed by row.
pub(crate) fn multiply_and_sum(
    context: ExecContext<'_>,
    input: &PackedInput,
    permutation: &TokenPermutation,
    k: usize,
    gates: &[f32],
    weight: &PackedWeight<'_>,
    y: &mut [f32],
) {
    let products = multiply_panels(context, input, permutation, weight);
    let (places, panels) = (permutation.places(), weight.layout().panels());
    for_each_row(context, y, weight.layout().outputs, |row, y| {
        for (choice, assignment) in (row * k..(row + 1) * k).enumerate() {
            let gate = gates[assignment];
            let Place { first, rows, row } = places[assignment];
            for (panel, y) in y.chunks_mut(PANEL_ROWS).enumerate() {
                let products = &products[(first * panels + panel * rows + row) * PANEL_ROWS..];
                for (y, product) in y.iter_mut().zip(products) {
                    *y = if choice == 0 { gate * product } else { *y + gate * product };
                }
            }
        }
    });
}

/// Copies a row of products from `[panels, rows, 32]` to a row of the result.
pub(crate) fn copy_from_panels(products: &[f32], rows: usize, row: usize, y: &mut [f32]) {
    for (panel, y) in y.chunks_mut(PANEL_ROWS).enumerate() {
        y.copy_from_slice(&products[(panel * rows + row) * PANEL_ROWS..][..y.len()]);
    }
}

/// Calls `work` for every row of a result, on all threads.
pub(crate) fn for_each_row(
    context: ExecContext<'_>,
    y: &mut [f32],
    width: usize,
    work: impl Fn(usize, &mut [f32]) + Sync,
) {
    let tasks = y.chunks_mut(ROWS_PER_TASK * width).enumerate();
    parallel_for_each(context.threads, tasks, |(task, y)| {
        for (row, y) in y.chunks_exact_mut(width).enumerate() {
            work(task * ROWS_PER_TASK + row, y);
        }
    });
}
