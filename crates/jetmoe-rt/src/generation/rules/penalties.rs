//! Penalties for tokens that occurred before.

use std::collections::{BTreeMap, BTreeSet};

use super::{LogitsRule, Tokens};

/// Divides a positive score and multiplies a negative one: less probable above 1, more probable below.
fn penalize(scores: &mut [f32], token_id: u32, penalty: f32) {
    if let Some(score) = scores.get_mut(token_id as usize) {
        *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
    }
}

/// `RepetitionPenaltyLogitsProcessor`: tokens of prompt and continuation, once each.
#[derive(Debug)]
pub(super) struct RepetitionPenalty {
    penalty: f32,
    seen: BTreeSet<u32>,
    /// Tokens that are in `seen`.
    read: usize,
}

impl RepetitionPenalty {
    pub(super) fn new(penalty: f32) -> Self {
        RepetitionPenalty { penalty, seen: BTreeSet::new(), read: 0 }
    }
}

impl LogitsRule for RepetitionPenalty {
    fn apply(&mut self, tokens: Tokens<'_>, scores: &mut [f32]) {
        self.seen.extend(&tokens.all[self.read..]);
        self.read = tokens.all.len();
        for id in &self.seen {
            penalize(scores, *id, self.penalty);
        }
    }
}

/// `EncoderRepetitionPenaltyLogitsProcessor`: above 1 makes tokens of the prompt more probable. For a model without an encoder
/// transformers takes the prompt.
#[derive(Debug)]
pub(super) struct PromptPenalty {
    penalty: f32,
    prompt: Option<BTreeSet<u32>>,
}

impl PromptPenalty {
    pub(super) fn new(penalty: f32) -> Self {
        PromptPenalty { penalty: (1.0 / f64::from(penalty)) as f32, prompt: None }
    }
}

impl LogitsRule for PromptPenalty {
    fn apply(&mut self, tokens: Tokens<'_>, scores: &mut [f32]) {
        let prompt = self.prompt.get_or_insert_with(|| tokens.prompt().iter().copied().collect());
        for id in prompt.iter() {
            penalize(scores, *id, self.penalty);
        }
    }
}

/// Presence and frequency penalty as in OpenAI's API and in vLLM (`model_executor/layers/utils.py`, `apply_penalties`): what a
/// token of the continuation loses once, and for each time that it occurs. Tokens of the prompt do not count.
#[derive(Debug)]
pub(super) struct OccurrencePenalty {
    presence: f32,
    frequency: f32,
    counts: BTreeMap<u32, usize>,
    /// Tokens of the continuation that are counted.
    read: usize,
}

impl OccurrencePenalty {
    pub(super) fn new(presence: f32, frequency: f32) -> Self {
        OccurrencePenalty { presence, frequency, counts: BTreeMap::new(), read: 0 }
    }
}

impl LogitsRule for OccurrencePenalty {
    fn apply(&mut self, tokens: Tokens<'_>, scores: &mut [f32]) {
        let continuation = tokens.continuation();
        for id in &continuation[self.read..] {
            *self.counts.entry(*id).or_default() += 1;
        }
        self.read = continuation.len();
        for (id, count) in &self.counts {
            if let Some(score) = scores.get_mut(*id as usize) {
                *score -= self.frequency * *count as f32;
                *score -= self.presence;
            }
        }
    }
}
