//! Makes codes that GPTQ found better: it sees of each weight only what stands in front of it.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatMut, MatRef, Par, Side};
use multiversion::multiversion;

use crate::gptq::{Rows, block};
use crate::rounding::restore;
use crate::scheme::Group;
use crate::{Bits, Scheme};

/// Share of its diagonal that is added to a row's equations for its scales: groups whose codes go together leave them
/// nearly undetermined.
const RIDGE: f64 = 1e-4;

/// Second moments H of a product's inputs, by which an error d of a row weighs dHdᵀ.
#[derive(Debug)]
pub(crate) struct Moments {
    inputs: usize,
    /// `[inputs, inputs]`, symmetric.
    table: Vec<f32>,
}

impl Moments {
    pub(crate) fn new(inputs: usize, moment: impl Fn(usize, usize) -> f32) -> Self {
        let places = (0..inputs * inputs).map(|place| moment(place / inputs, place % inputs));
        Moments { inputs, table: places.collect() }
    }

    /// Sweeps over scales and codes: of each row all scales at once, then code after code, each the best while the
    /// others stay.
    pub(crate) fn refine(&self, rows: &mut Rows<'_>, sweeps: usize) {
        let places = rows.count() * self.inputs;
        let (mut errors, mut pulls) = (vec![0.0; places], vec![0.0; places]);
        for _ in 0..sweeps {
            self.measure(rows, &mut errors, &mut pulls);
            self.fit_scales(rows, &pulls);
            self.measure(rows, &mut errors, &mut pulls);
            self.fit_codes(rows, &mut errors, &mut pulls);
        }
    }

    /// The errors D of all weights, and D·H, half the slope of what they weigh.
    fn measure(&self, rows: &Rows<'_>, errors: &mut [f32], pulls: &mut [f32]) {
        let (count, inputs) = (rows.count(), self.inputs);
        for row in 0..count {
            let run = row * inputs..(row + 1) * inputs;
            let groups = row * rows.groups..(row + 1) * rows.groups;
            let errors = &mut errors[run.clone()];
            let (scales, zero_points) = (&rows.scales[groups.clone()], &rows.zero_points[groups]);
            rows.scheme.restore_row(&rows.codes[run.clone()], scales, zero_points, errors);
            for (error, weight) in errors.iter_mut().zip(&rows.weights[run]) {
                *error = weight - *error;
            }
        }
        matmul(
            MatMut::from_row_major_slice_mut(pulls, count, inputs),
            Accum::Replace,
            MatRef::from_row_major_slice(errors, count, inputs),
            self.matrix(),
            1.0,
            Par::Seq,
        );
    }

    fn matrix(&self) -> MatRef<'_, f32> {
        MatRef::from_row_major_slice(&self.table, self.inputs, self.inputs)
    }

    /// With the codes U of a row's groups as they are, the scales s of the least error solve (U·H·Uᵀ)·Δs = U·(H·d).
    fn fit_scales(&self, rows: &mut Rows<'_>, pulls: &[f32]) {
        let (count, inputs, groups, size) = (rows.count(), self.inputs, rows.groups, rows.scheme.group_size);
        let levels = levels(rows);
        let all = MatRef::from_row_major_slice(&levels, count, inputs);
        let mut left: Vec<Mat<f64>> = (0..count).map(|_| Mat::zeros(groups, groups)).collect();
        let mut right: Vec<Mat<f64>> = (0..count).map(|_| Mat::zeros(groups, 1)).collect();
        let mut products = vec![0.0_f32; count * inputs];
        for group in 0..groups {
            let first = group * size;
            let (width, rest) = (size.min(inputs - first), inputs - first);
            let products = &mut products[..count * rest];
            matmul(
                MatMut::from_row_major_slice_mut(products, count, rest),
                Accum::Replace,
                all.subcols(first, width),
                self.matrix().submatrix(first, first, width, rest),
                1.0,
                Par::Seq,
            );
            for (row, products) in products.chunks_exact(rest).enumerate() {
                let levels = &levels[row * inputs + first..][..rest];
                let pulls = &pulls[row * inputs + first..][..width];
                right[row][(group, 0)] = f64::from(dot(&levels[..width], pulls));
                for (other, (levels, products)) in levels.chunks(size).zip(products.chunks(size)).enumerate()
                {
                    left[row][(group + other, group)] = f64::from(dot(levels, products));
                }
            }
        }
        for (row, (mut left, right)) in left.into_iter().zip(right).enumerate() {
            for group in 0..groups {
                // a group of zeros alone has no say
                left[(group, group)] = left[(group, group)] * (1.0 + RIDGE) + f64::from(f32::MIN_POSITIVE);
            }
            let Ok(factor) = left.llt(Side::Lower) else { continue };
            let change = faer::linalg::solvers::Solve::solve(&factor, right);
            let scales = &mut rows.scales[row * groups..][..groups];
            let fitted: Vec<f32> = (0..groups)
                .map(|group| rows.scheme.stored((f64::from(scales[group]) + change[(group, 0)]) as f32))
                .collect();
            // a scale that turned round or left its type says that the equations said nothing
            if fitted.iter().all(|scale| scale.is_normal() && *scale > 0.0) {
                scales.copy_from_slice(&fitted);
            }
        }
    }

    /// One code after the other becomes the best one.
    fn fit_codes(&self, rows: &mut Rows<'_>, errors: &mut [f32], pulls: &mut [f32]) {
        let (count, inputs, scheme) = (rows.count(), self.inputs, rows.scheme);
        let block = block(scheme);
        let mut changes = vec![0.0; count * block];
        for first in (0..inputs).step_by(block) {
            let width = block.min(inputs - first);
            let corner = Corner { table: &self.table[first * inputs + first..], stride: inputs };
            for (row, changes) in changes.chunks_exact_mut(width).take(count).enumerate() {
                let run = row * inputs + first;
                let (errors, pulls) = (&mut errors[run..][..width], &mut pulls[run..][..width]);
                let (codes, scales, zero_points) = rows.block(row, first, width);
                fit_block(scheme, corner, codes, (scales, zero_points), errors, pulls, changes);
            }
            let behind = first + width;
            let all = MatMut::from_row_major_slice_mut(pulls, count, inputs);
            matmul(
                all.subcols_mut(behind, inputs - behind),
                Accum::Add,
                MatRef::from_row_major_slice(&changes[..count * width], count, width),
                self.matrix().submatrix(first, behind, width, inputs - behind),
                1.0,
                Par::Seq,
            );
        }
    }
}

/// Codes as numbers, from their zero point.
fn levels(rows: &Rows<'_>) -> Vec<f32> {
    let mut levels = vec![0.0; rows.weights.len()];
    let ones = vec![1.0; rows.groups];
    for row in 0..rows.count() {
        let run = row * rows.inputs..(row + 1) * rows.inputs;
        let zero_points = &rows.zero_points[row * rows.groups..][..rows.groups];
        rows.scheme.restore_row(&rows.codes[run.clone()], &ones, zero_points, &mut levels[run]);
    }
    levels
}

fn dot(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}

/// A block of the moments, with the diagonal.
#[derive(Clone, Copy)]
struct Corner<'a> {
    table: &'a [f32],
    stride: usize,
}

#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma+avx2",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
fn fit_block(
    scheme: &Scheme,
    moments: Corner<'_>,
    codes: &mut [u8],
    (scales, zero_points): (&[f32], &[u8]),
    errors: &mut [f32],
    pulls: &mut [f32],
    changes: &mut [f32],
) {
    let (low, high) = scheme.range();
    for column in 0..codes.len() {
        let place = column / scheme.group_size;
        let group = Group { scale: scales[place], zero_point: zero_points[place] };
        let row = &moments.table[column * moments.stride..][..codes.len()];
        // as the error weighs least that much lower, by as much as the weight is restored higher
        let step = pulls[column] / (row[column] * group.scale);
        let code = signed(scheme, codes[column]).saturating_add(step.round_ties_even() as i32);
        let code = code.clamp(low, high) as u8;
        let change = restore(scheme, group, codes[column]) - restore(scheme, group, code);
        changes[column] = change;
        if change != 0.0 {
            codes[column] = code;
            errors[column] += change;
            for (pull, moment) in pulls.iter_mut().zip(row) {
                *pull += change * moment;
            }
        }
    }
}

/// A code as a number of the scheme's range.
fn signed(scheme: &Scheme, code: u8) -> i32 {
    match (scheme.bits, scheme.zero_points) {
        (_, true) => i32::from(code),
        (Bits::Eight, false) => i32::from(code.cast_signed()),
        (Bits::Four, false) => i32::from((code << 4).cast_signed() >> 4),
    }
}
