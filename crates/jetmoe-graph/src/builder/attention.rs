//! ONNX Runtime's contrib operators for attention.

use super::{Builder, Value};
use crate::graph::Attribute;
use crate::{Dimension, ElementType, Result, Shape};

/// Queries, keys and values of the new tokens, and the cache they are appended to.
pub(crate) struct GroupedQueries<'a> {
    /// `[batch, sequence, kv_heads * group * channels]`, the heads of a group consecutive.
    pub(crate) queries: &'a Value,
    /// `[batch, sequence, kv_heads * channels]`
    pub(crate) keys: &'a Value,
    /// `[batch, sequence, kv_heads * channels]`
    pub(crate) values: &'a Value,
    /// `[batch, kv_heads, capacity, channels]`
    pub(crate) past_key: &'a Value,
    /// `[batch, kv_heads, capacity, channels]`
    pub(crate) past_value: &'a Value,
    /// Position of the last token of each sequence, int32 `[batch]`.
    pub(crate) last_positions: &'a Value,
    /// Cached and new tokens of the longest sequence, int32 `[]`.
    pub(crate) longest: &'a Value,
}

impl Builder {
    /// Causal softmax attention of groups of query heads that share a key head, with the cache updated in place where
    /// past and present are one buffer. Returns `[batch, sequence, kv_heads * group * channels]` and the present key and
    /// value, `[batch, kv_heads, cached + new, channels]` each.
    ///
    /// By the definition of `com.microsoft.GroupQueryAttention`, without its rotary embedding.
    pub(crate) fn grouped_query_attention(
        &mut self,
        operands: &GroupedQueries<'_>,
        (kv_heads, group, channels): (usize, usize, usize),
        present_length: &Dimension,
    ) -> Result<(Value, Value, Value)> {
        const OPERATOR: &str = "GroupQueryAttention";
        let GroupedQueries { queries, keys, values, past_key, past_value, last_positions, longest } =
            operands;
        self.require_float(OPERATOR, &[queries, keys, values, past_key, past_value])?;
        self.require_element(OPERATOR, &[last_positions, longest], ElementType::Int32)?;
        let width = |value: &Value| value.shape.0.last().and_then(Dimension::fixed).unwrap_or(0) as usize;
        let kv_width = kv_heads * channels;
        if (width(queries), width(keys), width(values)) != (group * kv_width, kv_width, kv_width) {
            let message =
                format!("{kv_heads} key heads of width {channels}, {group} queries each, do not fit");
            return self.refuse(OPERATOR, &[queries, keys, values], message);
        }
        let present = Shape(vec![
            queries.dimension(0).clone(),
            kv_heads.into(),
            present_length.clone(),
            channels.into(),
        ]);
        let integer = |number: usize| Attribute::Integer(number as i64);
        let attributes = vec![
            ("num_heads", integer(kv_heads * group)),
            ("kv_num_heads", integer(kv_heads)),
            ("scale", Attribute::Float((channels as f64).powf(-0.5) as f32)),
        ];
        let inputs = [*queries, *keys, *values, *past_key, *past_value, *last_positions, *longest];
        let results = vec![
            (queries.element, queries.shape.clone()),
            (queries.element, present.clone()),
            (queries.element, present),
        ];
        let mut results = self.node_with_results(OPERATOR, &inputs, attributes, results).into_iter();
        match (results.next(), results.next(), results.next()) {
            (Some(output), Some(key), Some(value)) => Ok((output, key, value)),
            _ => self.refuse(OPERATOR, &inputs, "the operator has three results"),
        }
    }

    /// Rotary embedding in its half-split form of `heads`, `[batch, sequence, heads * channels]`. `rows` `[batch,
    /// sequence]` holds each token's row in the tables of cosines and sines, `[rows, channels / 2]`.
    ///
    /// By the definition of `com.microsoft.RotaryEmbedding`.
    pub(crate) fn rotary_embedding(
        &mut self,
        heads: &Value,
        rows: &Value,
        cos: &Value,
        sin: &Value,
    ) -> Result<Value> {
        const OPERATOR: &str = "RotaryEmbedding";
        self.require_float(OPERATOR, &[heads, cos, sin])?;
        self.require_element(OPERATOR, &[rows], ElementType::Int64)?;
        let channels = cos.shape.0.last().and_then(Dimension::fixed).unwrap_or(0) * 2;
        let width = heads.shape.0.last().and_then(Dimension::fixed).unwrap_or(0);
        if heads.shape.rank() != 3 || channels == 0 || width % channels != 0 {
            return self.refuse(OPERATOR, &[heads, rows, cos, sin], "the tables do not fit the heads");
        }
        let attributes = vec![("interleaved", Attribute::Integer(0))];
        Ok(self.node(OPERATOR, &[heads, rows, cos, sin], attributes, heads.element, heads.shape.clone()))
    }
}
