//! Weights that cannot be stored are rejected, with their position.

use jetmoe_artifact::{Precision, Profile, Task};
use jetmoe_graph::{Error, GraphOptions, Opset, Rounding, build};
use safetensors::Dtype;

use crate::shared::{Sizes, checkpoint};
use crate::{QUANTIZED, Way, golden, profiles_of};

const SIZES: Sizes = Sizes { hidden: 300, intermediate: 24, experts: 3 };

/// The error of writing a checkpoint whose weights are 1 except for one.
fn refusal(way: &Way, tensor: &str, place: usize, bad: f32) -> Option<Error> {
    let folder = tempfile::tempdir().unwrap();
    let value = |name: &str, _: usize, index: usize| if (name, index) == (tensor, place) { bad } else { 1.0 };
    let checkpoint = checkpoint(folder.path(), Dtype::F32, SIZES, value);
    way.write(&checkpoint, &Rounding::Search).err()
}

const EXPERTS: &str = "model.layers.0.mlp.input_linear.weight";
const KEYS: &str = "model.layers.0.self_attention.kv_proj.weight";
const ROUTER: &str = "model.layers.0.mlp.router.layer.weight";
const NORM: &str = "model.layers.0.input_layernorm.weight";
const TABLE: &str = "model.embed_tokens.weight";

/// Place of an element of the experts' first matrix, `[3, 48, 300]`.
fn of_expert(expert: usize, row: usize, column: usize) -> usize {
    (expert * 48 + row) * 300 + column
}

#[test]
fn a_weight_beyond_float16_is_refused_by_tensor_and_place() {
    for profile in profiles_of(Precision::F16) {
        let way = Way::new(Precision::F16, profile);
        for (tensor, index, place) in [
            (EXPERTS, of_expert(2, 41, 263), vec![2, 41, 263]),
            (KEYS, 2 * 300 + 299, vec![2, 299]),
            (ROUTER, 300, vec![1, 0]),
            (NORM, 17, vec![17]),
            (TABLE, 6 * 300 + 5, vec![6, 5]),
        ] {
            for bad in [1e6, -1e6, 65520.0] {
                match refusal(&way, tensor, index, bad) {
                    Some(Error::NotRepresentable { tensor: found, place: at, value, .. }) => {
                        assert_eq!((found.as_str(), &at, value), (tensor, &place, bad));
                    }
                    other => panic!("{other:?} for {tensor}"),
                }
            }
        }
        assert!(refusal(&way, EXPERTS, 0, 65504.0).is_none());
    }
    let message =
        refusal(&Way::new(Precision::F16, Profile::Portable), EXPERTS, of_expert(1, 2, 3), 1e6).unwrap();
    let message = message.to_string();
    assert!(
        message.starts_with(&format!(
            "{EXPERTS}: the weight at [1, 2, 3] is 1000000, beyond what float16 can hold"
        )),
        "{message}"
    );
}

#[test]
fn bfloat16_holds_every_weight_but_the_largest_float32() {
    let way = Way::new(Precision::Bf16, Profile::Portable);
    assert!(refusal(&way, EXPERTS, 5, 1e38).is_none());
    let error = refusal(&way, EXPERTS, of_expert(0, 1, 2), f32::MAX).unwrap();
    assert!(matches!(error, Error::NotRepresentable { place, .. } if place == [0, 1, 2]));
}

/// A weight with float16 scales is dequantized in float16.
#[test]
fn a_quantized_weight_beyond_float16_is_refused_where_scales_are_float16() {
    for way in [
        Way::new(Precision::Q4F16, Profile::Portable),
        Way::new(Precision::Q4F16, Profile::OnnxRuntime),
        // arithmetic is float32, but scales are float16
        Way::new(Precision::Q4, Profile::Native),
    ] {
        for bad in [1e6, 7e4] {
            match refusal(&way, EXPERTS, of_expert(2, 41, 263), bad) {
                Some(Error::Quantize { tensor, row, source }) => {
                    assert_eq!((tensor.as_str(), row), (EXPERTS, vec![2, 41]));
                    let wanted = jetmoe_quantize::Error::ScaleTooLarge { index: 263, value: bad };
                    assert_eq!(source, wanted, "{way:?}");
                }
                other => panic!("{other:?}"),
            }
        }
        // unquantized weights are rejected as in float16
        if way.precision == Precision::Q4F16 {
            let refused = refusal(&way, NORM, 3, 1e6);
            assert!(matches!(refused, Some(Error::NotRepresentable { place, .. }) if place == [3]));
            // and float32 holds it
            assert!(refusal(&Way::new(Precision::Q4, way.profile), EXPERTS, 7, 1e6).is_none());
        }
    }
}

#[test]
fn an_infinite_weight_is_refused_by_tensor_and_row() {
    for precision in QUANTIZED {
        for profile in profiles_of(precision) {
            for bad in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
                for (tensor, index, row, column) in [
                    (EXPERTS, of_expert(1, 47, 299), vec![1, 47], 299),
                    (KEYS, 300, vec![1], 0),
                    (TABLE, 4 * 300 + 258, vec![4], 258),
                ] {
                    match refusal(&Way::new(precision, profile), tensor, index, bad) {
                        Some(Error::Quantize { tensor: found, row: at, source }) => {
                            assert_eq!((found.as_str(), &at), (tensor, &row), "{precision}, {profile}");
                            let message =
                                format!("weight {column} of the row is {bad}, which cannot be quantized");
                            assert_eq!(source.to_string(), message, "{precision}, {profile}");
                        }
                        other => panic!("{other:?} for {tensor}, {precision}, {profile}"),
                    }
                }
            }
        }
    }
}

#[test]
fn an_operator_set_without_groups_is_refused_for_portable_quantized_weights() {
    let checkpoint = golden("tiny");
    for precision in QUANTIZED {
        for opset in 18..=23 {
            let options = GraphOptions {
                opset: Opset::new(opset).unwrap(),
                ..Way::new(precision, Profile::Portable).options(Task::CausalLm)
            };
            match build(checkpoint.config(), &options) {
                Err(Error::OpsetForQuantized { found, needed: 21 }) if opset < 21 => assert_eq!(found, opset),
                Ok(_) if opset >= 21 => {}
                other => panic!("{:?} at opset {opset}", other.err()),
            }
        }
    }
}

#[test]
fn an_old_operator_set_is_enough_where_nothing_is_quantized() {
    let checkpoint = golden("tiny");
    for precision in [Precision::F32, Precision::F16, Precision::Bf16] {
        let options = Way::new(precision, Profile::Portable).options(Task::CausalLm);
        assert!(build(checkpoint.config(), &GraphOptions { opset: Opset::MINIMUM, ..options }).is_ok());
    }
}

#[test]
fn a_precision_without_native_operators_is_refused_with_those_that_have_some() {
    let checkpoint = golden("tiny");
    for precision in [Precision::F32, Precision::F16, Precision::Q4F16] {
        let options = Way::new(precision, Profile::Native).options(Task::CausalLm);
        let message = build(checkpoint.config(), &options).unwrap_err().to_string();
        let expected = format!(
            "the native profile has no {precision} graphs\n  choose another profile, or one of its precisions: bf16, int8, q4"
        );
        assert_eq!(message, expected);
    }
}
