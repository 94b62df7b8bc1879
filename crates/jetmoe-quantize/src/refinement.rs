//! Improves the codes that GPTQ found by coordinate descent: GPTQ chose each code without knowing those that follow it.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use jetmoe_format::Scheme;
use multiversion::multiversion;

use crate::group::{Group, dequantize};
use crate::rows::{QuantizedRows, TrailingMatrix, block_width};

/// Replaces one code after the other by the best one while the others stay. The loss of a row with errors d is dHdᵀ, with the
/// Hessian `[inputs, inputs]`.
///
/// One sweep only: further sweeps, and scales fitted to the codes, lower the loss but not the perplexity.
pub(crate) fn refine(hessian: &[f32], rows: &mut QuantizedRows<'_>) {
    let (count, inputs, scheme) = (rows.count(), rows.inputs, rows.scheme);
    let block = block_width(scheme);
    let matrix = MatRef::from_row_major_slice(hessian, inputs, inputs);
    let mut gradient = compute_gradient(matrix, rows);
    let mut changes = vec![0.0; count * block];
    for first in (0..inputs).step_by(block) {
        let width = block.min(inputs - first);
        // Refine the block, with updates of the gradient within it.
        let hessian = TrailingMatrix { elements: &hessian[first * inputs + first..], stride: inputs };
        for (row, changes) in changes.chunks_exact_mut(width).take(count).enumerate() {
            let gradient = &mut gradient[row * inputs + first..][..width];
            let (codes, scales, zero_points) = rows.block_mut(row, first, width);
            refine_block(scheme, hessian, codes, scales, zero_points, gradient, changes);
        }
        // Update the gradient of all following columns.
        let end = first + width;
        let all = MatMut::from_row_major_slice_mut(&mut gradient, count, inputs);
        matmul(
            all.subcols_mut(end, inputs - end),
            Accum::Add,
            MatRef::from_row_major_slice(&changes[..count * width], count, width),
            matrix.submatrix(first, end, width, inputs - end),
            1.0,
            Par::Seq,
        );
    }
}

/// dH for the errors d of every row, half the gradient of the loss, `[rows, inputs]`.
fn compute_gradient(hessian: MatRef<'_, f32>, rows: &QuantizedRows<'_>) -> Vec<f32> {
    let (count, inputs) = (rows.count(), rows.inputs);
    let mut errors = vec![0.0; count * inputs];
    for (row, errors) in errors.chunks_exact_mut(inputs).enumerate() {
        let groups = row * rows.groups..(row + 1) * rows.groups;
        let (scales, zero_points) = (&rows.scales[groups.clone()], &rows.zero_points[groups]);
        let columns = row * inputs..(row + 1) * inputs;
        rows.scheme.dequantize_row(&rows.codes[columns.clone()], scales, zero_points, errors);
        for (error, weight) in errors.iter_mut().zip(&rows.weights[columns]) {
            *error = weight - *error;
        }
    }
    let mut gradient = vec![0.0; count * inputs];
    matmul(
        MatMut::from_row_major_slice_mut(&mut gradient, count, inputs),
        Accum::Replace,
        MatRef::from_row_major_slice(&errors, count, inputs),
        hessian,
        1.0,
        Par::Seq,
    );
    gradient
}

/// [`refine`] for one row's weights of a block. `changes` receives what was added to the errors.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma+avx2",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
fn refine_block(
    scheme: &Scheme,
    hessian: TrailingMatrix<'_>,
    codes: &mut [u8],
    scales: &[f32],
    zero_points: &[u8],
    gradient: &mut [f32],
    changes: &mut [f32],
) {
    let width = codes.len();
    let (low, high) = scheme.range();
    for column in 0..width {
        let index = column / scheme.group_size;
        let group = Group { scale: scales[index], zero_point: zero_points[index] };
        let hessian = &hessian.row(column)[..width];
        // The loss is least where this error is lower by gradient / Hⱼⱼ: Newton's step in one coordinate, in units of the
        // scale. A lower error is a higher code.
        let step = gradient[column] / (hessian[column] * group.scale);
        let code = scheme.number(codes[column]).saturating_add(step.round_ties_even() as i32);
        let code = code.clamp(low, high) as u8;
        let change = dequantize(scheme, group, codes[column]) - dequantize(scheme, group, code);
        codes[column] = code;
        changes[column] = change;
        if change != 0.0 {
            for (gradient, moment) in gradient[column + 1..].iter_mut().zip(&hessian[column + 1..]) {
                *gradient += change * moment;
            }
        }
    }
}
