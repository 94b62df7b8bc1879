//! The models that are mutated: small checkpoints, and artifacts that the exporter makes of them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use jetmoe_artifact::{Manifest, names as artifact_names};
use jetmoe_checkpoint::{Dtype, ModelConfig, SyntheticOptions, names, write_synthetic};
use jetmoe_fuzz::copy_folder;
use serde_json::{Map, Value, json};

use super::case::Programs;
use super::process;

/// What a folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BaseKind {
    Checkpoint,
    /// The artifact of a checkpoint.
    Artifact(&'static str),
}

/// A model that is mutated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Base {
    /// Its folder.
    pub(crate) name: &'static str,
    pub(crate) kind: BaseKind,
    pub(crate) is_classifier: bool,
    pub(crate) has_tokenizer: bool,
    /// Options of the export.
    options: &'static [&'static str],
}

const fn checkpoint(name: &'static str, is_classifier: bool, has_tokenizer: bool) -> Base {
    Base { name, kind: BaseKind::Checkpoint, is_classifier, has_tokenizer, options: &[] }
}

const fn artifact(name: &'static str, options: &'static [&'static str]) -> Base {
    let kind = BaseKind::Artifact("checkpoint");
    Base { name, kind, is_classifier: false, has_tokenizer: true, options }
}

const fn classifier(name: &'static str, options: &'static [&'static str]) -> Base {
    Base { kind: BaseKind::Artifact("classifier"), is_classifier: true, ..artifact(name, options) }
}

/// Every model. The checkpoint of an artifact comes before it.
pub(crate) const BASES: [Base; 16] = [
    checkpoint("checkpoint", false, true),
    checkpoint("sharded", false, true),
    checkpoint("classifier", true, true),
    checkpoint("gptq", false, false),
    checkpoint("awq", false, false),
    checkpoint("compressed-tensors", false, false),
    artifact("f32", &["--outputs", "hidden-states,router-logits"]),
    artifact("f16", &["--precision", "f16"]),
    artifact("q4", &["--precision", "q4"]),
    artifact("int8-onnxruntime", &["--precision", "int8", "--profile", "onnxruntime"]),
    artifact("q4-onnxruntime", &["--precision", "q4", "--profile", "onnxruntime", "--zero-points"]),
    artifact("bf16-native", &["--precision", "bf16", "--profile", "native"]),
    artifact("int8-native", &["--precision", "int8", "--profile", "native"]),
    artifact("q4-native", &["--precision", "q4", "--profile", "native"]),
    classifier("classifier-f32", &[]),
    classifier("classifier-q4-native", &["--precision", "q4", "--profile", "native"]),
];

/// The folder of the models.
#[derive(Debug)]
pub(crate) struct Bases {
    folder: PathBuf,
}

impl Bases {
    /// Writes every model. The same build writes the same files.
    pub(crate) fn create(folder: &Path, programs: &Programs) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        for base in &BASES {
            write(base, &folder, programs).with_context(|| format!("cannot make the model {}", base.name))?;
        }
        let bases = Bases { folder };
        bases.write_seeds()?;
        Ok(bases)
    }

    /// Writes first inputs of the libFuzzer targets that take a text: bytes that select it as it is, and the text.
    fn write_seeds(&self) -> Result<()> {
        let seeds = self.folder.with_file_name("seeds");
        if seeds.exists() {
            fs::remove_dir_all(&seeds)?;
        }
        let write = |target: &str, name: &str, selected: &[u8], path: &Path| -> Result<()> {
            let folder = seeds.join(target);
            fs::create_dir_all(&folder)?;
            let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok(fs::write(folder.join(name), [selected, &content].concat())?)
        };
        for base in BASES.iter().filter(|base| base.kind != BaseKind::Checkpoint) {
            write("manifest", base.name, &[0], &self.path(base.name).join(artifact_names::MANIFEST))?;
        }
        for (first, model) in [(0, "checkpoint"), (1, "classifier")] {
            let folder = self.path(model);
            write("config", model, &[first, 0], &folder.join(names::CONFIG))?;
            let settings = folder.join(names::GENERATION_CONFIG);
            write("config", &format!("{model}-generation"), &[first | 2, 0], &settings)?;
        }
        write("template", "default", &[0], &self.path("checkpoint").join(names::CHAT_TEMPLATE))
    }

    /// The folder of a model.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Manifest and configuration of an artifact as it was exported.
    pub(crate) fn artifact(&self, base: &Base) -> Result<(Manifest, ModelConfig)> {
        let folder = self.path(base.name);
        Ok((Manifest::read(&folder)?, ModelConfig::read(&folder.join(names::CONFIG))?))
    }
}

fn write(base: &Base, folder: &Path, programs: &Programs) -> Result<()> {
    let output = folder.join(base.name);
    let BaseKind::Artifact(checkpoint) = base.kind else { return write_checkpoint(base, &output) };
    let mut command = programs.command("jetmoe-export", folder);
    command.args([checkpoint, "--output", base.name]).args(base.options);
    let ended = process::run(&mut command, folder)?;
    ensure!(ended.status.success(), "{}", ended.stderr);
    // a path of this machine; the same mutation would not be the same elsewhere
    let mut manifest = Manifest::read(&output)?;
    manifest.checkpoint.source = checkpoint.to_owned();
    manifest.write(&output)?;
    Ok(())
}

fn write_checkpoint(base: &Base, output: &Path) -> Result<()> {
    if !base.has_tokenizer {
        return copy_folder(&fixtures().join("quantized").join(base.name), output);
    }
    let shard_bytes = if base.name == "sharded" { 20_000 } else { SyntheticOptions::default().shard_bytes };
    let dtype = if base.name == "sharded" { Dtype::Bf16 } else { Dtype::F32 };
    write_synthetic(
        &config(base.is_classifier),
        output,
        &SyntheticOptions { dtype, seed: 1, shard_bytes },
        &mut |_| (),
    )?;
    let generation = json!({
        "bos_token_id": 1, "eos_token_id": 2, "do_sample": false, "temperature": 1.0, "top_k": 50, "top_p": 0.9,
        "repetition_penalty": 1.0, "max_new_tokens": 16, "no_repeat_ngram_size": 0, "bad_words_ids": [[5, 6]],
    });
    fs::write(output.join(names::GENERATION_CONFIG), generation.to_string())?;
    let model = fixtures().join("models/jetmoe-mini");
    for name in [names::TOKENIZER_CONFIG, names::CHAT_TEMPLATE] {
        fs::copy(model.join(name), output.join(name))?;
    }
    let tokenizer = fs::read(model.join(names::TOKENIZER))?;
    let tokenizer = small_tokenizer(serde_json::from_slice(&tokenizer)?)?;
    fs::write(output.join(names::TOKENIZER), tokenizer.to_string())?;
    Ok(())
}

/// Tokens of the small vocabulary.
const TOKENS: u64 = 320;

fn config(is_classifier: bool) -> Value {
    let mut config = json!({
        "architectures": ["JetMoeForCausalLM"], "model_type": "jetmoe", "activation_function": "silu",
        "bos_token_id": 1, "eos_token_id": 2, "hidden_size": 32, "intermediate_size": 32, "kv_channels": 16,
        "max_position_embeddings": 64, "num_attention_heads": 4, "num_experts_per_tok": 2, "num_hidden_layers": 2,
        "num_key_value_heads": 2, "num_local_experts": 4, "rms_norm_eps": 1e-6,
        "rope_parameters": { "rope_theta": 10000.0, "rope_type": "linear", "factor": 2.0 },
        "tie_word_embeddings": true, "vocab_size": TOKENS,
    });
    if is_classifier {
        config["architectures"] = json!(["JetMoeForSequenceClassification"]);
        config["id2label"] = json!({ "0": "no", "1": "yes", "2": "perhaps" });
        config["label2id"] = json!({ "no": 0, "yes": 1, "perhaps": 2 });
        config["pad_token_id"] = json!(0);
        config["problem_type"] = json!("single_label_classification");
    }
    config
}

/// A tokenizer with the first tokens of another one, and the merges of these.
fn small_tokenizer(mut tokenizer: Value) -> Result<Value> {
    let model = tokenizer["model"].as_object_mut().context("the tokenizer has no model")?;
    let vocabulary: Map<String, Value> = model["vocab"]
        .as_object()
        .context("the tokenizer has no vocabulary")?
        .iter()
        .filter(|(_, id)| id.as_u64().is_some_and(|id| id < TOKENS))
        .map(|(token, id)| (token.clone(), id.clone()))
        .collect();
    let merges = model["merges"].as_array_mut().context("the tokenizer has no merges")?;
    merges.retain(|pair| {
        let [left, right] = [0, 1].map(|index| pair[index].as_str().unwrap_or_default());
        [left, right, &format!("{left}{right}")].iter().all(|token| vocabulary.contains_key(*token))
    });
    model["vocab"] = vocabulary.into();
    Ok(tokenizer)
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}
