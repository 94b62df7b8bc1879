//! GPTQ (<https://arxiv.org/abs/2210.17323>): quantizes one column after the other, and compensates each error in the weights
//! of its row that follow, as far as their inputs correlate.
//!
//! Names of the paper's algorithm 1: W are the weights, Q the codes, E the errors, H the Hessian of the squared error (up to a
//! factor, the second moments of the inputs), H⁻¹ = UᵀU with U = Cholesky(H⁻¹)ᵀ, and B the block width.

use faer::linalg::matmul::matmul;
use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::{Accum, Mat, MatMut, MatRef, Par, Side};
use jetmoe_format::Scheme;
use multiversion::multiversion;

use crate::group::{choose_scale, dequantize, nearest_code};
use crate::refinement::refine;
use crate::rows::{QuantizedRows, TrailingMatrix, block_width};
use crate::{Error, InputStatistics, Result, Rounding};

/// Quantizes matrices whose inputs were observed. [`Gptq::new`] prepares two matrices once, of 4·inputs² bytes each.
#[derive(Debug)]
pub struct Gptq {
    inputs: usize,
    /// H: the damped second moments, `[inputs, inputs]`.
    hessian: Vec<f32>,
    /// Row j of U divided by its diagonal element: how the weights after weight j change for an error of 1 in it. `[inputs,
    /// inputs]`, above the diagonal.
    updates: Vec<f32>,
}

impl Gptq {
    /// Prepares the matrices on all cores.
    ///
    /// `damping` times the mean square of the inputs is added to the diagonal of H, so that directions with few inputs count
    /// too: 0.01 is customary, 1 suits a matrix that is also used with inputs of another kind. Statistics that are all zero
    /// carry no information, and every weight then counts alike.
    ///
    /// # Errors
    /// [`Error::Statistics`] if they are not finite.
    pub fn new(statistics: &InputStatistics, damping: f32) -> Result<Self> {
        let inputs = statistics.inputs();
        // H + λI, scaled to a mean diagonal of 1, which leaves the updates as they are.
        let mean = statistics.mean_square();
        let (scale, lambda) = if mean > 0.0 { (1.0 / mean, f64::from(damping)) } else { (1.0, 1.0) };
        let damped = |row: usize, column: usize| {
            let lambda = if row == column { lambda } else { 0.0 };
            f64::from(statistics.moment(row, column)) * scale + lambda
        };
        // U without inverting H: with rows and columns reversed, H = L·Lᵀ. Reversed back, H = V·Vᵀ with an upper factor V, so
        // H⁻¹ = V⁻ᵀ·V⁻¹ and U = V⁻¹.
        let last = inputs.saturating_sub(1);
        let reversed = Mat::from_fn(inputs, inputs, |row, column| match row < column {
            true => 0.0, // not read
            false => damped(last - row, last - column),
        });
        let factor = reversed.llt(Side::Lower).map_err(|_| Error::Statistics)?;
        drop(reversed);
        // Transposed, so that what becomes a row is contiguous.
        let mut inverse = Mat::<f64>::zeros(inputs, inputs);
        invert_lower_triangular(inverse.transpose_mut(), factor.L(), Par::rayon(0));
        drop(factor);
        // Reverse back, and divide each row by its diagonal element: [H⁻¹]ⱼ,: / [H⁻¹]ⱼⱼ.
        let mut updates = vec![0.0; inputs * inputs];
        for row in 0..inputs {
            let following = &mut updates[row * inputs + row + 1..(row + 1) * inputs];
            for (column, update) in (row + 1..inputs).zip(following) {
                *update = (inverse[(last - column, last - row)] / inverse[(last - row, last - row)]) as f32;
            }
        }
        if !mean.is_finite() || updates.iter().any(|update| !update.is_finite()) {
            return Err(Error::Statistics);
        }
        let places = (0..inputs * inputs).map(|place| (place / inputs, place % inputs));
        let hessian = places.map(|(row, column)| damped(row, column) as f32).collect();
        Ok(Gptq { inputs, hessian, updates })
    }

    /// Quantizes rows of a matrix, `[rows, inputs]`, independently of each other. Some dozens at a time are faster than one by
    /// one, because they share each read of the matrices. `codes` are as many as the weights, `scales` and `zero_points` are
    /// `[rows, groups]`, all as in [`crate::quantize_row`].
    ///
    /// # Errors
    /// A weight that is infinite or NaN, or a group whose scale its type cannot hold; the index counts through all rows.
    ///
    /// # Panics
    /// If the lengths of the slices do not match.
    pub fn quantize_rows(
        &self,
        scheme: &Scheme,
        rounding: Rounding,
        weights: &[f32],
        codes: &mut [u8],
        scales: &mut [f32],
        zero_points: &mut [u8],
    ) -> Result<()> {
        let rows = weights.len() / self.inputs.max(1);
        let groups = scheme.groups(self.inputs);
        assert_eq!(rows * self.inputs, weights.len(), "whole rows");
        assert_eq!(codes.len(), weights.len(), "one code for each weight");
        assert_eq!(
            (scales.len(), zero_points.len()),
            (rows * groups, rows * groups),
            "one scale and zero point for each group"
        );
        if let Some(index) = weights.iter().position(|weight| !weight.is_finite()) {
            return Err(Error::NotFinite { index, value: weights[index] });
        }
        let mut rows =
            QuantizedRows { scheme, inputs: self.inputs, groups, weights, codes, scales, zero_points };
        self.quantize_columns(rounding, &mut rows);
        rows.check_scales()?;
        refine(&self.hessian, &mut rows);
        Ok(())
    }

    /// Quantizes column after column, in blocks of B columns.
    fn quantize_columns(&self, rounding: Rounding, rows: &mut QuantizedRows<'_>) {
        let (inputs, scheme, count) = (self.inputs, rows.scheme, rows.count());
        let mut weights = rows.weights.to_vec(); // W, which the updates change
        let block = block_width(scheme);
        let mut errors = vec![0.0; count * block]; // E
        for first in (0..inputs).step_by(block) {
            let width = block.min(inputs - first);
            // Quantize the block, with updates within it.
            let updates =
                TrailingMatrix { elements: &self.updates[first * inputs + first..], stride: inputs };
            for (row, errors) in errors.chunks_exact_mut(width).take(count).enumerate() {
                let weights = &mut weights[row * inputs + first..][..width];
                let (codes, scales, zero_points) = rows.block_mut(row, first, width);
                quantize_block(scheme, rounding, updates, weights, codes, scales, zero_points, errors);
            }
            // Propagate its errors to all following columns: W:,(i+B): −= E · H⁻¹ᵢ:(i+B),(i+B):
            let end = first + width;
            let all = MatMut::from_row_major_slice_mut(&mut weights, count, inputs);
            let updates = MatRef::from_row_major_slice(&self.updates, inputs, inputs);
            matmul(
                all.subcols_mut(end, inputs - end),
                Accum::Add,
                MatRef::from_row_major_slice(&errors[..count * width], count, width),
                updates.submatrix(first, end, width, inputs - end),
                -1.0,
                Par::Seq,
            );
        }
    }
}

/// Quantizes one row's weights of a block, and compensates each error in the weights of the block that follow.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma+avx2",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
#[allow(clippy::too_many_arguments, reason = "the slices of one row")]
fn quantize_block(
    scheme: &Scheme,
    rounding: Rounding,
    updates: TrailingMatrix<'_>,
    weights: &mut [f32],
    codes: &mut [u8],
    scales: &mut [f32],
    zero_points: &mut [u8],
    errors: &mut [f32],
) {
    let width = weights.len();
    for (index, (scale, zero_point)) in scales.iter_mut().zip(zero_points).enumerate() {
        // The scale of a group is chosen when its first column is reached, from the weights as updated until then.
        let columns = index * scheme.group_size..((index + 1) * scheme.group_size).min(width);
        let group = choose_scale(scheme, rounding, &weights[columns.clone()]);
        (*scale, *zero_point) = (group.scale, group.zero_point);
        for column in columns {
            // Q:,ⱼ = quant(W:,ⱼ) and E:,ⱼ = W:,ⱼ − Q:,ⱼ; the updates contain the division by [H⁻¹]ⱼⱼ.
            codes[column] = nearest_code(scheme, group, weights[column]);
            let error = weights[column] - dequantize(scheme, group, codes[column]);
            errors[column] = error;
            // W:,ⱼ:(i+B) −= E:,ⱼ · H⁻¹ⱼ,ⱼ:(i+B)
            let updates = &updates.row(column)[column + 1..width];
            for (weight, update) in weights[column + 1..].iter_mut().zip(updates) {
                *weight -= error * update;
            }
        }
    }
}
