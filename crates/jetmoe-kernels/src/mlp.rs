//! A mixture of gated MLPs.

use jetmoe_format::{BLOCK_INPUTS, PANEL_ROWS, PackedWeight, RowOrder};

use crate::error::length;
use crate::linear::{multiply_and_sum, pack_input, require_stored_order};
use crate::matmul::{self, multiply};
use crate::packed_input::{ActivationTileMut, PackedInput, Tile};
use crate::parallel::{for_each_tile, panels_per_task, parallel_for_each};
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
    let per_task = panels_per_task(mlp.gate_and_up.layout().panels(), threads).div_ceil(2);
    match &mut packed {
        PackedInput::Quantized(activations) => {
            let mut parts = activations.blocks_mut(&tiles);
            let tasks = parts.chunks_mut(per_task * tiles.len()).enumerate();
            let compute = |(task, parts): (usize, &mut [ActivationTileMut<'_>])| {
                let mut scratch = Scratch::new(&tiles);
                for_each_tile(&tiles, parts.len() / tiles.len(), |index, place, tile| {
                    let block = task * per_task + index;
                    let gated = gated_block(isa, input, tile, mlp, block, &mut scratch);
                    let part = &mut parts[index * tiles.len() + place];
                    matmul::quantize(isa, gated.chunks_exact(BLOCK_INPUTS), part);
                });
            };
            parallel_for_each(threads, tasks, compute);
        }
        PackedInput::Float(floats) => {
            // Compute [blocks, assignments, 32] in parallel, then transpose to [assignments, blocks, 32].
            let columns = floats.columns;
            let mut by_block = vec![0.0; floats.values.len()];
            let block_size = assignments * BLOCK_INPUTS;
            let tasks = by_block.chunks_mut(per_task * block_size).enumerate();
            parallel_for_each(threads, tasks, |(task, targets)| {
                let mut scratch = Scratch::new(&tiles);
                for_each_tile(&tiles, targets.len() / block_size, |index, _, tile| {
                    let block = task * per_task + index;
                    let gated = gated_block(isa, input, tile, mlp, block, &mut scratch);
                    let first = index * block_size + tile.first * BLOCK_INPUTS;
                    targets[first..][..gated.len()].copy_from_slice(gated);
                });
            });
            for (assignment, row) in floats.values.chunks_exact_mut(columns).enumerate() {
                for (index, target) in row.chunks_exact_mut(BLOCK_INPUTS).enumerate() {
                    let first = (index * assignments + assignment) * BLOCK_INPUTS;
                    target.copy_from_slice(&by_block[first..][..BLOCK_INPUTS]);
                }
            }
        }
    }
    packed
}

/// Memory for one block of a tile.
struct Scratch {
    products: Vec<f32>,
    gated: Vec<f32>,
}

impl Scratch {
    fn new(tiles: &[Tile]) -> Self {
        let rows = tiles.iter().map(|tile| tile.rows).max().unwrap_or(0);
        Scratch { products: vec![0.0; rows * PANEL_ROWS], gated: vec![0.0; rows * BLOCK_INPUTS] }
    }
}

/// One block of the intermediate values of a tile, `[rows, 32]`.
fn gated_block<'a>(
    isa: Isa,
    input: &PackedInput,
    tile: Tile,
    mlp: &Mlp<'_>,
    block: usize,
    scratch: &'a mut Scratch,
) -> &'a [f32] {
    let products = &mut scratch.products[..tile.rows * PANEL_ROWS];
    let gated = &mut scratch.gated[..tile.rows * BLOCK_INPUTS];
    // A panel has 16 rows of the gate and the same 16 of the up projection, so it gives half a block.
    for half in 0..2 {
        let panel = 2 * block + half;
        if panel < mlp.gate_and_up.layout().panels() {
            multiply(isa, &mlp.gate_and_up, panel, input, tile, products);
            matmul::gate(isa, mlp.activation, products, gated, half * BLOCK_INPUTS / 2);
        }
    }
    gated
}
