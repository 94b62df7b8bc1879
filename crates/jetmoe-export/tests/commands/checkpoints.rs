//! Damaged checkpoints are refused by name, and nothing is left.

use jetmoe_testing::damage::{self, Damage};
use jetmoe_testing::{CommandOutput, assert_transcript};

use crate::new_context;

/// Exports a damaged checkpoint, which must be refused, saying what is wrong, where, and what to do.
fn export(damage: &Damage) -> CommandOutput {
    let context = new_context();
    damage.put(&context);
    let output = context.run("jetmoe-export checkpoint --output artifact");
    let message = output.refused();
    for part in damage.says {
        assert!(message.contains(part), "{message}\ndoes not say {part:?}");
    }
    assert!(!context.path("artifact").exists(), "{:?} is left", context.files("artifact"));
    output
}

macro_rules! refused {
    ($($name:ident: $damage:ident),+ $(,)?) => {
        $(#[test]
        fn $name() {
            assert_transcript!(export(&damage::$damage));
        })+
    };
}

refused! {
    a_missing_shard: MISSING_SHARD,
    a_truncated_shard: TRUNCATED_SHARD,
    a_truncated_header: TRUNCATED_HEADER,
    an_index_that_names_a_missing_file: INDEX_NAMES_A_MISSING_FILE,
    an_index_that_names_the_wrong_shard: INDEX_NAMES_THE_WRONG_SHARD,
    a_wrong_shape: WRONG_SHAPE,
    a_wrong_dtype: WRONG_DTYPE,
    a_missing_tensor: MISSING_TENSOR,
    an_unknown_activation: UNKNOWN_ACTIVATION,
    an_unknown_rope_type: UNKNOWN_ROPE_TYPE,
    more_experts_per_token_than_experts: MORE_EXPERTS_PER_TOKEN_THAN_EXPERTS,
    several_problems_of_a_configuration: SEVERAL_PROBLEMS,
    a_missing_configuration: NO_CONFIG,
    a_configuration_that_is_no_json: CONFIG_IS_NO_JSON,
    missing_weights: NO_WEIGHTS,
    a_pointer_of_git_lfs: POINTER_OF_GIT_LFS,
    a_broken_tokenizer: BROKEN_TOKENIZER,
    nan_in_a_router: NAN_IN_A_ROUTER,
}

#[test]
fn a_model_that_does_not_exist() {
    let context = new_context();
    std::fs::write(context.path("file"), "").unwrap();
    let typed = ["nothing", "owner/nothing", "file"];
    let [nothing, hub, file] =
        typed.map(|model| context.run(&format!("jetmoe-export {model} --output artifact")));
    assert!(nothing.refused().contains("give a folder with config.json and *.safetensors, or a hub id"));
    assert!(hub.refused().contains("HF_HUB_OFFLINE is set"));
    file.refused();
    assert_transcript!(nothing, hub, file);
}

/// It is compiled by an export, although opening a tokenizer only reads it.
#[test]
fn a_chat_template_that_cannot_be_used() {
    let context = new_context();
    let checkpoint = context.copy("jetmoe-mini", "checkpoint");
    for (template, says) in [
        ("{% if %}".to_owned(), "syntax error"),
        (" ".repeat((1 << 20) + 1), "the template has 1048577 bytes, at most 1048576"),
        ("{{ 'a' * 1000000000 }}".to_owned(), "constant expressions"),
    ] {
        std::fs::write(checkpoint.join("chat_template.jinja"), template).unwrap();
        let output = context.run("jetmoe-export checkpoint --output artifact");
        let message = output.refused();
        assert!(message.contains("checkpoint/chat_template.jinja is no valid chat template"), "{message}");
        assert!(message.contains(says), "{message}");
        assert!(!context.path("artifact").exists());
    }
}
