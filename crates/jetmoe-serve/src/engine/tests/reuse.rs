//! What is reused of earlier requests, and the scores of prompts, for which nothing is.

use jetmoe_rt::log_sum_exp;
use jetmoe_rt::ndarray::aview1;

use super::*;

/// Tokens that were read since the log was taken.
fn read(model: &FakeModel) -> usize {
    model.take_log().iter().map(|(_, tokens)| tokens.len()).sum()
}

#[test]
fn a_slot_reuses_its_own_tokens_and_the_last_one_is_always_computed() {
    let model = FakeModel::hashed();
    let engine = start(&model, options());
    let prompt: Vec<u32> = (50..62).collect();
    let first = run(&engine, Job::new(prompt.clone(), endless(5)));
    assert_eq!((first.cached_tokens, read(&model)), (Some(0), 12 + 4));
    let again = run(&engine, Job::new(prompt.clone(), endless(5)));
    assert_eq!((again.cached_tokens, read(&model)), (Some(11), 1 + 4));
    assert_eq!(again.token_ids(), first.token_ids());
    // the conversation goes on: everything but the last token was read
    let longer = [&prompt[..], &first.token_ids(), &[90, 91]].concat();
    let next = run(&engine, Job::new(longer.clone(), multinomial(5)));
    assert_eq!(next.cached_tokens, Some(12 + 4));
    next.assert_is(&alone(&engine, &longer, &multinomial(5)));
}

#[test]
fn conversations_that_take_turns_keep_their_slots() {
    let model = FakeModel::hashed();
    let engine = start(&model, options());
    let mut talks: Vec<Vec<u32>> =
        (0..3).map(|talk| (0..20).map(|id| 100 * (talk + 1) + id).collect()).collect();
    for round in 0..3 {
        for talk in &mut talks {
            // all begin alike
            let prompt = [&[1, 10][..], talk].concat();
            let found = run(&engine, Job::new(prompt.clone(), endless(2)));
            if round > 0 {
                assert_eq!(
                    found.cached_tokens,
                    Some(prompt.len() - 2),
                    "all but its last token and the new one"
                );
            }
            found.assert_is(&alone(&engine, &prompt, &endless(2)));
            talk.extend(found.token_ids());
            talk.push(7);
        }
    }
}

#[test]
fn the_scores_of_a_prompt_are_those_of_its_logits_and_nothing_is_reused_for_them() {
    let model = FakeModel::hashed();
    let engine = start(&model, options());
    let prompt: Vec<u32> = (50..61).collect();
    run(&engine, Job::new(prompt.clone(), at_most(2)));
    let job = Job::new(prompt.clone(), at_most(2)).with_prompt_log_probabilities(3).with_generation(false);
    let found = run(&engine, job);
    assert_eq!((found.cached_tokens, found.token_ids().len()), (Some(0), 0));
    assert_eq!(found.finish_reason(), Some(FinishReason::Length));
    let scores = found.prompt.unwrap().tokens;
    assert_eq!(scores.len(), 10);
    for (index, (chosen, best)) in scores.iter().enumerate() {
        let mut logits = fake::hashed(&prompt[..=index], 2048);
        logits[2] += if (index + 1) % 7 == 0 { 1.0 } else { 0.0 };
        let expected = f64::from(logits[prompt[index + 1] as usize]) - log_sum_exp(aview1(&logits));
        assert!((f64::from(*chosen) - expected).abs() < 1e-5);
        let highest = (0..).zip(&logits).max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
        assert_eq!((best.len(), best[0].token_id), (3, highest));
    }
}

#[test]
fn scores_come_before_the_continuation() {
    let engine = start(&FakeModel::hashed(), options());
    let found = run(&engine, Job::new([50, 51, 52], endless(3)).with_prompt_log_probabilities(0));
    assert_eq!(found.prompt.as_ref().unwrap().tokens.len(), 2);
    found.assert_is(&alone(&engine, &[50, 51, 52], &endless(3)));
    let one = run(&engine, Job::new([50], endless(1)).with_prompt_log_probabilities(0));
    assert!(one.prompt.unwrap().tokens.is_empty());
}

#[test]
fn a_prompt_of_all_positions_is_scored() {
    let engine = start(&FakeModel::hashed(), options().with_capacity(8));
    let job = Job::new([50; 8], endless(1)).with_prompt_log_probabilities(0).with_generation(false);
    let found = run(&engine, job);
    assert_eq!(found.prompt.as_ref().unwrap().tokens.len(), 7);
    assert_eq!(found.finish_reason(), Some(FinishReason::ContextFull));
}
