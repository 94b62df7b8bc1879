//! Checkpoints that other tools quantized to 4 bits: the graph holds their codes, scales and zero points.
//! `tests/fixtures/quantized/make_quantized.py` made them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;

use jetmoe_artifact::{Artifact, Precision, Profile, WeightPlan};
use jetmoe_checkpoint::{Checkpoint, Error};
use jetmoe_conformance::StoredWeights;
use jetmoe_export::{ExportOptions, Exported, export, weight_plan};
use jetmoe_testing::files::{copy_folder, edit_json};
use jetmoe_testing::fixtures;
use serde_json::{Value, json};
use tempfile::TempDir;

const GROUP: usize = 16;

/// The quantized weights: name and shape.
const WEIGHTS: [(&str, &[usize]); 6] = [
    ("lm_head.weight", &[48, 32]),
    ("model.layers.0.mlp.input_linear.weight", &[2, 32, 32]),
    ("model.layers.0.mlp.output_linear.weight", &[2, 32, 16]),
    ("model.layers.0.self_attention.experts.input_linear.weight", &[2, 16, 32]),
    ("model.layers.0.self_attention.experts.output_linear.weight", &[2, 32, 16]),
    ("model.layers.0.self_attention.kv_proj.weight", &[32, 32]),
];

fn folder(name: &str) -> PathBuf {
    fixtures::folder().join("quantized").join(name)
}

/// The values that the script's codes, scales and zero points stand for.
fn expected(shape: &[usize], is_symmetric: bool) -> Vec<f32> {
    let [rows, columns] = shape[shape.len() - 2..] else { panic!("{shape:?} is no matrix") };
    let value = |index: usize| {
        let (expert, row, column) = (index / (rows * columns), index / columns % rows, index % columns);
        let group = column / GROUP;
        let code = (row * 7 + column * 3 + expert * 5) % 16;
        let zero_point = if is_symmetric { 8 } else { (row * 3 + group) % 16 };
        (code as f32 - zero_point as f32) * (1 + (row + 3 * group) % 5) as f32 / 64.0
    };
    (0..shape.iter().product()).map(value).collect()
}

fn options(output: &TempDir, profile: Profile, zero_points: bool) -> ExportOptions {
    ExportOptions {
        precision: Precision::Q4,
        profile,
        weights: WeightPlan {
            group_size: GROUP,
            zero_points,
            overrides: vec!["int4:lm_head".parse().unwrap()],
        },
        ..ExportOptions::new("a checkpoint", output.path())
    }
}

fn stored(output: &TempDir, exported: &Exported) -> StoredWeights {
    StoredWeights::open(&Artifact::open(output.path()).unwrap(), &exported.record).unwrap()
}

#[test]
fn codes_of_other_tools_are_not_quantized_again() {
    for (name, is_symmetric) in [("gptq", true), ("awq", false), ("compressed-tensors", true)] {
        let checkpoint = Checkpoint::open(folder(name)).unwrap();
        assert_eq!(
            checkpoint.quantization().map(|found| (found.group_size, found.zero_points)),
            Some((GROUP, !is_symmetric))
        );
        let plan = weight_plan(&checkpoint);
        assert_eq!((plan.group_size, plan.zero_points), (GROUP, !is_symmetric), "{name}");
        for profile in Profile::ALL {
            let output = tempfile::tempdir().unwrap();
            let exported = export(&checkpoint, &options(&output, *profile, !is_symmetric)).unwrap();
            assert_eq!(exported.quantized_again, [""; 0], "{name}, {profile}");
            let stored = stored(&output, &exported);
            for (weight, shape) in WEIGHTS {
                let found = stored.tensor(weight, shape).unwrap().unwrap();
                assert!(found == expected(shape, is_symmetric), "{weight} of {name}, {profile}");
            }
        }
    }
}

#[test]
fn a_checkpoint_without_codes_is_stored_as_by_default() {
    let checkpoint = Checkpoint::open(fixtures::checkpoint("tiny")).unwrap();
    assert_eq!(weight_plan(&checkpoint), WeightPlan::default());
}

#[test]
fn the_values_of_the_codes_are_the_weights_of_the_checkpoint() {
    for (name, is_symmetric) in [("gptq", true), ("awq", false), ("compressed-tensors", true)] {
        let checkpoint = Checkpoint::open(folder(name)).unwrap();
        for (weight, shape) in WEIGHTS {
            let found = checkpoint.tensor(weight, shape).unwrap().to_f32();
            assert!(found == expected(shape, is_symmetric), "{weight} of {name}");
        }
        let output = tempfile::tempdir().unwrap();
        let exported = export(&checkpoint, &ExportOptions::new(name, output.path())).unwrap();
        let (weight, shape) = WEIGHTS[1];
        let found = stored(&output, &exported).tensor(weight, shape).unwrap().unwrap();
        assert!(found == expected(shape, is_symmetric), "float32 of {name}");
    }
}

#[test]
fn what_is_stored_in_another_way_is_named() {
    let checkpoint = Checkpoint::open(folder("gptq")).unwrap();
    let output = tempfile::tempdir().unwrap();
    let mut options = options(&output, Profile::Portable, false);
    options.weights.overrides.clear();
    let exported = export(&checkpoint, &options).unwrap();
    assert_eq!(exported.quantized_again, ["lm_head.weight"], "it has 8 bits by default");
    options.weights.group_size = 32;
    let exported = export(&checkpoint, &options).unwrap();
    assert_eq!(exported.quantized_again.len(), WEIGHTS.len());
}

/// A copy with a change to `quantization_config`.
fn changed(name: &str, change: impl FnOnce(&mut Value)) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_folder(&folder(name), copy.path());
    edit_json(&copy.path().join("config.json"), |config| change(&mut config["quantization_config"]));
    copy
}

#[test]
fn what_cannot_be_taken_over_is_refused_by_its_reason() {
    let weights = |config: &mut Value, key: &str, value: Value| {
        config["config_groups"]["group_0"]["weights"][key] = value
    };
    for (copy, reason) in [
        (changed("gptq", |config| config["desc_act"] = json!(true)), "desc_act sorts the inputs"),
        (changed("gptq", |config| config["bits"] = json!(3)), "3 bits are not supported"),
        (changed("gptq", |config| config["group_size"] = json!(-1)), "groups of -1 weights"),
        (
            changed("gptq", |config| config["checkpoint_format"] = json!("marlin")),
            "checkpoint_format \"marlin\"",
        ),
        (changed("awq", |config| config["version"] = json!("gemv")), "the version \"gemv\""),
        (
            changed("compressed-tensors", |config| config["format"] = json!("int-quantized")),
            "the format \"int-quantized\"",
        ),
        (changed("compressed-tensors", |config| weights(config, "strategy", json!("channel"))), "(strategy)"),
        (
            changed("compressed-tensors", |config| weights(config, "actorder", json!("group"))),
            "actorder sorts",
        ),
        (changed("compressed-tensors", |config| weights(config, "type", json!("float"))), "no integers"),
    ] {
        let error = Checkpoint::open(copy.path()).unwrap_err();
        assert!(matches!(error, Error::Quantized { .. }) && error.to_string().contains(reason), "{error}");
        assert_eq!(error.to_string().lines().count(), 2);
    }
    let copy = changed("gptq", |config| config["group_size"] = json!(32));
    let error = Checkpoint::open(copy.path()).unwrap_err().to_string();
    assert!(error.contains("qzeros has shape [2, ") && error.contains("expected [1, "), "{error}");
    // without the configuration the codes have no meaning
    let copy = changed("gptq", |config| *config = Value::Null);
    let error = Checkpoint::open(copy.path()).unwrap_err().to_string();
    assert!(error.contains("as the tensor lm_head.g_idx says"), "{error}");
    assert!(fs::metadata(copy.path().join("model.safetensors")).is_ok());
}
