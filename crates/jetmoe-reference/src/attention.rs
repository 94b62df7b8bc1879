//! Attention half of a decoder layer: a mixture of attention heads. Mirrors `JetMoeAttention` and `JetMoeMoA` in
//! transformers' `modeling_jetmoe.py`.

use candle_core::{Result as TensorResult, Tensor};
use candle_nn::ops::softmax_last_dim;
use candle_nn::{Linear, Module};
use jetmoe_checkpoint::names::{self, Mixture};

use crate::Result;
use crate::cache::LayerCache;
use crate::experts::ExpertLinear;
use crate::observer::ActivationHook;
use crate::rotary::Rotation;
use crate::router::Router;
use crate::weights::Weights;

/// Mixture of attention heads. Every expert has a query projection and an output projection; all experts share keys and
/// values. The s-th best expert of a token gives it one query head per key head: query head s · kv_heads + j attends to
/// key head j.
#[derive(Debug)]
pub(crate) struct MixtureOfAttention {
    router: Router,
    query: ExpertLinear, // hidden → kv_heads * kv_channels
    key_value: Linear,   // hidden → keys of all heads, then values of all heads
    key_value_tensor: String,
    output: ExpertLinear, // kv_heads * kv_channels → hidden
    bias: Tensor,         // [hidden]
    top_k: usize,
    kv_heads: usize,
    kv_channels: usize,
}

/// Results of the attention half.
pub(crate) struct AttentionOutput {
    pub(crate) output: Tensor,        // [batch, seq, hidden]
    pub(crate) router_logits: Tensor, // [batch, seq, experts]
    pub(crate) cache: LayerCache,
}

impl MixtureOfAttention {
    pub(crate) fn load(weights: Weights<'_>, layer: usize) -> Result<Self> {
        let config = weights.config();
        let (hidden, kv_width) = (config.hidden_size, config.kv_width());
        let router =
            weights.linear(&names::router(layer, Mixture::Attention), config.num_local_experts, hidden)?;
        Ok(MixtureOfAttention {
            router: Router::new(router, config.num_experts_per_token),
            query: weights.experts(&names::expert_input(layer, Mixture::Attention), kv_width, hidden)?,
            key_value: weights.linear(&names::kv_projection(layer), 2 * kv_width, hidden)?,
            key_value_tensor: names::kv_projection(layer),
            output: weights.experts(&names::expert_output(layer, Mixture::Attention), hidden, kv_width)?,
            bias: weights.tensor(&names::expert_bias(layer, Mixture::Attention), &[hidden])?,
            top_k: config.num_experts_per_token,
            kv_heads: config.num_key_value_heads,
            kv_channels: config.kv_channels,
        })
    }

    /// Attends from `x`, `[batch, seq, hidden]`, to `past` and to `x` itself. `bias` is the attention mask,
    /// `[batch, 1, 1, seq, cached + seq]`.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        rotation: &Rotation,
        bias: &Tensor,
        past: Option<&LayerCache>,
        hook: &mut ActivationHook<'_>,
    ) -> TensorResult<AttentionOutput> {
        let (batch, sequence, hidden) = x.dims3()?;
        let heads = self.top_k * self.kv_heads;
        let tokens = x.reshape((batch * sequence, hidden))?; // [tokens, hidden]
        let routing = self.router.forward(&tokens)?;

        let inputs = routing.repeat_tokens(&tokens)?; // [assignments, hidden]
        let query = self.query.forward(&inputs, &routing, hook)?; // [assignments, kv_heads * kv_channels]
        let query = query.reshape((batch, sequence, heads, self.kv_channels))?; // [batch, seq, heads, kv_channels]
        let query = rotation.apply(&query)?; // [batch, seq, heads, kv_channels]

        hook.call(&self.key_value_tensor, None, &tokens)?;
        let (key, value) = self.project_key_value(x)?; // 2 × [batch, seq, kv_heads, kv_channels]
        let key = rotation.apply(&key)?; // [batch, seq, kv_heads, kv_channels]
        let key = key.transpose(1, 2)?.contiguous()?; // [batch, kv_heads, seq, kv_channels]
        let value = value.transpose(1, 2)?.contiguous()?; // [batch, kv_heads, seq, kv_channels]
        let cache = LayerCache::extend(past, key, value)?;

        let context = self.attend(&query, &cache, bias)?; // [assignments, kv_heads * kv_channels]
        let outputs = self.output.forward(&context, &routing, hook)?; // [assignments, hidden]
        let mixed = routing.combine(&outputs)?.broadcast_add(&self.bias)?; // [tokens, hidden]

        Ok(AttentionOutput {
            output: mixed.reshape((batch, sequence, hidden))?, // [batch, seq, hidden]
            router_logits: routing.logits.reshape((batch, sequence, ()))?, // [batch, seq, experts]
            cache,
        })
    }

    fn project_key_value(&self, x: &Tensor) -> TensorResult<(Tensor, Tensor)> {
        let (batch, sequence, _) = x.dims3()?;
        let &Self { kv_heads, kv_channels, .. } = self;
        let both = self.key_value.forward(x)?; // [batch, seq, 2 * kv_heads * kv_channels]
        let both = both.reshape((batch, sequence, 2, kv_heads, kv_channels))?; // [batch, seq, 2, kv_heads, kv_channels]
        let key = both.narrow(2, 0, 1)?.squeeze(2)?; // [batch, seq, kv_heads, kv_channels]
        let value = both.narrow(2, 1, 1)?.squeeze(2)?; // [batch, seq, kv_heads, kv_channels]
        Ok((key, value))
    }

    /// Scaled dot-product attention from `query`, `[batch, seq, heads, kv_channels]`, to
    /// `[assignments, kv_heads * kv_channels]`. The query heads of a key head are moved to the sequence axis, so that no key
    /// is repeated.
    fn attend(&self, query: &Tensor, cache: &LayerCache, bias: &Tensor) -> TensorResult<Tensor> {
        let (batch, sequence, _, _) = query.dims4()?;
        let &Self { top_k, kv_heads, kv_channels, .. } = self;
        let total = cache.key.dim(2)?;

        let query = query
            .reshape((batch, sequence, top_k, kv_heads, kv_channels))? // [batch, seq, top_k, kv_heads, kv_channels]
            .permute((0, 3, 2, 1, 4))? // [batch, kv_heads, top_k, seq, kv_channels]
            .reshape((batch, kv_heads, top_k * sequence, kv_channels))?; // [batch, kv_heads, top_k * seq, kv_channels]
        let scores = query.matmul(&cache.key.t()?)?; // [batch, kv_heads, top_k * seq, cached + seq]
        let scores = (scores * (kv_channels as f64).powf(-0.5))?; // [batch, kv_heads, top_k * seq, cached + seq]
        let scores = scores
            .reshape((batch, kv_heads, top_k, sequence, total))? // [batch, kv_heads, top_k, seq, cached + seq]
            .broadcast_add(bias)?; // [batch, kv_heads, top_k, seq, cached + seq]
        let attention = softmax_last_dim(&scores)?; // [batch, kv_heads, top_k, seq, cached + seq]
        attention
            .reshape((batch, kv_heads, top_k * sequence, total))? // [batch, kv_heads, top_k * seq, cached + seq]
            .matmul(&cache.value)? // [batch, kv_heads, top_k * seq, kv_channels]
            .reshape((batch, kv_heads, top_k, sequence, kv_channels))? // [batch, kv_heads, top_k, seq, kv_channels]
            .permute((0, 3, 2, 1, 4))? // [batch, seq, top_k, kv_heads, kv_channels]
            .reshape((batch * sequence * top_k, kv_heads * kv_channels)) // [assignments, kv_heads * kv_channels]
    }
}
