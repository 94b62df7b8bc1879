//! GPTQ (<https://arxiv.org/abs/2210.17323>): weights are rounded one after the other, and each error is made up for in
//! the weights of its row that follow, as far as their inputs go together.

use faer::linalg::matmul::matmul;
use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::{Accum, Mat, MatMut, MatRef, Par, Side};
use jetmoe_format::Scheme;
use multiversion::multiversion;

use crate::quantize::explain_failure;
use crate::refinement::refine;
use crate::rounding::{choose, nearest_code, restore};
use crate::{Error, InputStatistics, Result, Rounding};

/// Columns whose errors are made up for at once in all columns behind them: a block of the updates stays in the cache.
const BLOCK: usize = 128;

/// Quantizes matrices of products whose inputs were observed. What it takes of the statistics is prepared once, in
/// 4·inputs² bytes for each of two tables.
#[derive(Debug)]
pub struct Gptq {
    inputs: usize,
    /// Second moments with their damping, `[inputs, inputs]`.
    moments: Vec<f32>,
    /// Row i says how the weights behind weight i change for an error of 1 in it: the upper factor U of the moments'
    /// inverse, UᵀU, each row divided by its diagonal. `[inputs, inputs]`, above the diagonal.
    updates: Vec<f32>,
}

impl Gptq {
    /// `damping` times the mean square of the inputs is added to that of each, so that directions in which few inputs
    /// were seen count too: 0.01 by custom, 1 for a matrix that is also used with inputs of another kind. Inputs that
    /// were all zero say nothing, and every weight then counts alike. All cores compute.
    ///
    /// # Errors
    /// [`Error::Statistics`] if they are not finite.
    pub fn new(statistics: &InputStatistics, damping: f32) -> Result<Self> {
        let inputs = statistics.inputs();
        let mean = statistics.mean_square();
        let (scale, added) = if mean > 0.0 { (1.0 / mean, f64::from(damping)) } else { (1.0, 1.0) };
        let damped = |row: usize, column: usize| {
            let added = if row == column { added } else { 0.0 };
            f64::from(statistics.moment(row, column)) * scale + added
        };
        // read from the end it is L·Lᵀ; so it is V·Vᵀ where V is L read from the end, an upper factor, and U is V⁻¹
        let last = inputs.saturating_sub(1);
        let reversed = Mat::from_fn(inputs, inputs, |row, column| match row < column {
            true => 0.0, // not read
            false => damped(last - row, last - column),
        });
        let factor = reversed.llt(Side::Lower).map_err(|_| Error::Statistics)?;
        drop(reversed);
        // transposed, so that what becomes a row lies together
        let mut inverse = Mat::<f64>::zeros(inputs, inputs);
        invert_lower_triangular(inverse.transpose_mut(), factor.L(), Par::rayon(0));
        drop(factor);
        let mut updates = vec![0.0; inputs * inputs];
        for row in 0..inputs {
            let behind = &mut updates[row * inputs + row + 1..(row + 1) * inputs];
            for (column, update) in (row + 1..inputs).zip(behind) {
                *update = (inverse[(last - column, last - row)] / inverse[(last - row, last - row)]) as f32;
            }
        }
        if !mean.is_finite() || updates.iter().any(|update| !update.is_finite()) {
            return Err(Error::Statistics);
        }
        let places = (0..inputs * inputs).map(|place| (place / inputs, place % inputs));
        let moments = places.map(|(row, column)| damped(row, column) as f32).collect();
        Ok(Gptq { inputs, moments, updates })
    }

    /// Quantizes rows of a matrix, `[rows, inputs]`, which are independent of each other; some dozens at a time are
    /// quicker than one by one, as they share what is read of the tables. `codes` are as many, `scales` and
    /// `zero_points` are `[rows, groups]`; all as of [`crate::quantize_row`].
    ///
    /// # Errors
    /// A weight that is infinite or no number, or a scale that its type does not hold; their places are counted through
    /// all rows.
    ///
    /// # Panics
    /// If the slices' lengths do not fit each other.
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
        let mut rows = Rows { scheme, inputs: self.inputs, groups, weights, codes, scales, zero_points };
        self.round(rounding, &mut rows);
        rows.check()?;
        refine(&self.moments, &mut rows);
        Ok(())
    }

    /// Rounds weight after weight.
    fn round(&self, rounding: Rounding, rows: &mut Rows<'_>) {
        let (inputs, scheme, count) = (self.inputs, rows.scheme, rows.count());
        let mut weights = rows.weights.to_vec();
        let block = block(scheme);
        let mut errors = vec![0.0; count * block];
        for first in (0..inputs).step_by(block) {
            let width = block.min(inputs - first);
            let updates = Table { from: &self.updates[first * inputs + first..], stride: inputs };
            for (row, errors) in errors.chunks_exact_mut(width).take(count).enumerate() {
                let weights = &mut weights[row * inputs + first..][..width];
                let (codes, scales, zero_points) = rows.block(row, first, width);
                round_block(scheme, rounding, updates, weights, codes, scales, zero_points, errors);
            }
            let behind = first + width;
            let all = MatMut::from_row_major_slice_mut(&mut weights, count, inputs);
            let updates = MatRef::from_row_major_slice(&self.updates, inputs, inputs);
            matmul(
                all.subcols_mut(behind, inputs - behind),
                Accum::Add,
                MatRef::from_row_major_slice(&errors[..count * width], count, width),
                updates.submatrix(first, behind, width, inputs - behind),
                -1.0,
                Par::Seq,
            );
        }
    }
}

/// Whole groups, about [`BLOCK`] columns of them.
pub(crate) fn block(scheme: &Scheme) -> usize {
    scheme.group_size * (BLOCK / scheme.group_size).max(1)
}

/// Rows of a matrix with their codes.
pub(crate) struct Rows<'a> {
    pub(crate) scheme: &'a Scheme,
    pub(crate) inputs: usize,
    pub(crate) groups: usize,
    pub(crate) weights: &'a [f32],
    pub(crate) codes: &'a mut [u8],
    pub(crate) scales: &'a mut [f32],
    pub(crate) zero_points: &'a mut [u8],
}

impl Rows<'_> {
    pub(crate) fn count(&self) -> usize {
        self.weights.len() / self.inputs.max(1)
    }

    /// Codes, scales and zero points of some whole groups of a row.
    pub(crate) fn block(
        &mut self,
        row: usize,
        first: usize,
        width: usize,
    ) -> (&mut [u8], &mut [f32], &mut [u8]) {
        let groups = row * self.groups + first / self.scheme.group_size;
        let groups = groups..groups + self.scheme.groups(width);
        let codes = &mut self.codes[row * self.inputs + first..][..width];
        (codes, &mut self.scales[groups.clone()], &mut self.zero_points[groups])
    }

    /// Refuses scales that are not finite, and says at which weight.
    fn check(&self) -> Result<()> {
        let Some(place) = self.scales.iter().position(|scale| !scale.is_finite()) else { return Ok(()) };
        let (row, group) = (place / self.groups, place % self.groups);
        let weights = &self.weights[row * self.inputs..][..self.inputs];
        Err(explain_failure(self.scheme, weights, group).behind(row * self.inputs))
    }
}

/// A square table from one of its diagonal places on.
#[derive(Clone, Copy)]
pub(crate) struct Table<'a> {
    pub(crate) from: &'a [f32],
    /// Numbers of a whole row.
    pub(crate) stride: usize,
}

impl<'a> Table<'a> {
    #[inline(always)]
    pub(crate) fn row(self, row: usize) -> &'a [f32] {
        &self.from[row * self.stride..]
    }
}

/// Rounds one row's weights of a block, and makes up for each error in those of the block that follow.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma+avx2",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
#[allow(clippy::too_many_arguments, reason = "the slices of one row")]
fn round_block(
    scheme: &Scheme,
    rounding: Rounding,
    updates: Table<'_>,
    weights: &mut [f32],
    codes: &mut [u8],
    scales: &mut [f32],
    zero_points: &mut [u8],
    errors: &mut [f32],
) {
    let width = weights.len();
    for (group, (scale, zero_point)) in scales.iter_mut().zip(zero_points).enumerate() {
        let columns = group * scheme.group_size..((group + 1) * scheme.group_size).min(width);
        let found = choose(scheme, rounding, &weights[columns.clone()]);
        (*scale, *zero_point) = (found.scale, found.zero_point);
        for column in columns {
            codes[column] = nearest_code(scheme, found, weights[column]);
            let error = weights[column] - restore(scheme, found, codes[column]);
            errors[column] = error;
            let updates = &updates.row(column)[column + 1..width];
            for (weight, update) in weights[column + 1..].iter_mut().zip(updates) {
                *weight -= error * update;
            }
        }
    }
}
