//! Padding in front of the sequences of a batch, for graphs in which `GroupQueryAttention` updates the cache in place.
//!
//! `GroupQueryAttention` keeps the tokens of a sequence at the first places of its cache and expects padding behind them, and
//! many callers have it in front. Such a graph therefore moves the padding of every sequence behind its tokens, once for all
//! layers, and moves the rows of its outputs back.

use jetmoe_artifact::CacheUpdate;

use super::Sizes;
use crate::builder::{Builder, Value};
use crate::{ElementType, Result, Shape};

/// Where attention expects the padding of a sequence.
pub(super) enum Padding {
    /// Anywhere: the mask says where.
    Masked,
    /// Behind the tokens. Without padding in front every row stays in its place.
    Behind {
        /// The row that is moved to each place, int64 `[tokens]`.
        moved: Value,
        /// The row that is moved back to each place, int64 `[tokens]`.
        restored: Value,
    },
}

impl Padding {
    /// `attention_mask` is `[batch, total]`; the new tokens, `input_ids` `[batch, sequence]`, are its last columns.
    pub(super) fn new(
        builder: &mut Builder,
        cache_update: CacheUpdate,
        (attention_mask, input_ids): (&Value, &Value),
        sizes: &Sizes,
    ) -> Result<Self> {
        if cache_update != CacheUpdate::InPlace {
            return Ok(Padding::Masked);
        }
        let zero = builder.integer(0);
        let total = builder.columns_of(attention_mask)?; // []
        let sequence = builder.columns_of(input_ids)?; // []
        let cached = builder.sub(&total, &sequence)?; // []

        let sums = builder.cumulative_sum(attention_mask, 1)?; // [batch, total]
        let before_first = builder.equal(&sums, &zero)?; // [batch, total]
        let before_first = builder.cast(&before_first, ElementType::Int64);
        let before_first = builder.sum(&before_first, 1)?; // [batch]
        let padding = builder.sub(&before_first, &cached)?; // [batch]
        let padding = builder.maximum(&padding, &zero)?; // [batch], of the new tokens only
        let padding = builder.unsqueeze(&padding, 1)?; // [batch, 1]
        let tokens = builder.sub(&sequence, &padding)?; // [batch, 1]

        let columns = builder.range(&0_i64.into(), &sizes.sequence)?; // [seq]
        let rows = builder.range(&0_i64.into(), &sizes.tokens)?; // [tokens]
        let rows = builder.reshape(&rows, sizes.per_token(&[]))?; // [batch, seq]
        // the rows with those of each sequence rotated to the left
        let mut rotated = |places: &Value| {
            let moved = builder.add(places, &columns)?; // [batch, seq]
            let is_behind_the_end = builder.less_or_equal(&sequence, &moved)?; // [batch, seq]
            let back = builder.sub(places, &sequence)?; // [batch, 1]
            let places = builder.select(&is_behind_the_end, &back, places)?; // [batch, seq]
            let rows = builder.add(&rows, &places)?; // [batch, seq]
            builder.reshape(&rows, Shape(vec![sizes.tokens.clone()])) // [tokens]
        };
        Ok(Padding::Behind { moved: rotated(&padding)?, restored: rotated(&tokens)? })
    }

    /// Ids or positions, `[batch, sequence]`, with the padding where attention expects it.
    pub(super) fn moved(&self, builder: &mut Builder, values: &Value, sizes: &Sizes) -> Result<Value> {
        let Padding::Behind { moved, .. } = self else { return Ok(values.clone()) };
        let rows = builder.reshape(values, Shape(vec![sizes.tokens.clone()]))?; // [tokens]
        let rows = builder.gather(&rows, moved)?; // [tokens]
        builder.reshape(&rows, values.shape.clone())
    }

    /// Rows `[tokens, width]` with the padding where the caller has it.
    pub(super) fn restored(&self, builder: &mut Builder, rows: &Value) -> Result<Value> {
        match self {
            Padding::Masked => Ok(rows.clone()),
            Padding::Behind { restored, .. } => builder.gather(rows, restored),
        }
    }
}
