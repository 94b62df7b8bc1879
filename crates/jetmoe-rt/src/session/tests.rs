use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::*;
use crate::fake::{self, FakeModel};

/// A model of 50 tokens whose scores depend on all tokens before, and which must not be given token 49.
fn hashed() -> FakeModel {
    let mut model = FakeModel::new(|seen| fake::hashed(seen, 50));
    model.config.vocab_size = 50;
    model.fails_at = Some(49);
    model
}

fn left_padded(sequences: &[&[u32]]) -> TokenBatch {
    TokenBatch::left_padded(sequences, 0).unwrap()
}

const PROMPTS: [&[u32]; 2] = [&[5, 6, 7, 8, 9, 10, 11], &[12, 13]];

#[test]
fn a_prompt_in_chunks_gives_the_last_scores_of_the_whole() {
    for chunk in 1..9_usize {
        let model = hashed();
        let (steps, computed) = (Arc::clone(&model.steps), Arc::clone(&model.computed));
        let mut session = model.load().session().unwrap();
        let output = session.prefill(&left_padded(&PROMPTS), chunk).unwrap();
        assert_eq!(steps.load(Ordering::Relaxed), 7_usize.div_ceil(chunk));
        assert_eq!(computed.load(Ordering::Relaxed), 14);
        for (row, prompt) in PROMPTS.iter().enumerate() {
            assert_eq!(output.last_logits(row).unwrap().to_vec(), fake::hashed(prompt, 50), "chunk {chunk}");
        }
        assert_eq!(output.logits().unwrap().dim(), (2, 1, 50), "the last logits are all that was wanted");
        let next = session.step(&TokenBatch::next_tokens(&[3, 4])).unwrap();
        assert_eq!(next.last_logits(1).unwrap().to_vec(), fake::hashed(&[12, 13, 4], 50));
    }
}

#[test]
fn a_chunk_that_fails_takes_those_before_it_along() {
    let mut session = hashed().load().session().unwrap();
    for past in [0, 7] {
        for tokens in [&[1, 2, 3, 49][..], &[1, 2, 50], &[1; 600]] {
            let error = session.prefill(&left_padded(&[tokens, tokens]), 2).unwrap_err();
            assert!(!error.to_string().is_empty());
            assert_eq!(session.past_length(), past, "{error}");
        }
        if past == 0 {
            session.prefill(&left_padded(&PROMPTS), 2).unwrap();
        }
    }
    let next = session.step(&TokenBatch::next_tokens(&[3, 4])).unwrap();
    assert_eq!(next.last_logits(0).unwrap().to_vec(), fake::hashed(&[5, 6, 7, 8, 9, 10, 11, 3], 50));
}

#[test]
fn a_prompt_is_cancelled_between_its_chunks() {
    let token = CancellationToken::new();
    let cancelled = token.clone();
    let model = FakeModel::new(move |seen| {
        // during the second chunk
        if seen == [5, 6, 7] {
            cancelled.cancel();
        }
        fake::hashed(seen, 50)
    });
    let steps = Arc::clone(&model.steps);
    let mut session = model.load().session().unwrap();
    session.step(&left_padded(&[&[1, 2]])).unwrap();
    session.truncate(0).unwrap();
    session.set_cancellation(token);
    let error = session.prefill(&left_padded(&[PROMPTS[0]]), 2).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert_eq!((session.past_length(), steps.load(Ordering::Relaxed)), (0, 3));
    let error = session.step(&left_padded(&[PROMPTS[0]])).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");

    session.set_cancellation(CancellationToken::new());
    let output = session.prefill(&left_padded(&[PROMPTS[0]]), 2).unwrap();
    assert_eq!(output.last_logits(0).unwrap().to_vec(), fake::hashed(PROMPTS[0], 50));
}

#[test]
fn a_chunk_of_no_token_is_refused() {
    let mut session = hashed().load().session().unwrap();
    let error = session.prefill(&left_padded(&PROMPTS), 0).unwrap_err();
    assert!(matches!(error, Error::Option { option: "prefill_chunk", .. }), "{error}");
}

#[test]
fn a_truncated_session_goes_on_as_if_the_rest_had_never_been_read() {
    let mut session = hashed().load().session().unwrap();
    session.step(&left_padded(&PROMPTS)).unwrap();
    session.truncate(7).unwrap();
    session.truncate(6).unwrap();
    assert_eq!(session.past_length(), 6);
    let next = session.step(&TokenBatch::next_tokens(&[3, 4])).unwrap();
    assert_eq!(next.last_logits(0).unwrap().to_vec(), fake::hashed(&[5, 6, 7, 8, 9, 10, 3], 50));
    assert_eq!(next.last_logits(1).unwrap().to_vec(), fake::hashed(&[12, 4], 50));
}

#[test]
fn a_session_without_tokens_takes_a_batch_of_another_size() {
    let mut session = hashed().load().session().unwrap();
    session.step(&left_padded(&PROMPTS)).unwrap();
    session.truncate(0).unwrap();
    assert_eq!(session.past_length(), 0);
    let output = session.step(&left_padded(&[&[8], &[9], &[3, 4]])).unwrap();
    assert_eq!(output.last_logits(2).unwrap().to_vec(), fake::hashed(&[3, 4], 50));
}

#[test]
fn more_tokens_than_there_are_cannot_be_kept() {
    let mut session = hashed().load().session().unwrap();
    assert!(matches!(session.truncate(1), Err(Error::Truncation { tokens: 1, cached: 0 })));
    session.step(&left_padded(&PROMPTS)).unwrap();
    let error = session.truncate(8).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot keep 8 tokens of a cache of 7; Session::past_length says how many there are"
    );
    assert_eq!(session.past_length(), 7);
}

#[test]
fn next_token_logits_are_no_class_logits() {
    let output = hashed().load().session().unwrap().step(&left_padded(&PROMPTS)).unwrap();
    let error = output.class_logits().unwrap_err();
    assert!(matches!(error, Error::OtherOutput { .. }));
    assert_eq!(error.kind(), crate::ErrorKind::Unsupported);
    assert!(error.to_string().contains("a language model has next-token logits"), "{error}");
    let error = output.last_hidden_state().unwrap_err();
    assert!(matches!(error, Error::MissingOutput { .. }), "{error}");
}

#[test]
fn a_task_without_a_cache_takes_its_tokens_at_once_and_has_nothing_to_truncate() {
    let model = FakeModel::classifier(|seen| vec![seen.len() as f32, 0.0]);
    let steps = Arc::clone(&model.steps);
    let mut session = model.load().session().unwrap();
    let output = session.prefill(&left_padded(&[&[5, 6, 7]]), 1).unwrap();
    assert_eq!(output.class_logits().unwrap()[[0, 0]], 3.0);
    let error = output.logits().unwrap_err().to_string();
    assert_eq!(
        error,
        "the output logits has shape [1, 2], which is not [batch, tokens, vocab_size]: a classifier has class logits, which \
         `StepOutput::class_logits` returns"
    );
    assert_eq!(steps.load(Ordering::Relaxed), 1);
    assert!(matches!(session.truncate(0), Err(Error::NoCache)));
}
