use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::config::document::token_ids;
use crate::{Result, names, read_json};

/// Defaults for generation that come with a checkpoint. What is `None` is left to the caller.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct GenerationConfig {
    /// Token that begins a sequence.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a sequence; one number or a list in the file.
    #[serde(rename = "eos_token_id", deserialize_with = "one_or_many")]
    pub eos_token_ids: Vec<u32>,
    /// Token that fills up batches.
    pub pad_token_id: Option<u32>,
    /// Whether to sample; greedy otherwise.
    pub do_sample: Option<bool>,
    /// Divisor of the logits before sampling.
    pub temperature: Option<f32>,
    /// Number of best tokens to sample from.
    pub top_k: Option<usize>,
    /// Smallest set of best tokens with at least this probability to sample from.
    pub top_p: Option<f32>,
    /// Least probability, relative to the best token's.
    pub min_p: Option<f32>,
    /// Divisor of the logits of tokens that occurred before.
    pub repetition_penalty: Option<f32>,
    /// Longest continuation in tokens.
    pub max_new_tokens: Option<usize>,
}

impl GenerationConfig {
    /// Reads `generation_config.json` of a folder; empty defaults where there is none.
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
