//! The files next to the graphs, as other clients read them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use jetmoe_artifact::{Artifact, Precision, Profile, Task, WeightPlan};
use jetmoe_checkpoint::{Checkpoint, GenerationConfig};
use jetmoe_export::{ExportOptions, export};
use jetmoe_graph::{Opset, Rounding};
use jetmoe_testing::fixtures;
use jetmoe_text::Tokenizer;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Exports a checkpoint folder for its own task.
fn exported(checkpoint: &Path, task: Option<Task>) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let options = ExportOptions {
        source: checkpoint.display().to_string(),
        output: folder.path().to_owned(),
        task,
        precision: Precision::F32,
        weights: WeightPlan::default(),
        rounding: Rounding::Search,
        calibration: None,
        profile: Profile::Portable,
        opset: Opset::default(),
        optional_outputs: BTreeSet::new(),
        force: false,
    };
    export(&Checkpoint::open(checkpoint).unwrap(), &options).unwrap();
    folder
}

fn read(folder: &TempDir, name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(folder.path().join(name)).unwrap()).unwrap()
}

#[test]
fn the_configuration_means_what_that_of_the_checkpoint_does() {
    for name in ["tiny", "odd", "legacy", "yarn-rope", "llama3-rope", "classifier"] {
        let checkpoint = Checkpoint::open(fixtures::checkpoint(name)).unwrap();
        let folder = exported(&fixtures::checkpoint(name), None);
        assert_eq!(Artifact::open(folder.path()).unwrap().config(), checkpoint.config(), "{name}");
        assert_eq!(
            GenerationConfig::open(folder.path()).unwrap().eos_token_ids,
            checkpoint.config().eos_token_ids,
            "{name}"
        );
    }
}

#[test]
fn the_first_hub_layout_becomes_that_of_transformers() {
    let folder = exported(&fixtures::checkpoint("legacy"), None);
    let config = read(&folder, "config.json");
    assert_eq!(config["architectures"], json!(["JetMoeForCausalLM"]));
    assert_eq!(config["model_type"], "jetmoe");
    let old = ["moe_num_experts", "moe_top_k", "ffn_hidden_size", "torch_dtype", "rope_theta", "glu", "bias"];
    for key in old {
        assert!(config.get(key).is_none(), "{key} is left");
    }
    for key in ["num_local_experts", "num_experts_per_tok", "intermediate_size", "rope_parameters"] {
        assert!(config.get(key).is_some(), "{key} is missing");
    }
}

#[test]
fn tokenizer_files_say_what_other_clients_need() {
    let folder = exported(&fixtures::checkpoint("jetmoe-mini"), None);
    let config = read(&folder, "tokenizer_config.json");
    assert_eq!(config["tokenizer_class"], "PreTrainedTokenizerFast");
    assert_eq!(config["model_input_names"], json!(["input_ids", "attention_mask"]));
    assert_eq!((&config["add_bos_token"], &config["bos_token"]), (&json!(true), &json!("<s>")));
    assert_eq!(config["pad_token"], "</s>");
    let template =
        fs::read_to_string(fixtures::checkpoint("jetmoe-mini").join("chat_template.jinja")).unwrap();
    assert_eq!(config["chat_template"], template.as_str());
    assert_eq!(fs::read_to_string(folder.path().join("chat_template.jinja")).unwrap(), template);

    let (ours, theirs) = (folder.path().to_owned(), fixtures::checkpoint("jetmoe-mini"));
    let encode =
        |folder: &Path| Tokenizer::open(folder).unwrap().unwrap().encode("And God said", true).unwrap();
    assert_eq!(encode(&ours), encode(&theirs));
}

#[test]
fn onnxruntime_genai_finds_the_graph_and_the_model_s_sizes() {
    let folder = exported(&fixtures::checkpoint("jetmoe-mini"), None);
    let model = &read(&folder, "genai_config.json")["model"];
    assert_eq!(model["type"], "decoder");
    assert_eq!(model["decoder"]["filename"], "onnx/model.onnx");
    assert_eq!((&model["context_length"], &model["vocab_size"]), (&json!(512), &json!(2048)));
    let sizes =
        ["num_attention_heads", "num_key_value_heads", "num_hidden_layers", "head_size", "hidden_size"];
    assert_eq!(sizes.map(|size| model["decoder"][size].as_u64()), [4, 2, 4, 64, 128].map(Some));
}

#[test]
fn onnxruntime_genai_stays_with_the_most_exact_graph_when_another_is_added() {
    let checkpoint = fixtures::checkpoint("jetmoe-mini");
    let folder = exported(&checkpoint, None);
    let source = checkpoint.display().to_string();
    let options = ExportOptions { precision: Precision::Bf16, ..ExportOptions::new(source, folder.path()) };
    export(&Checkpoint::open(checkpoint).unwrap(), &options).unwrap();
    let config = read(&folder, "genai_config.json");
    assert_eq!(config["model"]["decoder"]["filename"], "onnx/model.onnx");
}

/// It does not support the custom operators.
#[test]
fn onnxruntime_genai_is_never_sent_to_a_native_graph() {
    let checkpoint = fixtures::checkpoint("jetmoe-mini");
    let folder = tempfile::tempdir().unwrap();
    let mut configs = [Profile::Native, Profile::OnnxRuntime].map(|profile| {
        let options = ExportOptions {
            precision: Precision::Q4,
            profile,
            ..ExportOptions::new(checkpoint.display().to_string(), folder.path())
        };
        export(&Checkpoint::open(&checkpoint).unwrap(), &options).unwrap();
        let artifact = Artifact::open(folder.path()).unwrap();
        assert!(artifact.graph(Some(Precision::Q4), Some(Profile::Native)).is_ok());
        folder.path().join("genai_config.json").exists().then(|| read(&folder, "genai_config.json"))
    });
    assert_eq!(configs[0], None);
    let file = configs[1].take().unwrap()["model"]["decoder"]["filename"].clone();
    assert_eq!(file, "onnx/onnxruntime/model_q4.onnx");
}

#[test]
fn onnxruntime_genai_is_told_of_language_models_with_a_tokenizer_only() {
    for (name, task) in
        [("tiny", None), ("jetmoe-mini", Some(Task::Backbone)), ("jetmoe-mini-classifier", None)]
    {
        assert!(
            !exported(&fixtures::checkpoint(name), task).path().join("genai_config.json").exists(),
            "{name}"
        );
    }
}

#[test]
fn generation_defaults_are_made_from_the_configuration_where_there_are_none() {
    let copy = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(fixtures::checkpoint("tiny").join(file), copy.path().join(file)).unwrap();
    }
    let folder = exported(copy.path(), None);
    let expected = json!({ "bos_token_id": 1, "eos_token_id": [2], "pad_token_id": null });
    assert_eq!(read(&folder, "generation_config.json"), expected);
}
