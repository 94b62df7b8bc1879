//! Checkpoints to test with: the trained model of the repository, and a small one that a test can change.

use std::path::PathBuf;

use jetmoe_checkpoint::names::{self, Mixture};
pub(crate) use jetmoe_testing::files::write_json;
pub(crate) use jetmoe_testing::fixtures::checkpoint as golden;
use jetmoe_testing::{CheckpointDraft, DraftTensor, fixtures};
use safetensors::Dtype;
use serde_json::{Value, json};

/// The trained model.
pub(crate) fn mini() -> PathBuf {
    fixtures::checkpoint("jetmoe-mini")
}

/// Two layers, three experts, every width another number.
pub(crate) fn tiny() -> CheckpointDraft {
    let Value::Object(config) = json!({
        "architectures": ["JetMoeForCausalLM"],
        "model_type": "jetmoe",
        "vocab_size": 11,
        "hidden_size": 6,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "kv_channels": 4,
        "intermediate_size": 5,
        "num_local_experts": 3,
        "num_experts_per_tok": 2,
        "max_position_embeddings": 32,
    }) else {
        unreachable!()
    };
    let mut shapes =
        vec![(names::EMBEDDING.to_owned(), vec![11, 6]), (names::FINAL_NORM.to_owned(), vec![6])];
    for layer in 0..2 {
        shapes.extend([
            (names::input_norm(layer), vec![6]),
            (names::post_attention_norm(layer), vec![6]),
            (names::kv_projection(layer), vec![16, 6]),
            (names::router(layer, Mixture::Attention), vec![3, 6]),
            (names::expert_input(layer, Mixture::Attention), vec![3, 8, 6]),
            (names::expert_output(layer, Mixture::Attention), vec![3, 6, 8]),
            (names::expert_bias(layer, Mixture::Attention), vec![6]),
            (names::router(layer, Mixture::Mlp), vec![3, 6]),
            (names::expert_input(layer, Mixture::Mlp), vec![3, 10, 6]),
            (names::expert_output(layer, Mixture::Mlp), vec![3, 6, 5]),
            (names::expert_bias(layer, Mixture::Mlp), vec![6]),
        ]);
    }
    let tensors =
        shapes.into_iter().map(|(name, shape)| (name, DraftTensor::counting(Dtype::F32, &shape))).collect();
    CheckpointDraft { config, tensors }
}
