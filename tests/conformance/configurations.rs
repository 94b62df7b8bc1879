//! The whole range of the configuration: random checkpoints, each of another shape, compared with the Candle reference.
//! The golden cases show that the reference is right; these show that the graph follows it where no golden case goes.

use jetmoe::artifact::{Profile, Task};
use jetmoe::checkpoint::{Dtype, SyntheticOptions, write_synthetic};
use jetmoe::conformance::Expectation;
use jetmoe_testing::Cache;
use serde_json::{Value, json};

use crate::fixtures::Export;
use crate::subject::{Subject, has_device};
use crate::suite::Suite;

pub(crate) fn add_tests(suite: &mut Suite, subject: Subject) {
    // the configuration changes what the exporter writes, whatever device computes it
    if subject.profile == Profile::Portable && !subject.is_reference() && !has_device() {
        for (name, dtype, change) in configurations() {
            suite.add(subject, format!("configurations::{name}"), move |subject| {
                check(subject, name, dtype, &change);
            });
        }
    }
}

/// Exports a random checkpoint of the small default configuration, changed by `change`, and compares it with the
/// reference for its own task and without a head.
fn check(subject: Subject, name: &str, dtype: Dtype, change: &Value) {
    static EXPECTATIONS: Cache<String, Expectation> = Cache::new();
    for task in [None, Some(Task::Backbone)] {
        let export = Export::of_temporary(format!("random {name} {task:?}"), task, |folder| {
            let options = SyntheticOptions { dtype, ..SyntheticOptions::default() };
            write_synthetic(&configuration(change), folder.path(), &options, &mut |_| ()).unwrap();
        });
        let expectation = EXPECTATIONS.get(format!("{name} {task:?}"), || {
            Expectation::from_model(&export.load(Subject::REFERENCE)).unwrap()
        });
        let comparison = subject.compare(&export.load(subject), &expectation);
        assert!(comparison.passed, "{change}, {task:?}: {comparison:#?}");
    }
}

/// A small configuration with the keys of `change` put over it.
fn configuration(change: &Value) -> Value {
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

macro_rules! configurations {
    ($($name:ident: $change:tt),+ $(,)?) => {
        /// Every configuration: its name, the type of its weights, and what it changes.
        fn configurations() -> Vec<(&'static str, Dtype, Value)> {
            vec![
                ("float16_weights", Dtype::F16, json!({})),
                ("bfloat16_weights", Dtype::Bf16, json!({})),
                $((stringify!($name), Dtype::F32, json!($change)),)+
            ]
        }
    };
}

configurations! {
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
