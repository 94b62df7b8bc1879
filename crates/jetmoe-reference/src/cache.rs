//! Key/value cache: keys and values of the tokens read so far, per layer.

use candle_core::{Result as TensorResult, Tensor};
use jetmoe_checkpoint::ModelConfig;

use crate::{Error, Result};

/// Keys and values of the tokens read so far. A clone is cheap and independent of its original.
#[derive(Debug, Clone, Default)]
pub struct Cache {
    layers: Vec<LayerCache>,
}

/// Keys and values of one layer.
#[derive(Debug, Clone)]
pub struct LayerCache {
    /// Keys after rotation, `[batch, kv_heads, cached, kv_channels]`.
    pub key: Tensor,
    /// Values, `[batch, kv_heads, cached, kv_channels]`.
    pub value: Tensor,
}

impl Cache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of cached tokens per sequence, including padding.
    pub fn len(&self) -> usize {
        self.layers.first().and_then(|layer| layer.key.dims().get(2).copied()).unwrap_or(0)
    }

    /// Whether no token is cached.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One entry per layer; none if the cache is empty.
    pub fn layers(&self) -> &[LayerCache] {
        &self.layers
    }

    /// Keeps the first `tokens` tokens of each sequence, or all if there are fewer.
    ///
    /// # Errors
    /// An error of Candle; the cache is then unchanged.
    pub fn truncate(&mut self, tokens: usize) -> Result<()> {
        if tokens >= self.len() {
            return Ok(());
        }
        // an empty cache has no layers, so that the next batch may have another size
        let kept = if tokens == 0 { &[] } else { self.layers.as_slice() };
        let kept = kept.iter().map(|layer| layer.first(tokens));
        self.layers = kept.collect::<TensorResult<_>>().map_err(Error::at("the cache"))?;
        Ok(())
    }

    pub(crate) fn from_layers(layers: Vec<LayerCache>) -> Self {
        Cache { layers }
    }

    pub(crate) fn check(&self, config: &ModelConfig, batch_size: usize) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let expected = [batch_size, config.num_key_value_heads, self.len(), config.kv_channels];
        let fits = |layer: &LayerCache| layer.key.dims() == expected && layer.value.dims() == expected;
        if self.layers.len() == config.num_hidden_layers && self.layers.iter().all(fits) {
            return Ok(());
        }
        let found = self.layers.first().map(|layer| layer.key.dims()).unwrap_or_default();
        Err(Error::CacheMismatch {
            expected: format!("{} layers of {expected:?}", config.num_hidden_layers),
            found: format!("{} layers of {found:?}", self.layers.len()),
        })
    }
}

impl LayerCache {
    fn first(&self, tokens: usize) -> TensorResult<Self> {
        Ok(LayerCache {
            key: self.key.narrow(2, 0, tokens)?, // [batch, kv_heads, tokens, kv_channels]
            value: self.value.narrow(2, 0, tokens)?, // [batch, kv_heads, tokens, kv_channels]
        })
    }

    /// Cached keys and values followed by new ones.
    pub(crate) fn extend(past: Option<&Self>, key: Tensor, value: Tensor) -> TensorResult<Self> {
        match past {
            None => Ok(LayerCache { key, value }),
            Some(past) => Ok(LayerCache {
                key: Tensor::cat(&[&past.key, &key], 2)?, // [batch, kv_heads, cached + seq, kv_channels]
                value: Tensor::cat(&[&past.value, &value], 2)?, // [batch, kv_heads, cached + seq, kv_channels]
            }),
        }
    }
}
