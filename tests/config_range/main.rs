//! The whole range of the configuration: random checkpoints, each of another shape, through every backend and
//! compared with the Candle reference. The golden cases say that the reference is right; these say that the graph
//! follows it where no golden case goes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use jetmoe_artifact::{Artifact, OptionalOutput, Task};
use jetmoe_checkpoint::{Checkpoint, Dtype, SyntheticOptions, write_synthetic};
use jetmoe_conformance::{BackendName, Expectation, Tolerance, compare, load, reference_model};
use jetmoe_export::{ExportOptions, export};
use jetmoe_rt::LoadOptions;
use serde_json::{Value, json};

/// Exports a random checkpoint of the small default configuration, changed by `change`, and compares every backend
/// with the reference, for every task that the checkpoint can serve.
fn every_backend_agrees(dtype: Dtype, change: Value) {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint_folder = folder.path().join("checkpoint");
    let options = SyntheticOptions { dtype, ..SyntheticOptions::default() };
    write_synthetic(&config(&change), &checkpoint_folder, &options, &mut |_| ()).unwrap();
    let checkpoint = Checkpoint::open(&checkpoint_folder).unwrap();
    let own = Task::of_architecture(checkpoint.config().architecture);
    for task in BTreeSet::from([own.to_string(), Task::Backbone.to_string()]) {
        let task: Task = task.parse().unwrap();
        let expectation = Expectation::from_model(&reference_model(&checkpoint, task).unwrap()).unwrap();
        let output = folder.path().join(task.to_string());
        export(
            &checkpoint,
            &ExportOptions {
                task: Some(task),
                optional_outputs: OptionalOutput::ALL.iter().copied().collect(),
                ..ExportOptions::new("random", &output)
            },
        )
        .unwrap();
        let artifact = Artifact::open(&output).unwrap();
        for backend in
            BackendName::built_in().into_iter().filter(|backend| *backend != BackendName::REFERENCE)
        {
            let model = load(backend, &artifact, None, &LoadOptions::default()).unwrap();
            let comparison = compare(backend, &model, &expectation, Tolerance::Float32).unwrap();
            assert!(comparison.passed, "{change}, {task}, {backend}: {comparison:#?}");
        }
    }
}

/// A small configuration with the keys of `change` put over it.
fn config(change: &Value) -> Value {
    let mut config = json!({
        "model_type": "jetmoe", "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2,
        "num_key_value_heads": 2, "kv_channels": 8, "max_position_embeddings": 64, "intermediate_size": 24,
        "num_local_experts": 4, "num_experts_per_tok": 2,
    });
    let object = config.as_object_mut().unwrap();
    if change.get("moe_num_experts").is_some() {
        // the first upload has other names for these
        object.retain(|key, _| {
            !["intermediate_size", "num_local_experts", "num_experts_per_tok"].contains(&key.as_str())
        });
    }
    object.extend(change.as_object().unwrap().clone());
    config
}

#[test]
fn weights_of_every_type() {
    for dtype in [Dtype::F16, Dtype::Bf16] {
        every_backend_agrees(dtype, json!({}));
    }
}

macro_rules! cases {
    ($($name:ident: $change:tt),+ $(,)?) => {
        $(#[test]
        fn $name() {
            every_backend_agrees(Dtype::F32, json!($change));
        })+
    };
}

cases! {
    the_small_default: {},
    activation_gelu: {"activation_function": "gelu"},
    activation_gelu_new: {"activation_function": "gelu_new"},
    activation_gelu_pytorch_tanh: {"activation_function": "gelu_pytorch_tanh"},
    activation_relu: {"activation_function": "relu"},
    one_expert: {"num_local_experts": 1, "num_experts_per_tok": 1},
    every_expert_for_every_token: {"num_local_experts": 3, "num_experts_per_tok": 3},
    many_experts: {"num_local_experts": 40, "num_experts_per_tok": 7},
    one_key_head: {"num_key_value_heads": 1},
    heads_of_two_channels: {"kv_channels": 2},
    one_layer: {"num_hidden_layers": 1},
    five_layers: {"num_hidden_layers": 5},
    odd_widths: {"hidden_size": 37, "intermediate_size": 1, "vocab_size": 19},
    heads_wider_than_the_hidden_state: {"hidden_size": 16, "num_key_value_heads": 5, "kv_channels": 10},
    an_untied_head: {"tie_word_embeddings": false},
    a_large_final_epsilon: {"rms_norm_eps": 0.1},
    rope_with_another_base: {"rope_parameters": {"rope_type": "default", "rope_theta": 123.0}},
    rope_linear: {"rope_parameters": {"rope_type": "linear", "factor": 3.0}},
    rope_yarn: {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}},
    rope_yarn_without_rounding: {"rope_parameters":
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "truncate": false,
         "beta_fast": 4, "beta_slow": 0.5}},
    rope_yarn_with_its_own_magnitude: {"rope_parameters":
        {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32, "attention_factor": 0.7}},
    rope_yarn_with_mscale: {"rope_parameters":
        {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 8, "mscale": 0.7,
         "mscale_all_dim": 1.3}},
    rope_llama3: {"rope_parameters":
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 24}},
    rope_of_older_files: {"rope_theta": 5000.0, "rope_scaling": {"type": "linear", "factor": 2.0}},
    layout_of_the_first_upload: {"architectures": ["JetMoEForCausalLM"], "moe_num_experts": 4, "moe_top_k": 2,
        "ffn_hidden_size": 24, "rope_theta": 10000.0, "glu": true, "bias": true},
    a_base_model: {"architectures": ["JetMoeModel"]},
    a_classifier: {"architectures": ["JetMoeForSequenceClassification"], "pad_token_id": 0,
        "id2label": {"0": "a", "1": "b", "2": "c", "3": "d"}},
    a_classifier_whose_padding_is_an_ordinary_token: {"architectures": ["JetMoeForSequenceClassification"],
        "pad_token_id": 7},
    a_classifier_without_padding: {"architectures": ["JetMoeForSequenceClassification"], "num_labels": 5},
}
