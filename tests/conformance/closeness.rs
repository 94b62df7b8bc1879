//! Whether two ways to compute the same tokens agree.

use jetmoe::artifact::OutputName;
use jetmoe::conformance::Tolerance;
use jetmoe::rt::TensorMap;
use jetmoe::rt::TokenBatch;
use ndarray::{ArrayD, ArrayView1, ArrayViewD, Axis, Slice, array};

use crate::suite::{Suite, named};

/// The sums are the same; their order depends on how many rows a kernel gets at once.
const LEVEL: Tolerance = Tolerance::Float32;

/// Where two tensors of the same shape differ more than the level allows.
fn difference(
    name: OutputName,
    found: &ArrayViewD<'_, f32>,
    expected: &ArrayViewD<'_, f32>,
) -> Option<String> {
    let scale = expected.iter().fold(0.0_f32, |scale, value| scale.max(value.abs()));
    let limit = match name {
        OutputName::Logits => LEVEL.logits_absolute(),
        _ => LEVEL.relative() * f64::from(scale),
    };
    // NaN is not close to anything
    let is_close = |found: f32, expected: f32| f64::from((found - expected).abs()) <= limit;
    let (found, expected) =
        found.iter().zip(expected).find(|(found, expected)| !is_close(**found, **expected))?;
    Some(format!("{found} instead of {expected}, tolerated {limit:.1e}"))
}

/// Checks that two sets of outputs agree, tensor by tensor.
#[track_caller]
pub(crate) fn assert_all_close(what: &str, found: &TensorMap, expected: &TensorMap) {
    assert!(found.keys().eq(expected.keys()), "outputs {what}");
    for (name, expected) in expected {
        let found = &found[name];
        assert_eq!(found.shape(), expected.shape(), "shape of {name} {what}");
        if let Some(difference) = difference(*name, &found.view(), &expected.view()) {
            panic!("{name} {what}: {difference}");
        }
    }
}

/// Checks that the logits of one token agree.
#[track_caller]
pub(crate) fn assert_logits_close(what: &str, found: ArrayView1<'_, f32>, expected: ArrayView1<'_, f32>) {
    assert_eq!(found.shape(), expected.shape(), "shape of the logits {what}");
    if let Some(difference) = difference(OutputName::Logits, &found.into_dyn(), &expected.into_dyn()) {
        panic!("logits {what}: {difference}");
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

pub(crate) fn add_tests(suite: &mut Suite) {
    suite.add_general_group(
        "closeness",
        named![
            tensors_are_close_within_the_level_and_not_beyond,
            a_sequence_of_a_batch_is_what_follows_its_padding,
        ],
    );
}

fn is_close(name: OutputName, found: f32, expected: f32) -> bool {
    // the last element is the largest
    let [found, expected] = [found, expected].map(|value| array![[value, 8.0]].into_dyn());
    difference(name, &found.view(), &expected.view()).is_none()
}

fn tensors_are_close_within_the_level_and_not_beyond() {
    let (logits, others) = (LEVEL.logits_absolute() as f32, LEVEL.relative() as f32 * 8.0);
    for (name, limit) in [(OutputName::Logits, logits), (OutputName::HiddenState(1), others)] {
        assert!(is_close(name, 0.0, 0.9 * limit) && is_close(name, 0.9 * limit, 0.0), "{name}");
        assert!(!is_close(name, 0.0, 1.1 * limit) && !is_close(name, 1.1 * limit, 0.0), "{name}");
        assert!(!is_close(name, f32::NAN, 1.0) && !is_close(name, 1.0, f32::NAN), "{name}");
    }
}

fn a_sequence_of_a_batch_is_what_follows_its_padding() {
    let ids = array![[1, 2, 3], [0, 4, 5]];
    let batch = TokenBatch::masked(ids.clone(), ids.mapv(|id| id != 0)).unwrap();
    let hidden = ids.mapv(|id| id as f32).into_shape_with_order((2, 3, 1)).unwrap().into_dyn();
    let keys = hidden.clone().into_shape_with_order(vec![2, 1, 3, 1]).unwrap();
    let classes: ArrayD<f32> = array![[1.0, 2.0], [3.0, 4.0]].into_dyn();
    let tensors = TensorMap::from([
        (OutputName::HiddenState(0), hidden),
        (OutputName::PresentKey(0), keys),
        (OutputName::Logits, classes),
    ]);
    let sequence = sequence_of(&tensors, &batch, 1);
    assert_eq!(sequence[&OutputName::HiddenState(0)], array![[[4.0], [5.0]]].into_dyn());
    assert_eq!(sequence[&OutputName::PresentKey(0)], array![[[[4.0], [5.0]]]].into_dyn());
    assert_eq!(sequence[&OutputName::Logits], array![[3.0, 4.0]].into_dyn());
}
