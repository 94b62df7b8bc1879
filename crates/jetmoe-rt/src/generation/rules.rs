//! Logits rules: what changes the scores of the next token before one is chosen.
//!
//! A rule is a type of its own, and [`Rules::new`] is the one place that orders them. Definitions and order are those of
//! transformers 5.23 (`generation/logits_process.py`; `generation/utils.py`, `_get_logits_processor`).

mod biases;
mod lengths;
mod ngrams;
mod penalties;

use std::fmt::Debug;

use self::biases::{BadWords, SequenceBias, Suppress, SuppressFirst};
use self::lengths::{DecayLength, ForceEos, ForceFirst, MinLength};
use self::ngrams::{NoRepeat, NoRepeatOfPrompt};
use self::penalties::{OccurrencePenalty, PromptPenalty, RepetitionPenalty};
use super::GenerationOptions;

/// A prompt with the tokens that were generated after it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tokens<'a> {
    /// Prompt and continuation.
    pub(super) all: &'a [u32],
    /// Number of tokens of the prompt.
    pub(super) prompt_length: usize,
}

impl Tokens<'_> {
    fn prompt(&self) -> &[u32] {
        &self.all[..self.prompt_length]
    }

    fn continuation(&self) -> &[u32] {
        &self.all[self.prompt_length..]
    }
}

/// A rule for one sequence.
trait LogitsRule: Debug + Send {
    /// Changes the scores `[vocab_size]` of the token that follows `tokens`. Calls follow each other with longer and longer
    /// tokens of one sequence.
    fn apply(&mut self, tokens: Tokens<'_>, scores: &mut [f32]);
}

/// What the rules depend on besides the options.
#[derive(Debug, Clone, Copy)]
pub(super) struct SequenceLimits<'a> {
    /// Number of tokens of the prompt.
    pub(super) prompt_length: usize,
    /// Most tokens of the continuation.
    pub(super) new_tokens: usize,
    /// Tokens that end the sequence.
    pub(super) eos_token_ids: &'a [u32],
}

/// The rules of one sequence that are on, in order.
#[derive(Debug)]
pub(super) struct Rules(Vec<Box<dyn LogitsRule>>);

impl Rules {
    /// The rules that validated options turn on.
    pub(super) fn new(options: &GenerationOptions, limits: SequenceLimits<'_>) -> Self {
        let SequenceLimits { prompt_length, new_tokens, eos_token_ids: eos } = limits;
        let mut rules: Vec<Box<dyn LogitsRule>> = Vec::new();
        let mut add = |is_on: bool, rule: &dyn Fn() -> Box<dyn LogitsRule>| {
            if is_on {
                rules.push(rule());
            }
        };
        add(!options.sequence_bias.is_empty(), &|| Box::new(SequenceBias::new(&options.sequence_bias)));
        add(options.encoder_repetition_penalty != 1.0, &|| {
            Box::new(PromptPenalty::new(options.encoder_repetition_penalty))
        });
        add(options.repetition_penalty != 1.0, &|| {
            Box::new(RepetitionPenalty::new(options.repetition_penalty))
        });
        // not in transformers; vLLM applies them after the repetition penalty
        add(options.presence_penalty != 0.0 || options.frequency_penalty != 0.0, &|| {
            Box::new(OccurrencePenalty::new(options.presence_penalty, options.frequency_penalty))
        });
        add(options.no_repeat_ngram_size > 0, &|| Box::new(NoRepeat::new(options.no_repeat_ngram_size)));
        add(options.encoder_no_repeat_ngram_size > 0, &|| {
            Box::new(NoRepeatOfPrompt::new(options.encoder_no_repeat_ngram_size))
        });
        add(!options.bad_words_ids.is_empty(), &|| Box::new(BadWords::new(&options.bad_words_ids, eos)));
        let fewest = match options.min_new_tokens {
            0 => options.min_length,
            new_tokens => options.min_length.max(prompt_length.saturating_add(new_tokens)),
        };
        add(fewest > prompt_length && !eos.is_empty(), &|| Box::new(MinLength::new(fewest, eos)));
        if let Some(token_id) = options.forced_bos_token_id.filter(|_| prompt_length == 1) {
            add(true, &|| Box::new(ForceFirst::new(token_id)));
        }
        let longest = prompt_length.saturating_add(new_tokens);
        add(!options.forced_eos_token_ids.is_empty(), &|| {
            Box::new(ForceEos::new(longest, &options.forced_eos_token_ids))
        });
        add(options.remove_invalid_values, &|| Box::new(RemoveInvalid));
        if let Some((start, factor)) = options.exponential_decay_length_penalty.filter(|_| !eos.is_empty()) {
            add(true, &|| Box::new(DecayLength::new(start, factor, prompt_length, eos)));
        }
        add(!options.suppress_tokens.is_empty(), &|| Box::new(Suppress::new(&options.suppress_tokens)));
        add(!options.begin_suppress_tokens.is_empty(), &|| {
            // after a forced first token it is the second
            let is_forced = prompt_length == 1 && options.forced_bos_token_id.is_some();
            let length = prompt_length + usize::from(is_forced);
            Box::new(SuppressFirst::new(&options.begin_suppress_tokens, length))
        });
        Rules(rules)
    }

    /// Whether every score stays as it is.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Applies every rule in order.
    pub(super) fn apply(&mut self, tokens: Tokens<'_>, scores: &mut [f32]) {
        for rule in &mut self.0 {
            rule.apply(tokens, scores);
        }
    }
}

/// `InfNanRemoveLogitsProcessor`: NaN becomes 0, infinities become the largest and the smallest number.
#[derive(Debug)]
struct RemoveInvalid;

impl LogitsRule for RemoveInvalid {
    fn apply(&mut self, _: Tokens<'_>, scores: &mut [f32]) {
        for score in scores {
            *score = if score.is_nan() { 0.0 } else { score.clamp(f32::MIN, f32::MAX) };
        }
    }
}

/// Excludes a token. Ids that the vocabulary does not have change nothing.
fn exclude(scores: &mut [f32], token_id: u32) {
    if let Some(score) = scores.get_mut(token_id as usize) {
        *score = f32::NEG_INFINITY;
    }
}

/// Excludes every token but these.
fn force(scores: &mut [f32], token_ids: &[u32]) {
    scores.fill(f32::NEG_INFINITY);
    for id in token_ids {
        if let Some(score) = scores.get_mut(*id as usize) {
            *score = 0.0;
        }
    }
}

#[cfg(test)]
mod tests;
