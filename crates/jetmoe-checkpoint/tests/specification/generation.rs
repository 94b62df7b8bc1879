use jetmoe_checkpoint::{GenerationConfig, ModelConfig};
use serde_json::{Value, json};

use crate::fixtures;

fn model() -> ModelConfig {
    ModelConfig::read(&fixtures::mini().join("config.json")).unwrap()
}

fn read(json: &str) -> Result<GenerationConfig, String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("generation_config.json"), json).unwrap();
    GenerationConfig::open(folder.path(), &model()).map_err(|error| error.to_string())
}

fn read_value(value: Value) -> Result<GenerationConfig, String> {
    read(&value.to_string())
}

#[test]
fn the_end_of_a_sequence_is_one_token_or_many_or_none() {
    assert_eq!(read(r#"{ "eos_token_id": 2 }"#).unwrap().eos_token_ids, [2]);
    assert_eq!(read(r#"{ "eos_token_id": [2, 32000] }"#).unwrap().eos_token_ids, [2, 32000]);
    assert!(read(r#"{ "eos_token_id": null }"#).unwrap().eos_token_ids.is_empty());
    assert!(read(r#"{ "eos_token_id": -1 }"#).unwrap().eos_token_ids.is_empty());
    assert!(read("{}").unwrap().eos_token_ids.is_empty());
}

#[test]
fn every_setting_of_sampling_is_read_and_keys_without_effect_are_passed_over() {
    let config = read(
        r#"{ "do_sample": true, "temperature": 0.7, "top_k": 40, "top_p": 0.9, "min_p": 0.05,
             "repetition_penalty": 1.1, "max_new_tokens": 64, "bos_token_id": 1, "pad_token_id": 0,
             "transformers_version": "5.23.0", "_from_model_config": true, "use_cache": true }"#,
    )
    .unwrap();
    let mut expected = GenerationConfig::default();
    (expected.bos_token_id, expected.pad_token_id) = (Some(1), Some(0));
    (expected.do_sample, expected.temperature) = (Some(true), Some(0.7));
    (expected.top_k, expected.top_p, expected.min_p) = (Some(40), Some(0.9), Some(0.05));
    (expected.repetition_penalty, expected.max_new_tokens) = (Some(1.1), Some(64));
    assert_eq!(config, expected);
}

#[test]
fn values_that_mean_none_are_none() {
    let config = read_value(json!({
        "pad_token_id": -1, "bos_token_id": null, "top_k": -1, "top_p": 1.0, "typical_p": 1.0, "epsilon_cutoff": 0.0,
        "eta_cutoff": 0.0, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_length": 0, "min_new_tokens": 0,
        "encoder_repetition_penalty": 1, "suppress_tokens": [-1], "bad_words_ids": [], "stop_strings": null,
        "remove_invalid_values": false, "do_sample": true, "temperature": null, "num_beams": 1, "guidance_scale": 1.0,
        "num_return_sequences": 1, "watermarking_config": null, "penalty_alpha": 0
    }))
    .unwrap();
    let mut expected = GenerationConfig::default();
    (expected.do_sample, expected.top_k) = (Some(true), Some(0));
    assert_eq!(config, expected);
    // transformers ignores a top_p above 1
    assert_eq!(read_value(json!({ "do_sample": true, "top_p": 7.5 })).unwrap().top_p, None);
}

#[test]
fn an_integer_may_be_written_as_a_float() {
    let config =
        read_value(json!({ "do_sample": true, "top_k": 50.0, "eos_token_id": [2.0], "max_new_tokens": 8.0 }));
    let config = config.unwrap();
    assert_eq!((config.top_k, config.max_new_tokens), (Some(50), Some(8)));
    assert_eq!(config.eos_token_ids, [2]);
    assert!(
        read_value(json!({ "top_k": 50.5 })).unwrap_err().contains("top_k: is 50.5, expected an integer")
    );
}

#[test]
fn lengths_in_new_tokens_take_precedence() {
    let config =
        read_value(json!({ "max_new_tokens": 9, "max_length": 20, "min_new_tokens": 2, "min_length": 7 }));
    let config = config.unwrap();
    assert_eq!((config.max_new_tokens, config.max_length), (Some(9), None));
    assert_eq!((config.min_new_tokens, config.min_length), (Some(2), None));
    let config = read_value(json!({ "max_length": 20, "min_length": 7 })).unwrap();
    assert_eq!((config.max_length, config.min_length), (Some(20), Some(7)));
}

#[test]
fn rules_for_logits_are_read() {
    let config = read_value(json!({
        "bad_words_ids": [[5], [3, 9]], "sequence_bias": [[[5], -4], [[6, 7], 2.5]], "forced_bos_token_id": 4,
        "forced_eos_token_id": 2, "exponential_decay_length_penalty": [15, 1.6], "stop_strings": "###", "top_h": 0.5
    }))
    .unwrap();
    assert_eq!(config.bad_words_ids, [vec![5], vec![3, 9]]);
    assert_eq!(config.sequence_bias, [(vec![5], -4.0), (vec![6, 7], 2.5)]);
    assert_eq!((config.forced_bos_token_id, config.forced_eos_token_ids), (Some(4), vec![2]));
    assert_eq!(config.exponential_decay_length_penalty, Some((15, 1.6)));
    assert_eq!((config.stop_strings, config.top_h), (vec!["###".to_owned()], Some(0.5)));
    let texts = read_value(json!({ "stop_strings": ["a", "b"] })).unwrap().stop_strings;
    assert_eq!(texts, ["a", "b"]);
}

/// transformers accepts a bias of −∞, which excludes the token, and +∞ too, with which it computes NaN.
#[test]
fn a_number_that_would_make_probabilities_nan_is_refused() {
    let config = read(r#"{ "sequence_bias": [[[5], -Infinity], [[6], -1e300], [[7], 1e30]] }"#).unwrap();
    let biases: Vec<f32> = config.sequence_bias.iter().map(|(_, bias)| *bias).collect();
    assert_eq!(biases, [f32::NEG_INFINITY, f32::NEG_INFINITY, 1e30]);
    for bias in ["Infinity", "1e300", "1e39", "NaN", "\"5\""] {
        let error = read(&format!(r#"{{ "sequence_bias": [[[5], {bias}]] }}"#)).unwrap_err();
        assert!(error.contains("generation_config.json") && error.contains("sequence_bias: is "), "{error}");
        assert!(error.contains("a finite number, or -Infinity to exclude the token"), "{error}");
    }
    for number in ["Infinity", "-Infinity", "NaN", "1e999"] {
        let file = format!(
            r#"{{ "exponential_decay_length_penalty": [3, {number}], "repetition_penalty": {number}, "top_p": {number},
                 "encoder_repetition_penalty": {number}, "temperature": {number}, "epsilon_cutoff": {number} }}"#
        );
        let error = read(&file).unwrap_err();
        for key in [
            "exponential_decay_length_penalty",
            "repetition_penalty",
            "encoder_repetition_penalty",
            "temperature",
            "top_p",
            "epsilon_cutoff",
        ] {
            assert!(error.contains(&format!("\n  - {key}: ")), "{key}: {error}");
        }
    }
}

#[test]
fn settings_that_are_not_applied_are_named_with_what_happens() {
    let config = read_value(json!({
        "num_beams": 4, "num_return_sequences": 2, "guidance_scale": 1.5, "penalty_alpha": 0.6, "max_time": 3.5,
        "watermarking_config": { "seeding_scheme": "lefthash" }, "token_healing": true, "dola_layers": "low",
        "chat_format": "chatml"
    }))
    .unwrap();
    let named: Vec<String> = config.not_applied().iter().map(ToString::to_string).collect();
    assert_eq!(named.len(), 8, "{named:?}");
    assert_eq!(named[0], "num_beams is 4: one sequence is followed, without beams");
    assert_eq!(config.unknown_keys(), ["chat_format"]);
}

/// Every key of transformers' `GenerationConfig`, with its default.
#[test]
fn every_key_of_transformers_is_known() {
    let keys: Value =
        serde_json::from_str(include_str!("../../../../tests/fixtures/generation/keys.json")).unwrap();
    let config = read_value(keys.clone()).unwrap();
    assert!(config.unknown_keys().is_empty(), "{:?}", config.unknown_keys());
    assert_eq!(config.not_applied(), []);
    assert!(keys.as_object().unwrap().len() > 60);
}

#[test]
fn what_transformers_refuses_is_refused_with_every_key() {
    let error = read_value(json!({
        "max_new_tokens": 0, "early_stopping": "always", "num_return_sequences": 3, "streamer": "x",
        "forced_eos_token_id": 2, "suppress_tokens": [2, 3]
    }))
    .unwrap_err();
    for key in ["max_new_tokens", "early_stopping", "num_return_sequences", "streamer", "forced_eos_token_id"]
    {
        assert!(error.contains(&format!("\n  - {key}: ")), "{key}: {error}");
    }
}

#[test]
fn sampling_values_are_checked_where_they_are_used() {
    let values = json!({ "temperature": 0.0, "min_p": 7.0, "top_p": -1.0, "typical_p": 0.0, "top_h": 3.0 });
    read_value(values.clone()).unwrap();
    let mut sampled = values;
    sampled["do_sample"] = json!(true);
    let error = read_value(sampled).unwrap_err();
    for key in ["temperature", "min_p", "top_p", "typical_p", "top_h"] {
        assert!(error.contains(&format!("\n  - {key}: ")), "{key}: {error}");
    }
}

#[test]
fn tokens_that_a_rule_needs_must_be_in_the_vocabulary() {
    let error = read_value(json!({
        "bad_words_ids": [[5, 2048]], "sequence_bias": [[[-1], 1.0]], "forced_bos_token_id": 2048,
        "forced_eos_token_id": [2, 9000]
    }))
    .unwrap_err();
    for key in ["bad_words_ids", "sequence_bias", "forced_bos_token_id", "forced_eos_token_id"] {
        assert!(error.contains(&format!("\n  - {key}: ")), "{key}: {error}");
    }
}

#[test]
fn a_folder_without_the_file_has_the_settings_of_its_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let expected = GenerationConfig::from_model_config(&model());
    assert_eq!(GenerationConfig::open(folder.path(), &model()).unwrap(), expected);
    assert_eq!(expected.eos_token_ids, [2]);
    let config = json!({ "model_type": "jetmoe", "eos_token_id": 9, "do_sample": true, "top_k": 5, "use_cache": true });
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let settings = GenerationConfig::open(folder.path(), &model()).unwrap();
    assert_eq!((settings.do_sample, settings.top_k), (Some(true), Some(5)));
    assert_eq!(settings.eos_token_ids, expected.eos_token_ids, "those of the configuration that is given");
    assert_eq!(GenerationConfig::open(&fixtures::mini(), &model()).unwrap().eos_token_ids, [2]);
}

#[test]
fn special_tokens_of_the_configuration_follow_its_own_rules() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(fixtures::mini().join("config.json")).unwrap()).unwrap();
    // `generation_config.json` takes no list of begin-of-sequence tokens
    config["bos_token_id"] = json!([1]);
    config["eos_token_id"] = json!([2, 9000, -1]);
    config["pad_token_id"] = json!(-1);
    config["top_k"] = json!(5);
    fixtures::write_json(&file, &config);
    let model = ModelConfig::read(&file).unwrap();
    let settings = GenerationConfig::open(folder.path(), &model).unwrap();
    assert_eq!((settings.bos_token_id, settings.pad_token_id), (Some(1), None));
    assert_eq!((settings.eos_token_ids, settings.top_k), (vec![2, 9000], Some(5)));
    let keys: Vec<&String> =
        GenerationConfig::keys_of_model_config(config.as_object().unwrap()).map(|(key, _)| key).collect();
    assert_eq!(keys, ["top_k"]);
    // the same values in a file of their own
    let own = json!({ "bos_token_id": [1], "eos_token_id": [2, 9000, -1], "pad_token_id": -1 });
    assert!(read_value(own).unwrap_err().contains("bos_token_id: is [1], expected a token id"));
}

#[test]
fn a_file_that_is_not_valid_is_named_with_key_or_place() {
    let error = read(r#"{ "eos_token_id": "</s>" }"#).unwrap_err();
    assert!(
        error.contains("generation_config.json holds settings for generation that cannot be followed"),
        "{error}"
    );
    assert!(error.contains("eos_token_id: is \"</s>\", expected a token id or a list of ids"), "{error}");
    let error = read("{ \"top_k\": ").unwrap_err();
    assert!(error.contains("line 1 column"), "{error}");
    assert!(read("[]").unwrap_err().contains("is not a JSON object"));
}
