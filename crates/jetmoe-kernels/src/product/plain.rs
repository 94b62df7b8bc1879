//! Plain Rust: runs everywhere, and says what the others compute.

use half::bf16;

use super::{Codes, PIECE, has_halves};
use crate::layout::{BLOCK_INPUTS, PANEL_ROWS};
use crate::rounded::RowsOf;

/// Sums of `(code − zero point) · value` over the columns of each group, exact, then times both scales.
pub(super) fn multiply_codes(codes: &Codes<'_>, rows: &RowsOf<'_>, products: &mut [f32]) {
    let Codes { panel, layout, blocks_of_group } = *codes;
    products.fill(0.0);
    let halves = if has_halves(layout.element) { 2 } else { 1 };
    let columns = BLOCK_INPUTS / halves;
    let mut differences = [0_i32; BLOCK_INPUTS];
    for block in 0..layout.blocks() {
        let x = rows.block(block);
        for half in 0..halves {
            let group = block / blocks_of_group * halves + half;
            let scales = &panel.scales[group * PANEL_ROWS..][..PANEL_ROWS];
            for place in 0..PANEL_ROWS {
                let zero_point = match panel.zero_points {
                    Some(points) => points[group * PANEL_ROWS + place],
                    None => layout.element.middle(),
                };
                let scale = scales[place].to_f32();
                for (column, difference) in differences[..columns].iter_mut().enumerate() {
                    let code =
                        layout.code(panel.codes, place, block * BLOCK_INPUTS + half * columns + column);
                    *difference = i32::from(code) - i32::from(zero_point);
                }
                for row in 0..rows.count {
                    let values = &x.values[row][half * columns..][..columns];
                    let terms = values.iter().zip(&differences).map(|(value, code)| i32::from(*value) * code);
                    let sum: i32 = terms.sum();
                    products[row * PANEL_ROWS + place] += sum as f32 * scale * x.scales[row];
                }
            }
        }
    }
}

/// Sums in float32.
pub(super) fn multiply_bf16(panel: &[u8], x: &[f32], columns: usize, products: &mut [f32]) {
    for (row, products) in x.chunks_exact(columns).zip(products.chunks_exact_mut(PANEL_ROWS)) {
        products.fill(0.0);
        for (pair, elements) in row.chunks_exact(2).zip(panel.chunks_exact(PIECE)) {
            for (product, element) in products.iter_mut().zip(elements.chunks_exact(4)) {
                let even = bf16::from_le_bytes([element[0], element[1]]).to_f32();
                let odd = bf16::from_le_bytes([element[2], element[3]]).to_f32();
                *product += even * pair[0] + odd * pair[1];
            }
        }
    }
}
