//! Statistics of the inputs of a product, as GPTQ needs them.

use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, MatMut, MatRef, Par};

/// The number of inputs of a product, and the sum of `x·xᵀ` over them.
#[derive(Debug, Clone, PartialEq)]
pub struct InputStatistics {
    inputs: usize,
    count: usize,
    /// `[inputs, inputs]`, on and below the diagonal; above it zeros.
    moments: Vec<f32>,
}

impl InputStatistics {
    /// Empty statistics of a product with rows of `inputs` numbers.
    pub fn new(inputs: usize) -> Self {
        InputStatistics { inputs, count: 0, moments: vec![0.0; inputs * inputs] }
    }

    /// Adds rows, `[rows, inputs]`, on all cores.
    ///
    /// # Panics
    /// Unless these are whole rows.
    pub fn add(&mut self, rows: &[f32]) {
        let count = rows.len() / self.inputs.max(1);
        assert_eq!(count * self.inputs, rows.len(), "whole rows");
        let x = MatRef::from_row_major_slice(rows, count, self.inputs);
        triangular::matmul(
            MatMut::from_row_major_slice_mut(&mut self.moments, self.inputs, self.inputs),
            BlockStructure::TriangularLower,
            Accum::Add,
            x.transpose(),
            BlockStructure::Rectangular,
            x,
            BlockStructure::Rectangular,
            1.0,
            Par::rayon(0),
        );
        self.count += count;
    }

    /// Number of rows that were added.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Numbers of a row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// The sum of the products of two numbers of a row.
    pub(crate) fn moment(&self, one: usize, other: usize) -> f32 {
        self.moments[one.max(other) * self.inputs + one.min(other)]
    }

    /// The mean of the diagonal.
    pub(crate) fn mean_square(&self) -> f64 {
        let diagonal = (0..self.inputs).map(|input| f64::from(self.moment(input, input)));
        diagonal.sum::<f64>() / self.inputs.max(1) as f64
    }
}

#[cfg(test)]
mod tests;
