//! The whole model: embedding, decoder layers, final norm, heads. Mirrors `JetMoeModel` in transformers'
//! `modeling_jetmoe.py`.

use candle_core::{Result as TensorResult, Tensor};
use jetmoe_checkpoint::{Checkpoint, ModelConfig, names};

use crate::cache::Cache;
use crate::head::Heads;
use crate::inputs::Inputs;
use crate::layer::DecoderLayer;
use crate::mask::attention_bias;
use crate::norm::RmsNorm;
use crate::observer::ActivationHook;
use crate::rotary::Rotary;
use crate::weights::{WeightOverrides, Weights};
use crate::{Error, Result};

/// The model with its weights in float32. It is immutable; share it with an `Arc`.
#[derive(Debug)]
pub struct Reference {
    config: ModelConfig,
    embedding: Tensor, // [vocab, hidden]
    layers: Vec<DecoderLayer>,
    final_norm: RmsNorm,
    rotary: Rotary,
    heads: Heads,
}

/// Outputs of one call for its new tokens.
#[derive(Debug, Clone)]
pub struct Outputs {
    /// `[batch, seq, hidden]`, number of layers + 1: 0 is the embedding, i the output of layer i − 1, before the final
    /// norm.
    pub hidden_states: Vec<Tensor>,
    /// `[batch, seq, hidden]`, after the final norm.
    pub last_hidden_state: Tensor,
    /// `[batch, seq, experts]` of every layer's mixture of attention heads.
    pub attention_router_logits: Vec<Tensor>,
    /// `[batch, seq, experts]` of every layer's mixture of MLP experts.
    pub mlp_router_logits: Vec<Tensor>,
}

impl Reference {
    /// Reads all weights into memory, as float32. The language-model head is loaded unless it is tied to the embedding,
    /// the classification head if there is one.
    ///
    /// # Errors
    /// A weight that is missing or has another shape than in the configuration.
    pub fn load(checkpoint: &Checkpoint) -> Result<Self> {
        Self::load_weights(Weights { checkpoint, overrides: None })
    }

    /// As [`Reference::load`], with other values for some or all weights.
    ///
    /// # Errors
    /// As [`Reference::load`], and an override that cannot be read.
    pub fn load_with_overrides(checkpoint: &Checkpoint, overrides: &dyn WeightOverrides) -> Result<Self> {
        Self::load_weights(Weights { checkpoint, overrides: Some(overrides) })
    }

    fn load_weights(weights: Weights<'_>) -> Result<Self> {
        let checkpoint = weights.checkpoint;
        let config = checkpoint.config().clone();
        let embedding = weights.tensor(names::EMBEDDING, &[config.vocab_size, config.hidden_size])?;
        Ok(Reference {
            layers: (0..config.num_hidden_layers)
                .map(|layer| DecoderLayer::load(weights, layer))
                .collect::<Result<_>>()?,
            final_norm: weights.norm(names::FINAL_NORM, config.rms_norm_eps)?,
            rotary: Rotary::new(&config.rope, config.kv_channels)
                .map_err(Error::at("the rotary embedding"))?,
            heads: Heads::load(weights, &embedding)?,
            embedding,
            config,
        })
    }

    /// The configuration of the checkpoint.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Runs the model over new tokens and appends them to `cache`.
    ///
    /// # Errors
    /// Inputs that do not match the model, each other or the cache. The cache is then unchanged.
    pub fn forward(&self, inputs: &Inputs<'_>, cache: &mut Cache) -> Result<Outputs> {
        self.forward_until(inputs, cache, || false)
    }

    /// As [`Reference::forward`], unless `stop`, which is called before each layer, returns true.
    ///
    /// # Errors
    /// As [`Reference::forward`], and [`Error::Stopped`]. The cache is then unchanged.
    pub fn forward_until(
        &self,
        inputs: &Inputs<'_>,
        cache: &mut Cache,
        stop: impl Fn() -> bool,
    ) -> Result<Outputs> {
        let cached = cache.len();
        inputs.check(&self.config, cached)?;
        cache.check(&self.config, inputs.batch_size)?;

        let embedded = embed(&self.embedding, inputs).map_err(Error::at("the embedding"))?; // [batch, seq, hidden]
        let rotation = inputs
            .position_ids()
            .and_then(|position_ids| self.rotary.at(&position_ids))
            .map_err(Error::at("the rotary embedding"))?;
        let bias = inputs
            .attention_mask(cached)
            .and_then(|attention_mask| attention_bias(&attention_mask, cached))
            .map_err(Error::at("the attention mask"))?; // [batch, 1, 1, seq, cached + seq]

        let mut x = embedded; // [batch, seq, hidden]
        let mut hidden_states = vec![x.clone()];
        let mut attention_router_logits = Vec::new();
        let mut mlp_router_logits = Vec::new();
        let mut layer_caches = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            if stop() {
                return Err(Error::Stopped { layer: index });
            }
            let output = layer
                .forward(&x, &rotation, &bias, cache.layers().get(index), &mut ActivationHook::none())
                .map_err(Error::at(format!("layer {index}")))?;
            x = output.hidden_state; // [batch, seq, hidden]
            hidden_states.push(x.clone());
            attention_router_logits.push(output.attention_router_logits);
            mlp_router_logits.push(output.mlp_router_logits);
            layer_caches.push(output.cache);
        }
        let last_hidden_state = self.final_norm.forward(&x).map_err(Error::at("the final norm"))?; // [batch, seq, hidden]
        *cache = Cache::from_layers(layer_caches);
        Ok(Outputs { hidden_states, last_hidden_state, attention_router_logits, mlp_router_logits })
    }

    /// Next-token logits of every token, `[batch, seq, vocab]`, from [`Outputs::last_hidden_state`] or a part of it,
    /// `[batch, seq, hidden]`.
    ///
    /// # Errors
    /// [`Error::MissingHead`] if the head is not tied and the checkpoint has none.
    pub fn logits(&self, last_hidden_state: &Tensor) -> Result<Tensor> {
        self.heads.logits(last_hidden_state)
    }

    /// Class logits, `[batch, labels]`, from [`Outputs::last_hidden_state`], `[batch, seq, hidden]`, and the ids it was
    /// computed from, `[batch, seq]`. They are computed at each sequence's last token whose id is not `pad_token_id`.
    ///
    /// # Errors
    /// [`Error::MissingHead`] if the checkpoint has no classification head; [`Error::NoPaddingToken`] for several
    /// sequences of a model without a padding token.
    pub fn class_logits(&self, last_hidden_state: &Tensor, input_ids: &[i64]) -> Result<Tensor> {
        self.heads.class_logits(last_hidden_state, input_ids, self.config.pad_token_id)
    }
}

/// Embeddings of new tokens, `[batch, seq, hidden]`, from the table `[vocab, hidden]`.
pub(crate) fn embed(embedding: &Tensor, inputs: &Inputs<'_>) -> TensorResult<Tensor> {
    let input_ids = inputs.input_ids()?; // [batch, seq]
    let embedded = embedding.index_select(&input_ids.flatten_all()?, 0)?; // [batch * seq, hidden]
    embedded.reshape((inputs.batch_size, inputs.sequence_length, ())) // [batch, seq, hidden]
}
