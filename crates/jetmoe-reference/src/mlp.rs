//! Feed-forward half of a decoder layer: a mixture of gated MLPs. Mirrors `JetMoeMoE` in transformers'
//! `modeling_jetmoe.py`.

use candle_core::{Result as TensorResult, Tensor};
use jetmoe_checkpoint::Activation;
use jetmoe_checkpoint::names::{self, Mixture};

use crate::Result;
use crate::experts::ExpertLinear;
use crate::observer::ActivationHook;
use crate::router::Router;
use crate::weights::Weights;

/// Mixture of gated MLPs: output(activation(gate(x)) · up(x)).
#[derive(Debug)]
pub(crate) struct MixtureOfMlps {
    router: Router,
    input: ExpertLinear,  // hidden → gate rows, then up rows
    output: ExpertLinear, // intermediate → hidden
    bias: Tensor,         // [hidden]
    activation: Activation,
}

impl MixtureOfMlps {
    pub(crate) fn load(weights: Weights<'_>, layer: usize) -> Result<Self> {
        let config = weights.config();
        let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
        let router = weights.linear(&names::router(layer, Mixture::Mlp), config.num_local_experts, hidden)?;
        Ok(MixtureOfMlps {
            router: Router::new(router, config.num_experts_per_token),
            input: weights.experts(&names::expert_input(layer, Mixture::Mlp), 2 * intermediate, hidden)?,
            output: weights.experts(&names::expert_output(layer, Mixture::Mlp), hidden, intermediate)?,
            bias: weights.tensor(&names::expert_bias(layer, Mixture::Mlp), &[hidden])?,
            activation: config.activation,
        })
    }

    /// Returns the output, `[batch, seq, hidden]`, and the router logits, `[batch, seq, experts]`.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        hook: &mut ActivationHook<'_>,
    ) -> TensorResult<(Tensor, Tensor)> {
        let (batch, sequence, hidden) = x.dims3()?;
        let tokens = x.reshape((batch * sequence, hidden))?; // [tokens, hidden]
        let routing = self.router.forward(&tokens)?;

        let inputs = routing.repeat_tokens(&tokens)?; // [assignments, hidden]
        let projected = self.input.forward(&inputs, &routing, hook)?; // [assignments, 2 * intermediate]
        let halves = projected.chunk(2, 1)?; // 2 × [assignments, intermediate]
        let gated = (activate(self.activation, &halves[0])? * &halves[1])?; // [assignments, intermediate]
        let outputs = self.output.forward(&gated, &routing, hook)?; // [assignments, hidden]

        let mixed = routing.combine(&outputs)?.broadcast_add(&self.bias)?; // [tokens, hidden]
        let mixed = mixed.reshape((batch, sequence, hidden))?; // [batch, seq, hidden]
        let router_logits = routing.logits.reshape((batch, sequence, ()))?; // [batch, seq, experts]
        Ok((mixed, router_logits))
    }
}

fn activate(activation: Activation, x: &Tensor) -> TensorResult<Tensor> {
    match activation {
        Activation::Silu => x.silu(),
        Activation::Gelu => x.gelu_erf(),
        Activation::GeluTanh => x.gelu(),
        Activation::Relu => x.relu(),
    }
}

#[cfg(test)]
mod tests;
