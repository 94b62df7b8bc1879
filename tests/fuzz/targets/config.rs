//! Any `config.json` and `generation_config.json` is read or refused.
#![no_main]

use std::collections::BTreeSet;
use std::fs;
use std::sync::LazyLock;

use jetmoe_artifact::{OptionalOutput, Precision, Profile, Signature, Task};
use jetmoe_checkpoint::{GenerationConfig, ModelConfig, names};
use jetmoe_fuzz::mutate_json_text;
use jetmoe_fuzz_targets::{base_file, content, copy_of};
use libfuzzer_sys::fuzz_target;

static FOLDER: LazyLock<std::path::PathBuf> = LazyLock::new(|| copy_of("checkpoint"));

fuzz_target!(|input: &[u8]| {
    let [first, rest @ ..] = input else { return };
    // which model and which of its files
    let model = if first & 1 == 0 { "checkpoint" } else { "classifier" };
    let file = if first & 2 == 0 { names::CONFIG } else { names::GENERATION_CONFIG };
    for name in [names::CONFIG, names::GENERATION_CONFIG] {
        let original = base_file(model, name);
        let text = if name == file { content(rest, &original, mutate_json_text) } else { original };
        fs::write(FOLDER.join(name), text).unwrap();
    }
    let Ok(config) = ModelConfig::read(&FOLDER.join(names::CONFIG)) else { return };
    config.parameters();
    config.num_attention_heads();
    config.kv_width();
    let _ = GenerationConfig::open(&FOLDER, &config);
    for task in [Task::CausalLm, Task::SequenceClassification] {
        let outputs: BTreeSet<OptionalOutput> = BTreeSet::new();
        Signature::new(&config, task, Precision::F32, Profile::Portable, &outputs);
    }
});
