//! Prompt-lookup decoding: drafts for speculative decoding, copied from the sequence itself.

use super::options::check;
use crate::Result;

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
    pub(super) fn validate(&self) -> Result<()> {
        check("draft_tokens", self.draft_tokens, self.draft_tokens >= 1, "at least 1")?;
        check("ngram_tokens", self.ngram_tokens, self.ngram_tokens >= 1, "at least 1")
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn draft(draft_tokens: usize, ngram_tokens: usize, known: &[u32]) -> Vec<u32> {
        PromptLookup { draft_tokens, ngram_tokens }.draft(known, usize::MAX)
    }

    #[test]
    fn drafts_are_what_followed_the_most_recent_occurrence() {
        assert_eq!(draft(3, 2, &[1, 2, 7, 7, 7, 1, 2, 8, 9, 5, 1, 2]), [8, 9, 5]);
        assert_eq!(draft(2, 2, &[1, 2, 7, 7, 7, 1, 2, 8, 9, 5, 1, 2]), [8, 9]);
        assert_eq!(draft(2, 1, &[4, 2, 7, 1, 2]), [7, 1]);
    }

    #[test]
    fn tokens_that_did_not_occur_give_no_draft() {
        assert!(draft(3, 2, &[1, 2, 3, 2]).is_empty());
        assert!(draft(3, 2, &[1, 2]).is_empty(), "the last tokens themselves are no occurrence");
        assert!(draft(3, 3, &[1, 1]).is_empty());
        assert!(draft(3, 1, &[]).is_empty());
    }

    #[test]
    fn a_loop_is_followed_beyond_the_end() {
        assert_eq!(draft(5, 2, &[9, 3, 4, 3, 4]), [3, 4, 3, 4, 3]);
        assert_eq!(draft(4, 1, &[6, 6]), [6, 6, 6, 6]);
    }

    #[test]
    fn there_are_no_more_drafts_than_the_limit() {
        assert_eq!(PromptLookup { draft_tokens: 5, ngram_tokens: 1 }.draft(&[1, 2, 3, 1], 1), [2]);
        assert!(PromptLookup { draft_tokens: 5, ngram_tokens: 1 }.draft(&[1, 2, 3, 1], 0).is_empty());
    }

    proptest! {
        #[test]
        fn drafts_continue_as_the_earlier_occurrence_did(
            known in prop::collection::vec(0_u32..4, 0..40), ngram_tokens in 1_usize..4,
        ) {
            let drafts = draft(6, ngram_tokens, &known);
            let ends = (ngram_tokens..known.len()).rev();
            let expected = ends.into_iter().find(|end| known[end - ngram_tokens..*end] == known[known.len() - ngram_tokens..]);
            match expected {
                None => prop_assert!(drafts.is_empty()),
                Some(end) => {
                    prop_assert_eq!(drafts.len(), 6);
                    let whole = [&known[..], &drafts[..]].concat();
                    prop_assert_eq!(&whole[end..end + 6], &drafts[..]);
                }
            }
        }
    }
}
