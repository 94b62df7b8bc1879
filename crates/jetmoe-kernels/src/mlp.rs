//! A mixture of gated MLPs.

use jetmoe_format::{BLOCK_INPUTS, PANEL_ROWS, PackedWeight, RowOrder};

use crate::aligned::Aligned;
use crate::error::length;
use crate::linear::{copy_from_panels, multiply_and_sum, pack_input, require_stored_order};
use crate::matmul::{self, multiply};
use crate::packed_input::{PackedInput, Tile};
use crate::parallel::{Task, by_expert, for_each_tile, panels_per_task, parallel_for_each, rows, tasks};
use crate::token_permutation::TokenPermutation;
use crate::{Activation, Error, ExecContext, Isa, Result, TopK};

/// The weights of one gated MLP per expert.
#[derive(Debug, Clone, Copy)]
pub struct Mlp<'a> {
    /// The gate projection above the up projection, `[2 · intermediate, hidden]`, in the order [`RowOrder::Halves`].
    pub gate_and_up: PackedWeight<'a>,
    /// The down projection, `[hidden, intermediate]`.
    pub down: PackedWeight<'a>,
    /// The activation of the gate.
    pub activation: Activation,
}

/// `Σ gate · (activation(x · gateᵀ) ⊙ (x · upᵀ)) · downᵀ` over the experts of each row: from `[rows, hidden]` with gates
/// `[rows, k]` to `[rows, hidden]`. The intermediate values are never stored in float32 as a whole.
///
/// # Errors
/// Mismatched sizes, or an expert that is out of range.
pub fn expert_mlp(
    context: ExecContext<'_>,
    x: &[f32],
    top_k: TopK<'_>,
    gates: &[f32],
    mlp: &Mlp<'_>,
    y: &mut [f32],
) -> Result<()> {
    let (up, down) = (mlp.gate_and_up.layout(), mlp.down.layout());
    let expected = up.outputs / 2;
    if up.order != RowOrder::Halves || down.inputs != expected {
        return Err(Error::Mlp { found: down.inputs, expected });
    }
    require_stored_order(&mlp.down)?;
    length("the second product's experts", down.experts, up.experts)?;
    length("x", x.len(), top_k.rows() * up.inputs)?;
    length("the gates", gates.len(), top_k.experts.len())?;
    length("y", y.len(), top_k.rows() * down.outputs)?;
    let permutation = top_k.permutation(&mlp.gate_and_up)?;
    let input = pack_input(context, x, up.inputs, &permutation, top_k.k, &mlp.gate_and_up);
    let gated = multiply_and_gate(context, &input, &permutation, mlp);
    multiply_and_sum(context, &gated, &permutation, top_k.k, gates, &mlp.down, y);
    Ok(())
}

/// The intermediate values, packed for the second product: two panels of the first product make one block of it.
fn multiply_and_gate(
    context: ExecContext<'_>,
    input: &PackedInput,
    permutation: &TokenPermutation,
    mlp: &Mlp<'_>,
) -> PackedInput {
    let ExecContext { isa, threads } = context;
    let (assignments, tiles) = (permutation.assignments().len(), permutation.tiles(isa));
    let mut packed = PackedInput::new(&mlp.down, &tiles);
    if assignments == 0 {
        return packed;
    }
    // two panels for each block
    let blocks = mlp.down.layout().blocks();
    let per_task = panels_per_task(mlp.gate_and_up.layout().panels(), &tiles, threads).div_ceil(2);
    match &mut packed {
        PackedInput::Quantized(activations) => {
            let mut parts = activations.blocks_mut(&tiles);
            let tasks = tasks(&tiles, &mut parts, blocks, per_task, <[_]>::len);
            parallel_for_each(threads, tasks, |Task { tiles, first, targets: parts }| {
                let mut scratch = Scratch::new(tiles);
                for_each_tile(tiles, parts.len() / tiles.len(), |blocks, place, tile| {
                    let parts = parts[blocks.start * tiles.len() + place..].iter_mut().step_by(tiles.len());
                    let (first, parts) = (first + blocks.start, parts.take(blocks.len()));
                    scratch.multiply_and_gate(isa, input, tile, mlp, first, parts, |gated, part| {
                        matmul::quantize(isa, gated.chunks_exact(BLOCK_INPUTS), part);
                    });
                });
            });
        }
        PackedInput::Float(floats) => {
            // Compute [experts][blocks, rows, 32] in parallel, then transpose to [assignments, blocks, 32].
            let columns = floats.columns;
            let mut by_block = vec![0.0; floats.values.len()];
            let tasks = tasks(&tiles, &mut by_block, blocks, per_task, |tiles| rows(tiles) * BLOCK_INPUTS);
            parallel_for_each(threads, tasks, |Task { tiles, first, targets }| {
                let mut scratch = Scratch::new(tiles);
                let block_size = rows(tiles) * BLOCK_INPUTS;
                for_each_tile(tiles, targets.len() / block_size, |blocks, _, tile| {
                    let targets = targets[blocks.start * block_size..].chunks_mut(block_size);
                    let (first, targets) = (first + blocks.start, targets.take(blocks.len()));
                    let offset = (tile.first - tiles[0].first) * BLOCK_INPUTS;
                    scratch.multiply_and_gate(isa, input, tile, mlp, first, targets, |gated, target| {
                        target[offset..][..gated.len()].copy_from_slice(gated);
                    });
                });
            });
            let mut by_block = by_block.as_slice();
            for tiles in by_expert(&tiles) {
                let (of_expert, rest) = by_block.split_at(rows(tiles) * columns);
                let rows_of_expert = floats.values[tiles[0].first * columns..].chunks_exact_mut(columns);
                for (row, values) in rows_of_expert.take(rows(tiles)).enumerate() {
                    copy_from_panels(of_expert, rows(tiles), row, values);
                }
                by_block = rest;
            }
        }
    }
    packed
}

/// Memory for some blocks of a tile.
struct Scratch {
    /// `[panels, rows, 32]`
    products: Aligned<f32>,
    /// Of one block, `[rows, 32]`.
    gated: Aligned<f32>,
}

impl Scratch {
    fn new(tiles: &[Tile]) -> Self {
        let rows = tiles.iter().map(|tile| tile.rows).max().unwrap_or(0);
        let products = tiles.iter().map(|tile| tile.rows * 2 * tile.form.panels_at_once()).max().unwrap_or(0);
        Scratch { products: Aligned::any(products * PANEL_ROWS), gated: Aligned::any(rows * BLOCK_INPUTS) }
    }

    /// Computes consecutive blocks of the intermediate values of a tile, one for each target, and passes them to `store`,
    /// `[rows, 32]` each.
    #[allow(clippy::too_many_arguments, reason = "what a product is computed from")]
    fn multiply_and_gate<T>(
        &mut self,
        isa: Isa,
        input: &PackedInput,
        tile: Tile,
        mlp: &Mlp<'_>,
        first: usize,
        targets: impl ExactSizeIterator<Item = T>,
        mut store: impl FnMut(&[f32], T),
    ) {
        // A panel has 16 rows of the gate and the same 16 of the up projection, so it gives half a block.
        let panels = (2 * targets.len()).min(mlp.gate_and_up.layout().panels() - 2 * first);
        let panel_size = tile.rows * PANEL_ROWS;
        let products = &mut self.products[..panels * panel_size];
        let gated = &mut self.gated[..tile.rows * BLOCK_INPUTS];
        multiply(isa, &mlp.gate_and_up, 2 * first, input, tile, products.chunks_exact_mut(panel_size));
        for (products, target) in products.chunks(2 * panel_size).zip(targets) {
            if products.len() == panel_size {
                // the last block has values in its first half only
                gated.fill(0.0);
            }
            for (half, products) in products.chunks_exact(panel_size).enumerate() {
                matmul::gate(isa, mlp.activation, products, gated, half * BLOCK_INPUTS / 2);
            }
            store(gated, target);
        }
    }
}
