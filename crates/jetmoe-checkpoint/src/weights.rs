//! The weights of a checkpoint, derived from its configuration.

use crate::names::{self, Mixture};
use crate::{Architecture, ModelConfig};

/// Name and shape of every weight of a checkpoint with this configuration.
pub(crate) fn expected_weights(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let hidden = config.hidden_size;
    let experts = config.num_local_experts;
    let kv_width = config.kv_width();
    let mut expected = vec![(names::EMBEDDING.to_owned(), vec![config.vocab_size, hidden])];
    for layer in 0..config.num_hidden_layers {
        expected.extend([
            (names::input_norm(layer), vec![hidden]),
            (names::kv_projection(layer), vec![2 * kv_width, hidden]),
            (names::post_attention_norm(layer), vec![hidden]),
        ]);
        let widths = [
            (Mixture::Attention, kv_width, kv_width),
            (Mixture::Mlp, 2 * config.intermediate_size, config.intermediate_size),
        ];
        for (mixture, input_rows, output_columns) in widths {
            expected.extend([
                (names::router(layer, mixture), vec![experts, hidden]),
                (names::expert_input(layer, mixture), vec![experts, input_rows, hidden]),
                (names::expert_output(layer, mixture), vec![experts, hidden, output_columns]),
                (names::expert_bias(layer, mixture), vec![hidden]),
            ]);
        }
    }
    expected.push((names::FINAL_NORM.to_owned(), vec![hidden]));
    match config.architecture {
        Architecture::CausalLm if !config.tie_word_embeddings => {
            expected.push((names::LM_HEAD.to_owned(), vec![config.vocab_size, hidden]));
        }
        Architecture::SequenceClassification => {
            expected.push((names::SCORE.to_owned(), vec![config.num_labels(), hidden]));
        }
        Architecture::CausalLm | Architecture::Base => {}
    }
    expected
}
