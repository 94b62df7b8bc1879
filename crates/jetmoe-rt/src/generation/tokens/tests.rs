use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::*;
use crate::Sampling;
use crate::fake::{self, FakeModel};

mod prefix;
mod speculation;

const EOS: u32 = 2;

/// A model of 50 tokens whose next token depends on all before it. It ends a sequence now and then.
fn hashed() -> FakeModel {
    let mut model = FakeModel::new(|seen| fake::hashed(seen, 50));
    model.config.vocab_size = 50;
    model
}

fn generator(model: FakeModel) -> TokenGenerator {
    TokenGenerator::new(&model.load()).unwrap()
}

fn at_most(max_new_tokens: usize) -> GenerationOptions {
    GenerationOptions { max_new_tokens, ..GenerationOptions::default() }
}

fn multinomial(seed: u64) -> GenerationOptions {
    GenerationOptions {
        sampling: Sampling::Multinomial { temperature: 1.0, top_k: Some(20), top_p: Some(0.9), min_p: None },
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
        let generated = generator.generate(&[prompt], &at_most(40)).unwrap();
        assert_eq!(generated[0].token_ids, continue_without_cache(prompt, 40));
    }
}

#[test]
fn a_batch_of_unequal_prompts_gives_what_each_prompt_gives_alone() {
    let generator = generator(hashed());
    let together = generator.generate(&PROMPTS, &at_most(200)).unwrap();
    let reasons: Vec<FinishReason> = together.iter().map(|generated| generated.finish_reason).collect();
    assert!(reasons.contains(&FinishReason::Eos), "the test needs rows that end before others: {reasons:?}");
    for (prompt, generated) in PROMPTS.iter().zip(together) {
        assert_eq!(generated.token_ids, continue_without_cache(prompt, 200));
    }
}

#[test]
fn what_a_sequence_draws_does_not_depend_on_its_neighbours() {
    let generator = generator(hashed());
    let together = generator.generate(&PROMPTS, &multinomial(3)).unwrap();
    let others: [&[u32]; 3] = [PROMPTS[0], &[11, 12], PROMPTS[2]];
    let with_others = generator.generate(&others, &multinomial(3)).unwrap();
    assert_eq!((&together[0], &together[2]), (&with_others[0], &with_others[2]));
}

#[test]
fn one_seed_gives_one_continuation_and_another_seed_another() {
    let generator = generator(hashed());
    let first = generator.generate(&PROMPTS, &multinomial(3)).unwrap();
    assert_eq!(first, generator.generate(&PROMPTS, &multinomial(3)).unwrap());
    assert_ne!(first, generator.generate(&PROMPTS, &multinomial(4)).unwrap());
}

#[test]
fn without_a_seed_every_generation_draws_anew() {
    let generator = generator(hashed());
    let options = GenerationOptions { seed: None, eos_token_ids: Some(vec![]), ..multinomial(0) };
    assert_ne!(
        generator.generate(&PROMPTS, &options).unwrap(),
        generator.generate(&PROMPTS, &options).unwrap()
    );
}

#[test]
fn one_prompt_given_twice_draws_two_continuations() {
    let generated = generator(hashed()).generate(&[PROMPTS[0], PROMPTS[0]], &multinomial(3)).unwrap();
    assert_ne!(generated[0].token_ids, generated[1].token_ids);
}

#[test]
fn the_eos_token_is_the_last_token_of_its_sequence() {
    let generated =
        generator(FakeModel::scripted(1, vec![9, 8, EOS, 7])).generate(&[[5]], &at_most(10)).unwrap();
    assert_eq!(
        generated,
        [Generation {
            token_ids: vec![9, 8, EOS],
            finish_reason: FinishReason::Eos,
            statistics: GenerationStatistics::default()
        }]
    );
}

#[test]
fn eos_tokens_of_the_generation_config_replace_those_of_the_model_config() {
    let mut model = FakeModel::scripted(1, vec![9, EOS, 8, 40, 7]);
    model.generation_config.eos_token_ids = vec![30, 40];
    let generated = generator(model).generate(&[[5]], &at_most(10)).unwrap();
    assert_eq!(generated[0].token_ids, [9, EOS, 8, 40]);
}

#[test]
fn eos_tokens_in_the_options_replace_the_models_own() {
    let generator = generator(FakeModel::scripted(1, vec![9, EOS, 8, 40, 7]));
    assert_eq!(generator.eos_token_ids(), [EOS]);
    let options = |eos_token_ids| GenerationOptions { eos_token_ids: Some(eos_token_ids), ..at_most(5) };
    assert_eq!(generator.generate(&[[5]], &options(vec![8])).unwrap()[0].token_ids, [9, EOS, 8]);
    let generated = generator.generate(&[[5]], &options(vec![])).unwrap();
    assert_eq!(generated[0].token_ids, [9, EOS, 8, 40, 7]);
    assert_eq!(generated[0].finish_reason, FinishReason::Length);
}

#[test]
fn no_step_runs_once_every_sequence_is_finished() {
    let model = FakeModel::scripted(1, vec![9, 8, 7, 6]);
    let steps = Arc::clone(&model.steps);
    let generated = generator(model).generate(&[[5], [6]], &at_most(3)).unwrap();
    assert!(generated.iter().all(|one| one.finish_reason == FinishReason::Length));
    assert_eq!(steps.load(Ordering::Relaxed), 3);
}

#[test]
fn a_sequence_that_fills_the_positions_ends_without_disturbing_the_others() {
    let mut model = hashed();
    model.config.max_position_embeddings = 12;
    let prompts: [&[u32]; 3] = [&[5, 6, 7, 8, 9, 10, 11, 12, 13, 14], &[5], &[4; 12]];
    let options = GenerationOptions { eos_token_ids: Some(vec![]), ..at_most(50) };
    let generated = generator(model).generate(&prompts, &options).unwrap();
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
        .generate_with(&[vec![5], vec![5, 5, 5]], &at_most(10), |event| {
            events.push((event.sequence, event.index, event.token_id, event.finish_reason));
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
        .generate_with(&[[5], [6], [7]], &options, |_| {
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
    let generated = generator(model).generate(&prompts, &options).unwrap();
    assert_eq!(generated[0].token_ids, [20], "padded with 20, which does not count");
    assert_eq!(generated[1].token_ids, [21], "20 is in the prompt and falls from 3 to 1.5");
}

#[test]
fn a_padding_token_that_the_model_does_not_have_is_not_used() {
    let mut model = hashed();
    model.generation_config.pad_token_id = Some(50);
    generator(model).generate(&PROMPTS, &at_most(3)).unwrap();
}

#[test]
fn prompts_that_the_model_cannot_take_are_refused_before_anything_runs() {
    let mut model = hashed();
    model.config.max_position_embeddings = 4;
    let steps = Arc::clone(&model.steps);
    let generator = generator(model);
    let refused = |prompts: &[&[u32]]| generator.generate(prompts, &at_most(3)).unwrap_err();
    assert!(matches!(refused(&[&[1], &[]]), Error::EmptyPrompt { index: 1 }));
    assert!(matches!(refused(&[&[1; 5]]), Error::TooLong { tokens: 5, limit: 4 }));
    assert!(matches!(
        refused(&[&[1, 2, 3], &[4, 50]]),
        Error::TokenOutOfRange { id: 50, row: 1, column: 1, vocab_size: 50 }
    ));
    assert_eq!(steps.load(Ordering::Relaxed), 0);
}

#[test]
fn no_prompt_gives_no_continuation() {
    assert_eq!(generator(hashed()).generate::<Vec<u32>>(&[], &at_most(3)).unwrap(), []);
}

#[test]
fn invalid_options_are_rejected() {
    let generator = generator(hashed());
    let refused = |options| match generator.generate(&[[5]], &options) {
        Err(Error::Option { option, .. }) => option,
        other => panic!("expected a refused option, got {other:?}"),
    };
    assert_eq!(refused(at_most(0)), "max_new_tokens");
    assert_eq!(refused(GenerationOptions { stop: vec!["x".into()], ..at_most(1) }), "stop");
}

#[test]
fn nan_logits_are_an_error_that_names_the_sequence() {
    let mut model = FakeModel::new(|seen| vec![if seen[0] == 6 { f32::NAN } else { 0.0 }; 50]);
    model.config.vocab_size = 50;
    let generator = generator(model);
    for options in [at_most(3), multinomial(1)] {
        let error = generator.generate(&[[5], [6]], &options).unwrap_err();
        assert!(matches!(error, Error::Logits { .. } | Error::Backend(_)));
        assert!(error.to_string().contains("sequence 1"), "{error}");
    }
}

#[test]
fn a_classifier_generates_nothing() {
    let model = FakeModel::classifier(|_| vec![0.0, 0.0]).load();
    assert!(matches!(TokenGenerator::new(&model), Err(Error::WrongTask { .. })));
}

#[test]
fn finish_reasons_keep_the_names_of_the_json_output() {
    let reasons = [
        FinishReason::Eos,
        FinishReason::StopString,
        FinishReason::Length,
        FinishReason::ContextFull,
        FinishReason::Cancelled,
    ];
    let names = ["end-token", "stop-string", "max-new-tokens", "max-positions", "cancelled"];
    assert_eq!(reasons.map(|reason| reason.to_string()), names);
}
