//! The mixture of attention heads of a layer. After `JetMoeMoA` and `JetMoeAttention` of transformers' `modeling_jetmoe.py`.

use jetmoe_artifact::ModelPart;
use jetmoe_checkpoint::ModelConfig;
use jetmoe_checkpoint::names::{self, Mixture};
use jetmoe_format::RowOrder;

use super::Sizes;
use super::dispatch::Dispatch;
use super::experts::{expert_bias, expert_input, expert_output};
use super::rotary::Rotary;
use super::router::{TopK, per_expert};
use super::scaled_dot_product::{AttentionHeads, Past, ScaledDotProduct};
use crate::builder::{Builder, Value};
use crate::{Result, Weight};

/// The attention half of a layer: a mixture of attention heads. Every expert has a query and an output projection;
/// keys and values are shared. A token's s-th best expert provides `kv_heads` query heads, and query head j attends to
/// key head j.
pub(super) struct Attention<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) layer: usize,
    pub(super) sizes: &'a Sizes,
    pub(super) scaled_dot_product: &'a ScaledDotProduct,
    pub(super) rotary: &'a Rotary,
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
        let (top_k, dispatch) = builder.scope("router", |builder| {
            let top_k = TopK::new(builder, config, self.layer, Mixture::Attention, hidden)?;
            let dispatch =
                Dispatch::new(builder, config, self.layer, Mixture::Attention, &top_k, self.sizes)?;
            Ok((top_k, dispatch))
        })?;
        let heads = self.attend(builder, hidden, (&top_k, &dispatch), past.as_ref())?;
        let AttentionHeads { slots, present_key, present_value } = heads;
        let output = builder.scope("output", |builder| self.project(builder, &slots, &top_k, &dispatch))?;
        Ok(AttentionOutput { output, router_logits: top_k.logits, present_key, present_value })
    }

    /// Projects the tokens to queries, keys and values, and computes attention.
    fn attend(
        &self,
        builder: &mut Builder,
        hidden: &Value,
        (top_k, dispatch): (&TopK, &Dispatch),
        past: Option<&Past>,
    ) -> Result<AttentionHeads> {
        let project_queries = |builder: &mut Builder| self.queries(builder, hidden, top_k, dispatch);
        if let ScaledDotProduct::Fused { .. } = self.scaled_dot_product {
            let queries = builder.scope("query", project_queries)?;
            let both = builder.scope("kv_proj", |builder| self.keys_and_values(builder, hidden))?;
            return builder.scope("attention", |builder| {
                let operands = (&queries, &both);
                self.scaled_dot_product.build_fused(builder, self.config, operands, self.rotary, past)
            });
        }
        let (kv_heads, channels, slots) =
            (self.config.num_key_value_heads, self.config.kv_channels, self.config.num_experts_per_token);
        let queries = builder.scope("query", |builder| {
            let queries = project_queries(builder)?;
            let heads = self.sizes.per_token(&[slots * kv_heads, channels]);
            let queries = builder.reshape(&queries, heads)?; // [batch, seq, k * kv_heads, channels]
            self.rotary.rotate(builder, &queries, self.sizes)
        })?;
        let (keys, values) = builder.scope("kv_proj", |builder| {
            let both = self.keys_and_values(builder, hidden)?;
            let (keys, values) = builder.halves(&both)?; // [tokens, kv_width] each
            let heads = self.sizes.per_token(&[kv_heads, channels]);
            let keys = builder.reshape(&keys, heads.clone())?; // [batch, seq, kv_heads, channels]
            let keys = self.rotary.rotate(builder, &keys, self.sizes)?;
            Ok((keys, builder.reshape(&values, heads)?))
        })?;
        builder.scope("attention", |builder| {
            let operands = (&queries, &keys, &values);
            self.scaled_dot_product.build(builder, self.config, self.sizes, operands, past)
        })
    }

    /// Query heads of every slot, `[slots, kv_width]`.
    fn queries(
        &self,
        builder: &mut Builder,
        hidden: &Value,
        top_k: &TopK,
        dispatch: &Dispatch,
    ) -> Result<Value> {
        let config = self.config;
        let projections = expert_input(config, self.layer, Mixture::Attention, config.kv_width());
        match dispatch {
            Dispatch::PerExpert(permutation) => {
                let results =
                    self.each_expert(builder, hidden, &permutation.tokens_of_expert, &projections)?; // [rows, kv_width] each
                permutation.scatter(builder, &results, self.sizes)
            }
            Dispatch::Pieces(pieces) => {
                let rows = pieces.of_tokens(builder, hidden)?; // [pieces, rows, hidden]
                let scheme = builder.scheme(ModelPart::Attention, Some(self.layer));
                let results = pieces.product(builder, &rows, projections, scheme)?; // [pieces, rows, kv_width]
                pieces.restored(builder, &results)
            }
            Dispatch::Custom(scheme) => {
                let weight = builder.packed(projections, *scheme, RowOrder::AsStored);
                builder.expert_linear(hidden, &top_k.experts, &weight)
            }
        }
    }

    /// New keys and values side by side, `[tokens, 2 * kv_width]`.
    fn keys_and_values(&self, builder: &mut Builder, hidden: &Value) -> Result<Value> {
        let config = self.config;
        let weight =
            Weight::new(names::kv_projection(self.layer), vec![2 * config.kv_width(), config.hidden_size]);
        builder.linear_of_part(hidden, weight, ModelPart::KvProj, Some(self.layer))
    }

    /// Output projection of each slot by the expert that made its query; gated, summed, plus bias: `[tokens, hidden]`.
    fn project(
        &self,
        builder: &mut Builder,
        heads: &Value,
        top_k: &TopK,
        dispatch: &Dispatch,
    ) -> Result<Value> {
        let config = self.config;
        let projections = expert_output(config, self.layer, Mixture::Attention, config.kv_width());
        let output = match dispatch {
            Dispatch::PerExpert(permutation) => {
                let results = self.each_expert(builder, heads, &permutation.slots_of_expert, &projections)?; // [rows, hidden] each
                permutation.combine(builder, &results, self.sizes)?
            }
            Dispatch::Pieces(pieces) => {
                let rows = pieces.of_slots(builder, heads)?; // [pieces, rows, kv_width]
                let scheme = builder.scheme(ModelPart::Attention, Some(self.layer));
                let results = pieces.product(builder, &rows, projections, scheme)?; // [pieces, rows, hidden]
                pieces.combine(builder, &results, self.sizes)?
            }
            Dispatch::Custom(scheme) => {
                let weight = builder.packed(projections, *scheme, RowOrder::AsStored);
                builder.expert_linear_sum(heads, (&top_k.experts, &top_k.gates), &weight)?
            }
        }; // [tokens, hidden]
        let bias = builder.vector(expert_bias(config, self.layer, Mixture::Attention));
        builder.add(&output, &bias)
    }

    /// The rows of every expert times its matrix.
    fn each_expert(
        &self,
        builder: &mut Builder,
        source: &Value,
        rows_of_expert: &[Value],
        projections: &Weight,
    ) -> Result<Vec<Value>> {
        let scheme = builder.scheme(ModelPart::Attention, Some(self.layer));
        per_expert(builder, source, rows_of_expert, |builder, expert, rows| {
            builder.linear(rows, projections.clone().of_expert(expert), scheme)
        })
    }
}
