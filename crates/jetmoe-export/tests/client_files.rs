//! The files next to the graphs, as other clients read them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use jetmoe_artifact::{Artifact, CacheFormat, Precision, Profile, Task, WeightPlan};
use jetmoe_checkpoint::{Checkpoint, GenerationConfig};
use jetmoe_export::{ExportOptions, export};
use jetmoe_graph::{Opset, Rounding};
use jetmoe_testing::files::edit_json;
use jetmoe_testing::fixtures;
use jetmoe_text::Tokenizer;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Exports a checkpoint folder for its own task.
fn exported(checkpoint: &Path, task: Option<Task>) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let options = ExportOptions {
        source: checkpoint.display().to_string(),
        revision: None,
        output: folder.path().to_owned(),
        task,
        precision: Precision::F32,
        weights: WeightPlan::default(),
        rounding: Rounding::Search,
        kv_cache: CacheFormat::F32,
        calibration: None,
        profile: Profile::Portable,
        opset: Opset::default(),
        optional_outputs: BTreeSet::new(),
        force: false,
        allow_non_finite: false,
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
            GenerationConfig::open(folder.path(), checkpoint.config()).unwrap().eos_token_ids,
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

/// A copy of a checkpoint with other settings for generation; `None` removes the file.
fn with_settings(name: &str, settings: Option<Value>) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in fixtures::checkpoint(name).read_dir().unwrap().map(|entry| entry.unwrap().path()) {
        fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
    }
    let file = copy.path().join("generation_config.json");
    match settings {
        Some(settings) => fs::write(file, settings.to_string()).unwrap(),
        None => fs::remove_file(file).unwrap(),
    }
    copy
}

#[test]
fn onnxruntime_genai_gets_the_settings_of_generation_config() {
    let settings = json!({
        "bos_token_id": 5, "eos_token_id": [2, 30], "pad_token_id": -1, "do_sample": true, "temperature": 0.7, "top_k": 40,
        "top_p": 0.9, "repetition_penalty": 1.1, "max_length": 100, "min_length": 8, "no_repeat_ngram_size": 3
    });
    let folder = exported(with_settings("jetmoe-mini", Some(settings)).path(), None);
    let config = read(&folder, "genai_config.json");
    let model = &config["model"];
    assert_eq!((&model["bos_token_id"], &model["eos_token_id"]), (&json!(5), &json!([2, 30])));
    assert_eq!(model["pad_token_id"], 2);
    assert_eq!(
        config["search"],
        json!({
            "do_sample": true, "max_length": 100, "past_present_share_buffer": false, "temperature": 0.7, "top_k": 40,
            "top_p": 0.9, "repetition_penalty": 1.1, "min_length": 8, "no_repeat_ngram_size": 3
        })
    );
    let folder = exported(with_settings("jetmoe-mini", Some(json!({ "eos_token_id": null }))).path(), None);
    let config = read(&folder, "genai_config.json");
    let expected = json!({ "do_sample": false, "max_length": 512, "past_present_share_buffer": false });
    assert_eq!(config["search"], expected);
}

/// Releases of transformers before 4.26 wrote them there, and it still reads them.
#[test]
fn settings_in_the_configuration_are_kept_where_there_is_no_other_file() {
    let copy = with_settings("jetmoe-mini", None);
    let config = copy.path().join("config.json");
    edit_json(&config, |config| {
        config["do_sample"] = json!(true);
        config["temperature"] = json!(0.5);
        config["eos_token_id"] = json!([2, 3]);
    });
    let folder = exported(copy.path(), None);
    let checkpoint = Checkpoint::open(copy.path()).unwrap();
    let settings = checkpoint.generation_config().unwrap();
    assert_eq!((settings.do_sample, settings.temperature), (Some(true), Some(0.5)));
    assert_eq!(settings.eos_token_ids, [2, 3]);
    let artifact = Artifact::open(folder.path()).unwrap();
    assert_eq!(artifact.generation_config(Task::CausalLm).unwrap(), settings);
}

#[test]
fn settings_that_cannot_be_followed_are_refused_before_anything_is_written() {
    let copy =
        with_settings("jetmoe-mini", Some(json!({ "do_sample": true, "temperature": 0.0, "top_k": "many" })));
    let folder = tempfile::tempdir().unwrap();
    let options = ExportOptions::new("mini", folder.path());
    let error = export(&Checkpoint::open(copy.path()).unwrap(), &options).unwrap_err().to_string();
    for part in ["generation_config.json holds settings", "temperature: is 0.0", "top_k: is \"many\""] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    // a backbone generates nothing
    export(&Checkpoint::open(copy.path()).unwrap(), &ExportOptions { task: Some(Task::Backbone), ..options })
        .unwrap();
}
