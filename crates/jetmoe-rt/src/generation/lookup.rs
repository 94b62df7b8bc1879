//! Prompt-lookup decoding: drafts for speculative decoding, copied from the sequence itself.

use crate::Result;
use crate::error::at_least_one;

/// Speculative decoding without a draft model: drafts are the tokens that followed an earlier occurrence of the latest
/// n-gram in prompt or continuation.
///
/// One step verifies all drafts at once and accepts those that the model would have generated. Every token is still
/// sampled from the model's logits, in order and with the same random numbers, so the continuation does not change,
/// except between tokens whose logits are equal up to rounding: a step of several tokens sums in another order.
///
/// It is faster for text that repeats: summaries, code, answers that quote. A rejected draft costs the time of a longer
/// step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PromptLookup {
    /// Most drafts per step, at least 1; 10 by default. Limited by the remaining positions and `max_new_tokens`.
    pub draft_tokens: usize,
    /// Length of the n-gram that must have occurred before, at least 1; 2 by default, as in transformers. A longer one
    /// makes drafts rarer and more often right.
    pub ngram_tokens: usize,
}

impl Default for PromptLookup {
    fn default() -> Self {
        PromptLookup { draft_tokens: 10, ngram_tokens: 2 }
    }
}

impl PromptLookup {
    /// Sets [`PromptLookup::draft_tokens`].
    #[must_use]
    pub fn with_draft_tokens(mut self, draft_tokens: usize) -> Self {
        self.draft_tokens = draft_tokens;
        self
    }

    /// Sets [`PromptLookup::ngram_tokens`].
    #[must_use]
    pub fn with_ngram_tokens(mut self, ngram_tokens: usize) -> Self {
        self.ngram_tokens = ngram_tokens;
        self
    }

    pub(super) fn validate(&self) -> Result<()> {
        at_least_one("draft_tokens", self.draft_tokens)?;
        at_least_one("ngram_tokens", self.ngram_tokens)
    }

    /// The tokens after the most recent earlier occurrence of the last n-gram, at most `limit`; none if there is no such
    /// occurrence. At the end of `token_ids` it continues with the drafts themselves, so that a loop is followed.
    pub(super) fn draft(&self, token_ids: &[u32], limit: usize) -> Vec<u32> {
        let mut drafts = Vec::new();
        let Some(ngram) = token_ids.len().checked_sub(self.ngram_tokens).map(|start| &token_ids[start..])
        else {
            return drafts;
        };
        let earlier = &token_ids[..token_ids.len() - 1];
        let Some(found) = earlier.windows(ngram.len()).rposition(|window| window == ngram) else {
            return drafts;
        };
        let mut followers = token_ids[found + ngram.len()..].to_vec();
        for next in 0..self.draft_tokens.min(limit) {
            let draft = followers[next];
            followers.push(draft);
            drafts.push(draft);
        }
        drafts
    }
}

#[cfg(test)]
mod tests;
