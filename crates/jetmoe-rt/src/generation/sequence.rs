//! A continuation in progress.

use std::sync::Arc;

use jetmoe_text::{TextStream, Tokenizer};
use ndarray::ArrayView1;

use super::completion::{Completion, Event, FinishReason, GenerationStatistics, Timings, TokenEvent};
use super::sampling::SequenceState;
use super::{GenerationOptions, LogProbabilities};
use crate::Result;

/// A continuation in progress: the tokens and the text so far.
#[derive(Debug)]
pub(super) struct Sequence {
    index: usize,
    pub(super) prompt: Vec<u32>,
    pub(super) token_ids: Vec<u32>,
    text: String,
    /// `None` for a model without a tokenizer.
    decoder: Option<TextStream<Arc<Tokenizer>>>,
    log_probabilities: Vec<LogProbabilities>,
    pub(super) finish_reason: Option<FinishReason>,
    /// Positions after the prompt.
    positions: usize,
    pub(super) state: SequenceState,
    pub(super) statistics: GenerationStatistics,
    pub(super) timings: Timings,
}

impl Sequence {
    pub(super) fn new(
        index: usize,
        prompt: Vec<u32>,
        decoder: Option<TextStream<Arc<Tokenizer>>>,
        state: SequenceState,
        positions: usize,
    ) -> Self {
        Sequence {
            index,
            prompt,
            token_ids: Vec::new(),
            text: String::new(),
            decoder,
            log_probabilities: Vec::new(),
            finish_reason: (positions == 0).then_some(FinishReason::ContextFull),
            positions,
            state,
            statistics: GenerationStatistics::default(),
            timings: Timings::default(),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.finish_reason.is_none()
    }

    /// Prompt and continuation.
    pub(super) fn all_token_ids(&self) -> Vec<u32> {
        [self.prompt.as_slice(), &self.token_ids].concat()
    }

    /// Tokens that may still be generated; at least 1 while the sequence is open.
    pub(super) fn remaining(&self, max_new_tokens: usize) -> usize {
        max_new_tokens.min(self.positions) - self.token_ids.len()
    }

    /// Adds a token that was chosen from logits `[vocab_size]`.
    pub(super) fn push(
        &mut self,
        token_id: u32,
        logits: ArrayView1<'_, f32>,
        options: &GenerationOptions,
        eos_token_ids: &[u32],
    ) -> Result<Event> {
        let index = self.token_ids.len();
        self.token_ids.push(token_id);
        let log_probabilities =
            options.log_probabilities.and_then(|count| LogProbabilities::of(logits, token_id, count));
        self.log_probabilities.extend(log_probabilities.clone());
        self.finish_reason = if eos_token_ids.contains(&token_id) {
            Some(FinishReason::Eos)
        } else if self.token_ids.len() >= options.max_new_tokens {
            Some(FinishReason::Length)
        } else if self.token_ids.len() >= self.positions {
            Some(FinishReason::ContextFull)
        } else {
            None
        };
        let mut text = String::new();
        if let Some(decoder) = &mut self.decoder {
            if self.finish_reason != Some(FinishReason::Eos) {
                text += &decoder.push(token_id)?;
            }
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

    pub(super) fn into_completion(self, options: &GenerationOptions) -> Completion {
        Completion {
            text: self.text,
            token_ids: self.token_ids,
            finish_reason: self.finish_reason.unwrap_or(FinishReason::Cancelled),
            prompt_tokens: self.prompt.len(),
            log_probabilities: options.log_probabilities.map(|_| self.log_probabilities),
            statistics: self.statistics,
            timings: self.timings,
        }
    }
}
