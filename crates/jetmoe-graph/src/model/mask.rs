//! The causal attention mask. After transformers' `masking_utils.py`.

use super::Sizes;
use crate::builder::{Builder, Value};
use crate::{ElementType, Result};

/// Bias on the attention scores, `[batch, 1, k * sequence, total]`: 0 where a query attends to a key, else the least
/// finite float32. It is finite so that a padded query, which attends to nothing, yields finite values and not NaN.
///
/// A query attends to the unmasked keys (`attention_mask` is 1) up to its own position. Positions are compared by the
/// cumulative sum of the mask: an unmasked key comes after the query exactly if its sum is larger. tract folds the same
/// mask built from two `Range`s incorrectly if both have the same length.
///
/// The k queries of a token, one per selected expert, have the same mask and are consecutive in the scores, so the mask
/// is repeated once, here.
pub(super) fn bias(
    builder: &mut Builder,
    attention_mask: &Value,
    sizes: &Sizes,
    experts_per_token: usize,
) -> Result<Value> {
    let keys = builder.cumulative_sum(attention_mask, 1)?; // [batch, total]
    let queries = builder.tail(&keys, 1, &sizes.past, &sizes.sequence)?; // [batch, sequence]
    let keys = builder.unsqueeze(&keys, 1)?; // [batch, 1, total]
    let queries = builder.unsqueeze(&queries, 2)?; // [batch, sequence, 1]
    let causal = builder.less_or_equal(&keys, &queries)?; // [batch, sequence, total]

    let counts = builder.cast(attention_mask, ElementType::Bool); // [batch, total]
    let counts = builder.unsqueeze(&counts, 1)?; // [batch, 1, total]
    let visible = builder.and(&counts, &causal)?; // [batch, sequence, total]
    let visible = builder.unsqueeze(&visible, 1)?; // [batch, 1, sequence, total]

    let zero = builder.float(0.0);
    let least = builder.float(f32::MIN);
    let bias = builder.select(&visible, &zero, &least)?; // [batch, 1, sequence, total]
    if experts_per_token == 1 {
        return Ok(bias);
    }
    builder.concat(&vec![&bias; experts_per_token], 2) // [batch, 1, k * sequence, total]
}
