//! Damaged checkpoints. What is said of each is in the tests of `jetmoe-export`; every other command says the same.

use crate::damage::{self, Damage};
use crate::workbench::Workbench;

#[track_caller]
fn refused(damage: &Damage, line: &str) {
    let bench = Workbench::new();
    damage.put(&bench);
    let ended = bench.run(line);
    let message = ended.refused();
    for part in damage.says {
        assert!(message.contains(part), "{message}\ndoes not say {part:?}");
    }
}

const DAMAGES: [&Damage; 17] = [
    &damage::MISSING_SHARD,
    &damage::TRUNCATED_SHARD,
    &damage::TRUNCATED_HEADER,
    &damage::INDEX_NAMES_A_MISSING_FILE,
    &damage::INDEX_NAMES_THE_WRONG_SHARD,
    &damage::WRONG_SHAPE,
    &damage::WRONG_DTYPE,
    &damage::MISSING_TENSOR,
    &damage::UNKNOWN_ACTIVATION,
    &damage::UNKNOWN_ROPE_TYPE,
    &damage::MORE_EXPERTS_PER_TOKEN_THAN_EXPERTS,
    &damage::SEVERAL_PROBLEMS,
    &damage::NO_CONFIG,
    &damage::CONFIG_IS_NO_JSON,
    &damage::NO_WEIGHTS,
    &damage::POINTER_OF_GIT_LFS,
    &damage::BROKEN_TOKENIZER,
];

#[test]
fn run_refuses_every_damaged_checkpoint() {
    for damage in DAMAGES {
        refused(damage, "jetmoe run --model checkpoint --prompt x");
    }
}

#[test]
fn verify_refuses_every_damaged_checkpoint() {
    for damage in DAMAGES {
        refused(damage, "jetmoe verify --model checkpoint --backend tract");
    }
}

#[test]
fn inspect_refuses_a_damaged_checkpoint() {
    for damage in [&damage::TRUNCATED_SHARD, &damage::WRONG_SHAPE, &damage::UNKNOWN_ROPE_TYPE] {
        refused(damage, "jetmoe inspect checkpoint");
    }
}
