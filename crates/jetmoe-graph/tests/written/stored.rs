//! Weights in floating-point types: rounded to their type, and otherwise unchanged.

use half::{bf16, f16};
use jetmoe_artifact::{Precision, Profile};
use jetmoe_checkpoint::Checkpoint;
use jetmoe_onnx::{DataType, Tensor};

use crate::shared::{bytes, expected, external};
use crate::{BY_DEFAULT, QUANTIZED, Way, Written, golden, golden_language_models, profiles_of};

/// The nearest number with `digits` binary digits after the first, ties to even. Below the exponent `least` there are fewer.
/// (`half` does not round exactly from float64.)
fn rounded(weight: f32, digits: i32, least: i32) -> f32 {
    if weight == 0.0 {
        return weight;
    }
    let weight = f64::from(weight);
    let exponent = (weight.abs().log2().floor() as i32).max(least);
    let step = 2.0_f64.powi(exponent - digits);
    ((weight / step).round_ties_even() * step) as f32
}

/// Compares the elements of a weight, bit by bit, with the checkpoint's rounded to the nearest number of the
/// type.
fn check(tensor: &Tensor, written: &Written, checkpoint: &Checkpoint, kind: DataType) {
    let name = tensor.name.as_deref().unwrap();
    assert_eq!(tensor.data_type, Some(kind as i32), "{name}");
    let (found, wanted) = (bytes(tensor, &written.data), expected(checkpoint, name));
    let rounded: Vec<u8> = match kind {
        DataType::Float16 => {
            wanted.iter().flat_map(|w| f16::from_f32(rounded(*w, 10, -14)).to_le_bytes()).collect()
        }
        DataType::Bfloat16 => {
            wanted.iter().flat_map(|w| bf16::from_f32(rounded(*w, 7, -126)).to_le_bytes()).collect()
        }
        _ => wanted.iter().flat_map(|weight| weight.to_le_bytes()).collect(),
    };
    assert!(found == rounded, "{name} is not what it should be rounded to");
}

fn is_vector(name: &str) -> bool {
    name.ends_with("norm.weight") || name.ends_with(".bias")
}

#[test]
fn float_precisions_round_every_weight_to_the_nearest_number() {
    for (name, checkpoint) in golden_language_models() {
        for (precision, kind) in [
            (Precision::F32, DataType::Float),
            (Precision::F16, DataType::Float16),
            (Precision::Bf16, DataType::Bfloat16),
        ] {
            for profile in [Profile::Portable, Profile::OnnxRuntime, Profile::Gpu] {
                let written = Way::new(precision, profile).write(&checkpoint, &BY_DEFAULT).unwrap();
                let mut weights = 0;
                for tensor in written.external() {
                    // norms and biases have the type of the activations, which bfloat16 is not
                    let is_small = precision == Precision::Bf16 && is_vector(tensor.name.as_deref().unwrap());
                    check(tensor, &written, &checkpoint, if is_small { DataType::Float } else { kind });
                    weights += 1;
                }
                let config = checkpoint.config();
                let experts_apart = if profile == Profile::Gpu { 1 } else { config.num_local_experts };
                assert!(weights > config.num_hidden_layers * experts_apart * 4, "{name}: {weights}");
            }
        }
    }
}

#[test]
fn routers_norms_and_biases_are_never_quantized() {
    for name in ["tiny", "odd"] {
        let checkpoint = golden(name);
        let config = checkpoint.config();
        for precision in QUANTIZED {
            let kind = if precision == Precision::Q4F16 { DataType::Float16 } else { DataType::Float };
            for profile in profiles_of(precision) {
                let written = Way::new(precision, profile).write(&checkpoint, &BY_DEFAULT).unwrap();
                let float = written.external().filter(|tensor| {
                    let name = tensor.name.as_deref().unwrap();
                    ![".codes", ".scales", ".zero_points", ".bytes"].iter().any(|part| name.ends_with(part))
                });
                let mut names = Vec::new();
                for tensor in float {
                    check(tensor, &written, &checkpoint, kind);
                    names.push(tensor.name.clone().unwrap());
                }
                // the operator of native graphs reads a router's weight as the checkpoint has it
                let transposed = if profile == Profile::Native { "" } else { ".T" };
                let router = format!(".router.layer.weight{transposed}");
                let routers = names.iter().filter(|name| name.ends_with(&router)).count();
                let vectors = names.iter().filter(|name| is_vector(name)).count();
                // two of each a layer, two norms and two biases, and the last norm
                assert_eq!(routers, 2 * config.num_hidden_layers, "{names:?}");
                assert_eq!(vectors, 4 * config.num_hidden_layers + 1, "{names:?}");
                let tables = names.len() - routers - vectors;
                assert_eq!(tables, usize::from(!config.tie_word_embeddings), "{names:?}");
            }
        }
    }
}

#[test]
fn a_part_that_is_kept_is_stored_as_asked_for() {
    let checkpoint = golden("odd");
    for (kept, of, kind) in [
        ("f32:mlp", "mlp", DataType::Float),
        ("f16:kv_proj", "kv_proj", DataType::Float16),
        ("bf16:attention", "experts", DataType::Bfloat16),
        ("f32:lm_head", "lm_head", DataType::Float),
    ] {
        for profile in Profile::ALL {
            // the custom operators read packed bfloat16
            if (*profile, kind) == (Profile::Native, DataType::Bfloat16) {
                continue;
            }
            let way = Way { overrides: vec![kept], ..Way::new(Precision::Q4, *profile) };
            let written = way.write(&checkpoint, &BY_DEFAULT).unwrap();
            let is_meant = |name: &str| name.contains(of) && !is_vector(name) && !name.contains("router");
            let meant: Vec<&Tensor> =
                written.external().filter(|tensor| is_meant(tensor.name.as_deref().unwrap())).collect();
            assert!(!meant.is_empty(), "{kept}");
            for tensor in meant {
                check(tensor, &written, &checkpoint, kind);
            }
            assert!(written.matrices().iter().all(|matrix| !is_meant(&matrix.weight)), "{kept}");
        }
    }
}

#[test]
fn a_part_may_have_groups_of_its_own_size_in_one_layer() {
    let checkpoint = golden("tiny");
    for profile in Profile::ALL {
        let way = Way { overrides: vec!["int8/16:layers.1.mlp"], ..Way::new(Precision::Q4, *profile) };
        let written = way.write(&checkpoint, &BY_DEFAULT).unwrap();
        let mut kept = 0;
        for matrix in written.matrices() {
            let is_kept = matrix.weight.starts_with("model.layers.1.mlp.");
            let is_head = matrix.weight.starts_with("model.embed_tokens");
            let wanted = if is_kept { (8, 16) } else { (if is_head { 8 } else { 4 }, 32) };
            assert_eq!((matrix.bits, matrix.group_size), wanted, "{}", matrix.weight);
            kept += usize::from(is_kept);
        }
        assert_eq!(kept, 2 * checkpoint.config().num_local_experts);
    }
    // and the bytes are at the graph's offsets, for every width
    let written = Way::new(Precision::Q4, Profile::Portable).write(&checkpoint, &BY_DEFAULT).unwrap();
    assert!(written.external().all(|tensor| external(tensor, "location") == "g.onnx_data"));
}
