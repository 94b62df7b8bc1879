use super::Sizes;
use crate::builder::{Builder, Value};
use crate::{ElementType, Result};

/// Bias on the attention scores, `[batch, 1, k * sequence, total]`: 0 where a query may look at a key, else the least
/// finite float32, so that a padded query, which may look at nothing, gives numbers and not NaN.
///
/// A query may look at keys up to its own place whose `attention_mask` is 1. The k queries of a token, one per chosen
/// expert, see the same; they lie behind each other as in the scores, so the mask is repeated once, here.
pub(super) fn bias(
    builder: &mut Builder,
    attention_mask: &Value,
    sizes: &Sizes,
    experts_per_token: usize,
) -> Result<Value> {
    let keys = builder.range(&0_i64.into(), &sizes.total())?; // [total]
    let queries = builder.range(&sizes.past, &sizes.sequence)?; // [sequence]
    let queries = builder.unsqueeze(&queries, 1)?; // [sequence, 1]
    let causal = builder.less_or_equal(&keys, &queries)?; // [sequence, total]

    let counts = builder.cast(attention_mask, ElementType::Bool); // [batch, total]
    let counts = builder.unsqueeze(&counts, 1)?; // [batch, 1, total]
    let counts = builder.unsqueeze(&counts, 1)?; // [batch, 1, 1, total]
    let visible = builder.and(&counts, &causal)?; // [batch, 1, sequence, total]

    let zero = builder.float(0.0);
    let least = builder.float(f32::MIN);
    let bias = builder.select(&visible, &zero, &least)?; // [batch, 1, sequence, total]
    if experts_per_token == 1 {
        return Ok(bias);
    }
    builder.concat(&vec![&bias; experts_per_token], 2) // [batch, 1, k * sequence, total]
}
