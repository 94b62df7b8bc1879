//! The loop over token ids: batches, ends, limits. The modules test what is built on it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::*;
use crate::fake::{self, FakeModel};
use crate::{CancellationToken, Error, Result};

mod cancellation;
mod lengths;
mod log_probabilities;
mod prefix;
mod sequence_sampler;
mod speculation;
mod text;

const EOS: u32 = 2;

/// A model of 50 tokens whose next token depends on all before it. It ends a sequence now and then.
fn hashed() -> FakeModel {
    let mut model = FakeModel::new(|seen| fake::hashed(seen, 50));
    model.config.vocab_size = 50;
    model
}

fn generator(model: FakeModel) -> Generator {
    Generator::new(&model.load()).unwrap()
}

fn request<P: Into<Prompt>>(prompts: impl IntoIterator<Item = P>, options: &GenerationOptions) -> Request {
    Request::batch(prompts).with_options(options.clone())
}

fn run_batch<P: Into<Prompt>>(
    generator: &Generator,
    prompts: impl IntoIterator<Item = P>,
    options: &GenerationOptions,
) -> Result<Vec<Completion>> {
    generator.run_batch(request(prompts, options))
}

/// What does not depend on the clock.
fn outcome(completion: &Completion) -> (&str, &[u32], FinishReason, GenerationStatistics) {
    (&completion.text, &completion.token_ids, completion.finish_reason, completion.statistics)
}

fn outcomes(completions: &[Completion]) -> Vec<(&str, &[u32], FinishReason, GenerationStatistics)> {
    completions.iter().map(outcome).collect()
}

fn at_most(max_new_tokens: usize) -> GenerationOptions {
    GenerationOptions { max_new_tokens, ..GenerationOptions::default() }
}

fn multinomial(seed: u64) -> GenerationOptions {
    GenerationOptions {
        sampling: Multinomial::default().with_top_k(20).with_top_p(0.9).into(),
        seed: Some(seed),
        ..at_most(24)
    }
}

/// Greedy continuation from the scores of the whole sequence, as the definition has it.
fn continue_without_cache(prompt: &[u32], max_new_tokens: usize) -> Vec<u32> {
    let mut ids = prompt.to_vec();
    while ids.len() < prompt.len() + max_new_tokens {
        let scores = fake::hashed(&ids, 50);
        let highest = scores.iter().copied().fold(f32::MIN, f32::max);
        ids.push(scores.iter().position(|score| *score == highest).unwrap() as u32);
        if ids.last() == Some(&EOS) {
            break;
        }
    }
    ids.split_off(prompt.len())
}

const PROMPTS: [&[u32]; 6] =
    [&[1, 7], &[5], &[9, 9, 9, 4, 8, 20, 3], &[1, 30, 31], &[40, 41, 42, 43, 44], &[6]];

#[test]
fn cached_steps_give_what_the_whole_sequence_gives() {
    let generator = generator(hashed());
    for prompt in PROMPTS {
        let generated = run_batch(&generator, [prompt], &at_most(40)).unwrap();
        assert_eq!(generated[0].token_ids, continue_without_cache(prompt, 40));
    }
}

#[test]
fn a_batch_of_unequal_prompts_gives_what_each_prompt_gives_alone() {
    let generator = generator(hashed());
    let together = run_batch(&generator, PROMPTS, &at_most(200)).unwrap();
    let reasons: Vec<FinishReason> = together.iter().map(|generated| generated.finish_reason).collect();
    assert!(reasons.contains(&FinishReason::Eos), "the test needs rows that end before others: {reasons:?}");
    for (prompt, generated) in PROMPTS.iter().zip(together) {
        assert_eq!(generated.token_ids, continue_without_cache(prompt, 200));
    }
}

#[test]
fn what_a_sequence_draws_does_not_depend_on_its_neighbours() {
    let generator = generator(hashed());
    let together = run_batch(&generator, PROMPTS, &multinomial(3)).unwrap();
    let others: [&[u32]; 3] = [PROMPTS[0], &[11, 12], PROMPTS[2]];
    let with_others = run_batch(&generator, others, &multinomial(3)).unwrap();
    assert_eq!(outcome(&together[0]), outcome(&with_others[0]));
    assert_eq!(outcome(&together[2]), outcome(&with_others[2]));
}

#[test]
fn one_seed_gives_one_continuation_and_another_seed_another() {
    let generator = generator(hashed());
    let [first, again, other] =
        [3, 3, 4].map(|seed| run_batch(&generator, PROMPTS, &multinomial(seed)).unwrap());
    assert_eq!(outcomes(&first), outcomes(&again));
    assert_ne!(outcomes(&first), outcomes(&other));
}

#[test]
fn without_a_seed_every_generation_draws_anew() {
    let generator = generator(hashed());
    let options = GenerationOptions { seed: None, eos_token_ids: Some(vec![]), ..multinomial(0) };
    let [first, second] = [(); 2].map(|()| run_batch(&generator, PROMPTS, &options).unwrap());
    assert_ne!(outcomes(&first), outcomes(&second));
}

#[test]
fn one_prompt_given_twice_draws_two_continuations() {
    let generated = run_batch(&generator(hashed()), [PROMPTS[0], PROMPTS[0]], &multinomial(3)).unwrap();
    assert_ne!(generated[0].token_ids, generated[1].token_ids);
}

#[test]
fn the_eos_token_is_the_last_token_of_its_sequence() {
    let generator = generator(FakeModel::scripted(1, vec![9, 8, EOS, 7]));
    let generated = run_batch(&generator, [[5]], &at_most(10)).unwrap();
    assert_eq!(generated.len(), 1);
    assert_eq!(generated[0].token_ids, [9, 8, EOS]);
    assert_eq!(generated[0].finish_reason, FinishReason::Eos);
    assert_eq!(generated[0].prompt_tokens, 1);
    assert_eq!(generated[0].log_probabilities, None);
    assert_eq!(generated[0].statistics, GenerationStatistics::default());
}

#[test]
fn eos_tokens_of_the_generation_config_replace_those_of_the_model_config() {
    let mut model = FakeModel::scripted(1, vec![9, EOS, 8, 40, 7]);
    model.generation_config.eos_token_ids = vec![30, 40];
    let generated = run_batch(&generator(model), [[5]], &at_most(10)).unwrap();
    assert_eq!(generated[0].token_ids, [9, EOS, 8, 40]);
}

#[test]
fn eos_tokens_in_the_options_replace_the_models_own() {
    let generator = generator(FakeModel::scripted(1, vec![9, EOS, 8, 40, 7]));
    assert_eq!(generator.eos_token_ids(), [EOS]);
    let options = |eos_token_ids| GenerationOptions { eos_token_ids: Some(eos_token_ids), ..at_most(5) };
    let generated = run_batch(&generator, [[5]], &options(vec![8])).unwrap();
    assert_eq!(generated[0].token_ids, [9, EOS, 8]);
    let generated = run_batch(&generator, [[5]], &options(vec![])).unwrap();
    assert_eq!(generated[0].token_ids, [9, EOS, 8, 40, 7]);
    assert_eq!(generated[0].finish_reason, FinishReason::Length);
}

#[test]
fn no_step_runs_once_every_sequence_is_finished() {
    let model = FakeModel::scripted(1, vec![9, 8, 7, 6]);
    let steps = Arc::clone(&model.steps);
    let generated = run_batch(&generator(model), [[5], [6]], &at_most(3)).unwrap();
    assert!(generated.iter().all(|one| one.finish_reason == FinishReason::Length));
    assert_eq!(steps.load(Ordering::Relaxed), 3);
}

#[test]
fn a_sequence_that_fills_the_positions_ends_without_disturbing_the_others() {
    let mut model = hashed();
    model.config.max_position_embeddings = 12;
    let prompts: [&[u32]; 3] = [&[5, 6, 7, 8, 9, 10, 11, 12, 13, 14], &[5], &[4; 12]];
    let options = GenerationOptions { eos_token_ids: Some(vec![]), ..at_most(50) };
    let generated = run_batch(&generator(model), prompts, &options).unwrap();
    assert!(generated.iter().all(|one| one.finish_reason == FinishReason::ContextFull));
    let lengths: Vec<usize> = generated.iter().map(|one| one.token_ids.len()).collect();
    assert_eq!(lengths, [2, 11, 0]);
}

#[test]
fn every_token_is_reported_when_it_comes() {
    let mut events = Vec::new();
    let mut model = FakeModel::scripted(1, vec![9, EOS]);
    model.generation_config.pad_token_id = Some(3);
    let generated = generator(model)
        .for_each(request([vec![5], vec![5, 5, 5]], &at_most(10)), |event| {
            let token = event.token.unwrap();
            events.push((event.sequence, token.index, token.token_id, event.finish_reason));
            ControlFlow::Continue(())
        })
        .unwrap();
    let end = Some(FinishReason::Eos);
    assert_eq!(events, [(0, 0, 9, None), (1, 0, EOS, end), (0, 1, EOS, end)]);
    assert_eq!(generated[1].token_ids, [EOS]);
}

#[test]
fn cancelling_ends_every_sequence_and_keeps_what_there_is() {
    let model = hashed();
    let steps = Arc::clone(&model.steps);
    let options = GenerationOptions { eos_token_ids: Some(vec![]), ..at_most(50) };
    let mut count = 0;
    let generated = generator(model)
        .for_each(request([[5], [6], [7]], &options), |_| {
            count += 1;
            if count == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert!(generated.iter().all(|one| one.finish_reason == FinishReason::Cancelled));
    assert_eq!(generated.iter().map(|one| one.token_ids.len()).collect::<Vec<_>>(), [2, 2, 1]);
    assert_eq!(steps.load(Ordering::Relaxed), 2);
}

#[test]
fn a_repetition_penalty_counts_the_prompt_but_not_the_padding() {
    let scores = |seen: &[u32]| {
        let mut scores = vec![0.0; 50];
        (scores[2], scores[20], scores[21]) = (1.0, 3.0, 2.0);
        scores[22 + seen.len()] = 1.6;
        scores
    };
    let mut model = FakeModel::new(scores);
    model.config.vocab_size = 50;
    model.generation_config.pad_token_id = Some(20);
    let options = GenerationOptions { repetition_penalty: 2.0, eos_token_ids: Some(vec![]), ..at_most(1) };
    let prompts: [&[u32]; 2] = [&[5], &[20, 6, 7]];
    let generated = run_batch(&generator(model), prompts, &options).unwrap();
    assert_eq!(generated[0].token_ids, [20], "padded with 20, which does not count");
    assert_eq!(generated[1].token_ids, [21], "20 is in the prompt and falls from 3 to 1.5");
}

#[test]
fn a_padding_token_that_the_model_does_not_have_is_not_used() {
    let mut model = hashed();
    model.generation_config.pad_token_id = Some(50);
    run_batch(&generator(model), PROMPTS, &at_most(3)).unwrap();
}

#[test]
fn prompts_that_the_model_cannot_take_are_refused_before_anything_runs() {
    let mut model = hashed();
    model.config.max_position_embeddings = 4;
    let steps = Arc::clone(&model.steps);
    let generator = generator(model);
    let refused = |prompts: &[&[u32]]| {
        let request = request(prompts, &at_most(3));
        let error = generator.run_batch(request.clone()).unwrap_err();
        assert_eq!(generator.check(&request).unwrap_err().to_string(), error.to_string());
        error
    };
    assert!(matches!(refused(&[&[1], &[]]), Error::EmptyPrompt { index: 1 }));
    assert!(matches!(refused(&[&[1], &[1; 5]]), Error::TooLong { index: 1, tokens: 5, limit: 4 }));
    assert!(matches!(
        refused(&[&[1, 2, 3], &[4, 50]]),
        Error::TokenOutOfRange { id: 50, row: 1, column: 1, vocab_size: 50 }
    ));
    assert_eq!(steps.load(Ordering::Relaxed), 0);
}

#[test]
fn no_prompt_gives_no_continuation() {
    assert!(run_batch::<Vec<u32>>(&generator(hashed()), [], &at_most(3)).unwrap().is_empty());
}

#[test]
fn invalid_options_are_rejected() {
    let generator = generator(hashed());
    let refused = |request: Request| match generator.check(&request) {
        Err(Error::Option { option, .. }) => option,
        other => panic!("expected a refused option, got {other:?}"),
    };
    assert_eq!(refused(request([[5]], &at_most(0))), "max_new_tokens");
    let cached = request([[5], [6]], &at_most(1)).with_prefix_cache(&PrefixCache::new());
    assert_eq!(refused(cached), "prefix_cache");
}

#[test]
fn one_result_is_for_one_prompt() {
    let generator = generator(hashed());
    let one = generator.run(request([PROMPTS[0]], &at_most(9))).unwrap();
    assert_eq!(one.token_ids, continue_without_cache(PROMPTS[0], 9));
    for prompts in [&PROMPTS[..2], &[]] {
        let error = generator.run(request(prompts, &at_most(9))).unwrap_err();
        assert!(matches!(error, Error::Option { option: "prompts", .. }), "{error}");
    }
}

#[test]
fn a_request_without_options_has_those_of_the_checkpoint() {
    let mut model = hashed();
    model.generation_config.max_new_tokens = Some(3);
    model.generation_config.eos_token_ids = vec![49];
    assert_eq!(generator(model).run(Request::new([5])).unwrap().token_ids.len(), 3);
}

#[test]
fn nothing_is_computed_between_two_events() {
    let model = hashed();
    let steps = Arc::clone(&model.steps);
    let options = GenerationOptions { eos_token_ids: Some(vec![]), ..at_most(5) };
    let mut stream = generator(model).stream(request([[5], [6]], &options)).unwrap();
    assert_eq!(steps.load(Ordering::Relaxed), 0);
    for (events, expected) in [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)] {
        stream.next().unwrap().unwrap();
        assert_eq!(steps.load(Ordering::Relaxed), expected, "after {events} events");
    }
    let generated = stream.finish().unwrap();
    assert_eq!(generated.iter().map(|one| one.token_ids.len()).collect::<Vec<_>>(), [3, 2]);
}

#[test]
fn every_sequence_ends_with_one_event_that_says_why() {
    let mut model = hashed();
    model.config.max_position_embeddings = 12;
    let prompts: [&[u32]; 4] = [&[5, 6, 7, 8, 9, 10, 11, 12, 13, 14], &[5], &[4; 12], &[9, 9]];
    let mut stream = generator(model).stream(request(prompts, &at_most(4))).unwrap();
    let events: Vec<Event> = stream.by_ref().map(Result::unwrap).collect();
    assert!(stream.next().is_none());
    for (sequence, completion) in stream.finish().unwrap().iter().enumerate() {
        let own: Vec<&Event> = events.iter().filter(|event| event.sequence == sequence).collect();
        let (last, before) = own.split_last().unwrap();
        assert_eq!(last.finish_reason, Some(completion.finish_reason));
        assert!(before.iter().all(|event| event.finish_reason.is_none()));
        let ids: Vec<u32> = own.iter().filter_map(|event| Some(event.token.as_ref()?.token_id)).collect();
        assert_eq!(ids, completion.token_ids);
        let text: String = own.iter().map(|event| event.text.as_str()).collect();
        assert_eq!(text, completion.text);
    }
}

#[test]
fn times_are_of_the_sequence_and_add_up() {
    let start = std::time::Instant::now();
    let mut stream = generator(hashed()).stream(request([[5, 6, 7]], &at_most(4))).unwrap();
    assert!(stream.by_ref().all(|event| event.is_ok()));
    let completion = stream.finish().unwrap().remove(0);
    let elapsed = start.elapsed();
    let Timings { first_token, prompt, generation } = completion.timings;
    assert!(first_token.unwrap() >= prompt, "{:?}", completion.timings);
    assert!(prompt + generation <= elapsed && !prompt.is_zero(), "{:?}", completion.timings);
}

#[test]
fn nan_logits_are_an_error_that_names_the_sequence() {
    let mut model = FakeModel::new(|seen| vec![if seen[0] == 6 { f32::NAN } else { 0.0 }; 50]);
    model.config.vocab_size = 50;
    let generator = generator(model);
    for options in [at_most(3), multinomial(1)] {
        let mut stream = generator.stream(request([[5], [6]], &options)).unwrap();
        stream.next().unwrap().unwrap();
        let error = stream.next().unwrap().unwrap_err();
        assert!(matches!(error, Error::Logits { .. }));
        assert!(error.to_string().contains("sequence 1"), "{error}");
        assert!(stream.next().is_none(), "nothing follows an error");
        let generated = stream.finish().unwrap();
        assert!(generated.iter().all(|one| one.finish_reason == FinishReason::Failed));
        assert_eq!(generated.iter().map(|one| one.token_ids.len()).collect::<Vec<_>>(), [1, 0]);
    }
}

#[test]
fn a_classifier_generates_nothing() {
    let model = FakeModel::classifier(|_| vec![0.0, 0.0]).load();
    assert!(matches!(Generator::new(&model), Err(Error::WrongTask { .. })));
}

#[test]
fn finish_reasons_keep_the_names_of_the_json_output() {
    let reasons = [
        FinishReason::Eos,
        FinishReason::StopString,
        FinishReason::Length,
        FinishReason::ContextFull,
        FinishReason::Cancelled,
        FinishReason::Deadline,
        FinishReason::Failed,
    ];
    let names =
        ["end-token", "stop-string", "max-new-tokens", "max-positions", "cancelled", "deadline", "failed"];
    assert_eq!(reasons.map(|reason| reason.to_string()), names);
}
