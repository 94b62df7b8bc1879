//! Rules about where a sequence begins and ends.

use super::{LogitsRule, Tokens, exclude, force};

/// `MinLengthLogitsProcessor` and `MinNewTokensLengthLogitsProcessor`: excludes end-of-sequence tokens before a length.
#[derive(Debug)]
pub(super) struct MinLength {
    length: usize,
    eos_token_ids: Vec<u32>,
}

impl MinLength {
    pub(super) fn new(length: usize, eos_token_ids: &[u32]) -> Self {
        MinLength { length, eos_token_ids: eos_token_ids.to_vec() }
    }
}

impl LogitsRule for MinLength {
    fn apply(&mut self, tokens: Tokens<'_>, scores: &mut [f32]) {
        if tokens.all.len() < self.length {
            for id in &self.eos_token_ids {
                exclude(scores, *id);
            }
        }
    }
}

/// `ForcedBOSTokenLogitsProcessor`: the token after a prompt of one token.
#[derive(Debug)]
pub(super) struct ForceFirst(u32);

impl ForceFirst {
    pub(super) fn new(token_id: u32) -> Self {
        ForceFirst(token_id)
    }
}

impl LogitsRule for ForceFirst {
    fn apply(&mut self, tokens: Tokens<'_>, scores: &mut [f32]) {
        if tokens.all.len() == 1 {
            force(scores, &[self.0]);
        }
    }
}

/// `ForcedEOSTokenLogitsProcessor`: the last token of the greatest length.
#[derive(Debug)]
pub(super) struct ForceEos {
    max_length: usize,
    token_ids: Vec<u32>,
}

impl ForceEos {
    pub(super) fn new(max_length: usize, token_ids: &[u32]) -> Self {
        ForceEos { max_length, token_ids: token_ids.to_vec() }
    }
}

impl LogitsRule for ForceEos {
    fn apply(&mut self, tokens: Tokens<'_>, scores: &mut [f32]) {
        if tokens.all.len() + 1 == self.max_length {
            force(scores, &self.token_ids);
        }
    }
}

/// `ExponentialDecayLengthPenalty`: after `start` new tokens, adds a growing multiple of its absolute value to the score of every
/// end-of-sequence token. The score stays finite, where transformers computes infinity or ends with an OverflowError.
#[derive(Debug)]
pub(super) struct DecayLength {
    /// Length of prompt and continuation from which on it acts.
    start: i64,
    factor: f64,
    eos_token_ids: Vec<u32>,
}

impl DecayLength {
    pub(super) fn new(start: i64, factor: f64, prompt_length: usize, eos_token_ids: &[u32]) -> Self {
        let prompt_length = i64::try_from(prompt_length).unwrap_or(i64::MAX);
        let mut eos_token_ids = eos_token_ids.to_vec();
        eos_token_ids.sort_unstable();
        eos_token_ids.dedup();
        DecayLength { start: start.saturating_add(prompt_length), factor, eos_token_ids }
    }
}

impl LogitsRule for DecayLength {
    fn apply(&mut self, tokens: Tokens<'_>, scores: &mut [f32]) {
        let length = i64::try_from(tokens.all.len()).unwrap_or(i64::MAX);
        let past = length.saturating_sub(self.start);
        if past <= 0 {
            return;
        }
        let growth = (self.factor.powf(past as f64) - 1.0) as f32;
        // 0 · ∞ is NaN
        let growth = growth.clamp(f32::MIN, f32::MAX);
        for id in &self.eos_token_ids {
            if let Some(score) = scores.get_mut(*id as usize).filter(|score| score.is_finite()) {
                *score = (*score + score.abs() * growth).clamp(f32::MIN, f32::MAX);
            }
        }
    }
}
