//! The mixture of MLP experts of a layer. After `JetMoeMoE` of transformers' `modeling_jetmoe.py`.

use jetmoe_artifact::ModelPart;
use jetmoe_checkpoint::names::{self, Mixture};
use jetmoe_checkpoint::{Activation, ModelConfig};
use jetmoe_format::{RowOrder, Scheme};

use super::Sizes;
use super::activation::activate;
use super::dispatch::Dispatch;
use super::router::{TopK, per_expert};
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
        let (top_k, dispatch) = builder.scope("router", |builder| {
            let top_k = TopK::new(builder, config, self.layer, Mixture::Mlp, hidden)?;
            let dispatch = Dispatch::new(builder, config, self.layer, Mixture::Mlp, &top_k, self.sizes)?;
            Ok((top_k, dispatch))
        })?;
        let output = match &dispatch {
            Dispatch::PerExpert(permutation) => {
                let results =
                    per_expert(builder, hidden, &permutation.tokens_of_expert, |builder, expert, rows| {
                        self.expert(builder, expert, rows)
                    })?; // per expert [its slots, hidden]
                builder.scope("output", |builder| permutation.combine(builder, &results, self.sizes))?
            }
            Dispatch::Pieces(pieces) => builder.scope("experts", |builder| {
                let rows = pieces.of_tokens(builder, hidden)?; // [pieces, rows, hidden]
                let results = self.gated(builder, &rows, |builder, rows, weight, scheme| {
                    pieces.product(builder, rows, weight, scheme)
                })?; // [pieces, rows, hidden]
                pieces.combine(builder, &results, self.sizes)
            })?,
            Dispatch::Custom(scheme) => {
                builder.scope("experts", |builder| self.all_experts(builder, hidden, &top_k, *scheme))?
            }
        }; // [tokens, hidden]
        let output = builder.scope("output", |builder| {
            let bias = builder.vector(expert_bias(config, self.layer, Mixture::Mlp));
            builder.add(&output, &bias) // [tokens, hidden]
        })?;
        Ok(MlpOutput { output, router_logits: top_k.logits })
    }

    /// The whole mixture by one operator, `[tokens, hidden]`.
    fn all_experts(
        &self,
        builder: &mut Builder,
        hidden: &Value,
        top_k: &TopK,
        scheme: Scheme,
    ) -> Result<Value> {
        let (input, output) = self.weights();
        let activation = match self.config.activation {
            Activation::Silu => jetmoe_kernels::Activation::Silu,
            Activation::Gelu => jetmoe_kernels::Activation::Gelu,
            Activation::GeluTanh => jetmoe_kernels::Activation::GeluTanh,
            Activation::Relu => jetmoe_kernels::Activation::Relu,
        };
        let up = builder.packed(input, scheme, RowOrder::Halves);
        let down = builder.packed(output, scheme, RowOrder::AsStored);
        builder.expert_mlp(hidden, (&top_k.experts, &top_k.gates), (&up, &down), activation)
    }

    /// Both matrices of every expert: `[experts, 2 * intermediate, hidden]` and `[experts, hidden, intermediate]`.
    fn weights(&self) -> (Weight, Weight) {
        let (config, width) = (self.config, self.config.intermediate_size);
        (
            expert_input(config, self.layer, Mixture::Mlp, 2 * width),
            expert_output(config, self.layer, Mixture::Mlp, width),
        )
    }

    /// One expert over the rows of its tokens, `[rows, hidden]`.
    fn expert(&self, builder: &mut Builder, expert: usize, rows: &Value) -> Result<Value> {
        self.gated(builder, rows, |builder, rows, weight, scheme| {
            builder.linear(rows, weight.of_expert(expert), scheme)
        })
    }

    /// activation(x · gateᵀ) ⊙ (x · upᵀ) · downᵀ for rows `[..., hidden]`; `multiply` computes the products.
    fn gated(
        &self,
        builder: &mut Builder,
        rows: &Value,
        multiply: impl Fn(&mut Builder, &Value, Weight, Scheme) -> Result<Value>,
    ) -> Result<Value> {
        let (input, output) = self.weights();
        let scheme = builder.scheme(ModelPart::Mlp, Some(self.layer));
        let gate_and_up = multiply(builder, rows, input, scheme)?; // [..., 2 * intermediate]
        let (gate, up) = builder.halves(&gate_and_up)?; // [..., intermediate] each
        let gate = activate(builder, self.config.activation, &gate)?;
        let product = builder.mul(&gate, &up)?; // [..., intermediate]
        multiply(builder, &product, output, scheme) // [..., hidden]
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
