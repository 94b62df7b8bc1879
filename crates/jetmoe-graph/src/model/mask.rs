//! The causal attention mask. After transformers' `masking_utils.py`.

use super::Sizes;
use crate::builder::{Builder, Value};
use crate::{ElementType, Result};

/// Bias on the attention scores, `[batch, 1, k * sequence, total]`: 0 where a query may look at a key, else the least
/// finite float32, so that a padded query, which may look at nothing, gives numbers and not NaN.
///
/// A query may look at the keys that count (`attention_mask` is 1) up to its own place. Tokens are told apart by how
/// many count up to and with them: a key that counts lies behind the query exactly if more count up to it. The same
/// mask from two `Range`s is folded wrongly by tract where both have the same length.
///
/// The k queries of a token, one per chosen expert, see the same; they lie behind each other as in the scores, so the
/// mask is repeated once, here.
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
