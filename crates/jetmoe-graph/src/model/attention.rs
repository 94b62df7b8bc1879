use jetmoe_artifact::ModelPart;
use jetmoe_checkpoint::ModelConfig;
use jetmoe_checkpoint::names::{self, Mixture};

use super::Sizes;
use super::experts::{expert_bias, expert_input, expert_output};
use super::rotary::Rotary;
use super::router::{Routes, per_expert};
use crate::builder::{Builder, Value};
use crate::{Dimension, ElementType, Result, Shape, Weight};

/// The attention half of a layer: a mixture of attention heads. Every expert has a query and an output projection;
/// keys and values are shared. A token's s-th best expert gives it `kv_heads` query heads, of which head j looks at
/// key head j.
pub(super) struct Attention<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) layer: usize,
    pub(super) sizes: &'a Sizes,
    /// `[batch, 1, k * sequence, total]`
    pub(super) bias: &'a Value,
    pub(super) rotary: &'a Rotary,
}

/// Cached keys and values of a layer, `[batch, kv_heads, past, kv_channels]` each.
pub(super) struct Past {
    pub(super) key: Value,
    pub(super) value: Value,
}

pub(super) struct AttentionOutput {
    /// `[tokens, hidden]`
    pub(super) output: Value,
    /// `[tokens, experts]`
    pub(super) router_logits: Value,
    /// `[batch, kv_heads, total, kv_channels]`
    pub(super) present_key: Value,
    /// `[batch, kv_heads, total, kv_channels]`
    pub(super) present_value: Value,
}

impl Attention<'_> {
    /// `hidden` is `[tokens, hidden_size]`, already normed.
    pub(super) fn build(
        &self,
        builder: &mut Builder,
        hidden: &Value,
        past: Option<Past>,
    ) -> Result<AttentionOutput> {
        let config = self.config;
        let routes = builder.scope("router", |builder| {
            Routes::new(builder, config, self.layer, Mixture::Attention, hidden)
        })?;
        let queries = builder.scope("query", |builder| self.queries(builder, hidden, &routes))?;
        let (key, value) = builder.scope("kv_proj", |builder| self.keys_and_values(builder, hidden))?;
        let (present_key, present_value) = match past {
            None => (key, value),
            Some(past) => builder.scope("cache", |builder| {
                Ok((builder.concat(&[&past.key, &key], 2)?, builder.concat(&[&past.value, &value], 2)?))
            })?,
        };
        let attended = builder
            .scope("attention", |builder| self.attend(builder, &queries, &present_key, &present_value))?; // [slots, kv_width]
        let output = builder.scope("output", |builder| self.project(builder, &attended, &routes))?;
        Ok(AttentionOutput { output, router_logits: routes.logits, present_key, present_value })
    }

    /// Query heads of every slot, rotated and scaled: `[batch, kv_heads, k, sequence, kv_channels]`.
    fn queries(&self, builder: &mut Builder, hidden: &Value, routes: &Routes) -> Result<Value> {
        let config = self.config;
        let (kv_heads, channels, slots) =
            (config.num_key_value_heads, config.kv_channels, config.num_experts_per_token);
        let projections = expert_input(config, self.layer, Mixture::Attention, config.kv_width());
        let storage = builder.storage(ModelPart::Attention, Some(self.layer));
        let results = per_expert(builder, hidden, &routes.tokens_of_expert, |builder, expert, rows| {
            builder.linear(rows, projections.clone().of_expert(expert), storage) // [rows, kv_width]
        })?;
        let queries = routes.scatter(builder, &results, self.sizes)?; // [slots, kv_width]
        let heads = self.sizes.per_token(&[slots * kv_heads, channels]);
        let queries = builder.reshape(&queries, heads)?; // [batch, seq, k * kv_heads, channels]
        let queries = self.rotary.rotate(builder, &queries)?;
        let scale = builder.float_like(&queries, (channels as f64).powf(-0.5) as f32);
        let queries = builder.mul(&queries, &scale)?;
        let queries = builder.reshape(&queries, self.sizes.per_token(&[slots, kv_heads, channels]))?;
        builder.transpose(&queries, &[0, 3, 2, 1, 4]) // [batch, kv_heads, k, seq, channels]
    }

    /// New keys, rotated, and values: `[batch, kv_heads, sequence, kv_channels]` each.
    fn keys_and_values(&self, builder: &mut Builder, hidden: &Value) -> Result<(Value, Value)> {
        let config = self.config;
        let weight =
            Weight::new(names::kv_projection(self.layer), vec![2 * config.kv_width(), config.hidden_size]);
        let storage = builder.storage(ModelPart::KvProj, Some(self.layer));
        let both = builder.linear(hidden, weight, storage)?; // [tokens, 2 * kv_width]
        let (keys, values) = builder.halves(&both)?; // [tokens, kv_width] each
        let heads = self.sizes.per_token(&[config.num_key_value_heads, config.kv_channels]);
        let keys = builder.reshape(&keys, heads.clone())?; // [batch, seq, kv_heads, channels]
        let keys = self.rotary.rotate(builder, &keys)?;
        let values = builder.reshape(&values, heads)?; // [batch, seq, kv_heads, channels]
        // [batch, kv_heads, seq, channels]
        Ok((builder.transpose(&keys, &[0, 2, 1, 3])?, builder.transpose(&values, &[0, 2, 1, 3])?))
    }

    /// Softmax attention. All slots of a key head are rows of one product, so keys and values are never repeated.
    /// The result has one row per slot, `[slots, kv_width]`.
    fn attend(&self, builder: &mut Builder, queries: &Value, keys: &Value, values: &Value) -> Result<Value> {
        let config = self.config;
        let batch = self.sizes.batch.clone();
        let kv_heads = Dimension::from(config.num_key_value_heads);
        let slots = Dimension::from(config.num_experts_per_token);
        let channels = Dimension::from(config.kv_channels);
        let sequence = self.sizes.sequence.clone();
        let rows = &slots * &sequence;

        let merged = Shape(vec![batch.clone(), kv_heads.clone(), rows.clone(), channels.clone()]);
        let queries = builder.reshape(queries, merged)?; // [batch, kv_heads, k * seq, channels]
        let keys = builder.transpose(keys, &[0, 1, 3, 2])?; // [batch, kv_heads, channels, total]
        let scores = builder.matmul(&queries, &keys)?; // [batch, kv_heads, k * seq, total]
        // the bias is float32: with it float16 scores would leave their range
        let scores = builder.cast(&scores, ElementType::Float32);
        let scores = builder.add(&scores, self.bias)?;
        let weights = builder.softmax(&scores)?; // [batch, kv_heads, k * seq, total]
        let weights = builder.cast(&weights, values.element);
        let mixed = builder.matmul(&weights, values)?; // [batch, kv_heads, k * seq, channels]
        let by_slot = Shape(vec![batch, kv_heads, slots, sequence, channels]);
        let mixed = builder.reshape(&mixed, by_slot)?; // [batch, kv_heads, k, seq, channels]
        let mixed = builder.transpose(&mixed, &[0, 3, 2, 1, 4])?; // [batch, seq, k, kv_heads, channels]
        builder.reshape(&mixed, Shape(vec![self.sizes.slots.clone(), config.kv_width().into()]))
    }

    /// Output projection of each slot by the expert that made its query; gated, summed, plus bias: `[tokens, hidden]`.
    fn project(&self, builder: &mut Builder, attended: &Value, routes: &Routes) -> Result<Value> {
        let config = self.config;
        let projections = expert_output(config, self.layer, Mixture::Attention, config.kv_width());
        let storage = builder.storage(ModelPart::Attention, Some(self.layer));
        let results = per_expert(builder, attended, &routes.slots_of_expert, |builder, expert, rows| {
            builder.linear(rows, projections.clone().of_expert(expert), storage) // [rows, hidden]
        })?;
        routes.combine(builder, &results, expert_bias(config, self.layer, Mixture::Attention), self.sizes)
    }
}
