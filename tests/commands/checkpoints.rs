//! Damaged checkpoints. What is said of each is in the tests of `jetmoe-export`; every other command says the same.

use jetmoe_testing::damage::{self, Damage};

use crate::context::new_context;

#[track_caller]
fn refused(damage: &Damage, line: &str) {
    let context = new_context();
    damage.put(&context);
    let output = context.run(line);
    let message = output.refused();
    for part in damage.says {
        assert!(message.contains(part), "{message}\ndoes not say {part:?}");
    }
}

#[test]
fn run_refuses_every_damaged_checkpoint() {
    for damage in damage::ALL {
        refused(damage, "jetmoe run --model checkpoint --prompt x");
    }
}

#[test]
fn verify_refuses_every_damaged_checkpoint() {
    for damage in damage::ALL {
        refused(damage, "jetmoe verify --model checkpoint --backend tract");
    }
}

#[test]
fn inspect_refuses_a_damaged_checkpoint() {
    for damage in [&damage::TRUNCATED_SHARD, &damage::WRONG_SHAPE, &damage::UNKNOWN_ROPE_TYPE] {
        refused(damage, "jetmoe inspect checkpoint");
    }
}
