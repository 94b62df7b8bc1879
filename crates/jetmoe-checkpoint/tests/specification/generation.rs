use jetmoe_checkpoint::GenerationConfig;

use crate::fixtures;

fn read(json: &str) -> Result<GenerationConfig, String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("generation_config.json"), json).unwrap();
    GenerationConfig::open(folder.path()).map_err(|error| error.to_string())
}

#[test]
fn the_end_of_a_sequence_is_one_token_or_many_or_none() {
    assert_eq!(read(r#"{ "eos_token_id": 2 }"#).unwrap().eos_token_ids, [2]);
    assert_eq!(read(r#"{ "eos_token_id": [2, 32000] }"#).unwrap().eos_token_ids, [2, 32000]);
    assert!(read(r#"{ "eos_token_id": null }"#).unwrap().eos_token_ids.is_empty());
    assert!(read("{}").unwrap().eos_token_ids.is_empty());
}

#[test]
fn every_default_of_sampling_is_read_and_other_keys_are_passed_over() {
    let config = read(
        r#"{ "do_sample": true, "temperature": 0.7, "top_k": 40, "top_p": 0.9, "min_p": 0.05,
             "repetition_penalty": 1.1, "max_new_tokens": 64, "bos_token_id": 1, "pad_token_id": 0,
             "transformers_version": "5.23.0", "_from_model_config": true }"#,
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
fn a_folder_without_the_file_has_empty_defaults() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(GenerationConfig::open(folder.path()).unwrap(), GenerationConfig::default());
    assert_eq!(GenerationConfig::open(&fixtures::mini()).unwrap().eos_token_ids, [2]);
}

#[test]
fn a_file_that_is_not_valid_is_named_with_the_place() {
    let error = read(r#"{ "eos_token_id": "</s>" }"#).unwrap_err();
    assert!(error.contains("generation_config.json is not valid: eos_token_id is \"</s>\""), "{error}");
    let error = read("{ \"top_k\": ").unwrap_err();
    assert!(error.contains("line 1 column"), "{error}");
}
