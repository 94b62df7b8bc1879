use jetmoe_checkpoint::{ModelConfig, names};

use super::Sizes;
use crate::builder::{Builder, Value};
use crate::{ElementType, Result, Weight};

/// Next-token logits, `[batch, sequence, vocab_size]`, from `hidden` `[tokens, hidden_size]`.
pub(super) fn language_model(
    builder: &mut Builder,
    config: &ModelConfig,
    hidden: &Value,
    sizes: &Sizes,
) -> Result<Value> {
    let name = if config.tie_word_embeddings { names::EMBEDDING } else { names::LM_HEAD };
    let table = builder.weight(Weight::new(name.to_owned(), vec![config.vocab_size, config.hidden_size]));
    let logits = builder.matmul_transposed(hidden, &table)?; // [tokens, vocab]
    builder.reshape(&logits, sizes.per_token(&[config.vocab_size]))
}

/// Class logits, `[batch, labels]`, read at each sequence's last token that is not the padding token; at the last
/// token where there is no padding token. After transformers' `GenericForSequenceClassification`.
pub(super) fn classification(
    builder: &mut Builder,
    config: &ModelConfig,
    hidden: &Value,
    input_ids: &Value,
    sizes: &Sizes,
) -> Result<Value> {
    let indices = builder.range(&0_i64.into(), &sizes.sequence)?; // [seq]
    let last = match config.pad_token_id {
        Some(pad) => {
            let pad = builder.integer(i64::from(pad));
            let padding = builder.equal(input_ids, &pad)?; // [batch, seq]
            let counts = builder.not(&padding)?;
            let counts = builder.cast(&counts, ElementType::Int64);
            let indices = builder.mul(&counts, &indices)?; // [batch, seq]
            builder.max(&indices, 1)? // [batch]
        }
        None => {
            let last = builder.max(&indices, 0)?; // []
            builder.unsqueeze(&last, 0)? // [1]
        }
    };
    // row of a token in the matrix of all sequences: sequence * length + place
    let sequences = builder.range(&0_i64.into(), &sizes.batch)?; // [batch]
    let length = builder.size_scalar(&sizes.sequence)?; // []
    let starts = builder.mul(&sequences, &length)?; // [batch]
    let rows = builder.add(&starts, &last)?; // [batch]
    let pooled = builder.gather(hidden, &rows)?; // [batch, hidden]
    let shape = vec![config.num_labels(), config.hidden_size];
    let score = builder.weight(Weight::new(names::SCORE.to_owned(), shape).transposed());
    builder.matmul(&pooled, &score)
}
