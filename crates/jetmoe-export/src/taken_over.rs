//! Codes of weights that another tool quantized, taken over without quantizing them again.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use jetmoe_artifact::WeightPlan;
use jetmoe_checkpoint::{Checkpoint, QuantizedMatrix};
use jetmoe_format::{ElementType, Scheme};
use jetmoe_graph::{QuantizedRows, Quantizer, Rounding, Weight};

/// The plan that takes over the codes of a checkpoint that another tool quantized: with its groups, and with zero points if it has
/// some. For another checkpoint, the default.
pub fn weight_plan(checkpoint: &Checkpoint) -> WeightPlan {
    let default = WeightPlan::default();
    match checkpoint.quantization() {
        Some(found) => WeightPlan { group_size: found.group_size, zero_points: found.zero_points, ..default },
        None => default,
    }
}

/// Takes codes from the checkpoint where the graph stores 4-bit weights in the same groups; asks another quantizer otherwise.
pub(crate) struct TakenOver<'a> {
    checkpoint: &'a Checkpoint,
    otherwise: &'a dyn Quantizer,
    /// Tensors with codes in the checkpoint that the graph stores otherwise.
    again: Mutex<BTreeSet<String>>,
}

impl<'a> TakenOver<'a> {
    pub(crate) fn new(checkpoint: &'a Checkpoint, otherwise: &'a dyn Quantizer) -> Self {
        TakenOver { checkpoint, otherwise, again: Mutex::default() }
    }

    /// Names of the tensors whose codes could not be taken over, so that they were quantized again.
    pub(crate) fn quantized_again(self) -> Vec<String> {
        self.again.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect()
    }
}

impl Quantizer for TakenOver<'_> {
    fn rounding(&self) -> Rounding {
        self.otherwise.rounding()
    }

    fn precomputed(&self, weight: &Weight) -> jetmoe_graph::Result<Option<QuantizedRows>> {
        let matrix = self.checkpoint.quantized_matrix(weight.tensor(), weight.expert())?;
        if let (Some(matrix), Some(scheme)) = (matrix, weight.scheme()) {
            if let Some(rows) = take_over(matrix, &scheme) {
                return Ok(Some(rows));
            }
            let mut again = self.again.lock().unwrap_or_else(PoisonError::into_inner);
            again.insert(weight.tensor().to_owned());
        }
        self.otherwise.precomputed(weight)
    }
}

const LARGEST_FLOAT16: f32 = 65_504.0;

/// The rows of a matrix as a graph stores them; `None` if the scheme cannot hold its codes and scales exactly.
fn take_over(matrix: QuantizedMatrix, scheme: &Scheme) -> Option<QuantizedRows> {
    let fits = scheme.format.is_quantized()
        && scheme.format.bits() == 4
        && scheme.group_size == matrix.group_size
        && (scheme.zero_points || matrix.is_symmetric());
    let is_stored = |scale: &f32| {
        // the largest weight of a group has 15 times its scale
        let is_finite = scheme.scales != ElementType::Float16 || 15.0 * scale <= LARGEST_FLOAT16;
        *scale == 0.0 || is_finite && scheme.stored_scale(*scale) == *scale && *scale >= scheme.least_scale()
    };
    if !fits || !matrix.scales.iter().all(is_stored) {
        return None;
    }
    let groups = matrix.groups();
    let QuantizedMatrix { columns, group_size, mut codes, mut scales, zero_points, .. } = matrix;
    for (index, code) in codes.iter_mut().enumerate() {
        let group = index / columns * groups + index % columns / group_size;
        // a graph holds no scale of 0: such a group is all zeros
        if scales[group] == 0.0 {
            *code = zero_points[group];
        }
        if !scheme.zero_points {
            // from 0 … 15 to two's complement
            *code ^= scheme.format.default_zero_point();
        }
    }
    scales.iter_mut().filter(|scale| **scale == 0.0).for_each(|scale| *scale = 1.0);
    let zero_points = if scheme.zero_points { zero_points } else { vec![0; zero_points.len()] };
    Some(QuantizedRows { codes, scales, zero_points })
}
