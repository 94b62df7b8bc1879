//! Softmax attention over the cache: in standard operators, as `GroupQueryAttention`, or as our own operator. After
//! `eager_attention_forward` of transformers' `modeling_jetmoe.py`.

use jetmoe_artifact::CacheUpdate;
use jetmoe_checkpoint::ModelConfig;

use super::rotary::Rotary;
use super::{Sizes, mask};
use crate::builder::{AttentionOperands, Builder, GroupedQueries, Value};
use crate::{Dimension, ElementType, Result, Shape};

/// Scaled dot-product attention with a cache, in the form that the cache update requires. The values derived from the mask
/// are computed once and shared by all layers.
pub(super) enum ScaledDotProduct {
    /// Standard operators; the longer cache is an output.
    Masked {
        /// `[batch, 1, k * sequence, total]`
        bias: Value,
    },
    /// One operator of ONNX Runtime, which updates the cache in place.
    GroupedQuery {
        /// Position of the last token of each sequence, int32 `[batch]`.
        last_positions: Value,
        /// Tokens of the longest sequence, int32 `[]`.
        longest: Value,
    },
    /// Our own operator, which also rotates queries and keys, and updates the cache in place.
    Fused {
        /// `[batch, past + sequence]`
        attention_mask: Value,
        /// `[sequence_count, 3]`
        sequences: Value,
    },
}

/// Cached keys and values of a layer, `[batch, kv_heads, past, kv_channels]` each.
pub(super) struct Past {
    pub(super) key: Value,
    pub(super) value: Value,
}

/// The mixed values of all heads, and the longer cache.
pub(super) struct AttentionHeads {
    /// One row per slot, `[slots, kv_width]`.
    pub(super) slots: Value,
    /// `[batch, kv_heads, total, kv_channels]`
    pub(super) present_key: Value,
    /// `[batch, kv_heads, total, kv_channels]`
    pub(super) present_value: Value,
}

impl ScaledDotProduct {
    pub(super) fn new(
        builder: &mut Builder,
        config: &ModelConfig,
        cache_update: CacheUpdate,
        (attention_mask, sequences, input_ids): (&Value, Option<&Value>, &Value),
        sizes: &Sizes,
    ) -> Result<Self> {
        match cache_update {
            CacheUpdate::InPlaceByMask => {
                let Some(sequences) = sequences.cloned() else {
                    unreachable!("a graph with the operator has the input")
                };
                Ok(ScaledDotProduct::Fused { attention_mask: attention_mask.clone(), sequences })
            }
            CacheUpdate::Append => {
                let bias = mask::bias(builder, attention_mask, sizes, config.num_experts_per_token)?;
                Ok(ScaledDotProduct::Masked { bias })
            }
            CacheUpdate::InPlace => {
                let lengths = builder.sum(attention_mask, 1)?; // [batch]
                // a sequence of which all tokens so far are padding begins at the first place too
                let new_tokens = builder.columns_of(input_ids)?; // []
                let lengths = builder.maximum(&lengths, &new_tokens)?; // [batch]
                let one = builder.integer(1);
                let last = builder.sub(&lengths, &one)?; // [batch]
                // the shape of past is its capacity, not its length; the mask has one column per cached token
                let longest = builder.size_of(attention_mask, 1)?; // []
                Ok(ScaledDotProduct::GroupedQuery {
                    last_positions: builder.cast(&last, ElementType::Int32),
                    longest: builder.cast(&longest, ElementType::Int32),
                })
            }
        }
    }

    /// `queries` are `[batch, seq, k * kv_heads, kv_channels]` and rotated, as `keys` are, `[batch, seq, kv_heads,
    /// kv_channels]`, like `values`.
    pub(super) fn build(
        &self,
        builder: &mut Builder,
        config: &ModelConfig,
        sizes: &Sizes,
        (queries, keys, values): (&Value, &Value, &Value),
        past: Option<&Past>,
    ) -> Result<AttentionHeads> {
        match (self, past) {
            (ScaledDotProduct::Masked { bias }, past) => {
                masked(builder, config, sizes, (queries, keys, values), past, bias)
            }
            (ScaledDotProduct::GroupedQuery { last_positions, longest }, Some(past)) => {
                let lengths = (last_positions, longest);
                grouped_query(builder, config, sizes, (queries, keys, values), past, lengths)
            }
            (ScaledDotProduct::GroupedQuery { .. }, None) => {
                unreachable!("only a task with a cache updates it in place")
            }
            (ScaledDotProduct::Fused { .. }, _) => unreachable!("the operator rotates its operands"),
        }
    }

    /// Attention by our own operator, which takes queries `[slots, kv_width]`, and keys and values `[tokens, 2 * kv_width]`,
    /// as they are multiplied.
    pub(super) fn build_fused(
        &self,
        builder: &mut Builder,
        config: &ModelConfig,
        (queries, keys_and_values): (&Value, &Value),
        rotary: &Rotary,
        past: Option<&Past>,
    ) -> Result<AttentionHeads> {
        let (ScaledDotProduct::Fused { attention_mask, sequences }, Some(past)) = (self, past) else {
            unreachable!("only a task with a cache updates it in place")
        };
        let (cos, sin) = rotary.tables();
        let (past_key, past_value) = (&past.key, &past.value);
        let operands = AttentionOperands {
            queries,
            keys_and_values,
            cos,
            sin,
            attention_mask,
            sequences,
            past_key,
            past_value,
        };
        let heads = (config.num_key_value_heads, config.kv_channels);
        let (slots, present_key, present_value) = builder.attention(&operands, heads)?;
        Ok(AttentionHeads { slots, present_key, present_value })
    }
}

/// Attention in standard operators. All slots of a key head are rows of one product, so keys and values are not repeated.
fn masked(
    builder: &mut Builder,
    config: &ModelConfig,
    sizes: &Sizes,
    (queries, keys, values): (&Value, &Value, &Value),
    past: Option<&Past>,
    bias: &Value,
) -> Result<AttentionHeads> {
    let (kv_heads, channels, slots) =
        (config.num_key_value_heads, config.kv_channels, config.num_experts_per_token);
    let scale = builder.float_like(queries, (channels as f64).powf(-0.5) as f32);
    let queries = builder.mul(queries, &scale)?;
    let queries = builder.reshape(&queries, sizes.per_token(&[slots, kv_heads, channels]))?;
    let queries = builder.transpose(&queries, &[0, 3, 2, 1, 4])?; // [batch, kv_heads, k, seq, channels]
    let keys = builder.transpose(keys, &[0, 2, 1, 3])?; // [batch, kv_heads, seq, channels]
    let values = builder.transpose(values, &[0, 2, 1, 3])?; // [batch, kv_heads, seq, channels]
    let (present_key, present_value) = match past {
        None => (keys, values),
        Some(past) => builder.scope("cache", |builder| {
            Ok((builder.concat(&[&past.key, &keys], 2)?, builder.concat(&[&past.value, &values], 2)?))
        })?,
    };

    let batch = sizes.batch.clone();
    let (kv_heads, slots) = (Dimension::from(kv_heads), Dimension::from(slots));
    let channels = Dimension::from(channels);
    let sequence = sizes.sequence.clone();
    let rows = &slots * &sequence;
    let merged = Shape(vec![batch.clone(), kv_heads.clone(), rows, channels.clone()]);
    let queries = builder.reshape(&queries, merged)?; // [batch, kv_heads, k * seq, channels]
    let keys = builder.transpose(&present_key, &[0, 1, 3, 2])?; // [batch, kv_heads, channels, total]
    let scores = builder.matmul(&queries, &keys)?; // [batch, kv_heads, k * seq, total]
    // the bias is float32; float16 scores would overflow
    let scores = builder.cast(&scores, ElementType::Float32);
    let scores = builder.add(&scores, bias)?;
    let weights = builder.softmax(&scores)?; // [batch, kv_heads, k * seq, total]
    let weights = builder.cast(&weights, present_value.element);
    let mixed = builder.matmul(&weights, &present_value)?; // [batch, kv_heads, k * seq, channels]
    let by_slot = Shape(vec![batch, kv_heads, slots, sequence, channels]);
    let mixed = builder.reshape(&mixed, by_slot)?; // [batch, kv_heads, k, seq, channels]
    let mixed = builder.transpose(&mixed, &[0, 3, 2, 1, 4])?; // [batch, seq, k, kv_heads, channels]
    let slots = builder.reshape(&mixed, Shape(vec![sizes.slots.clone(), config.kv_width().into()]))?;
    Ok(AttentionHeads { slots, present_key, present_value })
}

/// The operator expects query heads grouped by key head, `[kv, slot]`; ours are `[slot, kv]`, so they are transposed
/// before and after.
fn grouped_query(
    builder: &mut Builder,
    config: &ModelConfig,
    sizes: &Sizes,
    (queries, keys, values): (&Value, &Value, &Value),
    past: &Past,
    (last_positions, longest): (&Value, &Value),
) -> Result<AttentionHeads> {
    let (kv_heads, channels, slots) =
        (config.num_key_value_heads, config.kv_channels, config.num_experts_per_token);
    let queries = builder.reshape(queries, sizes.per_token(&[slots, kv_heads, channels]))?;
    let queries = builder.transpose(&queries, &[0, 1, 3, 2, 4])?; // [batch, seq, kv_heads, k, channels]
    let queries = builder.reshape(&queries, sizes.per_token(&[kv_heads * slots * channels]))?;
    let keys = builder.reshape(keys, sizes.per_token(&[kv_heads * channels]))?;
    let values = builder.reshape(values, sizes.per_token(&[kv_heads * channels]))?;
    let operands = GroupedQueries {
        queries: &queries,
        keys: &keys,
        values: &values,
        past_key: &past.key,
        past_value: &past.value,
        last_positions,
        longest,
    };
    let total = &sizes.past + &sizes.sequence;
    let (mixed, present_key, present_value) =
        builder.grouped_query_attention(&operands, (kv_heads, slots, channels), &total)?;
    let mixed = builder.reshape(&mixed, sizes.per_token(&[kv_heads, slots, channels]))?;
    let mixed = builder.transpose(&mixed, &[0, 1, 3, 2, 4])?; // [batch, seq, k, kv_heads, channels]
    let slots = builder.reshape(&mixed, Shape(vec![sizes.slots.clone(), config.kv_width().into()]))?;
    Ok(AttentionHeads { slots, present_key, present_value })
}
