//! A mixture of gated MLPs.

use crate::layout::{BLOCK_INPUTS, PANEL_ROWS};
use crate::linear::{as_stored, prepare, sum};
use crate::product::{self, multiply};
use crate::rounded::Rows;
use crate::routes::Routes;
use crate::sharing::share;
use crate::weight::length;
use crate::{Activation, Choices, Compute, Error, Result, RowOrder, Weight};

/// The weights of a gated MLP per expert.
#[derive(Debug, Clone, Copy)]
pub struct Mlp<'a> {
    /// Gates above, what they gate below: `[2 · intermediate, hidden]`, in the order [`RowOrder::Halves`].
    pub gate_and_up: Weight<'a>,
    /// `[hidden, intermediate]`
    pub down: Weight<'a>,
    /// The activation of the gate.
    pub activation: Activation,
}

/// `Σ gate · (activation(x · gateᵀ) ⊙ (x · upᵀ)) · downᵀ` over the experts of each row: from `[rows, hidden]` with gates
/// `[rows, per_row]` to `[rows, hidden]`. What stands between the two products is never written as a whole in float32.
///
/// # Errors
/// Sizes that do not fit together, and a choice of an expert that the weights do not have.
pub fn expert_mlp(
    compute: Compute<'_>,
    x: &[f32],
    choices: Choices<'_>,
    gates: &[f32],
    mlp: &Mlp<'_>,
    y: &mut [f32],
) -> Result<()> {
    let (up, down) = (mlp.gate_and_up.layout(), mlp.down.layout());
    let expected = up.outputs / 2;
    if up.order != RowOrder::Halves || down.inputs != expected {
        return Err(Error::Mlp { found: down.inputs, expected });
    }
    as_stored(&mlp.down)?;
    length("the second product's experts", down.experts, up.experts)?;
    length("x", x.len(), choices.rows() * up.inputs)?;
    length("the gates", gates.len(), choices.experts.len())?;
    length("y", y.len(), choices.rows() * down.outputs)?;
    let routes = choices.routes(&mlp.gate_and_up)?;
    let rows = prepare(compute, x, up.inputs, routes.slots(), choices.per_row, &mlp.gate_and_up);
    let gated = gated(compute, &rows, &routes, mlp);
    sum(compute, &gated, &routes, choices.per_row, gates, &mlp.down, y);
    Ok(())
}

/// What the second product takes, in the form that it takes: two panels of the first make a block of it.
fn gated(compute: Compute<'_>, rows: &Rows, routes: &Routes, mlp: &Mlp<'_>) -> Rows {
    let slots = routes.slots().len();
    let mut gated = Rows::new(&mlp.down, slots);
    if slots == 0 {
        return gated;
    }
    let block = |block: usize| {
        let panels = 2 * block..(2 * block + 2).min(mlp.gate_and_up.layout().panels());
        let mut products = vec![0.0; panels.len() * slots * PANEL_ROWS]; // [panels, slots, 32]
        // an expert's panels follow each other in memory
        for (expert, first, count) in routes.busy() {
            for (products, panel) in products.chunks_exact_mut(slots * PANEL_ROWS).zip(panels.clone()) {
                let products = &mut products[first * PANEL_ROWS..][..count * PANEL_ROWS];
                let place = (expert, panel);
                multiply(compute.instructions, &mlp.gate_and_up, place, rows, (first, count), products);
            }
        }
        let mut gated = vec![0.0; slots * BLOCK_INPUTS];
        for (half, products) in products.chunks_exact(slots * PANEL_ROWS).enumerate() {
            let first = half * BLOCK_INPUTS / 2;
            product::gate(compute.instructions, mlp.activation, products, &mut gated, first);
        }
        gated
    };
    match &mut gated {
        Rows::Rounded(rounded) => {
            share(compute.threads, rounded.blocks().enumerate(), |(index, mut target)| {
                product::round(compute.instructions, &block(index), &mut target);
            })
        }
        Rows::Floats(floats) => {
            let columns = floats.columns;
            let mut by_block = vec![0.0; floats.values.len()];
            let targets = by_block.chunks_exact_mut(slots * BLOCK_INPUTS).enumerate();
            share(compute.threads, targets, |(index, target)| target.copy_from_slice(&block(index)));
            for (slot, row) in floats.values.chunks_exact_mut(columns).enumerate() {
                for (index, target) in row.chunks_exact_mut(BLOCK_INPUTS).enumerate() {
                    target
                        .copy_from_slice(&by_block[(index * slots + slot) * BLOCK_INPUTS..][..BLOCK_INPUTS]);
                }
            }
        }
    }
    gated
}
