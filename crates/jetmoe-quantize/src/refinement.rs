//! Makes codes that GPTQ found better: it chose each of them without those behind it.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use jetmoe_format::Scheme;
use multiversion::multiversion;

use crate::gptq::{Rows, Table, block};
use crate::quantize::Group;
use crate::rounding::restore;

/// One code after the other becomes the best one while the others stay. `moments` are the second moments H of the inputs,
/// `[inputs, inputs]`, by which the errors d of a row weigh dHdᵀ.
///
/// Our small model's perplexity rises by 0.62 % with one such sweep, and by 0.77 % without. Further sweeps, and scales
/// fitted to the codes, lower the weighed error on but not the perplexity.
pub(crate) fn refine(moments: &[f32], rows: &mut Rows<'_>) {
    let (count, inputs, scheme) = (rows.count(), rows.inputs, rows.scheme);
    let block = block(scheme);
    let matrix = MatRef::from_row_major_slice(moments, inputs, inputs);
    let mut slopes = slopes(matrix, rows);
    let mut changes = vec![0.0; count * block];
    for first in (0..inputs).step_by(block) {
        let width = block.min(inputs - first);
        let moments = Table { from: &moments[first * inputs + first..], stride: inputs };
        for (row, changes) in changes.chunks_exact_mut(width).take(count).enumerate() {
            let slopes = &mut slopes[row * inputs + first..][..width];
            let (codes, scales, zero_points) = rows.block(row, first, width);
            refine_block(scheme, moments, codes, scales, zero_points, slopes, changes);
        }
        let behind = first + width;
        let all = MatMut::from_row_major_slice_mut(&mut slopes, count, inputs);
        matmul(
            all.subcols_mut(behind, inputs - behind),
            Accum::Add,
            MatRef::from_row_major_slice(&changes[..count * width], count, width),
            matrix.submatrix(first, behind, width, inputs - behind),
            1.0,
            Par::Seq,
        );
    }
}

/// dH for the errors d of every row, half the slope of what they weigh, `[rows, inputs]`.
fn slopes(moments: MatRef<'_, f32>, rows: &Rows<'_>) -> Vec<f32> {
    let (count, inputs) = (rows.count(), rows.inputs);
    let mut errors = vec![0.0; count * inputs];
    for (row, errors) in errors.chunks_exact_mut(inputs).enumerate() {
        let groups = row * rows.groups..(row + 1) * rows.groups;
        let (scales, zero_points) = (&rows.scales[groups.clone()], &rows.zero_points[groups]);
        let run = row * inputs..(row + 1) * inputs;
        rows.scheme.dequantize_row(&rows.codes[run.clone()], scales, zero_points, errors);
        for (error, weight) in errors.iter_mut().zip(&rows.weights[run]) {
            *error = weight - *error;
        }
    }
    let mut slopes = vec![0.0; count * inputs];
    matmul(
        MatMut::from_row_major_slice_mut(&mut slopes, count, inputs),
        Accum::Replace,
        MatRef::from_row_major_slice(&errors, count, inputs),
        moments,
        1.0,
        Par::Seq,
    );
    slopes
}

/// [`refine`] for one row's weights of a block. `changes` become what was added to the errors.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma+avx2",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
fn refine_block(
    scheme: &Scheme,
    moments: Table<'_>,
    codes: &mut [u8],
    scales: &[f32],
    zero_points: &[u8],
    slopes: &mut [f32],
    changes: &mut [f32],
) {
    let width = codes.len();
    let (low, high) = scheme.range();
    for column in 0..width {
        let place = column / scheme.group_size;
        let group = Group { scale: scales[place], zero_point: zero_points[place] };
        let moments = &moments.row(column)[..width];
        // what the errors weigh is least where this one is lower by slope / moment: the weight is restored higher
        let step = slopes[column] / (moments[column] * group.scale);
        let code = scheme.number(codes[column]).saturating_add(step.round_ties_even() as i32);
        let code = code.clamp(low, high) as u8;
        let change = restore(scheme, group, codes[column]) - restore(scheme, group, code);
        codes[column] = code;
        changes[column] = change;
        if change != 0.0 {
            for (slope, moment) in slopes[column + 1..].iter_mut().zip(&moments[column + 1..]) {
                *slope += change * moment;
            }
        }
    }
}
