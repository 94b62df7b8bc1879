//! Options of a generation: sampling, limits, stop conditions.

use jetmoe_checkpoint::GenerationConfig;

use super::lookup::PromptLookup;
use crate::error::{at_least_one, check};
use crate::{Model, Result};

/// How the next token is chosen from the logits.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum Sampling {
    /// The most probable token; of several equal ones the one with the lowest id, as in `torch.argmax`.
    #[default]
    Greedy,
    /// A draw from the model's distribution, as in `torch.multinomial`.
    Multinomial(Multinomial),
}

impl From<Multinomial> for Sampling {
    fn from(multinomial: Multinomial) -> Self {
        Sampling::Multinomial(multinomial)
    }
}

/// A draw from the distribution of the next token, or from its most probable part.
///
/// The steps and their order are those of transformers 5 (`generation/utils.py`, `_get_logits_processor`): repetition
/// penalty, temperature, `top_k`, `top_p`, `min_p`, then a draw from the softmax of the remaining logits.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Multinomial {
    /// Divisor of the logits, above 0 and finite; 1 by default. Below 1 sharpens the distribution, above 1 flattens it.
    pub temperature: f32,
    /// Keeps this many most probable tokens, at least 1; ties are broken by the lower id. `None`, the default, keeps all.
    pub top_k: Option<usize>,
    /// Keeps the smallest set of most probable tokens with at least this total probability, above 0 and at most 1.
    /// `None`, the default, keeps all.
    pub top_p: Option<f32>,
    /// Keeps tokens with at least this fraction of the most probable token's probability, from 0 to 1. `None`, the default,
    /// keeps all.
    pub min_p: Option<f32>,
}

impl Default for Multinomial {
    fn default() -> Self {
        Multinomial { temperature: 1.0, top_k: None, top_p: None, min_p: None }
    }
}

impl Multinomial {
    /// A draw from the whole distribution at a temperature.
    pub fn new(temperature: f32) -> Self {
        Multinomial { temperature, ..Self::default() }
    }

    /// Sets [`Multinomial::top_k`].
    #[must_use]
    pub fn with_top_k(mut self, top_k: impl Into<Option<usize>>) -> Self {
        self.top_k = top_k.into();
        self
    }

    /// Sets [`Multinomial::top_p`].
    #[must_use]
    pub fn with_top_p(mut self, top_p: impl Into<Option<f32>>) -> Self {
        self.top_p = top_p.into();
        self
    }

    /// Sets [`Multinomial::min_p`].
    #[must_use]
    pub fn with_min_p(mut self, min_p: impl Into<Option<f32>>) -> Self {
        self.min_p = min_p.into();
        self
    }

    fn validate(self) -> Result<()> {
        let Multinomial { temperature, top_k, top_p, min_p } = self;
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

/// How to sample and when to stop.
///
/// ```
/// use jetmoe_rt::{GenerationOptions, Multinomial};
///
/// let options = GenerationOptions::default()
///     .with_max_new_tokens(40)
///     .with_sampling(Multinomial::new(0.8).with_top_k(50).with_top_p(0.95))
///     .with_stop(["\n\n"])
///     .with_seed(7);
/// assert_eq!(options.seed, Some(7));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct GenerationOptions {
    /// Most tokens of the continuation, at least 1; 256 by default, as in transformers' text-generation pipeline.
    pub max_new_tokens: usize,
    /// How the next token is chosen; greedy by default.
    pub sampling: Sampling,
    /// Divides the positive logits, and multiplies the negative ones, of every token in prompt and continuation; above 0
    /// and finite. 1, the default, changes nothing. Padding is not penalised.
    pub repetition_penalty: f32,
    /// Strings that end the continuation and are removed from it; none may be empty. See
    /// [`TextStream`](crate::TextStream). A model without a tokenizer rejects them.
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
    /// Reports how probable each token was, and this many of the most probable tokens in its place; 0 for the token alone.
    /// `None`, the default, reports nothing. [`LogProbabilities`](crate::LogProbabilities) defines the distribution.
    pub log_probabilities: Option<usize>,
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
            log_probabilities: None,
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
            Some(true) => Sampling::Multinomial(Multinomial {
                temperature: config.temperature.unwrap_or(1.0),
                top_k: Some(config.top_k.unwrap_or(50)).filter(|top_k| *top_k > 0),
                top_p: config.top_p,
                min_p: config.min_p,
            }),
            Some(false) | None => Sampling::Greedy,
        };
        GenerationOptions {
            max_new_tokens: config.max_new_tokens.unwrap_or(defaults.max_new_tokens),
            sampling,
            repetition_penalty: config.repetition_penalty.unwrap_or(defaults.repetition_penalty),
            ..defaults
        }
    }

    /// Sets [`GenerationOptions::max_new_tokens`].
    #[must_use]
    pub fn with_max_new_tokens(mut self, max_new_tokens: usize) -> Self {
        self.max_new_tokens = max_new_tokens;
        self
    }

    /// Sets [`GenerationOptions::sampling`].
    #[must_use]
    pub fn with_sampling(mut self, sampling: impl Into<Sampling>) -> Self {
        self.sampling = sampling.into();
        self
    }

    /// Sets [`GenerationOptions::repetition_penalty`].
    #[must_use]
    pub fn with_repetition_penalty(mut self, repetition_penalty: f32) -> Self {
        self.repetition_penalty = repetition_penalty;
        self
    }

    /// Sets [`GenerationOptions::stop`].
    #[must_use]
    pub fn with_stop(mut self, stop: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.stop = stop.into_iter().map(Into::into).collect();
        self
    }

    /// Sets [`GenerationOptions::eos_token_ids`].
    #[must_use]
    pub fn with_eos_token_ids(mut self, eos_token_ids: impl Into<Option<Vec<u32>>>) -> Self {
        self.eos_token_ids = eos_token_ids.into();
        self
    }

    /// Sets [`GenerationOptions::seed`].
    #[must_use]
    pub fn with_seed(mut self, seed: impl Into<Option<u64>>) -> Self {
        self.seed = seed.into();
        self
    }

    /// Sets [`GenerationOptions::prefill_chunk`].
    #[must_use]
    pub fn with_prefill_chunk(mut self, prefill_chunk: usize) -> Self {
        self.prefill_chunk = prefill_chunk;
        self
    }

    /// Sets [`GenerationOptions::prompt_lookup`].
    #[must_use]
    pub fn with_prompt_lookup(mut self, prompt_lookup: impl Into<Option<PromptLookup>>) -> Self {
        self.prompt_lookup = prompt_lookup.into();
        self
    }

    /// Sets [`GenerationOptions::log_probabilities`].
    #[must_use]
    pub fn with_log_probabilities(mut self, log_probabilities: impl Into<Option<usize>>) -> Self {
        self.log_probabilities = log_probabilities.into();
        self
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
        match self.sampling {
            Sampling::Greedy => Ok(()),
            Sampling::Multinomial(multinomial) => multinomial.validate(),
        }
    }
}

#[cfg(test)]
mod tests;
