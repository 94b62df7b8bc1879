//! Drafts change the number of steps and nothing else.

use proptest::prelude::*;

use super::*;

fn with_lookup(draft_tokens: usize, ngram_tokens: usize, options: &GenerationOptions) -> GenerationOptions {
    GenerationOptions { prompt_lookup: Some(PromptLookup { draft_tokens, ngram_tokens }), ..options.clone() }
}

/// A model of 12 tokens that repeats itself often and not for ever: its scores depend on the last two tokens, and now
/// and then on how many there are.
fn repetitive() -> FakeModel {
    let scores = |seen: &[u32]| {
        let mut state = seen[seen.len().saturating_sub(2)..].to_vec();
        state.extend(seen.len().is_multiple_of(11).then_some(seen.len() as u32));
        fake::hashed(&state, 12)
    };
    let mut model = FakeModel::new(scores);
    model.config.vocab_size = 12;
    model
}

#[test]
fn right_drafts_spare_a_step_each() {
    let model = FakeModel::scripted(5, vec![8, 9, 5, 6, 40]);
    let steps = Arc::clone(&model.steps);
    let options = with_lookup(3, 1, &at_most(5));
    let generated = &run_batch(&generator(model), [[7, 8, 9, 5, 7]], &options).unwrap()[0];
    // 7 was followed by 8 9 5: the prompt gives 8; 8 is drafted to go on with 9 5 7, of which 9 5 is right, and the
    // step's own token is 6; 6 occurred nowhere
    assert_eq!(generated.token_ids, [8, 9, 5, 6, 40]);
    assert_eq!((generated.statistics.drafted_tokens, generated.statistics.accepted_tokens), (3, 2));
    assert_eq!(steps.load(Ordering::Relaxed), 3);
}

#[test]
fn a_text_that_does_not_repeat_takes_the_steps_it_takes_without_drafts() {
    let model = FakeModel::scripted(1, vec![9, 8, 7, 6]);
    let steps = Arc::clone(&model.steps);
    let generated = &run_batch(&generator(model), [[5]], &with_lookup(4, 2, &at_most(4))).unwrap()[0];
    assert_eq!(generated.statistics, GenerationStatistics::default());
    assert_eq!(steps.load(Ordering::Relaxed), 4);
}

#[test]
fn an_eos_token_among_the_drafts_ends_the_text() {
    let model = FakeModel::scripted(4, vec![9, EOS, 7]);
    let options = with_lookup(3, 1, &at_most(10));
    let generated = &run_batch(&generator(model), [[9, EOS, 7, 5]], &options).unwrap()[0];
    assert_eq!(generated.token_ids, [9, EOS]);
    assert_eq!(generated.finish_reason, FinishReason::Eos);
}

#[test]
fn cancelling_amid_drafts_keeps_what_was_reported() {
    let model = FakeModel::scripted(4, vec![9, 8, 7, 5]);
    let mut count = 0;
    let generated = generator(model)
        .for_each(request([[9, 8, 7, 5]], &with_lookup(3, 1, &at_most(10))), |_| {
            count += 1;
            if count == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(generated[0].token_ids, [9, 8, 7]);
    assert_eq!(generated[0].finish_reason, FinishReason::Cancelled);
}

#[test]
fn a_batch_is_refused() {
    let error = run_batch(&generator(hashed()), PROMPTS, &with_lookup(3, 1, &at_most(3))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "prompt_lookup is set for a batch of 6 prompts, expected one prompt at a time; leave it out, or continue the \
         prompts separately"
    );
}

proptest! {
    #[test]
    fn drafts_change_neither_tokens_nor_draws_nor_the_end(
        prompt in prop::collection::vec(0_u32..12, 1..20),
        draft_tokens in 1_usize..8,
        ngram_tokens in 1_usize..4,
        max_new_tokens in 1_usize..30,
        positions in 20_usize..40,
        seed in prop::option::of(0_u64..9),
        repetition_penalty in prop_oneof![Just(1.0_f32), Just(1.1)],
        has_end in any::<bool>(),
    ) {
        let generator = || {
            let mut model = repetitive();
            model.config.max_position_embeddings = positions;
            let steps = Arc::clone(&model.steps);
            (generator(model), steps)
        };
        let mut options = seed.map_or_else(GenerationOptions::default, multinomial);
        options.max_new_tokens = max_new_tokens;
        options.repetition_penalty = repetition_penalty;
        options.eos_token_ids = (!has_end).then(Vec::new);
        let (plain, plain_steps) = generator();
        let plain = run_batch(&plain, [&prompt], &options).unwrap().remove(0);
        let (drafting, steps) = generator();
        let mut events = Vec::new();
        let options = with_lookup(draft_tokens, ngram_tokens, &options);
        let drafted = drafting.for_each(request([&prompt], &options), |event| {
            events.extend(event.token.map(|token| token.token_id));
            ControlFlow::Continue(())
        });
        let drafted = drafted.unwrap().remove(0);
        prop_assert_eq!(&drafted.token_ids, &plain.token_ids);
        prop_assert_eq!(drafted.finish_reason, plain.finish_reason);
        prop_assert_eq!(&events, &plain.token_ids);
        let (plain_steps, steps) = (plain_steps.load(Ordering::Relaxed), steps.load(Ordering::Relaxed));
        let statistics = drafted.statistics;
        prop_assert!(statistics.accepted_tokens <= statistics.drafted_tokens);
        // the last token may be a draft itself, and then the step's own token is not used
        let spared = plain_steps - steps;
        prop_assert!([spared, spared + 1].contains(&statistics.accepted_tokens), "{} {:?}", spared, statistics);
    }
}
