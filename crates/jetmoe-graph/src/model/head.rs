use jetmoe_checkpoint::{ModelConfig, names};

use super::Sizes;
use crate::builder::{Builder, Value};
use crate::{ElementType, Result, Shape, Weight};

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
            let last = builder.max(&indices, 1)?; // [batch]
            builder.unsqueeze(&last, 1)? // [batch, 1]
        }
        None => builder.max(&indices, 0)?, // []
    };
    // one token of each sequence is its last, so the rows of the last ones come in the order of the sequences
    let is_last = builder.equal(&indices, &last)?; // [batch, seq]
    let is_last = builder.reshape(&is_last, Shape(vec![sizes.tokens.clone()]))?; // [tokens]
    let rows = builder.indices_of_true(&is_last, &sizes.batch)?; // [batch]
    let pooled = builder.gather(hidden, &rows)?; // [batch, hidden]
    let shape = vec![config.num_labels(), config.hidden_size];
    let score = builder.weight(Weight::new(names::SCORE.to_owned(), shape).transposed());
    builder.matmul(&pooled, &score)
}
