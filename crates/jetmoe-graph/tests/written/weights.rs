//! Quantized weights against the checkpoint.

use std::collections::{BTreeMap, BTreeSet};

use jetmoe_artifact::{Precision, Profile, Task};
use jetmoe_checkpoint::Checkpoint;
use jetmoe_graph::Rounding;
use proptest::prelude::*;
use safetensors::Dtype;

use crate::dequantized::Matrix;
use crate::shared::{Sizes, checkpoint, expected};
use crate::{Way, every_way, golden, golden_language_models};

/// Half a step, plus the rounding errors of float32 for codes of up to 255.
const HALF: f64 = 0.5 + 1e-4;

/// Checks every element of a matrix and returns the largest error in steps.
///
/// A weight within the range of its scale has an error of at most half a step. A clipped weight has the last code; with
/// `Nearest` it exceeds the range by no more than the rounding of the stored scale.
fn largest_error(matrix: &Matrix, way: &Way, checkpoint: &Checkpoint, rounding: Rounding) -> f64 {
    let weights = expected(checkpoint, &matrix.weight);
    let width = weights.len() / matrix.outputs;
    assert!(width <= matrix.inputs && matrix.inputs < width + matrix.group_size, "{}", matrix.weight);
    let mut largest = 0.0_f64;
    for (place, element) in matrix.elements.iter().enumerate() {
        let (output, input) = (place / matrix.inputs, place % matrix.inputs);
        if input >= width {
            continue;
        }
        let weight = f64::from(weights[output * width + input]);
        let error = (weight - element.dequantized()).abs() / f64::from(element.scale);
        largest = largest.max(error);
        let (low, high) = element.range;
        // the signed 8-bit code −128 is not used
        let low = if !way.zero_points && (low, high) == (-128, 127) { -127 } else { low };
        let is_clipped = (element.number == high && weight > element.dequantized())
            || (element.number == low && weight < element.dequantized());
        let rounded_scale = f64::from(high - low) * 2.0_f64.powi(-11);
        let allowed = match rounding {
            Rounding::Nearest if is_clipped => HALF + rounded_scale,
            Rounding::Search if is_clipped => f64::INFINITY,
            _ => HALF,
        };
        assert!(error <= allowed, "{} [{output}, {input}]: {weight} became {element:?}", matrix.weight);
    }
    largest
}

/// Names of the matrices that are quantized, by the names of the checkpoint's tensors, with experts apart.
fn quantized_by_right(checkpoint: &Checkpoint) -> BTreeSet<String> {
    let config = checkpoint.config();
    let head = if config.tie_word_embeddings { "model.embed_tokens.weight" } else { "lm_head.weight" };
    let mut names = BTreeSet::from([head.to_owned()]);
    for layer in (0..config.num_hidden_layers).map(|layer| format!("model.layers.{layer}")) {
        names.insert(format!("{layer}.self_attention.kv_proj.weight"));
        for expert in 0..config.num_local_experts {
            for part in
                ["self_attention.experts.input", "self_attention.experts.output", "mlp.input", "mlp.output"]
            {
                names.insert(format!("{layer}.{part}_linear.weight.{expert}"));
            }
        }
    }
    names
}

/// Checks a way to store a checkpoint's weights; returns how many matrices there were, and the largest error
/// in steps.
fn check(way: &Way, checkpoint: &Checkpoint, rounding: Rounding) -> (usize, f64) {
    let written = way.write(checkpoint, &rounding).unwrap();
    let matrices = written.matrices();
    let names: BTreeSet<String> = matrices.iter().map(|matrix| matrix.weight.clone()).collect();
    assert_eq!(names, quantized_by_right(checkpoint), "{way:?}");
    for matrix in &matrices {
        let is_head = matrix.weight == "model.embed_tokens.weight" || matrix.weight == "lm_head.weight";
        let bits = match way.precision {
            Precision::Int8 => 8,
            _ if is_head && way.overrides.is_empty() => 8,
            _ => 4,
        };
        assert_eq!((matrix.bits, matrix.group_size), (bits, way.group_size), "{}, {way:?}", matrix.weight);
    }
    let errors = matrices.iter().map(|matrix| largest_error(matrix, way, checkpoint, rounding));
    (matrices.len(), errors.fold(0.0, f64::max))
}

#[test]
fn every_quantized_weight_is_within_half_a_step_of_the_checkpoints() {
    let (mut matrices, mut largest) = (0, 0.0_f64);
    for name in ["tiny", "odd"] {
        let checkpoint = golden(name);
        for way in every_way() {
            let (count, error) = check(&way, &checkpoint, Rounding::Nearest);
            matrices += count;
            largest = largest.max(error);
        }
    }
    println!("{matrices} matrices, largest error {largest:.4} steps");
}

#[test]
fn of_searched_scales_only_the_largest_weights_are_off_by_more() {
    for name in ["tiny", "odd"] {
        let checkpoint = golden(name);
        for way in every_way().into_iter().filter(|way| way.group_size == 32) {
            let (_, error) = check(&way, &checkpoint, Rounding::Search);
            println!("{name}, {way:?}: largest error {error:.2} steps");
            // the least share of a scale that is tried lets 4-bit codes lose less than a third of their reach
            assert!(error < 6.0, "{error} steps, {way:?}");
        }
    }
}

#[test]
fn every_golden_checkpoint_is_quantized_whole() {
    for (name, checkpoint) in golden_language_models() {
        for profile in Profile::ALL {
            let (matrices, _) = check(&Way::new(Precision::Q4, *profile), &checkpoint, Rounding::Nearest);
            assert!(matrices > 0, "{name}");
        }
    }
}

/// The backbone has no head, so its table is only an embedding.
#[test]
fn the_table_of_a_graph_without_a_head_is_not_quantized() {
    for name in ["tiny", "odd"] {
        let checkpoint = golden(name);
        for profile in Profile::ALL {
            let options = Way::new(Precision::Q4, *profile).options(Task::Backbone);
            let written = crate::Written::of(&checkpoint, &options, &Rounding::Nearest).unwrap();
            let mut names = quantized_by_right(&checkpoint);
            names.retain(|name| name.starts_with("model.layers."));
            let found: BTreeSet<String> =
                written.matrices().into_iter().map(|matrix| matrix.weight).collect();
            assert_eq!(found, names, "{name}, {profile}");
        }
    }
}

/// With tied embeddings both operators read the same bytes, and dequantize the same weights.
#[test]
fn the_embedding_and_the_head_dequantize_the_same_table() {
    let checkpoint = golden("tiny");
    for way in every_way().into_iter().filter(|way| way.profile == Profile::OnnxRuntime) {
        let written = way.write(&checkpoint, &Rounding::Search).unwrap();
        let mut tables: BTreeMap<String, Matrix> = BTreeMap::new();
        for matrix in written.matrices() {
            if matrix.weight == "model.embed_tokens.weight" {
                tables.insert(matrix.operator.clone(), matrix);
            }
        }
        let (looked_up, product) = (&tables["GatherBlockQuantized"], &tables["MatMulNBits"]);
        for (place, element) in product.elements.iter().enumerate() {
            let (output, input) = (place / product.inputs, place % product.inputs);
            let other = looked_up.elements[output * looked_up.inputs + input];
            assert_eq!(element.dequantized(), other.dequantized(), "[{output}, {input}], {way:?}");
        }
    }
}

fn any_way() -> impl Strategy<Value = Way> {
    proptest::sample::select(every_way())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Sizes that are not a multiple of any block: odd rows, short last groups, chunks that end anywhere.
    #[test]
    fn matrices_of_any_size_are_quantized_whole(
        way in any_way(),
        dtype in prop_oneof![Just(Dtype::F32), Just(Dtype::F16), Just(Dtype::BF16)],
        hidden in 1_usize..300,
        intermediate in 1_usize..160,
        experts in 1_usize..4,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let sizes = Sizes { hidden, intermediate, experts };
        // no two neighbours alike in either direction, and no group like another
        let value = |_: &str, tensor: usize, index: usize| ((tensor * 7919 + index * index * 31) % 1009) as f32 - 504.0;
        let checkpoint = checkpoint(folder.path(), dtype, sizes, value);
        check(&way, &checkpoint, Rounding::Nearest);
    }
}

/// Wider than a band of columns and longer than a chunk, with a remainder in both directions.
#[test]
fn matrices_of_several_chunks_are_quantized_whole() {
    let folder = tempfile::tempdir().unwrap();
    let sizes = Sizes { hidden: 1031, intermediate: 557, experts: 1 };
    let value =
        |_: &str, tensor: usize, index: usize| ((tensor * 7919 + index % 99_991 * 31) % 1009) as f32 - 504.0;
    let checkpoint = checkpoint(folder.path(), Dtype::BF16, sizes, value);
    for profile in Profile::ALL {
        for (precision, zero_points) in
            [(Precision::Q4, true), (Precision::Q4, false), (Precision::Int8, true)]
        {
            let way = Way { zero_points, ..Way::new(precision, *profile) };
            check(&way, &checkpoint, Rounding::Nearest);
        }
    }
}
