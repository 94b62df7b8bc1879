use jetmoe_text::Tokenizer;
use proptest::prelude::*;
use serde_json::json;

use crate::fixtures;

fn mini() -> Tokenizer {
    Tokenizer::open(&fixtures::mini()).unwrap().unwrap()
}

#[test]
fn prompts_become_the_ids_that_transformers_gives() {
    let tokenizer = mini();
    for case in fixtures::expected()["greedy"].as_array().unwrap() {
        let prompt = case["prompt"].as_str().unwrap();
        let ids: Vec<u32> = serde_json::from_value(case["prompt_ids"].clone()).unwrap();
        assert_eq!(tokenizer.encode(prompt, true).unwrap(), ids);
        assert_eq!(tokenizer.encode(prompt, false).unwrap(), ids[1..], "without <s>");
    }
}

#[test]
fn ids_become_the_text_that_transformers_gives() {
    let tokenizer = mini();
    for case in fixtures::expected()["greedy"].as_array().unwrap() {
        let ids = |key: &str| serde_json::from_value::<Vec<u32>>(case[key].clone()).unwrap();
        let all = [ids("prompt_ids"), ids("generated_ids")].concat();
        assert_eq!(tokenizer.decode(&all).unwrap(), case["text"].as_str().unwrap());
    }
}

#[test]
fn tokens_are_found_by_their_text() {
    let tokenizer = mini();
    assert_eq!(tokenizer.token_id("</s>"), Some(2));
    assert_eq!(tokenizer.token_id("no such token"), None);
    assert_eq!(tokenizer.vocab_size(), 2048);
}

#[test]
fn ids_beyond_the_vocabulary_decode_to_nothing() {
    assert_eq!(mini().decode(&[u32::MAX]).unwrap(), "");
}

#[test]
fn a_folder_without_tokenizer_has_none() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Tokenizer::open(folder.path()).unwrap().is_none());
}

#[test]
fn a_sentencepiece_model_alone_is_refused_with_the_way_to_convert_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.model"), "").unwrap();
    let error = Tokenizer::open(folder.path()).unwrap_err().to_string();
    assert!(error.starts_with("tokenizer.json is missing in "), "{error}");
    assert!(error.contains("AutoTokenizer.from_pretrained"), "{error}");
}

#[test]
fn a_damaged_tokenizer_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokenizer.json");
    std::fs::write(&file, r#"{ "version": "1.0" }"#).unwrap();
    let error = Tokenizer::open(folder.path()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{} cannot be used as a tokenizer: ", file.display())), "{error}");
}

#[test]
fn a_table_of_impossible_size_is_refused_with_file_key_and_advice() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokenizer.json");
    let original = std::fs::read_to_string(fixtures::mini().join("tokenizer.json")).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&original).unwrap();
    json["added_tokens"][0]["id"] = (1_u64 << 31).into();
    std::fs::write(&file, json.to_string()).unwrap();
    let error = Tokenizer::open(folder.path()).unwrap_err().to_string();
    let advice = "download or copy the file again, or save it again with transformers";
    let expected = format!(
        "{}: added_tokens: the id of \"<unk>\" is 2147483648, expected less than 16777216\n  {advice}",
        file.display()
    );
    assert_eq!(error, expected);

    std::fs::write(&file, original).unwrap();
    let config = folder.path().join("tokenizer_config.json");
    std::fs::write(&config, r#"{ "added_tokens_decoder": { "2147483648": { "content": "<x>" } } }"#).unwrap();
    let error = Tokenizer::open(folder.path()).unwrap_err().to_string();
    let expected = format!("{}: added_tokens_decoder: the id of \"<x>\" is 2147483648,", config.display());
    assert!(error.starts_with(&expected), "{error}");
}

#[test]
fn special_tokens_have_a_limit_in_bytes() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixtures::mini().join("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    let long = "x".repeat(1025);
    for (name, key, tokens) in [
        ("tokenizer_config.json", "eos_token", json!({ "eos_token": { "content": long } })),
        (
            "tokenizer_config.json",
            "additional_special_tokens",
            json!({ "additional_special_tokens": ["<x>", long] }),
        ),
        (
            "tokenizer_config.json",
            "extra_special_tokens.image",
            json!({ "extra_special_tokens": { "image": long } }),
        ),
        ("special_tokens_map.json", "pad_token", json!({ "pad_token": long })),
    ] {
        let file = folder.path().join(name);
        std::fs::write(&file, tokens.to_string()).unwrap();
        let error = Tokenizer::open(folder.path()).unwrap_err().to_string();
        let expected = format!("{}: {key}: a token has 1025 bytes, expected at most 1024", file.display());
        assert!(error.starts_with(&expected), "{error}");
        std::fs::remove_file(&file).unwrap();
    }
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_itself(text in "[ -~]{0,40}|\\PC{0,20}") {
        let tokenizer = mini();
        let ids = tokenizer.encode(&text, false).unwrap();
        prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }
}
