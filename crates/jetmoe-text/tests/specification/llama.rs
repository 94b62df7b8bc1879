//! A tokenizer of Llama's kind, which JetMoE-8B has: `tokenizer.json` holds, whatever its class says.

use jetmoe_text::Tokenizer;
use serde_json::{Value, json};

use crate::fixtures;

/// Both pipelines' token ids: `tests/fixtures/tokenizers/make_llama.py`. See docs/compatibility.md for the reasons.
#[test]
fn the_file_decides_and_not_the_pipeline_that_transformers_5_builds_for_the_class() {
    let recorded: Value =
        serde_json::from_str(include_str!("../../../../tests/fixtures/tokenizers/llama.json")).unwrap();
    assert_eq!(recorded["class"], "LlamaTokenizer");
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixtures::mini().join("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    let config = json!({ "tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>" });
    fixtures::write_json(&folder.path().join("tokenizer_config.json"), &config);
    let tokenizer = Tokenizer::open(folder.path()).unwrap().unwrap();
    let mut counts = Vec::new();
    for case in recorded["cases"].as_array().unwrap() {
        let special = case["add_special_tokens"].as_bool().unwrap();
        let ids = tokenizer.encode(case["text"].as_str().unwrap(), special).unwrap();
        assert_eq!(json!(ids), case["tokenizer_json"], "{}", case["text"]);
        counts.push((ids.len(), case["rebuilt"].as_array().unwrap().len()));
    }
    // a chat prompt, one with a system turn, a plain text, a text that begins with a space
    assert_eq!(counts, [(25, 24), (39, 37), (6, 6), (12, 11)]);
}
