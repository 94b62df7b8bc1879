use jetmoe_artifact::ModelPart;
use jetmoe_checkpoint::ModelConfig;
use jetmoe_checkpoint::names::{self, Mixture};

use super::Sizes;
use super::activation::activate;
use super::router::{Routes, per_expert};
use crate::builder::{Builder, Value};
use crate::{Result, Weight};

/// The feed-forward half of a layer: a mixture of gated MLP experts.
pub(super) struct MlpExperts<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) layer: usize,
    pub(super) sizes: &'a Sizes,
}

pub(super) struct MlpOutput {
    /// `[tokens, hidden]`
    pub(super) output: Value,
    /// `[tokens, experts]`
    pub(super) router_logits: Value,
}

impl MlpExperts<'_> {
    /// `hidden` is `[tokens, hidden_size]`, already normed.
    pub(super) fn build(&self, builder: &mut Builder, hidden: &Value) -> Result<MlpOutput> {
        let config = self.config;
        let routes = builder
            .scope("router", |builder| Routes::new(builder, config, self.layer, Mixture::Mlp, hidden))?;
        let results = per_expert(builder, hidden, &routes.tokens_of_expert, |builder, expert, rows| {
            self.expert(builder, expert, rows)
        })?; // per expert [its slots, hidden]
        let bias = expert_bias(config, self.layer, Mixture::Mlp);
        let output =
            builder.scope("output", |builder| routes.combine(builder, &results, bias, self.sizes))?; // [tokens, hidden]
        Ok(MlpOutput { output, router_logits: routes.logits })
    }

    /// activation(x · gateᵀ) ⊙ (x · upᵀ) · downᵀ over the rows of the expert's tokens, `[rows, hidden]`.
    fn expert(&self, builder: &mut Builder, expert: usize, rows: &Value) -> Result<Value> {
        let config = self.config;
        let input =
            expert_input(config, self.layer, Mixture::Mlp, 2 * config.intermediate_size).of_expert(expert);
        let output =
            expert_output(config, self.layer, Mixture::Mlp, config.intermediate_size).of_expert(expert);
        let storage = builder.storage(ModelPart::Mlp, Some(self.layer));
        let gate_and_up = builder.linear(rows, input, storage)?; // [rows, 2 * intermediate]
        let (gate, up) = builder.halves(&gate_and_up)?; // [rows, intermediate] each
        let gate = activate(builder, config.activation, &gate)?;
        let product = builder.mul(&gate, &up)?; // [rows, intermediate]
        builder.linear(&product, output, storage) // [rows, hidden]
    }
}

/// First matrix of every expert, `[experts, rows, hidden]`.
pub(super) fn expert_input(config: &ModelConfig, layer: usize, mixture: Mixture, rows: usize) -> Weight {
    Weight::new(names::expert_input(layer, mixture), vec![config.num_local_experts, rows, config.hidden_size])
}

/// Second matrix of every expert, `[experts, hidden, columns]`.
pub(super) fn expert_output(config: &ModelConfig, layer: usize, mixture: Mixture, columns: usize) -> Weight {
    Weight::new(
        names::expert_output(layer, mixture),
        vec![config.num_local_experts, config.hidden_size, columns],
    )
}

/// Bias added once to the sum of the experts, `[hidden]`.
pub(super) fn expert_bias(config: &ModelConfig, layer: usize, mixture: Mixture) -> Weight {
    Weight::new(names::expert_bias(layer, mixture), vec![config.hidden_size])
}
