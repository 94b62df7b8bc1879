//! Options of a generation: sampling, limits, stop conditions.

use jetmoe_checkpoint::GenerationConfig;

use super::lookup::PromptLookup;
use crate::error::{at_least_one, check};
use crate::{Model, Result};

/// How the next token is chosen from the logits.
///
/// The steps and their order are those of transformers 5 (`generation/utils.py`, `_get_logits_processor`): repetition
/// penalty, temperature, `top_k`, `top_p`, `min_p`, then a draw from the softmax of the remaining logits.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Sampling {
    /// The most probable token; of several equal ones the one with the lowest id, as in `torch.argmax`.
    #[default]
    Greedy,
    /// A draw from the model's distribution, as in `torch.multinomial`.
    Multinomial {
        /// Divisor of the logits, above 0 and finite. Below 1 sharpens the distribution, above 1 flattens it.
        temperature: f32,
        /// Keeps this many most probable tokens, at least 1; ties are broken by the lower id. `None` keeps all.
        top_k: Option<usize>,
        /// Keeps the smallest set of most probable tokens with at least this total probability, above 0 and at most 1.
        /// `None` keeps all.
        top_p: Option<f32>,
        /// Keeps tokens with at least this fraction of the most probable token's probability, from 0 to 1. `None` keeps
        /// all.
        min_p: Option<f32>,
    },
}

/// How to sample and when to stop.
///
/// ```
/// use jetmoe_rt::{GenerationOptions, Sampling};
///
/// let options = GenerationOptions {
///     max_new_tokens: 40,
///     sampling: Sampling::Multinomial { temperature: 0.8, top_k: Some(50), top_p: Some(0.95), min_p: None },
///     stop: vec!["\n\n".to_owned()],
///     seed: Some(7),
///     ..GenerationOptions::default()
/// };
/// # let _ = options;
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationOptions {
    /// Most tokens of the continuation, at least 1; 256 by default, as in transformers' text-generation pipeline.
    pub max_new_tokens: usize,
    /// How the next token is chosen; greedy by default.
    pub sampling: Sampling,
    /// Divides the positive logits, and multiplies the negative ones, of every token in prompt and continuation; above 0
    /// and finite. 1, the default, changes nothing. Padding is not penalised.
    pub repetition_penalty: f32,
    /// Strings that end the continuation and are removed from it; none may be empty. See
    /// [`TextStream`](crate::TextStream). They need a tokenizer, so [`TokenGenerator`](crate::TokenGenerator) rejects
    /// them.
    pub stop: Vec<String>,
    /// End-of-sequence tokens that replace the model's; an empty list for none. `None`, the default, takes those of
    /// `generation_config.json`, else those of `config.json`.
    pub eos_token_ids: Option<Vec<u32>>,
    /// Seed for [`Sampling::Multinomial`]: the same seed, prompts and backend give the same continuations. Every sequence
    /// of a batch has its own random stream. `None`, the default, takes a random seed.
    pub seed: Option<u64>,
    /// Most tokens of a prompt in one step, at least 1; 512 by default. A longer prompt takes several steps, so the memory
    /// of a step does not grow with the prompt.
    pub prefill_chunk: usize,
    /// Speculative decoding; `None`, the default, generates one token per step. For a single prompt: sequences of a batch
    /// would accept different numbers of drafts, so a batch is rejected.
    pub prompt_lookup: Option<PromptLookup>,
}

impl Default for GenerationOptions {
    fn default() -> Self {
        GenerationOptions {
            max_new_tokens: 256,
            sampling: Sampling::Greedy,
            repetition_penalty: 1.0,
            stop: Vec::new(),
            eos_token_ids: None,
            seed: None,
            prefill_chunk: 512,
            prompt_lookup: None,
        }
    }
}

impl GenerationOptions {
    /// The defaults of a model's checkpoint, see [`GenerationOptions::from_config`].
    pub fn for_model(model: &Model) -> Self {
        Self::from_config(model.generation_config())
    }

    /// The defaults of a `generation_config.json`, by transformers' rules: without `do_sample` decoding is greedy,
    /// whatever else is set; with it `top_k` is 50 unless given, and a `top_k` of 0 keeps all tokens.
    pub fn from_config(config: &GenerationConfig) -> Self {
        let defaults = Self::default();
        let sampling = match config.do_sample {
            Some(true) => Sampling::Multinomial {
                temperature: config.temperature.unwrap_or(1.0),
                top_k: Some(config.top_k.unwrap_or(50)).filter(|top_k| *top_k > 0),
                top_p: config.top_p,
                min_p: config.min_p,
            },
            Some(false) | None => Sampling::Greedy,
        };
        GenerationOptions {
            max_new_tokens: config.max_new_tokens.unwrap_or(defaults.max_new_tokens),
            sampling,
            repetition_penalty: config.repetition_penalty.unwrap_or(defaults.repetition_penalty),
            ..defaults
        }
    }

    /// Checks every value. Generation calls this itself; call it earlier to reject options before a model is loaded.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) for the first invalid value.
    pub fn validate(&self) -> Result<()> {
        at_least_one("max_new_tokens", self.max_new_tokens)?;
        let penalty = self.repetition_penalty;
        check(
            "repetition_penalty",
            penalty,
            penalty > 0.0 && penalty.is_finite(),
            "a finite number above 0",
        )?;
        let no_stop_is_empty = !self.stop.iter().any(String::is_empty);
        check("stop", "an empty text", no_stop_is_empty, "texts of at least one character")?;
        at_least_one("prefill_chunk", self.prefill_chunk)?;
        self.prompt_lookup.map_or(Ok(()), |lookup| lookup.validate())?;
        let Sampling::Multinomial { temperature, top_k, top_p, min_p } = self.sampling else { return Ok(()) };
        check(
            "temperature",
            temperature,
            temperature > 0.0 && temperature.is_finite(),
            "a finite number above 0; for the most probable token use greedy decoding",
        )?;
        if let Some(top_k) = top_k {
            check("top_k", top_k, top_k >= 1, "at least 1; leave it out to keep all tokens")?;
        }
        if let Some(top_p) = top_p {
            check("top_p", top_p, top_p > 0.0 && top_p <= 1.0, "above 0 and at most 1")?;
        }
        if let Some(min_p) = min_p {
            check("min_p", min_p, (0.0..=1.0).contains(&min_p), "from 0 to 1")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
