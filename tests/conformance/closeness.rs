//! Whether two ways to compute the same tokens agree.

use jetmoe::artifact::OutputName;
use jetmoe::conformance::Tolerance;
use jetmoe::rt::TokenBatch;
use jetmoe::rt::engine::TensorMap;
use ndarray::{ArrayViewD, Axis, Slice};

/// The sums are the same; their order depends on how many rows a kernel gets at once.
const LEVEL: Tolerance = Tolerance::Float32;

/// Checks that two tensors agree as the golden values are to be met.
#[track_caller]
pub(crate) fn assert_close(
    what: &str,
    name: OutputName,
    found: &ArrayViewD<'_, f32>,
    expected: &ArrayViewD<'_, f32>,
) {
    assert_eq!(found.shape(), expected.shape(), "shape of {name} {what}");
    let scale = expected.iter().fold(0.0_f32, |scale, value| scale.max(value.abs()));
    let limit = match name {
        OutputName::Logits => LEVEL.logits_absolute(),
        _ => LEVEL.relative() * f64::from(scale),
    };
    for (found, expected) in found.iter().zip(expected) {
        // written so that NaN fails
        let is_close = f64::from((found - expected).abs()) <= limit;
        assert!(is_close, "{name} {what}: {found} instead of {expected}, tolerated {limit:.1e}");
    }
}

/// Checks that two sets of outputs agree, tensor by tensor.
#[track_caller]
pub(crate) fn assert_all_close(what: &str, found: &TensorMap, expected: &TensorMap) {
    assert!(found.keys().eq(expected.keys()), "outputs {what}");
    for (name, expected) in expected {
        assert_close(what, *name, &found[name].view(), &expected.view());
    }
}

/// What belongs to the tokens of one sequence of a batch, without its padding, as a batch of one.
pub(crate) fn sequence_of(tensors: &TensorMap, batch: &TokenBatch, row: usize) -> TensorMap {
    let padding = batch.mask().row(row).iter().filter(|counts| !**counts).count();
    tensors
        .iter()
        .map(|(name, tensor)| {
            let mut view = tensor.slice_axis(Axis(0), Slice::from(row..=row));
            // class logits belong to the whole sequence
            if view.ndim() > 2 {
                view.slice_axis_inplace(token_axis(*name), Slice::from(padding..));
            }
            (*name, view.to_owned())
        })
        .collect()
}

/// The dimension of a tensor that counts tokens.
pub(crate) fn token_axis(name: OutputName) -> Axis {
    match name {
        OutputName::PresentKey(_) | OutputName::PresentValue(_) => Axis(2),
        _ => Axis(1),
    }
}
