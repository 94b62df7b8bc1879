//! Options of a generation: sampling, rules for logits, limits, stop conditions.

mod multinomial;
mod setters;
mod validation;

use jetmoe_checkpoint::GenerationConfig;

use super::lookup::PromptLookup;
use crate::Model;

pub use self::multinomial::{Multinomial, Sampling};

/// How to sample and when to stop.
///
/// Rules for logits act in the order of transformers 5.23 (`generation/utils.py`, `_get_logits_processor`): `sequence_bias`,
/// `encoder_repetition_penalty`, `repetition_penalty`, `presence_penalty` and `frequency_penalty`, `no_repeat_ngram_size`,
/// `encoder_no_repeat_ngram_size`, `bad_words_ids`, `min_length` and `min_new_tokens`, `forced_bos_token_id`,
/// `forced_eos_token_ids`, `remove_invalid_values`, `exponential_decay_length_penalty`, `suppress_tokens`,
/// `begin_suppress_tokens`, then [`Sampling`]. A rule that is off costs nothing.
///
/// ```
/// use jetmoe_rt::{GenerationOptions, Multinomial};
///
/// let options = GenerationOptions::default()
///     .with_max_new_tokens(40)
///     .with_sampling(Multinomial::new(0.8).with_top_k(50).with_top_p(0.95))
///     .with_no_repeat_ngram_size(3)
///     .with_stop(["\n\n"])
///     .with_seed(7);
/// assert_eq!(options.seed, Some(7));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct GenerationOptions {
    /// Most tokens of the continuation, at least 1; 256 by default, as in transformers' text-generation pipeline.
    pub max_new_tokens: usize,
    /// Most tokens of prompt and continuation; a prompt of this length is rejected. `None`, the default, is no limit.
    pub max_length: Option<usize>,
    /// Fewest tokens of the continuation: end-of-sequence tokens are excluded before. 0, the default, is no limit.
    pub min_new_tokens: usize,
    /// Fewest tokens of prompt and continuation: end-of-sequence tokens are excluded before. 0, the default, is no limit.
    pub min_length: usize,
    /// How the next token is chosen; greedy by default.
    pub sampling: Sampling,
    /// Divides the positive logits, and multiplies the negative ones, of every token in prompt and continuation; above 0
    /// and finite. 1, the default, changes nothing. Padding is not penalised.
    pub repetition_penalty: f32,
    /// What the logit of a token loses if the continuation has it; finite. 0, the default, changes nothing. As in OpenAI's API
    /// and vLLM; transformers has no such rule.
    pub presence_penalty: f32,
    /// What the logit of a token loses for each time that the continuation has it; finite. 0, the default, changes nothing. As in
    /// OpenAI's API and vLLM; transformers has no such rule.
    pub frequency_penalty: f32,
    /// Multiplies the positive logits, and divides the negative ones, of every token in the prompt; above 0 and finite. 1, the
    /// default, changes nothing.
    pub encoder_repetition_penalty: f32,
    /// Length of the n-grams that occur at most once in prompt and continuation; 0, the default, for none.
    pub no_repeat_ngram_size: usize,
    /// Length of the n-grams of the prompt that do not occur in the continuation; 0, the default, for none.
    pub encoder_no_repeat_ngram_size: usize,
    /// Tokens that are never generated.
    pub suppress_tokens: Vec<u32>,
    /// Tokens that are not the first of the continuation.
    pub begin_suppress_tokens: Vec<u32>,
    /// Sequences of tokens that are never completed. An end-of-sequence token alone is not excluded.
    pub bad_words_ids: Vec<Vec<u32>>,
    /// What is added to the logit of a sequence's last token after its other tokens: a finite number, or −∞, which excludes the
    /// token. Sums beyond the largest float32 are that number.
    pub sequence_bias: Vec<(Vec<u32>, f32)>,
    /// The first token after a prompt of one token.
    pub forced_bos_token_id: Option<u32>,
    /// The last token where a length or the positions of the model end the continuation: the most probable of these, all equally
    /// probable.
    pub forced_eos_token_ids: Vec<u32>,
    /// After the first number of new tokens, the score of an end-of-sequence token grows by its absolute value times the second
    /// number to the power of the tokens since, minus 1. The second number is finite, and the score stays within float32.
    pub exponential_decay_length_penalty: Option<(i64, f64)>,
    /// Whether NaN becomes 0 and infinities the largest numbers, instead of an error. Off by default.
    pub remove_invalid_values: bool,
    /// Strings that end the continuation and are removed from it; none may be empty. They are compared with the text including
    /// special tokens. See [`TextStream`](crate::TextStream). A model without a tokenizer rejects them.
    pub stop: Vec<String>,
    /// End-of-sequence tokens that replace the model's; an empty list for none. `None`, the default, takes those of
    /// [`Generator::eos_token_ids`](crate::Generator::eos_token_ids).
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
            max_length: None,
            min_new_tokens: 0,
            min_length: 0,
            sampling: Sampling::Greedy,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            encoder_repetition_penalty: 1.0,
            no_repeat_ngram_size: 0,
            encoder_no_repeat_ngram_size: 0,
            suppress_tokens: Vec::new(),
            begin_suppress_tokens: Vec::new(),
            bad_words_ids: Vec::new(),
            sequence_bias: Vec::new(),
            forced_bos_token_id: None,
            forced_eos_token_ids: Vec::new(),
            exponential_decay_length_penalty: None,
            remove_invalid_values: false,
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
    /// The settings of a model's checkpoint, see [`GenerationOptions::from_config`].
    pub fn for_model(model: &Model) -> Self {
        Self::from_config(model.generation_config())
    }

    /// The settings of a checkpoint, by transformers' rules: without `do_sample` decoding is greedy, whatever else is set; with
    /// it, [`Multinomial::from_config`]. Without `max_new_tokens` and `max_length` at most 256 tokens are generated, where
    /// transformers' `generate` ends after 20. [`GenerationConfig::not_applied`] lists what is not followed.
    pub fn from_config(config: &GenerationConfig) -> Self {
        let defaults = Self::default();
        let max_new_tokens = match (config.max_new_tokens, config.max_length) {
            (Some(tokens), _) => tokens,
            // the other limit holds alone
            (None, Some(_)) => usize::MAX,
            (None, None) => defaults.max_new_tokens,
        };
        GenerationOptions {
            max_new_tokens,
            max_length: config.max_length.filter(|_| config.max_new_tokens.is_none()),
            min_new_tokens: config.min_new_tokens.unwrap_or(0),
            min_length: config.min_length.unwrap_or(0),
            sampling: match config.do_sample {
                Some(true) => Multinomial::from_config(config).into(),
                Some(false) | None => Sampling::Greedy,
            },
            repetition_penalty: config.repetition_penalty.unwrap_or(1.0),
            encoder_repetition_penalty: config.encoder_repetition_penalty.unwrap_or(1.0),
            no_repeat_ngram_size: config.no_repeat_ngram_size.unwrap_or(0),
            encoder_no_repeat_ngram_size: config.encoder_no_repeat_ngram_size.unwrap_or(0),
            suppress_tokens: config.suppress_tokens.clone(),
            begin_suppress_tokens: config.begin_suppress_tokens.clone(),
            bad_words_ids: config.bad_words_ids.clone(),
            sequence_bias: config.sequence_bias.clone(),
            forced_bos_token_id: config.forced_bos_token_id,
            forced_eos_token_ids: config.forced_eos_token_ids.clone(),
            exponential_decay_length_penalty: config.exponential_decay_length_penalty,
            remove_invalid_values: config.remove_invalid_values,
            stop: config.stop_strings.clone(),
            ..defaults
        }
    }
}

#[cfg(test)]
mod tests;
