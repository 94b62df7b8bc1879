//! Checkpoints that are damaged, each in one way, and what an error must say of it.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::files::{edit_json, truncate};
use crate::{CheckpointDraft, TestContext};

/// One way to damage a checkpoint.
pub struct Damage {
    /// The fixture that is damaged.
    fixture: &'static str,
    damage: fn(&Path),
    /// Parts of the message: what is wrong, where, and what to do.
    pub says: &'static [&'static str],
}

impl Damage {
    /// Puts the damaged checkpoint into a context, as `checkpoint`.
    pub fn put(&self, context: &TestContext) {
        (self.damage)(&context.copy(self.fixture, "checkpoint"));
    }
}

/// Every damage.
pub const ALL: [&Damage; 18] = [
    &MISSING_SHARD,
    &TRUNCATED_SHARD,
    &TRUNCATED_HEADER,
    &INDEX_NAMES_A_MISSING_FILE,
    &INDEX_NAMES_THE_WRONG_SHARD,
    &WRONG_SHAPE,
    &WRONG_DTYPE,
    &MISSING_TENSOR,
    &UNKNOWN_ACTIVATION,
    &UNKNOWN_ROPE_TYPE,
    &MORE_EXPERTS_PER_TOKEN_THAN_EXPERTS,
    &SEVERAL_PROBLEMS,
    &NO_CONFIG,
    &CONFIG_IS_NO_JSON,
    &NO_WEIGHTS,
    &POINTER_OF_GIT_LFS,
    &BROKEN_TOKENIZER,
    &NAN_IN_A_ROUTER,
];

const SHARD: &str = "model-00003-of-00013.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const KV_PROJECTION: &str = "model.layers.0.self_attention.kv_proj.weight";

/// A shard file was removed.
pub const MISSING_SHARD: Damage = Damage {
    fixture: "bf16-sharded",
    damage: |folder| fs::remove_file(folder.join(SHARD)).unwrap(),
    says: &["checkpoint/model.safetensors.index.json", SHARD, "download the missing shard"],
};

/// A shard file ends early.
pub const TRUNCATED_SHARD: Damage = Damage {
    fixture: "bf16-sharded",
    damage: |folder| truncate(&folder.join(SHARD), 50_000),
    says: &["checkpoint/model-00003-of-00013.safetensors", "truncated", "download or copy it again"],
};

/// The weights end within their header.
pub const TRUNCATED_HEADER: Damage = Damage {
    fixture: "tiny",
    damage: |folder| truncate(&folder.join("model.safetensors"), 100),
    says: &["checkpoint/model.safetensors", "truncated", "download or copy it again"],
};

/// The index names a file that does not exist.
pub const INDEX_NAMES_A_MISSING_FILE: Damage = Damage {
    fixture: "bf16-sharded",
    damage: |folder| {
        edit_json(&folder.join(INDEX), |index| {
            index["weight_map"][KV_PROJECTION] = json!("elsewhere.safetensors")
        });
    },
    says: &["checkpoint/model.safetensors.index.json", KV_PROJECTION, "elsewhere.safetensors", "download"],
};

/// The index names a shard that does not hold the tensor.
pub const INDEX_NAMES_THE_WRONG_SHARD: Damage = Damage {
    fixture: "bf16-sharded",
    damage: |folder| {
        edit_json(&folder.join(INDEX), |index| {
            index["weight_map"][KV_PROJECTION] = json!("model-00013-of-00013.safetensors");
        });
    },
    says: &["checkpoint/model.safetensors.index.json", KV_PROJECTION, "does not have it", "copy them again"],
};

/// A tensor is transposed.
pub const WRONG_SHAPE: Damage = Damage {
    fixture: "tiny",
    damage: |folder| edit_header(folder, |header| header[KV_PROJECTION]["shape"] = json!([64, 128])),
    says: &["checkpoint", KV_PROJECTION, "[64, 128]", "[128, 64]", "copy them again"],
};

/// A tensor has an element type that no weight has.
pub const WRONG_DTYPE: Damage = Damage {
    fixture: "tiny",
    damage: |folder| edit_header(folder, |header| header[KV_PROJECTION]["dtype"] = json!("I32")),
    says: &["checkpoint", KV_PROJECTION, "I32", "expected float32, float16, bfloat16 or float64"],
};

/// A tensor is missing, and an unknown one is there.
pub const MISSING_TENSOR: Damage = Damage {
    fixture: "tiny",
    damage: |folder| {
        edit_header(folder, |header| {
            let tensor = header.remove(KV_PROJECTION).unwrap();
            header.insert("somebody_elses.weight".to_owned(), tensor);
        });
    },
    says: &["checkpoint", KV_PROJECTION, "is missing", "[128, 64]", "copy them again"],
};

/// The activation is unknown.
pub const UNKNOWN_ACTIVATION: Damage = Damage {
    fixture: "tiny",
    damage: |folder| edit_config(folder, |config| config["activation_function"] = json!("swishish")),
    says: &["checkpoint/config.json", "activation_function", "swishish", "known are silu, gelu"],
};

/// The rope type is unknown.
pub const UNKNOWN_ROPE_TYPE: Damage = Damage {
    fixture: "tiny",
    damage: |folder| edit_config(folder, |config| config["rope_parameters"]["rope_type"] = json!("longrope")),
    says: &["checkpoint/config.json", "rope_parameters.rope_type", "longrope", "known are default, linear"],
};

/// A token would choose more experts than there are.
pub const MORE_EXPERTS_PER_TOKEN_THAN_EXPERTS: Damage = Damage {
    fixture: "tiny",
    damage: |folder| edit_config(folder, |config| config["num_experts_per_tok"] = json!(9)),
    says: &["checkpoint/config.json", "num_experts_per_tok", "9", "8"],
};

/// Three values of the configuration are wrong.
pub const SEVERAL_PROBLEMS: Damage = Damage {
    fixture: "tiny",
    damage: |folder| {
        edit_config(folder, |config| {
            config["hidden_size"] = json!("wide");
            config["activation_function"] = json!("swishish");
            config["rope_parameters"]["rope_type"] = json!("longrope");
        });
    },
    says: &["checkpoint/config.json", "hidden_size", "swishish", "longrope"],
};

/// `config.json` is missing.
pub const NO_CONFIG: Damage = Damage {
    fixture: "tiny",
    damage: |folder| fs::remove_file(folder.join("config.json")).unwrap(),
    says: &["config.json is missing in checkpoint", "save_pretrained"],
};

/// `config.json` is not valid JSON.
pub const CONFIG_IS_NO_JSON: Damage = Damage {
    fixture: "tiny",
    damage: |folder| fs::write(folder.join("config.json"), "{\"hidden_size\": 64,").unwrap(),
    says: &["checkpoint/config.json is not valid", "line 1"],
};

/// The weights are missing.
pub const NO_WEIGHTS: Damage = Damage {
    fixture: "tiny",
    damage: |folder| fs::remove_file(folder.join("model.safetensors")).unwrap(),
    says: &["model.safetensors is missing in checkpoint", "weights must be safetensors"],
};

/// A weight is NaN.
pub const NAN_IN_A_ROUTER: Damage = Damage {
    fixture: "tiny",
    damage: |folder| {
        let mut draft = CheckpointDraft::read(folder);
        draft.row("model.layers.1.mlp.router.layer.weight", 2)[5] = f32::NAN;
        draft.write_into(folder);
    },
    says: &[
        "checkpoint, model.layers.1.mlp.router.layer.weight",
        "the weight at [2, 5] is NaN",
        "use another checkpoint",
    ],
};

/// The weights are a pointer file of Git LFS.
pub const POINTER_OF_GIT_LFS: Damage = Damage {
    fixture: "tiny",
    damage: |folder| {
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1816128\n";
        fs::write(folder.join("model.safetensors"), pointer).unwrap();
    },
    says: &["checkpoint/model.safetensors", "Git LFS", "git lfs pull"],
};

/// `tokenizer.json` is not a tokenizer.
pub const BROKEN_TOKENIZER: Damage = Damage {
    fixture: "jetmoe-mini",
    damage: |folder| fs::write(folder.join("tokenizer.json"), "{}").unwrap(),
    says: &["checkpoint/tokenizer.json cannot be used as a tokenizer", "copy it again"],
};

fn edit_config(folder: &Path, change: impl FnOnce(&mut Value)) {
    edit_json(&folder.join("config.json"), change);
}

/// Changes the table of contents of `model.safetensors`: its length in 8 bytes, then JSON, then the data.
fn edit_header(folder: &Path, change: impl FnOnce(&mut Map<String, Value>)) {
    let path = folder.join("model.safetensors");
    let file = fs::read(&path).unwrap();
    let (length, rest) = file.split_at(8);
    let (header, data) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
    let mut header: Map<String, Value> = serde_json::from_slice(header).unwrap();
    change(&mut header);
    let mut header = serde_json::to_vec(&header).unwrap();
    header.resize(header.len().next_multiple_of(8), b' ');
    let length = (header.len() as u64).to_le_bytes();
    fs::write(&path, [&length, header.as_slice(), data].concat()).unwrap();
}
