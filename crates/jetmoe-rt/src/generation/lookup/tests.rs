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
