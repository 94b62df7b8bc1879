//! Plain Rust for any processor: the definition of what the other instruction sets compute.

use half::bf16;
use jetmoe_format::{BLOCK_INPUTS, PANEL_ROWS, PackedLayout, Panel};

use super::float32::{self, FloatRows};
use super::{LANE_GROUP_BYTES, QuantizedPanel};
use crate::Activation;
use crate::packed_input::{ActivationRows, ActivationTileMut, groups_per_block};

/// Sums `(code − zero point) · value` over the columns of each group, exactly, then multiplies by both scales.
pub(super) fn multiply_codes(weight: &QuantizedPanel<'_>, rows: &ActivationRows<'_>, products: &mut [f32]) {
    let QuantizedPanel { panel, layout, blocks_per_group } = *weight;
    products.fill(0.0);
    let groups = groups_per_block(layout);
    let columns = BLOCK_INPUTS / groups;
    let mut differences = [0_i32; BLOCK_INPUTS];
    for block in 0..layout.blocks() {
        let x = rows.block(block);
        for group_in_block in 0..groups {
            let group = block / blocks_per_group * groups + group_in_block;
            let scales = &panel.scales[group * PANEL_ROWS..][..PANEL_ROWS];
            for place in 0..PANEL_ROWS {
                let zero_point = match panel.zero_points {
                    Some(zero_points) => zero_points[group * PANEL_ROWS + place],
                    None => layout.scheme.format.default_zero_point(),
                };
                let scale = scales[place].to_f32();
                // Unpack one row's codes of the group, without their zero point.
                let first = group_in_block * columns;
                for (column, difference) in differences[..columns].iter_mut().enumerate() {
                    let code = layout.code(panel.codes, place, block * BLOCK_INPUTS + first + column);
                    *difference = i32::from(code) - i32::from(zero_point);
                }
                // Multiply them by the same columns of every input row.
                for row in 0..rows.tile.rows {
                    let values = &x.values[row][first..][..columns];
                    let terms = values.iter().zip(&differences).map(|(value, code)| i32::from(*value) * code);
                    let sum: i32 = terms.sum();
                    products[row * PANEL_ROWS + place] += sum as f32 * scale * x.scales[row];
                }
            }
        }
    }
}

/// Sums in float32. A lane holds two bfloat16 elements, of an even and the following odd column.
pub(super) fn multiply_bf16(panel: &[u8], x: &[f32], columns: usize, products: &mut [f32]) {
    for (row, products) in x.chunks_exact(columns).zip(products.chunks_exact_mut(PANEL_ROWS)) {
        products.fill(0.0);
        for (pair, lanes) in row.chunks_exact(2).zip(panel.chunks_exact(LANE_GROUP_BYTES)) {
            for (product, lane) in products.iter_mut().zip(lanes.chunks_exact(4)) {
                let even = bf16::from_le_bytes([lane[0], lane[1]]).to_f32();
                let odd = bf16::from_le_bytes([lane[2], lane[3]]).to_f32();
                *product += even * pair[0] + odd * pair[1];
            }
        }
    }
}

pub(super) fn multiply_float32(
    panels: &[Panel<'_, f32>],
    layout: &PackedLayout,
    rows: &FloatRows,
    products: &mut [f32],
) {
    float32::multiply::<false>(panels, layout, rows, products);
}

pub(super) fn quantize<'a>(rows: impl Iterator<Item = &'a [f32]>, tile: &mut ActivationTileMut<'_>) {
    tile.quantize(rows);
}

pub(super) fn gate(activation: Activation, products: &[f32], gated: &mut [f32], first: usize) {
    activation.gate(products, gated, first);
}
