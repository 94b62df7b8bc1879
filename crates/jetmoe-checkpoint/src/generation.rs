//! `generation_config.json`: defaults for generation.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::config::reader::token_ids;
use crate::{Result, names, read_json};

/// Defaults for generation that come with a checkpoint. A field that is `None` is left to the caller.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct GenerationConfig {
    /// Token that begins a sequence.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a sequence; one number or a list in the file.
    #[serde(rename = "eos_token_id", deserialize_with = "one_or_many")]
    pub eos_token_ids: Vec<u32>,
    /// Token that pads batches.
    pub pad_token_id: Option<u32>,
    /// Whether to sample; greedy otherwise.
    pub do_sample: Option<bool>,
    /// Divisor of the logits before sampling.
    pub temperature: Option<f32>,
    /// Number of most probable tokens to sample from.
    pub top_k: Option<usize>,
    /// Sample from the smallest set of most probable tokens with at least this probability.
    pub top_p: Option<f32>,
    /// Least probability, relative to the most probable token's.
    pub min_p: Option<f32>,
    /// Divisor of the logits of tokens that occurred before.
    pub repetition_penalty: Option<f32>,
    /// Most tokens of a continuation.
    pub max_new_tokens: Option<usize>,
}

impl GenerationConfig {
    /// Reads `generation_config.json` of a folder; empty defaults if there is none.
    ///
    /// # Errors
    /// A file that cannot be read or is not valid.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(names::GENERATION_CONFIG);
        if !path.is_file() {
            return Ok(Self::default());
        }
        read_json(&path)
    }
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    token_ids(&value).ok_or_else(|| {
        serde::de::Error::custom(format!("eos_token_id is {value}, expected an id or a list of ids"))
    })
}
