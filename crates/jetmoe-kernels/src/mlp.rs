//! A mixture of gated MLPs.

use jetmoe_format::{BLOCK_INPUTS, PANEL_ROWS, PackedWeight, RowOrder};

use crate::error::length;
use crate::linear::{multiply_and_sum, pack_input, require_stored_order};
use crate::matmul::{self, multiply};
use crate::packed_input::PackedInput;
use crate::parallel::parallel_for_each;
use crate::token_permutation::TokenPermutation;
use crate::{Activation, Error, ExecContext, Result, TopK};

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
    let input = pack_input(context, x, up.inputs, permutation.assignments(), top_k.k, &mlp.gate_and_up);
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
    let assignments = permutation.assignments().len();
    let mut packed = PackedInput::new(&mlp.down, assignments);
    if assignments == 0 {
        return packed;
    }
    // One block of the intermediate values of all assignments, [assignments, 32].
    let compute_block = |block: usize| {
        let panels = 2 * block..(2 * block + 2).min(mlp.gate_and_up.layout().panels());
        let mut products = vec![0.0; panels.len() * assignments * PANEL_ROWS]; // [panels, assignments, 32]
        // Expert by expert, because the panels of an expert are contiguous in memory.
        for (expert, first, count) in permutation.nonempty_experts() {
            for (products, panel) in products.chunks_exact_mut(assignments * PANEL_ROWS).zip(panels.clone()) {
                let products = &mut products[first * PANEL_ROWS..][..count * PANEL_ROWS];
                let panel = (expert, panel);
                multiply(context.isa, &mlp.gate_and_up, panel, input, (first, count), products);
            }
        }
        // A panel has 16 rows of the gate and the same 16 of the up projection, so it gives half a block.
        let mut gated = vec![0.0; assignments * BLOCK_INPUTS];
        for (half, products) in products.chunks_exact(assignments * PANEL_ROWS).enumerate() {
            let first = half * BLOCK_INPUTS / 2;
            matmul::gate(context.isa, mlp.activation, products, &mut gated, first);
        }
        gated
    };
    match &mut packed {
        PackedInput::Quantized(activations) => {
            parallel_for_each(context.threads, activations.tiles_mut().enumerate(), |(index, mut tile)| {
                matmul::quantize(context.isa, &compute_block(index), &mut tile);
            });
        }
        PackedInput::Float(floats) => {
            // Compute [blocks, assignments, 32] in parallel, then transpose to [assignments, blocks, 32].
            let columns = floats.columns;
            let mut by_block = vec![0.0; floats.values.len()];
            let targets = by_block.chunks_exact_mut(assignments * BLOCK_INPUTS).enumerate();
            parallel_for_each(context.threads, targets, |(index, target)| {
                target.copy_from_slice(&compute_block(index));
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
