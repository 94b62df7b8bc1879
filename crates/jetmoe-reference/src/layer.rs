//! A decoder layer. Mirrors `JetMoeDecoderLayer` in transformers' `modeling_jetmoe.py`.

use candle_core::{Result as TensorResult, Tensor};
use jetmoe_checkpoint::{ModelConfig, names};

use crate::Result;
use crate::attention::MixtureOfAttention;
use crate::cache::LayerCache;
use crate::mlp::MixtureOfMlps;
use crate::norm::RmsNorm;
use crate::observer::ActivationHook;
use crate::rotary::Rotation;
use crate::weights::Weights;

/// Attention and MLP, each with a norm before it and a residual connection around it.
#[derive(Debug)]
pub(crate) struct DecoderLayer {
    input_norm: RmsNorm,
    attention: MixtureOfAttention,
    post_attention_norm: RmsNorm,
    mlp: MixtureOfMlps,
}

pub(crate) struct LayerOutput {
    pub(crate) hidden_state: Tensor,            // [batch, seq, hidden]
    pub(crate) attention_router_logits: Tensor, // [batch, seq, experts]
    pub(crate) mlp_router_logits: Tensor,       // [batch, seq, experts]
    pub(crate) cache: LayerCache,
}

impl DecoderLayer {
    pub(crate) fn load(weights: Weights<'_>, layer: usize) -> Result<Self> {
        Ok(DecoderLayer {
            input_norm: weights.norm(&names::input_norm(layer), ModelConfig::LAYER_NORM_EPS)?,
            attention: MixtureOfAttention::load(weights, layer)?,
            post_attention_norm: weights
                .norm(&names::post_attention_norm(layer), ModelConfig::LAYER_NORM_EPS)?,
            mlp: MixtureOfMlps::load(weights, layer)?,
        })
    }

    pub(crate) fn forward(
        &self,
        x: &Tensor,
        rotation: &Rotation,
        bias: &Tensor,
        past: Option<&LayerCache>,
        hook: &mut ActivationHook<'_>,
    ) -> TensorResult<LayerOutput> {
        let normed = self.input_norm.forward(x)?; // [batch, seq, hidden]
        let attention = self.attention.forward(&normed, rotation, bias, past, hook)?;
        let x = (x + attention.output)?; // [batch, seq, hidden]

        let normed = self.post_attention_norm.forward(&x)?; // [batch, seq, hidden]
        let (mixed, mlp_router_logits) = self.mlp.forward(&normed, hook)?;
        Ok(LayerOutput {
            hidden_state: (x + mixed)?, // [batch, seq, hidden]
            attention_router_logits: attention.router_logits,
            mlp_router_logits,
            cache: attention.cache,
        })
    }
}
