use jetmoe_checkpoint::GenerationConfig;

use super::lookup::PromptLookup;
use super::stop;
use crate::{Error, Model, Result};

/// How the next token is chosen among the model's scores.
///
/// The arithmetic and its order are those of transformers 5 (`generation/utils.py`, `_get_logits_processor`):
/// repetition penalty, temperature, `top_k`, `top_p`, `min_p`, then a draw from the softmax of what is left.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Sampling {
    /// The most probable token; of several equal ones the one with the lowest id, as `torch.argmax` does.
    #[default]
    Greedy,
    /// A draw from the model's distribution.
    Random {
        /// Divisor of the logits, above 0 and finite: below 1 sharpens the distribution, above 1 flattens it.
        temperature: f32,
        /// Keeps this many of the best tokens, at least 1; of equal ones at the border those with the lower ids.
        /// `None` keeps all.
        top_k: Option<usize>,
        /// Keeps the fewest best tokens that together have at least this probability, above 0 and at most 1. `None`
        /// keeps all.
        top_p: Option<f32>,
        /// Keeps tokens with at least this share of the best token's probability, from 0 to 1. `None` keeps all.
        min_p: Option<f32>,
    },
}

/// What to generate and when to stop.
///
/// ```
/// use jetmoe_rt::{GenerationOptions, Sampling};
///
/// let options = GenerationOptions {
///     max_new_tokens: 40,
///     sampling: Sampling::Random { temperature: 0.8, top_k: Some(50), top_p: Some(0.95), min_p: None },
///     stop: vec!["\n\n".to_owned()],
///     seed: Some(7),
///     ..GenerationOptions::default()
/// };
/// # let _ = options;
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationOptions {
    /// Longest continuation in tokens, at least 1. 256 by default, as transformers' text-generation pipeline.
    pub max_new_tokens: usize,
    /// How the next token is chosen; greedy by default.
    pub sampling: Sampling,
    /// Divisor of the positive logits, and factor of the negative ones, of every token that the prompt or the
    /// continuation holds; above 0 and finite. 1, the default, changes nothing. Padding does not count as a token.
    pub repetition_penalty: f32,
    /// Text that ends the continuation and is cut off from it, none of them empty; see
    /// [`TextStream`](crate::TextStream). Needs a tokenizer, so [`TokenGenerator`](crate::TokenGenerator) refuses it.
    pub stop: Vec<String>,
    /// Tokens that end the continuation, in place of the model's own; an empty list ends it by none. `None`, the
    /// default, takes those of `generation_config.json`, or where it names none those of `config.json`.
    pub end_token_ids: Option<Vec<u32>>,
    /// Decides the draws of [`Sampling::Random`]: the same seed, prompts and backend give the same continuations, and
    /// every sequence of a batch has its own stream of draws. `None`, the default, takes another seed each time.
    pub seed: Option<u64>,
    /// Most tokens of a prompt that one step reads, at least 1; 512 by default. A longer prompt takes several steps, and
    /// what a step needs in memory grows with this instead of with the prompt.
    pub prefill_chunk: usize,
    /// Drafts of several tokens that one step checks; `None`, the default, makes one token per step. For one prompt at a
    /// time: a batch is refused, since its sequences would accept unequal numbers of drafts.
    pub prompt_lookup: Option<PromptLookup>,
}

impl Default for GenerationOptions {
    fn default() -> Self {
        GenerationOptions {
            max_new_tokens: 256,
            sampling: Sampling::Greedy,
            repetition_penalty: 1.0,
            stop: Vec::new(),
            end_token_ids: None,
            seed: None,
            prefill_chunk: 512,
            prompt_lookup: None,
        }
    }
}

impl GenerationOptions {
    /// The defaults that came with a model's checkpoint, see [`GenerationOptions::from_config`].
    pub fn for_model(model: &Model) -> Self {
        Self::from_config(model.generation_config())
    }

    /// The defaults of a `generation_config.json`, read as transformers reads it: without `do_sample` it is greedy
    /// whatever else is set, with it `top_k` is 50 unless given, and a `top_k` of 0 means all tokens.
    pub fn from_config(config: &GenerationConfig) -> Self {
        let defaults = Self::default();
        let sampling = match config.do_sample {
            Some(true) => Sampling::Random {
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

    /// Refuses values that make no sense. Generation calls this itself; a command or a service calls it to refuse
    /// before it loads a model.
    ///
    /// # Errors
    /// [`Error::Option`] names the first such value.
    pub fn validate(&self) -> Result<()> {
        check("max_new_tokens", self.max_new_tokens, self.max_new_tokens >= 1, "at least 1")?;
        let penalty = self.repetition_penalty;
        check(
            "repetition_penalty",
            penalty,
            penalty > 0.0 && penalty.is_finite(),
            "a finite number above 0",
        )?;
        stop::refuse_empty(&self.stop)?;
        check("prefill_chunk", self.prefill_chunk, self.prefill_chunk >= 1, "at least 1")?;
        self.prompt_lookup.map_or(Ok(()), |lookup| lookup.validate())?;
        let Sampling::Random { temperature, top_k, top_p, min_p } = self.sampling else { return Ok(()) };
        check(
            "temperature",
            temperature,
            temperature > 0.0 && temperature.is_finite(),
            "a finite number above 0; for the most probable token choose greedy decoding",
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

/// Fails for a value that is not as expected. NaN fails every comparison, so no rule lets it through.
pub(super) fn check(
    option: &'static str,
    value: impl ToString,
    as_expected: bool,
    expected: &'static str,
) -> Result<()> {
    if as_expected { Ok(()) } else { Err(Error::Option { option, found: value.to_string(), expected }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(options: GenerationOptions) -> (&'static str, String) {
        match options.validate() {
            Err(Error::Option { option, found, .. }) => (option, found),
            other => panic!("expected a refused option, got {other:?}"),
        }
    }

    fn random(
        temperature: f32,
        top_k: Option<usize>,
        top_p: Option<f32>,
        min_p: Option<f32>,
    ) -> GenerationOptions {
        GenerationOptions {
            sampling: Sampling::Random { temperature, top_k, top_p, min_p },
            ..GenerationOptions::default()
        }
    }

    #[test]
    fn the_defaults_are_valid() {
        GenerationOptions::default().validate().unwrap();
        random(1.0, Some(1), Some(1.0), Some(0.0)).validate().unwrap();
        random(1e-3, None, None, Some(1.0)).validate().unwrap();
    }

    #[test]
    fn a_value_that_makes_no_sense_is_refused_by_name() {
        for temperature in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert_eq!(refused(random(temperature, None, None, None)).0, "temperature");
        }
        for top_p in [0.0, 1.5, -0.1, f32::NAN] {
            assert_eq!(refused(random(1.0, None, Some(top_p), None)), ("top_p", top_p.to_string()));
        }
        for min_p in [-0.1, 1.1, f32::NAN] {
            assert_eq!(refused(random(1.0, None, None, Some(min_p))).0, "min_p");
        }
        assert_eq!(refused(random(1.0, Some(0), None, None)), ("top_k", "0".to_owned()));
        for repetition_penalty in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let options = GenerationOptions { repetition_penalty, ..GenerationOptions::default() };
            assert_eq!(refused(options).0, "repetition_penalty");
        }
        let options = GenerationOptions { max_new_tokens: 0, ..GenerationOptions::default() };
        assert_eq!(refused(options).0, "max_new_tokens");
        let options = GenerationOptions { prefill_chunk: 0, ..GenerationOptions::default() };
        assert_eq!(refused(options).0, "prefill_chunk");
        let lookup = |draft_tokens, ngram_tokens| GenerationOptions {
            prompt_lookup: Some(PromptLookup { draft_tokens, ngram_tokens }),
            ..GenerationOptions::default()
        };
        assert_eq!(refused(lookup(0, 2)).0, "draft_tokens");
        assert_eq!(refused(lookup(1, 0)).0, "ngram_tokens");
        let options =
            GenerationOptions { stop: vec!["a".into(), String::new()], ..GenerationOptions::default() };
        assert_eq!(refused(options).0, "stop");
    }

    #[test]
    fn a_checkpoint_without_do_sample_is_greedy_whatever_else_it_says() {
        let config = GenerationConfig {
            temperature: Some(0.6),
            top_p: Some(0.9),
            repetition_penalty: Some(1.2),
            max_new_tokens: Some(9),
            ..GenerationConfig::default()
        };
        let options = GenerationOptions::from_config(&config);
        assert_eq!(options.sampling, Sampling::Greedy);
        assert_eq!(options.repetition_penalty, 1.2);
        assert_eq!(options.max_new_tokens, 9);
    }

    #[test]
    fn a_sampling_checkpoint_fills_in_transformers_defaults() {
        let config = GenerationConfig { do_sample: Some(true), ..GenerationConfig::default() };
        assert_eq!(
            GenerationOptions::from_config(&config).sampling,
            Sampling::Random { temperature: 1.0, top_k: Some(50), top_p: None, min_p: None }
        );
        let config = GenerationConfig {
            do_sample: Some(true),
            temperature: Some(0.7),
            top_k: Some(0),
            top_p: Some(0.9),
            min_p: Some(0.05),
            ..GenerationConfig::default()
        };
        assert_eq!(
            GenerationOptions::from_config(&config).sampling,
            Sampling::Random { temperature: 0.7, top_k: None, top_p: Some(0.9), min_p: Some(0.05) }
        );
    }
}
