//! A continuation in progress.

use std::sync::Arc;

use jetmoe_text::{TextStream, Tokenizer};
use ndarray::ArrayView1;

use super::completion::{Completion, Event, FinishReason, GenerationStatistics, Timings, TokenEvent};
use super::rules::{SequenceLimits, Tokens};
use super::sampling::{NoChoice, Sampler, SequenceState};
use super::{GenerationOptions, Generator, LogProbabilities};
use crate::{Error, Model, Result};

/// A continuation in progress: the tokens and the text so far.
#[derive(Debug)]
pub(super) struct Sequence {
    index: usize,
    /// Prompt and continuation.
    token_ids: Vec<u32>,
    prompt_length: usize,
    text: String,
    /// `None` for a model without a tokenizer.
    decoder: Option<TextStream<Arc<Tokenizer>>>,
    log_probabilities: Vec<LogProbabilities>,
    pub(super) finish_reason: Option<FinishReason>,
    limits: Limits,
    state: SequenceState,
    pub(super) statistics: GenerationStatistics,
    pub(super) timings: Timings,
}

/// Most tokens of a continuation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// By the options.
    length: usize,
    /// Positions of the model after the prompt.
    positions: usize,
}

impl Limits {
    pub(super) fn new(options: &GenerationOptions, prompt_length: usize, max_positions: usize) -> Self {
        let length = options.max_length.map_or(usize::MAX, |length| length.saturating_sub(prompt_length));
        Limits {
            length: length.min(options.max_new_tokens),
            positions: max_positions.saturating_sub(prompt_length),
        }
    }

    pub(super) fn new_tokens(self) -> usize {
        self.length.min(self.positions)
    }
}

impl Generator {
    /// End-of-sequence tokens: those of the options, else those of the model.
    pub(super) fn eos_token_ids_of(&self, options: &GenerationOptions) -> Vec<u32> {
        options.eos_token_ids.clone().unwrap_or_else(|| self.eos_token_ids().to_vec())
    }

    /// A sequence that has its prompt only. `random` is the seed, and the index of the sequence in its batch.
    pub(super) fn start_sequence(
        &self,
        sampler: &Sampler,
        options: &GenerationOptions,
        eos_token_ids: &[u32],
        random: (u64, usize),
        prompt: Vec<u32>,
    ) -> Result<Sequence> {
        let (seed, index) = random;
        let model = self.model();
        let decoder = model
            .shared_tokenizer()
            .map(|tokenizer| TextStream::new(Arc::clone(tokenizer), &prompt, &options.stop))
            .transpose()?;
        let limits = Limits::new(options, prompt.len(), model.config().max_position_embeddings);
        let sequence_limits =
            SequenceLimits { prompt_length: prompt.len(), new_tokens: limits.new_tokens(), eos_token_ids };
        let state = sampler.start_sequence(seed, index, sequence_limits);
        Ok(Sequence::new(index, prompt, decoder, state, limits))
    }
}

impl Sequence {
    fn new(
        index: usize,
        prompt: Vec<u32>,
        decoder: Option<TextStream<Arc<Tokenizer>>>,
        state: SequenceState,
        limits: Limits,
    ) -> Self {
        Sequence {
            index,
            prompt_length: prompt.len(),
            token_ids: prompt,
            text: String::new(),
            decoder,
            log_probabilities: Vec::new(),
            finish_reason: (limits.positions == 0).then_some(FinishReason::ContextFull),
            limits,
            state,
            statistics: GenerationStatistics::default(),
            timings: Timings::default(),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.finish_reason.is_none()
    }

    /// Prompt and continuation.
    pub(super) fn all_token_ids(&self) -> &[u32] {
        &self.token_ids
    }

    pub(super) fn prompt(&self) -> &[u32] {
        &self.token_ids[..self.prompt_length]
    }

    /// The generated tokens.
    pub(super) fn new_token_ids(&self) -> &[u32] {
        &self.token_ids[self.prompt_length..]
    }

    /// Chooses the token that follows, from logits `[vocab_size]` of `model`; one of those that are allowed, if a function says
    /// which.
    pub(super) fn choose(
        &mut self,
        sampler: &mut Sampler,
        logits: ArrayView1<'_, f32>,
        model: &Model,
        allowed: Option<&dyn Fn(u32) -> bool>,
    ) -> Result<u32> {
        let tokens = Tokens { all: &self.token_ids, prompt_length: self.prompt_length };
        sampler.sample(logits, tokens, &mut self.state, allowed).map_err(|reason| match reason {
            NoChoice::Excluded => Error::NoTokenLeft { sequence: self.index },
            NoChoice::Logits => Error::Logits {
                backend: model.backend(),
                problem: format!("those of sequence {} contain NaN or have no finite maximum", self.index),
            },
        })
    }

    /// Tokens that may still be generated; at least 1 while the sequence is open.
    pub(super) fn remaining(&self) -> usize {
        self.limits.new_tokens() - self.new_token_ids().len()
    }

    /// Adds a token that was chosen from logits `[vocab_size]`.
    pub(super) fn push(
        &mut self,
        token_id: u32,
        logits: ArrayView1<'_, f32>,
        options: &GenerationOptions,
        eos_token_ids: &[u32],
    ) -> Result<Event> {
        let index = self.new_token_ids().len();
        self.token_ids.push(token_id);
        let log_probabilities =
            options.log_probabilities.and_then(|count| LogProbabilities::of(logits, token_id, count));
        self.log_probabilities.extend(log_probabilities.clone());
        self.finish_reason = if eos_token_ids.contains(&token_id) {
            Some(FinishReason::Eos)
        } else if index + 1 >= self.limits.length {
            Some(FinishReason::Length)
        } else if index + 1 >= self.limits.positions {
            Some(FinishReason::ContextFull)
        } else {
            None
        };
        let mut text = String::new();
        if let Some(decoder) = &mut self.decoder {
            text += &match self.finish_reason {
                Some(FinishReason::Eos) => decoder.push_end(token_id),
                _ => decoder.push(token_id)?,
            };
            if self.finish_reason.is_some() {
                text += &decoder.finish()?;
            }
            if decoder.is_stopped() {
                self.finish_reason = Some(FinishReason::StopString);
            }
        }
        let token = TokenEvent { index, token_id, log_probabilities };
        Ok(self.event(Some(token), text))
    }

    /// Ends the sequence without another token. Text that was held back is in the event.
    pub(super) fn end(&mut self, reason: FinishReason) -> Result<Event> {
        self.finish_reason = Some(reason);
        let mut text = String::new();
        if let Some(decoder) = &mut self.decoder {
            text = decoder.finish()?;
            if decoder.is_stopped() {
                self.finish_reason = Some(FinishReason::StopString);
            }
        }
        Ok(self.event(None, text))
    }

    /// The event of a sequence that has ended without a token, because its prompt fills all positions.
    pub(super) fn closed_event(&self) -> Option<Event> {
        let finish_reason = Some(self.finish_reason?);
        Some(Event { sequence: self.index, token: None, text: String::new(), finish_reason })
    }

    fn event(&mut self, token: Option<TokenEvent>, text: String) -> Event {
        self.text.push_str(&text);
        Event { sequence: self.index, token, text, finish_reason: self.finish_reason }
    }

    pub(super) fn into_completion(mut self, options: &GenerationOptions) -> Completion {
        let token_ids = self.token_ids.split_off(self.prompt_length);
        Completion {
            text: self.text,
            token_ids,
            finish_reason: self.finish_reason.unwrap_or(FinishReason::Cancelled),
            prompt_tokens: self.prompt_length,
            log_probabilities: options.log_probabilities.map(|_| self.log_probabilities),
            statistics: self.statistics,
            timings: self.timings,
        }
    }
}
