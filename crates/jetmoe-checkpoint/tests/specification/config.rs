use jetmoe_checkpoint::{Activation, Architecture, ModelConfig, ProblemType, RopeScaling};
use jetmoe_testing::CheckpointDraft;
use jetmoe_testing::fixtures::golden_cases;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::fixtures::{self, tiny};

/// The problems of a configuration, as they are printed.
fn problems(config: &Value) -> Vec<String> {
    ModelConfig::from_json(config).unwrap_err().iter().map(ToString::to_string).collect()
}

fn config_with(key: &str, value: Value) -> Value {
    Value::Object(tiny().with(key, value).config)
}

#[test]
fn a_missing_key_takes_the_default_of_transformers() {
    let config = ModelConfig::from_json(&json!({ "model_type": "jetmoe" })).unwrap();
    assert_eq!(config.architecture, Architecture::CausalLm);
    assert_eq!(config.vocab_size, 32_000);
    assert_eq!(config.hidden_size, 2048);
    assert_eq!(config.num_hidden_layers, 12);
    assert_eq!(config.num_key_value_heads, 16);
    assert_eq!(config.kv_channels, 128);
    assert_eq!(config.intermediate_size, 5632);
    assert_eq!(config.max_position_embeddings, 4096);
    assert_eq!(config.num_local_experts, 8);
    assert_eq!(config.num_experts_per_token, 2);
    assert_eq!(config.activation, Activation::Silu);
    assert_eq!(config.rms_norm_eps, 1e-6);
    assert_eq!(config.rope.theta, 10_000.0);
    assert_eq!(config.rope.scaling, RopeScaling::Default);
    assert!(config.tie_word_embeddings);
    assert_eq!(config.bos_token_id, Some(1));
    assert_eq!(config.eos_token_ids, [2]);
    assert_eq!(config.pad_token_id, None);
    assert_eq!(config.labels, ["LABEL_0", "LABEL_1"]);
    assert_eq!(config.kv_width(), 2048);
    assert_eq!(config.num_attention_heads(), 32);
}

#[test]
fn both_layouts_describe_the_same_model() {
    let transformers = ModelConfig::read(&fixtures::golden("tiny").join("config.json")).unwrap();
    let first_upload = ModelConfig::read(&fixtures::golden("legacy").join("config.json")).unwrap();
    assert_eq!(first_upload, transformers);
}

#[test]
fn every_golden_configuration_loads() {
    for case in golden_cases() {
        ModelConfig::read(&case.join("config.json")).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn keys_of_both_layouts_may_stand_side_by_side_where_they_agree() {
    let mixed = json!({
        "model_type": "jetmoe",
        "intermediate_size": 96, "ffn_hidden_size": 96,
        "num_local_experts": 4, "moe_num_experts": 4,
        "num_experts_per_tok": 1, "moe_top_k": 1,
        "kv_channels": 8, "head_dim": 8,
        "num_hidden_layers": 3, "num_layers": 3,
    });
    let config = ModelConfig::from_json(&mixed).unwrap();
    assert_eq!(
        (config.intermediate_size, config.num_local_experts, config.num_experts_per_token),
        (96, 4, 1)
    );
    assert_eq!((config.kv_channels, config.num_hidden_layers), (8, 3));
}

#[test]
fn keys_of_both_layouts_that_disagree_are_named_with_both_values() {
    let mixed = json!({
        "model_type": "jetmoe",
        "intermediate_size": 96, "ffn_hidden_size": 128,
        "num_local_experts": 8, "moe_num_experts": 4,
        "num_experts_per_tok": 2, "moe_top_k": 1,
    });
    assert_eq!(
        problems(&mixed),
        [
            "moe_num_experts: is 4, but num_local_experts is 8; keep one of them",
            "moe_top_k: is 1, but num_experts_per_tok is 2; keep one of them",
            "ffn_hidden_size: is 128, but intermediate_size is 96; keep one of them",
        ]
    );
}

#[test]
fn every_problem_is_named_at_once() {
    let broken = json!({
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "glu": false,
        "bias": false,
        "vocab_size": 0,
        "hidden_size": "wide",
        "num_hidden_layers": 2.5,
        "num_key_value_heads": -1,
        "kv_channels": 7,
        "num_local_experts": 2,
        "num_experts_per_tok": 3,
        "activation_function": "swishish",
        "rms_norm_eps": -1e-6,
        "rope_parameters": { "rope_type": "longrope", "rope_theta": 0 },
        "tie_word_embeddings": "yes",
        "eos_token_id": [2, 0.5],
    });
    let problems = problems(&broken);
    for key in [
        "model_type",
        "glu",
        "bias",
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_key_value_heads",
        "kv_channels",
        "num_experts_per_tok",
        "activation_function",
        "rms_norm_eps",
        "rope_parameters.rope_type",
        "rope_parameters.rope_theta",
        "tie_word_embeddings",
        "eos_token_id",
    ] {
        let found = problems.iter().filter(|problem| problem.starts_with(&format!("{key}: "))).count();
        assert_eq!(found, 1, "{key} in {problems:#?}");
    }
    assert_eq!(problems.len(), 15, "{problems:#?}");
}

#[test]
fn the_error_names_the_file_and_lists_one_problem_a_line() {
    let folder = tiny().with("glu", json!(false)).with("moe_top_k", json!(1)).write();
    let file = folder.path().join("config.json");
    let error = ModelConfig::read(&file).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "{} is not a valid JetMoE configuration:\n  \
             - glu: is false; only true is supported\n  \
             - moe_top_k: is 1, but num_experts_per_tok is 2; keep one of them",
            file.display()
        )
    );
}

#[test]
fn a_model_without_gate_or_bias_is_refused_by_name() {
    for key in ["glu", "bias"] {
        assert!(ModelConfig::from_json(&config_with(key, json!(true))).is_ok());
        let problems = problems(&config_with(key, json!(false)));
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with(&format!("{key}: is false")), "{problems:?}");
    }
}

#[test]
fn activations_go_by_the_names_of_transformers() {
    for (name, activation) in [
        ("silu", Activation::Silu),
        ("gelu", Activation::Gelu),
        ("gelu_new", Activation::GeluTanh),
        ("gelu_pytorch_tanh", Activation::GeluTanh),
        ("relu", Activation::Relu),
    ] {
        let config = ModelConfig::from_json(&config_with("activation_function", json!(name))).unwrap();
        assert_eq!(config.activation, activation);
        assert_eq!(activation.to_string().parse(), Ok(activation));
    }
}

#[test]
fn the_problem_type_of_a_classifier_is_one_of_three_or_none() {
    for (name, problem_type) in [
        (json!("regression"), Some(ProblemType::Regression)),
        (json!("single_label_classification"), Some(ProblemType::SingleLabelClassification)),
        (json!("multi_label_classification"), Some(ProblemType::MultiLabelClassification)),
        (json!(null), None),
    ] {
        let config = ModelConfig::from_json(&config_with("problem_type", name)).unwrap();
        assert_eq!(config.problem_type, problem_type);
        if let Some(problem_type) = problem_type {
            assert_eq!(problem_type.to_string().parse(), Ok(problem_type));
        }
    }
    assert_eq!(
        problems(&config_with("problem_type", json!("ranking"))),
        ["problem_type: \"ranking\" is not supported; known are regression, single_label_classification, \
             multi_label_classification"]
    );
    assert_eq!(problems(&config_with("problem_type", json!(1))), ["problem_type: is 1, expected a string"]);
    let one_label = tiny()
        .with("problem_type", json!("single_label_classification"))
        .with("id2label", json!({ "0": "relevant" }));
    assert_eq!(
        problems(&Value::Object(one_label.config)),
        [
            "problem_type: is \"single_label_classification\", which needs several labels, and there is one; remove the key for \
          a probability, or write \"regression\" for a value"
        ]
    );
}

#[test]
fn an_unknown_activation_is_refused_with_the_known_ones() {
    assert_eq!(
        problems(&config_with("activation_function", json!("mish"))),
        ["activation_function: \"mish\" is not supported; known are silu, gelu, gelu_new, \
             gelu_pytorch_tanh, relu"]
    );
}

#[test]
fn more_experts_per_token_than_experts_are_refused() {
    assert_eq!(
        problems(&config_with("num_experts_per_tok", json!(4))),
        ["num_experts_per_tok: is 4, more than num_local_experts, which is 3"]
    );
}

#[test]
fn the_number_of_attention_heads_is_computed_whatever_the_file_says() {
    let config = ModelConfig::from_json(&config_with("num_attention_heads", json!(99))).unwrap();
    assert_eq!(config.num_attention_heads(), 4);
}

#[test]
fn the_architecture_says_what_the_model_was_trained_as() {
    for (name, architecture) in [
        ("JetMoeForCausalLM", Architecture::CausalLm),
        ("JetMoEForCausalLM", Architecture::CausalLm),
        ("JetMoeModel", Architecture::Base),
        ("JetMoeForSequenceClassification", Architecture::SequenceClassification),
        ("FSDPJetMoeForCausalLM", Architecture::CausalLm),
        ("FSDPJetMoeForSequenceClassification", Architecture::SequenceClassification),
        ("FSDPJetMoeModel", Architecture::Base),
        ("PeftModelForCausalLM", Architecture::CausalLm),
        ("PeftModelForSequenceClassification", Architecture::SequenceClassification),
        ("PeftModel", Architecture::CausalLm),
        ("Somebody", Architecture::CausalLm),
    ] {
        for value in [json!([name]), json!(name)] {
            let config = ModelConfig::from_json(&config_with("architectures", value)).unwrap();
            assert_eq!(config.architecture, architecture, "{name}");
        }
    }
    for none in [json!(null), json!([])] {
        let config = ModelConfig::from_json(&config_with("architectures", none)).unwrap();
        assert_eq!(config.architecture, Architecture::CausalLm);
    }
    assert!(problems(&config_with("architectures", json!([3])))[0].starts_with("architectures: is [3]"));
}

#[test]
fn a_file_that_is_no_jetmoe_configuration_is_refused() {
    assert_eq!(problems(&json!([1, 2])), ["config.json: is not a JSON object"]);
    assert_eq!(problems(&json!({})), ["model_type: is missing, expected \"jetmoe\""]);
    assert_eq!(problems(&json!({ "model_type": 3 })), ["model_type: is 3, expected a string"]);
}

#[test]
fn the_end_of_a_sequence_is_one_token_or_many_or_none() {
    let read = |value| ModelConfig::from_json(&config_with("eos_token_id", value)).unwrap().eos_token_ids;
    assert_eq!(read(json!(3)), [3]);
    assert_eq!(read(json!([3, 4])), [3, 4]);
    assert!(read(json!(null)).is_empty());
}

#[test]
fn a_negative_id_is_no_token() {
    let read = |key, value| ModelConfig::from_json(&config_with(key, value)).unwrap();
    assert_eq!(read("pad_token_id", json!(-1)).pad_token_id, None);
    assert_eq!(read("bos_token_id", json!(-100)).bos_token_id, None);
    assert!(read("eos_token_id", json!(-1)).eos_token_ids.is_empty());
    assert_eq!(read("eos_token_id", json!([2, -1])).eos_token_ids, [2]);
}

#[test]
fn only_padding_must_be_in_the_vocabulary() {
    assert_eq!(
        problems(&config_with("pad_token_id", json!(11))),
        ["pad_token_id: is 11, beyond the vocabulary of 11"]
    );
    let config = ModelConfig::from_json(&config_with("eos_token_id", json!([2, 12]))).unwrap();
    assert_eq!(config.eos_token_ids, [2, 12]);
    let config = ModelConfig::from_json(&config_with("bos_token_id", json!(11))).unwrap();
    assert_eq!(config.bos_token_id, Some(11));
}

#[test]
fn labels_come_in_the_order_of_their_ids() {
    let labels = |value| ModelConfig::from_json(&config_with("id2label", value)).unwrap().labels;
    let many: serde_json::Map<_, _> =
        (0..12).rev().map(|id| (id.to_string(), json!(format!("class {id}")))).collect();
    assert_eq!(labels(json!({ "1": "new", "0": "old" })), ["old", "new"]);
    assert_eq!(labels(Value::Object(many))[10], "class 10");
    let config = ModelConfig::from_json(&config_with("num_labels", json!(3))).unwrap();
    assert_eq!(config.labels, ["LABEL_0", "LABEL_1", "LABEL_2"]);
    assert_eq!(config.num_labels(), 3);
}

/// As transformers counts them.
#[test]
fn labels_of_a_classifier_may_have_gaps_but_not_words_for_ids() {
    let classifier = |key: &str, value| {
        let draft = tiny().with("architectures", json!(["JetMoeForSequenceClassification"])).with(key, value);
        Value::Object(draft.config)
    };
    let labels = |value| ModelConfig::from_json(&classifier("id2label", value)).unwrap().labels;
    assert_eq!(labels(json!({ "0": "a", "2": "b" })), ["a", "LABEL_1"]);
    assert_eq!(labels(json!({ "1": 7, " 00": "zero" })), ["zero", "7"]);
    for (value, message) in [
        (json!({}), "id2label: names 0 classes"),
        (json!(["a"]), "id2label: is [\"a\"]"),
        (json!({ "a": "0" }), "id2label: has the id \"a\""),
    ] {
        assert!(problems(&classifier("id2label", value))[0].starts_with(message));
    }
    let Value::Object(config) = classifier("id2label", json!({ "0": "a" })) else { unreachable!() };
    let both = CheckpointDraft { config, ..tiny() }.with("num_labels", json!(2));
    assert_eq!(ModelConfig::from_json(&Value::Object(both.config)).unwrap().labels, ["LABEL_0", "LABEL_1"]);
}

#[test]
fn labels_of_another_model_do_not_matter() {
    for value in [json!({}), json!(["a"]), json!({ "a": "0" }), json!(3)] {
        assert!(ModelConfig::from_json(&config_with("id2label", value)).is_ok());
    }
    assert!(ModelConfig::from_json(&config_with("num_labels", json!(0))).is_ok());
}

#[test]
fn sizes_whose_products_no_computer_can_hold_are_refused() {
    for key in [
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_key_value_heads",
        "kv_channels",
        "intermediate_size",
        "num_local_experts",
        "max_position_embeddings",
    ] {
        let problems = problems(&config_with(key, json!(1_u64 << 62)));
        assert!(problems[0].starts_with(&format!("{key}: is 4611686018427387904, expected")), "{problems:?}");
    }
    let wide = json!({ "model_type": "jetmoe", "num_key_value_heads": 1 << 20, "kv_channels": 1 << 20 });
    assert_eq!(
        problems(&wide),
        ["num_key_value_heads: makes 2 × num_key_value_heads × kv_channels larger than 2147483647"]
    );
    assert_eq!(
        problems(&config_with("intermediate_size", json!(i32::MAX))),
        ["intermediate_size: makes 2 × intermediate_size larger than 2147483647"]
    );
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec!["silu", "yarn", "llama3", "linear", "JetMoeModel", ""])
            .prop_map(Value::from),
        (0_u64..40).prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        let key = prop::sample::select(vec![
            "rope_type",
            "factor",
            "rope_theta",
            "low_freq_factor",
            "0",
            "1",
            "beta_fast",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..4).prop_map(|object| {
                Value::Object(object.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
            }),
        ]
    })
}

proptest! {
    #[test]
    fn any_configuration_is_read_or_refused_and_its_numbers_can_be_multiplied(
        values in prop::collection::btree_map(
            prop::sample::select(vec![
                "architectures", "vocab_size", "hidden_size", "num_hidden_layers", "num_layers", "num_key_value_heads",
                "num_attention_heads", "kv_channels", "head_dim", "intermediate_size", "ffn_hidden_size",
                "num_local_experts", "moe_num_experts", "num_experts_per_tok", "moe_top_k", "max_position_embeddings",
                "activation_function", "rms_norm_eps", "rope_parameters", "rope_scaling", "rope_theta",
                "original_max_position_embeddings", "partial_rotary_factor", "tie_word_embeddings", "bos_token_id",
                "eos_token_id", "pad_token_id", "id2label", "glu", "bias",
            ]),
            any_json(),
            0..6,
        ),
    ) {
        let mut config = tiny().config;
        config.extend(values.into_iter().map(|(key, value)| (key.to_owned(), value)));
        if let Ok(config) = ModelConfig::from_json(&Value::Object(config)) {
            prop_assert!(config.num_experts_per_token <= config.num_local_experts);
            prop_assert!(config.kv_width() < 1 << 31);
            prop_assert!(config.num_attention_heads() < 1 << 31);
        }
    }
}
