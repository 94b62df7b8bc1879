//! The heads: next-token logits and class logits. After `JetMoeForCausalLM` of transformers' `modeling_jetmoe.py` and
//! `GenericForSequenceClassification` of `modeling_layers.py`.

use jetmoe_artifact::names::LOGITS_LENGTH;
use jetmoe_artifact::{ModelPart, Profile};
use jetmoe_checkpoint::{ModelConfig, names};

use super::Sizes;
use super::embedding::EmbeddingTable;
use crate::builder::{Builder, Value};
use crate::{Dimension, ElementType, Result, Shape, Weight};

/// Next-token logits, `[batch, sequence, vocab_size]`, from `hidden` `[tokens, hidden_size]`; where `logits_to_keep`
/// `[1]` is given, only those of so many last tokens, `[batch, logits_length, vocab_size]`, and of all for 0, as in
/// transformers. With tied embeddings the product takes the embedding's table as it is stored.
pub(super) fn language_model(
    builder: &mut Builder,
    config: &ModelConfig,
    embedding: &EmbeddingTable,
    hidden: &Value,
    logits_to_keep: Option<&Value>,
    sizes: &Sizes,
) -> Result<Value> {
    let mut rows = hidden.clone(); // [tokens, hidden]
    let mut length = sizes.sequence.clone();
    if let Some(wanted) = logits_to_keep {
        length = Dimension::symbol(LOGITS_LENGTH);
        let per_token = builder.reshape(hidden, sizes.per_token(&[config.hidden_size]))?; // [batch, seq, hidden]
        let kept = builder.last(&per_token, 1, wanted, &length)?; // [batch, logits_length, hidden]
        let count = &sizes.batch * &length;
        rows = builder.reshape(&kept, Shape(vec![count, config.hidden_size.into()]))?;
    }
    let scheme = builder.scheme(ModelPart::LmHead, None);
    let logits = match embedding {
        _ if !config.tie_word_embeddings => {
            let shape = vec![config.vocab_size, config.hidden_size];
            builder.linear_of_part(
                &rows,
                Weight::new(names::LM_HEAD.to_owned(), shape),
                ModelPart::LmHead,
                None,
            )?
        }
        EmbeddingTable::Float(table) => builder.linear_as_stored(&rows, table, scheme)?,
        EmbeddingTable::Quantized(weight) => builder.quantized_product(&rows, weight)?,
        EmbeddingTable::Packed(weight) => builder.packed_linear(&rows, weight)?,
    }; // [rows, vocab]
    builder.reshape(&logits, Shape(vec![sizes.batch.clone(), length, config.vocab_size.into()]))
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
    let pooled = if builder.profile() == Profile::Gpu {
        sum_of_rows(builder, hidden, &is_last, sizes)?
    } else {
        let is_last = builder.reshape(&is_last, Shape(vec![sizes.tokens.clone()]))?; // [tokens]
        let rows = builder.indices_of_true(&is_last, &sizes.batch)?; // [batch]
        builder.gather(hidden, &rows)?
    }; // [batch, hidden]
    let shape = vec![config.num_labels(), config.hidden_size];
    let scheme = builder.unquantized_scheme();
    builder.linear(&pooled, Weight::new(names::SCORE.to_owned(), shape), scheme)
}

/// The sum of the rows of each sequence that are selected, `[batch, hidden]`, from `hidden` `[tokens, hidden]`. It has no size that
/// depends on data, unlike the indices of the selected rows.
fn sum_of_rows(builder: &mut Builder, hidden: &Value, selected: &Value, sizes: &Sizes) -> Result<Value> {
    let shape = Shape(vec![sizes.batch.clone(), sizes.sequence.clone(), hidden.dimension(1).clone()]);
    let hidden = builder.reshape(hidden, shape)?; // [batch, seq, hidden]
    let per_token = Shape(vec![sizes.batch.clone(), sizes.sequence.clone()]);
    let selected = builder.reshape(selected, per_token)?; // [batch, seq]
    let selected = builder.unsqueeze(&selected, 2)?; // [batch, seq, 1]
    // not a product: other rows may hold values that are not finite
    let zero = builder.float_like(&hidden, 0.0);
    let selected = builder.select(&selected, &hidden, &zero)?; // [batch, seq, hidden]
    builder.sum(&selected, 1)
}
